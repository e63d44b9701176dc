"""Metrics of forecasts against NumPy by hand and scikit-learn, and how they add up."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from lstm_research.tasks.forecast_metrics import LEVELS, forecast_sums, report

H, B, V = 5, 7, 3


def draw(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the arguments of `forecast_sums`, float32."""
    random = np.random.default_rng(seed)
    arrays = {
        "targets": random.normal(size=(H, B, V)),
        "weights": random.random((H, B, V)) > 0.3,
        "units": np.abs(random.normal(2, 0.5, (4, B, V))),
        "mean": random.normal(size=(H, B, V)),
        "quantiles": np.sort(random.normal(size=(9, H, B, V)), axis=0),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def compute(arrays: dict[str, Any]) -> dict[str, float]:
    return report({name: (np.asarray(total), float(count)) for name, (total, count) in sums_of(arrays).items()})


def sums_of(arrays: dict[str, Any]) -> Any:
    return forecast_sums(**{name: None if array is None else jnp.asarray(array) for name, array in arrays.items()})


def test_metrics_are_those_of_scikit_learn_and_of_their_definition() -> None:
    arrays = draw()
    arrays["units"][3, 2] = 0  # a series that has no naive error
    found = compute(arrays)
    keep = arrays["weights"] > 0
    shift, scale, deviation, naive = (np.broadcast_to(unit, (H, B, V)) for unit in arrays["units"].astype(np.float64))
    y, p = arrays["targets"].astype(np.float64), arrays["mean"].astype(np.float64)
    z, q = y / deviation, p / deviation
    written, forecast = y * scale + shift, p * scale + shift
    expected = {
        "mse": mean_squared_error(z[keep], q[keep]),
        "mae": mean_absolute_error(z[keep], q[keep]),
        "mase": np.mean(abs(y - p)[keep & (naive > 0)] / naive[keep & (naive > 0)]),
        "smape": np.mean((200 * abs(written - forecast) / (abs(written) + abs(forecast)))[keep]),
        "coverage_80": np.mean(((arrays["quantiles"][0] <= y) & (y <= arrays["quantiles"][-1]))[keep]),
    }
    by_variable: dict[str, list[float]] = {"nd": [], "nrmse": [], "weighted_quantile_loss": []}
    for v in range(V):
        here = keep[..., v]
        a, b = written[..., v][here], forecast[..., v][here]
        by_variable["nd"].append(abs(a - b).sum() / abs(a).sum())
        by_variable["nrmse"].append(np.sqrt(mean_squared_error(a, b)) / abs(a).mean())
        quantiles = (arrays["quantiles"] * scale + shift)[:, here, v]
        pinball = [mean_pinball_loss(a, row, alpha=level) for level, row in zip(LEVELS, quantiles, strict=True)]
        by_variable["weighted_quantile_loss"].append(2 * np.mean(pinball) / abs(a).mean())
    expected |= {name: np.mean(values) for name, values in by_variable.items()}
    scores = arrays["quantiles"] / deviation
    expected["crps"] = 2 * np.mean(
        [mean_pinball_loss(z[keep], row[keep], alpha=level) for level, row in zip(LEVELS, scores, strict=True)]
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_what_was_not_observed_weighs_nothing() -> None:
    arrays = draw()
    poisoned = {name: array.copy() for name, array in arrays.items()}
    for name in ("mean", "targets"):
        poisoned[name][arrays["weights"] == 0] = 1e6
    poisoned["quantiles"][:, arrays["weights"] == 0] = -1e6
    assert compute(poisoned) == pytest.approx(compute(arrays), rel=1e-5)


def test_sums_of_batches_are_the_sum_of_all() -> None:
    arrays = draw()
    whole, sums = sums_of(arrays), []
    for part in (slice(0, 2), slice(2, 3), slice(3, 7)):
        sums.append(sums_of({name: array[..., part, :] for name, array in arrays.items()}))
    for name, (total, count) in whole.items():
        np.testing.assert_allclose(sum(np.asarray(each[name][0]) for each in sums), total, rtol=1e-5)
        np.testing.assert_allclose(sum(float(each[name][1]) for each in sums), count, rtol=1e-6)


def test_single_values_have_no_metrics_of_quantiles() -> None:
    assert compute(draw() | {"quantiles": None}).keys() == {"mse", "mae", "mase", "smape", "nd", "nrmse"}


def test_zeros_and_empty_splits() -> None:
    zeros: dict[str, Any] = {name: 0 * array for name, array in draw().items()}
    zeros["units"] += 1
    zeros["units"][0] = 0  # so that what is written is 0 as well
    zeros["weights"] += 1
    found = compute(zeros)
    assert (found["smape"], found["mse"], found["coverage_80"]) == (0, 0, 1)
    assert np.isnan([found["nd"], found["nrmse"], found["weighted_quantile_loss"]]).all()  # nothing to divide by
    nothing = compute(draw() | {"weights": np.zeros((H, B, V), np.float32)})
    assert np.isnan(nothing["mse"])


def test_the_score_of_quantiles_is_close_to_that_of_the_distribution() -> None:
    """The CRPS of N(0, 1), in closed form, at many points; and the interval of its quantiles holds 80 %."""
    y = np.random.default_rng(0).normal(size=(1, 20000, 1)).astype(np.float32)
    quantiles = np.broadcast_to(scipy.stats.norm.ppf(LEVELS)[:, None, None, None], (9, *y.shape)).astype(np.float32)
    found = compute(
        {
            "targets": y,
            "weights": np.ones_like(y),
            "units": np.ones((4, 20000, 1), np.float32),
            "mean": 0 * y,
            "quantiles": quantiles,
        }
    )
    exact = np.mean(y * (2 * scipy.stats.norm.cdf(y) - 1) + 2 * scipy.stats.norm.pdf(y) - 1 / np.sqrt(np.pi))
    assert found["crps"] == pytest.approx(exact, rel=0.1)
    assert found["coverage_80"] == pytest.approx(0.8, abs=0.01)
