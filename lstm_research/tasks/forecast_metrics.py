"""What forecasts are worth, from sums that add up over batches.

With e = forecast - y, in the unit of the data, over all windows, steps of the horizon and observed values:

    mse, mae                  mean e² and |e|, with y z-scored by mean and deviation of the training rows
    mase                      mean of |e| / (mean |y_t - y_{t-m}| of the training rows of its series), m the season.
                              Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006
    smape                     mean of 200 |e| / (|y| + |forecast|), 0 where both are 0
    nd, nrmse                 Σ|e| / Σ|y|, and √(mean e²) / mean |y|
    weighted_quantile_loss    2 Σ ρ_τ(y - q_τ) / Σ|y|, mean over the levels τ = 0.1, ..., 0.9; ρ is the pinball loss
    crps                      2 ρ_τ(y - q_τ), mean over the levels and z-scored values: close to the continuous ranked
                              probability score
    coverage_80               how often y is between the quantiles 0.1 and 0.9

Those that divide by Σ|y| are computed for each variable, and are the mean over the variables: units do not mix.
Variables for which it is 0, and values of series whose naive error is 0, are left out; if these are all, the metric is
NaN, and cannot be `training.metric`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Float
from lstm_research.models.layers.distributions import pinball
from lstm_research.tasks.task import Sums

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the quantiles that are evaluated."""


def forecast_sums(
    targets: Float[Array, "H B V"],
    weights: Float[Array, "H B V"],
    units: Float[Array, "4 B V"],
    mean: Float[Array, "H B V"],
    quantiles: Float[Array, "9 H B V"] | None = None,
) -> Sums:
    """Returns the sums of a batch that `report` makes metrics of.

    Args:
      targets: y, in the unit of the model, as the forecasts.
      weights: 1, or 0 for what does not count.
      units: see `lstm_research.data.series.scaling.ScaledSeries`.
      mean: the forecasts.
      quantiles: of `LEVELS`; None if there are none.
    """
    shift, scale, deviation, naive_error = units
    weight = jnp.sum(weights)
    errors = jnp.abs(mean - targets) * weights
    written, forecasts = targets * scale + shift, mean * scale + shift
    sizes = jnp.abs(written) + jnp.abs(forecasts)
    has_naive = weights * (naive_error > 0)
    by_variable = [errors * scale, jnp.square(errors * scale), jnp.abs(written) * weights, weights]
    sums: Sums = {
        "mse": (jnp.sum(jnp.square(errors / deviation)), weight),
        "mae": (jnp.sum(errors / deviation), weight),
        "mase": (jnp.sum(errors / jnp.where(naive_error > 0, naive_error, 1) * has_naive), jnp.sum(has_naive)),
        "smape": (jnp.sum(200 * errors * scale / jnp.where(sizes > 0, sizes, 1)), weight),
    }
    if quantiles is not None:
        levels = jnp.asarray(LEVELS, quantiles.dtype)[:, None, None, None]
        losses = 2 * jnp.mean(pinball(targets - quantiles, levels), axis=0) * weights
        inside = (quantiles[0] <= targets) & (targets <= quantiles[-1])
        sums["crps"] = jnp.sum(losses / deviation), weight
        sums["coverage_80"] = jnp.sum(inside * weights), weight
        by_variable.append(losses * scale)
    sums["by_variable"] = jnp.stack([jnp.sum(each, axis=(0, 1)) for each in by_variable]), weight
    return sums


def report(sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
    """Returns the metrics from the sums of all batches, and what else has been summed as a mean; NaN for 0 / 0."""
    metrics = {
        name: float(total / count) if count else math.nan for name, (total, count) in sums.items() if not np.ndim(total)
    }
    if "by_variable" in sums:
        errors, squares, sizes, counts, *losses = sums["by_variable"][0]
        has = sizes > 0
        ratios = {"nd": errors[has] / sizes[has], "nrmse": np.sqrt(squares[has] * counts[has]) / sizes[has]}
        if losses:
            ratios["weighted_quantile_loss"] = losses[0][has] / sizes[has]
        metrics |= {name: float(np.mean(each)) if has.any() else math.nan for name, each in ratios.items()}
    return metrics
