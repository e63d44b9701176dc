"""Forecasts to beat: the last value, the value of the season before, and a linear map of the history."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from lstm_research.data.batches import Batch
from lstm_research.tasks.forecast_metrics import forecast_sums, report

PENALTY = 1.0
"""Of the ridge regression."""

_sums = jax.jit(forecast_sums)


def last_value(filled: Float[np.ndarray, "B L V"], horizon: int) -> Float[np.ndarray, "B H V"]:
    """Forecasts the last value of the history."""
    return np.repeat(filled[:, -1:], horizon, axis=1)


def seasonal_naive(filled: Float[np.ndarray, "B L V"], horizon: int, season: int) -> Float[np.ndarray, "B H V"]:
    """Forecasts the value of the last season of the history that is at the same place in its season."""
    return filled[:, filled.shape[1] - season + np.arange(horizon) % season]


def fill(values: Float[np.ndarray, "B L V"], observed: Float[np.ndarray, "B L V"]) -> Float[np.ndarray, "B L V"]:
    """Returns a history in which the value before it stands for one that was not observed, and 0 for the first one."""
    steps = np.where(observed > 0, np.arange(values.shape[1])[:, None], 0)
    return np.take_along_axis(values, np.maximum.accumulate(steps, axis=1), axis=1)


class Ridge:
    """A linear map from history to horizon, one for all variables, after the last value is subtracted.

        ŷ_h = last + Σ_c W_hc (x_c - last) + b_h

    by least squares with the penalty Σ W². Windows with a value missing in the horizon are not learnt from. Hoerl and
    Kennard, "Ridge Regression", 1970.

    Args:
      batches: of the training windows.
      history: how many steps of it are read.
    """

    def __init__(self, batches: Iterable[Batch], history: int):
        self._history = history
        self.num_windows = 0
        inputs = outputs = products = crossed = 0.0
        for batch in batches:
            last, x = self._inputs(batch)
            y = _by_variable(batch["targets"] - last)
            whole = _by_variable(batch["weights"]).all(axis=1)
            x, y = x[whole].astype(np.float64), y[whole].astype(np.float64)
            self.num_windows += len(x)
            inputs, outputs = inputs + x.sum(axis=0), outputs + y.sum(axis=0)
            products, crossed = products + x.T @ x, crossed + x.T @ y
        if self.num_windows:
            x_mean, y_mean = inputs / self.num_windows, outputs / self.num_windows
            centred = products - self.num_windows * np.outer(x_mean, x_mean) + PENALTY * np.eye(history)
            self._kernel = np.linalg.solve(centred, crossed - self.num_windows * np.outer(x_mean, y_mean))
            self._bias = y_mean - x_mean @ self._kernel

    def __call__(self, batch: Batch) -> Float[np.ndarray, "B H V"]:
        """Forecasts."""
        last, x = self._inputs(batch)
        y = (x @ self._kernel + self._bias).reshape(len(last), -1, self._kernel.shape[1])
        return last + np.swapaxes(y, 1, 2)

    def _inputs(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Returns the last values [B, 1, V], and the history without them [B V, C]."""
        filled = fill(batch["history"], batch["history_observed"])
        last = filled[:, -1:]
        return last, _by_variable((filled - last)[:, -self._history :])


def baseline_metrics(
    train: Iterable[Batch], evaluated: Iterable[Batch], *, history: int, season: int
) -> dict[str, dict[str, float]]:
    """Returns the metrics of every baseline by name, computed as those of the model are.

    Args:
      train: batches of the training windows.
      evaluated: batches of the windows to forecast; histories reach back a season at least.
      history: how many steps the linear map reads.
      season: in steps.
    """
    ridge = Ridge(train, history)
    totals: dict[str, dict[str, tuple[Any, float]]] = {}
    for batch in evaluated:
        filled, horizon = fill(batch["history"], batch["history_observed"]), batch["targets"].shape[1]
        forecasts = {
            "last_value": last_value(filled, horizon),
            "seasonal_naive": seasonal_naive(filled, horizon, season),
        }
        if ridge.num_windows:
            forecasts["linear"] = ridge(batch).astype(np.float32)
        arrays = [np.moveaxis(batch[name], 1, 0) for name in ("targets", "weights", "units")]
        for name, forecast in forecasts.items():
            sums = jax.device_get(_sums(*arrays, np.moveaxis(forecast, 1, 0)))
            before = totals.setdefault(name, {})
            for metric, (total, count) in sums.items():
                old = before.get(metric, (0.0, 0.0))
                before[metric] = old[0] + np.asarray(total, np.float64), old[1] + float(count)
    return {name: report(sums) for name, sums in totals.items()}


def baseline_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the metrics as text, a line for each baseline, and one on the linear map if there is none."""
    names = list(next(iter(metrics.values())))
    lines = [["", *names]] + [[name, *(f"{row[key]:.4f}" for key in names)] for name, row in metrics.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = "".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) + "\n"
        for row in lines
    )
    if "linear" not in metrics:
        table += "no linear map: no training window has a value at every step of its horizon\n"
    return table


def _by_variable(array: Float[np.ndarray, "B T V"]) -> Float[np.ndarray, "N T"]:
    """Returns every variable of every window as a row."""
    return np.swapaxes(array, 1, 2).reshape(-1, array.shape[1])
