"""What the gates of a recurrent layer do: how open they are, how often they saturate, how long the memory lasts."""

from typing import NamedTuple

import numpy as np

from lstm_research.common.arrays import Array, Float
from lstm_research.models.recurrence.observe import Observed

LOW, HIGH = 0.1, 0.9
"""A gate below the first or above the second is saturated: Karpathy, Johnson and Li, "Visualizing and Understanding
Recurrent Networks", 2015."""


class GateStatistics(NamedTuple):
    """What one gate does, over all valid steps of all sequences.

    Attributes:
      mean: its mean.
      closed: for each unit the share of steps in which it is saturated to the left, below `LOW`; for a candidate, whose
        range is from -1 to 1, below -`HIGH`.
      opened: for each unit the share of steps in which it is saturated to the right, above `HIGH`.
    """

    mean: float
    closed: Float[np.ndarray, "H"]
    opened: Float[np.ndarray, "H"]


def gate_statistics(layer: Observed) -> dict[str, GateStatistics]:
    """Returns the statistics of everything that the layer's cell shows, by name."""
    statistics = {}
    for name, values in layer.gates.items():
        flat = _valid(layer, values)
        low = LOW if name.endswith("gate") else -HIGH
        statistics[name] = GateStatistics(float(flat.mean()), (flat < low).mean(axis=0), (flat > HIGH).mean(axis=0))
    return statistics


def half_lives(layer: Observed) -> Float[np.ndarray, "H"]:
    """Returns for each unit after how many steps half of its memory is left.

        ln 2 / -mean_t ln r_t

    with r the retention (see `Observed`), the geometric mean over all valid steps. 0 where nothing is kept, infinite
    where nothing is lost.
    """
    with np.errstate(divide="ignore"):
        rate = -np.log(np.abs(_valid(layer, layer.retention))).mean(axis=0)
        return np.where(rate > 0, np.log(2) / np.maximum(rate, 0), np.inf)


def _valid(layer: Observed, values: Float[Array, "T B H"]) -> Float[np.ndarray, "N H"]:
    """Returns the values of all valid steps, in float64."""
    flat = np.asarray(values, np.float64)
    if layer.valid is None:
        return flat.reshape(-1, flat.shape[-1])
    return flat[np.asarray(layer.valid)]
