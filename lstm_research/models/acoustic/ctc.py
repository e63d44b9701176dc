"""Connectionist temporal classification: a symbol or the blank at every frame."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.models.acoustic.encoder import AcousticEncoder
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.ctc_loss import ctc_loss


class CTC(nnx.Module):
    """Says at every output of the encoder how likely each symbol is, and the blank.

        logits = encoder(frames) W + b

    Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification", 2006; with deep bidirectional
    LSTM layers Graves, Mohamed and Hinton, "Speech Recognition with Deep Recurrent Neural Networks", 2013.

    Parameters: `encoder.*` (see `AcousticEncoder`), `output.kernel` `[H, V]` and `output.bias` `[V]`.
    """

    def __init__(
        self,
        num_features: int,
        vocabulary_size: int,
        *,
        blank_id: int,
        cell: Cell,
        num_layers: int = 1,
        reductions: tuple[int, ...] = (),
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
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
          num_layers: L.
          reductions: for each layer, from the lowest, how many steps it reads as one; empty for one each.
          bidirectional: every recurrent layer reads both ways; without, the model can read a stream.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output its input, but for the lowest and those that join steps.
          dropout: rates of the dropout family.
          dtype: of the products in the recurrent layers; states, sums and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.
        """
        self.blank_id = blank_id
        self.encoder = AcousticEncoder(
            cell,
            num_features,
            num_layers=num_layers,
            reductions=reductions,
            bidirectional=bidirectional,
            merge=merge,
            residual=residual,
            rates=dropout,
            engine=engine,
            remat=remat,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.output = nnx.Linear(
            self.encoder.output_size,
            vocabulary_size,
            dtype=jnp.promote_types(dtype, "float32"),
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, xs: Float[Array, "T B D"], lengths: Int[Array, "B"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "S B V"], Int[Array, "B"]]:
        """Returns the logits, and how many of them are valid: ⌈length / reduction⌉.

        Args:
          xs: the frames, time-major.
          lengths: valid frames of each utterance; 0 is legal.
          key: the random key of the dropout; None in evaluation.
        """
        _, ys, lengths = self.encoder(xs, lengths, key=key)
        return self.output(ys), lengths

    def losses(
        self,
        xs: Float[Array, "T B D"],
        lengths: Int[Array, "B"],
        labels: Int[Array, "U B"],
        label_lengths: Int[Array, "B"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B"]:
        """Returns -log p(labels | frames) in nats, infinite where there are too few frames; see `ctc_loss`."""
        logits, lengths = self(xs, lengths, key=key)
        return ctc_loss(logits, lengths, labels, label_lengths, blank_id=self.blank_id)

    def initial_state(self, batch_size: int) -> Any:
        """Returns the state before the first frame of a stream; all arrays have the batch axis first."""
        return self.encoder.initial_state(batch_size)

    def step(
        self, state: Any, frames: Float[Array, "T B D"], lengths: Int[Array, "B"] | None = None
    ) -> tuple[Any, Float[Array, "S B V"]]:
        """Returns the state after the next frames of a stream, and their logits; see `AcousticEncoder.step`."""
        state, ys = self.encoder.step(state, frames, lengths)
        return state, self.output(ys)
