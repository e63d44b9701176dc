"""Averages of the weights: exponential, or the mean since a step (averaged SGD: Polyak and Juditsky, 1992)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Params


def start_average(params: Params) -> Params:
    """Returns a copy, in float32 at least: in bfloat16 a mean of many would not move any more."""
    return jax.tree.map(lambda p: jnp.array(p, jnp.promote_types(p.dtype, jnp.float32), copy=True), params)


def update_average(average: Params, params: Params, step: Array, *, decay: float | None, start: Array | None) -> Params:
    """Returns the average with the parameters of one more step.

    Args:
      average: of the steps before.
      params: after the step.
      step: the number of steps before it.
      decay: of the exponential average; None for the mean since `start`.
      start: the step from which on weights are averaged; below 0 the weights themselves are the average.
    """
    fraction: Any
    if decay is not None:
        # The average of the first steps must not be ruled by the random start: decay grows as (1+k)/(10+k).
        fraction = 1 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    else:
        assert start is not None
        fraction = 1.0 / jnp.where(start < 0, 1, step + 1 - start)
    wide = jax.tree.map(lambda leaf, mean: leaf.astype(mean.dtype), params, average)
    return optax.incremental_update(wide, average, fraction)
