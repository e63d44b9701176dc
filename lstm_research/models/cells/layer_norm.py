"""Layer normalisation inside cells, where it runs at every step."""

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Float

EPSILON = 1e-5
"""What is added to the variance, so that equal features do not divide by zero."""


def layer_norm(
    x: Float[Array, "*any N"],
    scale: Float[Array, "*#any N"],
    bias: Float[Array, "*#any N"] | None = None,
    epsilon: float = EPSILON,
) -> Float[Array, "*any N"]:
    """Normalises the features (the last axis) to mean 0 and variance 1, then scales and shifts them.

        μ = mean(x)        s² = mean((x - μ)²)        y = γ*(x - μ)/√(s² + ε) + β

    Ba, Kiros and Hinton, "Layer Normalization", 2016.

    Args:
      x: in any precision; the sums are those of float32 at least.
      scale: γ, which cells initialise to 1.
      bias: β; None leaves it out.
      epsilon: ε.

    Returns:
      y, in the dtype in which the arithmetic of `x`, `scale` and `bias` ends.
    """
    wide = x.astype(jnp.promote_types(x.dtype, "float32"))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    y = (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype) * scale
    return y if bias is None else y + bias


def layer_norm_gates(
    x: Float[Array, "*any GH"],
    scale: Float[Array, "GH"],
    bias: Float[Array, "GH"] | None,
    num_gates: int,
    epsilon: float = EPSILON,
) -> list[Float[Array, "*any H"]]:
    """Normalises each gate's block of features by itself: `layer_norm` G times.

    Args:
      x: G blocks side by side.
      scale: γ of all blocks.
      bias: β of all blocks; None leaves it out.
      num_gates: G.
      epsilon: ε.

    Returns:
      The G normalised blocks.
    """

    def of_gates(array: Array) -> Array:
        return array.reshape(*array.shape[:-1], num_gates, array.shape[-1] // num_gates)

    y = layer_norm(of_gates(x), of_gates(scale), None if bias is None else of_gates(bias), epsilon)
    return [y[..., gate, :] for gate in range(num_gates)]
