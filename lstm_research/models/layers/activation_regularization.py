"""Penalties on the outputs of the last layer."""

import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float


def activation_penalty(
    ys: Float[Array, "T B H"],
    raw: Float[Array, "T B H"],
    weights: Float[Array, "T B"],
    resets: Bool[Array, "T B"],
    *,
    alpha: float,
    beta: float,
) -> Float[Array, ""]:
    """Returns activation and temporal activation regularisation, summed over steps.

        Σ_t w_t (α mean(y_t²) + β mean((h_t - h_{t-1})²))

    with means over features. Divided by Σ w it is the penalty of Merity, McCann and Socher, "Revisiting Activation
    Regularization for Language RNNs", 2017, but that they divide the differences by one step less. The first step has
    none, nor has the first of a document.

    Args:
      ys: outputs y after dropout.
      raw: outputs h before dropout.
      weights: w, 0 for what does not count, such as padding.
      resets: where a document begins.
      alpha: α.
      beta: β.
    """
    squares = jnp.mean(jnp.square(ys), axis=-1)
    changes = jnp.mean(jnp.square(raw[1:] - raw[:-1]), axis=-1) * ~resets[1:]
    return alpha * jnp.sum(squares * weights) + beta * jnp.sum(changes * weights[1:])
