"""Elementwise functions that cells share."""

import jax.numpy as jnp

from lstm_research.common.arrays import Array, Float


def sigmoid(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Returns σ(x) = ½ tanh(½ x) + ½.

    The same function as `jax.nn.sigmoid` to the last bits, and several times faster on a CPU, where tanh has a
    vectorised implementation and the logistic function has none.
    """
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
