"""The recurrent neural network transducer: its prediction network, its joint network and its loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.models.cells import Cell
from lstm_research.models.layers.dropout import DropoutRates, split_key
from lstm_research.models.layers.embedding import Embedding
from lstm_research.models.layers.stack import RecurrentStack

# Not -inf, of which two have no difference.
_LOG_ZERO = -1e30


class PredictionNetwork(nnx.Module):
    """Reads the symbols so far: a language model without its output layer.

    Parameters: `embedding.table` `[V, E]` and `stack.*`, see `RecurrentStack`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        cell: Cell,
        embedding_size: int,
        *,
        num_layers: int = 1,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        remat: bool = False,
        dtype: DTypeLike = "float32",
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        self.dtype = jnp.dtype(dtype)
        self.rates = rates or DropoutRates()
        self.embedding = Embedding(vocabulary_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        self.stack = RecurrentStack(
            cell,
            embedding_size,
            num_layers=num_layers,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, symbols: Int[Array, "U B"], carry: tuple[Any, ...] | None = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "U B P"]]:
        """Returns the carry after the last symbol, and the outputs; `symbols` begin with the blank."""
        embedding_key, stack_key = split_key(key, 2)
        xs = self.embedding(symbols, rate=self.rates.embedding_rate, key=embedding_key).astype(self.dtype)
        return self.stack(xs, carry, key=stack_key)


class Joint(nnx.Module):
    """From a frame and the symbols so far to the next symbol or the blank.

        logits = tanh(e W + p U + b) O + c

    with e an output of the encoder and p one of the prediction network. Graves, Mohamed and Hinton, "Speech Recognition
    with Deep Recurrent Neural Networks", 2013.

    Parameters: `of_encoder.kernel` W `[H, J]`, `of_encoder.bias` b `[J]`, `of_prediction.kernel` U `[P, J]`,
    `output.kernel` O `[J, V]`, `output.bias` c `[V]`.
    """

    def __init__(
        self,
        encoder_size: int,
        prediction_size: int,
        joint_size: int,
        vocabulary_size: int,
        *,
        dtype: DTypeLike = "float32",
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {"dtype": jnp.promote_types(dtype, "float32"), "param_dtype": param_dtype}
        self.of_encoder = nnx.Linear(encoder_size, joint_size, **options, rngs=rngs)
        self.of_prediction = nnx.Linear(prediction_size, joint_size, use_bias=False, **options, rngs=rngs)
        self.output = nnx.Linear(joint_size, vocabulary_size, **options, rngs=rngs)

    def __call__(self, encoded: Float[Array, "*#any J"], predicted: Float[Array, "*#any J"]) -> Float[Array, "*#any V"]:
        """Returns the logits, in float32 at least, from what `of_encoder` and `of_prediction` give."""
        return self.output(jnp.tanh(encoded + predicted))


def lattice(
    joint: Callable[[Array, Array], Array],
    encoded: Float[Array, "T B J"],
    labels: Int[Array, "U B"],
    predicted: Float[Array, "U+1 B J"],
    *,
    blank_id: int,
) -> tuple[Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Returns at every frame and after every number of labels the log-probability of the next label, and of the blank.

    The logits of all T · B · (U + 1) · V places never stand in memory at once: they are made frame by frame, and once
    more on the way back. What is kept is O(T B (J + U)), and O(B U V) for one frame.

    Args:
      joint: `(encoded [B, J], predicted [U+1, B, J]) -> logits [U+1, B, V]`.
      encoded: of the frames.
      labels: the transcripts.
      predicted: after no label, after the first, and so on.
      blank_id: the number of the blank.
    """

    @jax.checkpoint
    def frame(x: Array) -> tuple[Array, Array]:
        log_probs = jax.nn.log_softmax(joint(x, predicted))
        of_labels = jnp.take_along_axis(log_probs[:-1], labels[:, :, None], axis=-1)[:, :, 0]
        return of_labels.T, log_probs[:, :, blank_id].T

    return jax.lax.map(frame, encoded)


def transducer_loss(
    of_labels: Float[Array, "T B U"],
    of_blanks: Float[Array, "T B U+1"],
    lengths: Int[Array, "B"],
    label_lengths: Int[Array, "B"],
) -> Float[Array, "B"]:
    """Returns -log p(labels | frames) in nats, the sum over all alignments.

        p(labels) = α(T, U)        α(0, 0) = 1
        α(t + 1, u) = β(t, u) blank(t, u)        β(t, u) = α(t, u) + β(t, u - 1) label(t, u - 1)

    with α(t, u) the probability that u labels have been written when frame t begins, and β that when it ends: any
    number of labels is written at a frame, and then the blank, which goes on to the next. Graves, "Sequence
    Transduction with Recurrent Neural Networks", 2012. Computed in log space, frame by frame, with all u at once by an
    associative scan of depth log U.

    Args:
      of_labels: log-probability at frame t, after u labels, of label u + 1; finite, as all that follows.
      of_blanks: of the blank.
      lengths: valid frames of each utterance; what lies beyond them is ignored, as with labels.
      label_lengths: valid symbols of each transcript; 0 is legal.

    Returns:
      The losses; infinite where there are labels and no frame.
    """
    T, B, U = of_labels.shape

    def frame(alpha: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, labels, blanks = inputs
        # β(u) is α(u) + β(u - 1) label(u - 1): a composition of maps β → a β + b.
        steps = jnp.pad(labels, ((0, 0), (1, 0))), alpha
        beta = jax.lax.associative_scan(_compose, steps, axis=1)[1]
        return jnp.where(t < lengths[:, None], beta + blanks, alpha), None

    start = jnp.full((B, U + 1), _LOG_ZERO, of_blanks.dtype).at[:, 0].set(0)
    alpha, _ = jax.lax.scan(frame, start, (jnp.arange(T), of_labels, of_blanks))
    log_probs = jnp.take_along_axis(alpha, label_lengths[:, None], axis=1)[:, 0]
    return jnp.where((lengths > 0) | (label_lengths == 0), -log_probs, jnp.inf)


def _compose(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Returns the map x → a x + b, in logarithms, that is one such map after another."""
    (a, b), (c, d) = first, second
    return a + c, jnp.logaddexp(b + c, d)
