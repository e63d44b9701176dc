"""What an output layer is, and the plain one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, Params, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Softmax:
    """A distribution over V symbols for every output `y` of the last layer.

    A frozen dataclass of choices with pure functions, as a cell is. Symbol v has a row of weights w_v, a column of
    `kernel` `[C, V]`, and a `bias` b_v; with tied weights the model gives the transposed embedding table as `kernel`.

    Attributes:
      can_be_tied: whether all symbols have weights of one size, so that they can be those of the embedding.
    """

    can_be_tied: ClassVar[bool] = True

    def class_size(self, input_size: int) -> int:
        """Returns C, the size of a symbol's row of weights."""
        return input_size

    def init(self, key: PRNGKeyArray, input_size: int, vocabulary_size: int, dtype: DTypeLike = "float32") -> Params:
        """Draws the parameters: `kernel` `[C, V]`, `bias` `[V]`, and what the class docstring adds."""
        kernel = jax.nn.initializers.lecun_normal()(key, (self.class_size(input_size), vocabulary_size), dtype)
        return {"kernel": kernel, "bias": jnp.zeros((vocabulary_size,), dtype)}

    def losses(
        self, params: Params, ys: Float[Array, "*any H"], targets: Int[Array, "*any"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*any"], Bool[Array, "*any"] | None]:
        """Returns -log p(target) in nats, and whether each target is the most likely symbol.

        The latter is None where it would cost what the output layer saves.

        Args:
          params: what `init` gives.
          ys: outputs of the last layer.
          targets: numbers of symbols.
          key: of noise and samples; None in evaluation.
        """
        logits = self.logits(params, ys)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses, jnp.argmax(logits, axis=-1) == targets

    def logits(self, params: Params, ys: Float[Array, "*any H"]) -> Float[Array, "*any V"]:
        """Returns the logarithm of every symbol's probability, but for a number that all symbols share."""
        return ys @ params["kernel"] + params["bias"]


@dataclasses.dataclass(frozen=True)
class FullSoftmax(Softmax):
    """p = softmax(y W + b)."""
