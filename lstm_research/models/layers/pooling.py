"""From the outputs of a recurrent stack to one vector a sequence."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int
from lstm_research.common.errors import UserError, unknown


def max_over_time(ys: Float[Array, "T B H"], valid: Bool[Array, "T B"]) -> Float[Array, "B H"]:
    """Returns the largest value of each feature over the valid steps; zeros where there are none."""
    smallest = jnp.finfo(ys.dtype).min
    largest = jnp.max(jnp.where(valid[..., None], ys, smallest), axis=0, initial=smallest)
    return jnp.where(valid.any(axis=0)[:, None], largest, 0)


def mean_over_time(ys: Float[Array, "T B H"], valid: Bool[Array, "T B"]) -> Float[Array, "B H"]:
    """Returns the mean of each feature over the valid steps; zeros where there are none."""
    return jnp.where(valid[..., None], ys, 0).sum(axis=0) / jnp.maximum(valid.sum(axis=0), 1)[:, None]


def last_state(ys: Float[Array, "T B H"], lengths: Int[Array, "B"], backward: Bool[Array, "H"]) -> Float[Array, "B H"]:
    """Returns what each direction has put out when it has read all; zeros where there is nothing to read.

    Args:
      ys: the outputs at their positions.
      lengths: valid steps of each sequence.
      backward: which features are of the direction that reads from last to first, and so ends at the first step.
    """
    end = jnp.where(backward, 0, jnp.maximum(lengths - 1, 0)[:, None])  # [B, H]
    return jnp.where((lengths > 0)[:, None], jnp.take_along_axis(ys, end[None], axis=0)[0], 0)


POOLINGS = ("attention", "last", "max", "mean")
"""Every way of pooling by the name that configs use."""

_OVER_TIME: dict[str, Callable[..., Array]] = {"max": max_over_time, "mean": mean_over_time}


class Pooling(nnx.Module):
    """Pools outputs over time in one or several ways, whose results stand side by side.

        last       the outputs after the last step; for a backward direction after the first, where it ends
        max        the largest value of each feature (Collobert et al., 2011)
        mean       the mean of each feature
        attention  Σ_t a_t y_t        a = softmax_t(u · tanh(y_t W + b))

    Attention with a learned query u: Yang et al., "Hierarchical Attention Networks for Document Classification", 2016;
    Lin et al., "A Structured Self-Attentive Sentence Embedding", 2017 (one row of its matrix). All ways side by side
    but attention: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018.

    Padding counts for nothing, and an empty sequence is pooled to zeros.

    Parameters, with attention only: `kernel` W `[H, H]`, `bias` b `[H]`, `query_kernel` u `[H]`.
    """

    def __init__(
        self,
        names: Sequence[str],
        size: int,
        *,
        backward: Sequence[bool] | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Draws the parameters, if there are any.

        Args:
          names: of `POOLINGS`, in the order of the results.
          size: H.
          backward: of each feature whether it is of a backward direction; None: no feature is.
          param_dtype: of the parameters.
          rngs: draws them.

        Raises:
          UserError: no name, an unknown one, or one that is named twice.
        """
        for name in names:
            if name not in POOLINGS:
                raise unknown("model.pooling", name, POOLINGS)
        if not names or len(set(names)) < len(names):
            raise UserError(f"model.pooling must name at least one of {', '.join(POOLINGS)}, none twice; got {names!r}")
        self.names = tuple(names)
        self.output_size = len(self.names) * size
        self.backward = (False,) * size if backward is None else tuple(backward)
        if "attention" in self.names:
            self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (size, size), param_dtype))
            self.bias = nnx.Param(jnp.zeros((size,), param_dtype))
            self.query_kernel = nnx.Param(nnx.initializers.normal(size**-0.5)(rngs.params(), (size,), param_dtype))

    def __call__(
        self, ys: Float[Array, "T B H"], lengths: Int[Array, "B"]
    ) -> tuple[Float[Array, "B P"], Float[Array, "T B"] | None]:
        """Returns the pooled outputs, P = H times the number of ways, and the weights of the attention, if it is one.

        Args:
          ys: the outputs at their positions.
          lengths: valid steps of each sequence.
        """
        valid = jnp.arange(len(ys))[:, None] < lengths
        weights = self._attention(ys, valid) if "attention" in self.names else None
        pooled = []
        for name in self.names:
            if name == "last":
                pooled.append(last_state(ys, lengths, jnp.asarray(self.backward)))
            elif weights is not None and name == "attention":
                pooled.append(jnp.einsum("tb,tbh->bh", weights, jnp.where(valid[..., None], ys, 0)))
            else:
                pooled.append(_OVER_TIME[name](ys, valid))
        return jnp.concatenate(pooled, axis=-1), weights

    def _attention(self, ys: Float[Array, "T B H"], valid: Bool[Array, "T B"]) -> Float[Array, "T B"]:
        """Returns weights that sum to 1 over the valid steps, and are zero elsewhere."""
        ys = jnp.where(valid[..., None], ys, 0)  # 0 · NaN in the kernel's gradient would be NaN
        scores = jnp.tanh(ys @ self.kernel[...] + self.bias[...]) @ self.query_kernel[...]
        weights = jax.nn.softmax(jnp.where(valid, scores, jnp.finfo(scores.dtype).min), axis=0)
        return jnp.where(valid, weights, 0)
