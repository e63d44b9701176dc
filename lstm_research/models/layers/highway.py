"""A gate that lets a layer's input pass by the layer."""

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float
from lstm_research.models.cells.activations import sigmoid
from lstm_research.models.cells.base import dense

INITIAL_BIAS = -1.0
"""So that at first every layer mostly passes its input on, however deep the stack."""


class Highway(nnx.Module):
    """The highway connection around a layer F.

        T = σ(x W + b)        y = T*F(x) + (1 - T)*x

    Srivastava, Greff and Schmidhuber, "Training Very Deep Networks", 2015. The gate is one of depth and reads the
    layer's input alone; the networks that have it inside the recurrence (Zhang et al., "Highway Long Short-Term Memory
    RNNs for Distant Speech Recognition", 2016; Zilly et al., "Recurrent Highway Networks", 2017) are other cells.

    Parameters: `kernel` W `[H, H]`, drawn with variance 1/H, and `bias` b `[H]`, which starts at -1.
    """

    def __init__(
        self, size: int, *, dtype: DTypeLike | None = None, param_dtype: DTypeLike = "float32", rngs: nnx.Rngs
    ):
        """Draws the parameters.

        Args:
          size: H.
          dtype: of the product, that of `xs` if None.
          param_dtype: of the parameters.
          rngs: draws them.
        """
        self.dtype = dtype
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (size, size), param_dtype))
        self.bias = nnx.Param(jnp.full((size,), INITIAL_BIAS, param_dtype))

    def __call__(self, xs: Float[Array, "*any H"], ys: Float[Array, "*any H"]) -> Float[Array, "*any H"]:
        """Returns y, in the dtype of `ys`.

        Args:
          xs: the layer's input x.
          ys: its output F(x).
        """
        gate = sigmoid(dense(xs, self.kernel[...].astype(self.dtype or xs.dtype)) + self.bias[...])
        return (gate * ys + (1 - gate) * xs).astype(ys.dtype)
