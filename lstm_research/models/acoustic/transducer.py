"""The recurrent neural network transducer."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.common.errors import check_at_least
from lstm_research.models.acoustic.encoder import AcousticEncoder
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.transducer import Joint, PredictionNetwork, lattice, transducer_loss


class Transducer(nnx.Module):
    """Writes at every output of the encoder any number of symbols, each knowing those before it, and then the blank.

        logits_{t,u} = joint(encoder(frames)_t, prediction(y_1 ... y_u))

    Graves, "Sequence Transduction with Recurrent Neural Networks", 2012; with a joint network Graves, Mohamed and
    Hinton, "Speech Recognition with Deep Recurrent Neural Networks", 2013. The prediction network begins with the
    blank.

    Parameters: `encoder.*` (see `AcousticEncoder`), `prediction.*` (see `PredictionNetwork`), `joint.*` (see `Joint`).
    """

    def __init__(
        self,
        num_features: int,
        vocabulary_size: int,
        *,
        blank_id: int,
        cell: Cell,
        embedding_size: int,
        joint_size: int,
        num_layers: int = 1,
        reductions: tuple[int, ...] = (),
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        prediction_layers: int = 1,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          num_features: of a frame.
          vocabulary_size: V, the blank among them.
          blank_id: the number of the blank.
          cell: the cell of every recurrent layer.
          embedding_size: E, of the symbols.
          joint_size: J, hidden units of the joint network.
          num_layers: layers of the encoder.
          reductions: for each layer of the encoder, from the lowest, how many steps it reads as one; empty for one.
          bidirectional: every layer of the encoder reads both ways; without, the model can read a stream.
          merge: how the outputs of the two directions become one.
          residual: adds to every encoder layer's output its input, but for the lowest and those that join steps.
          prediction_layers: layers of the prediction network.
          dropout: rates of the dropout family, in the encoder and the prediction network.
          dtype: of the products in the recurrent layers; states, sums, joint network and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.
        """
        sizes = {"embedding_size": embedding_size, "joint_size": joint_size, "prediction_layers": prediction_layers}
        check_at_least(1, "model", **sizes)
        self.blank_id = blank_id
        options: dict[str, Any] = {
            "rates": dropout,
            "engine": engine,
            "remat": remat,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.encoder = AcousticEncoder(
            cell,
            num_features,
            num_layers=num_layers,
            reductions=reductions,
            bidirectional=bidirectional,
            merge=merge,
            residual=residual,
            **options,
            rngs=rngs,
        )
        self.prediction = PredictionNetwork(
            vocabulary_size, cell, embedding_size, num_layers=prediction_layers, **options, rngs=rngs
        )
        self.joint = Joint(
            self.encoder.output_size,
            cell.output_size,
            joint_size,
            vocabulary_size,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def losses(
        self,
        xs: Float[Array, "T B D"],
        lengths: Int[Array, "B"],
        labels: Int[Array, "U B"],
        label_lengths: Int[Array, "B"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B"]:
        """Returns -log p(labels | frames) in nats; see `transducer_loss`, and `lattice` for the memory that it takes.

        Args:
          xs: the frames, time-major.
          lengths: valid frames of each utterance.
          labels: the transcripts, time-major.
          label_lengths: valid symbols of each.
          key: the random key of the dropout; None in evaluation.
        """
        encoder_key, prediction_key = split_key(key, 2)
        encoded, lengths = self.encode(xs, lengths, key=encoder_key)
        begins = jnp.full((1, labels.shape[1]), self.blank_id, labels.dtype)
        _, ys = self.prediction(jnp.concatenate([begins, labels]), key=prediction_key)
        predicted = self.joint.of_prediction(ys)
        of_labels, of_blanks = lattice(self.joint, encoded, labels, predicted, blank_id=self.blank_id)
        return transducer_loss(of_labels, of_blanks, lengths, label_lengths)

    def encode(
        self, xs: Float[Array, "T B D"], lengths: Int[Array, "B"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "S B J"], Int[Array, "B"]]:
        """Returns what the joint network reads of the frames, and how much of it is valid: ⌈length / reduction⌉."""
        _, ys, lengths = self.encoder(xs, lengths, key=key)
        return self.joint.of_encoder(ys), lengths

    def log_probs(
        self, encoded: Float[Array, "*#any J"], predicted: Float[Array, "*#any J"]
    ) -> Float[Array, "*#any V"]:
        """Returns the log-probabilities of the next symbol, or the blank, from what `encode` and `predict` give."""
        return jax.nn.log_softmax(self.joint(encoded, predicted))

    def initial_state(self, batch_size: int) -> Any:
        """Returns the encoder's state before the first frame of a stream; all arrays have the batch axis first."""
        return self.encoder.initial_state(batch_size)

    def step(
        self, state: Any, frames: Float[Array, "T B D"], lengths: Int[Array, "B"] | None = None
    ) -> tuple[Any, Float[Array, "S B J"]]:
        """Reads the next frames of a stream, see `AcousticEncoder.step`; returns the state, and what `encode` does."""
        state, ys = self.encoder.step(state, frames, lengths)
        return state, self.joint.of_encoder(ys)

    def predict(self, symbols: Int[Array, "B"], state: Any = None) -> tuple[Any, Float[Array, "B J"]]:
        """Returns the state after one more symbol, and what the joint network reads of it.

        Args:
          symbols: the last symbols; the blank before the first.
          state: before them; None before the first.
        """
        state, ys = self.prediction(symbols[None], state)
        return state, self.joint.of_prediction(ys[0])
