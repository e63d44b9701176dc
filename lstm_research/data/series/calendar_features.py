"""What a calendar says of a time: known long before, and so an input of a forecast."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lstm_research.common.errors import unknown
from lstm_research.data.series.frequency import DAY, Times


def _since(times: Times, unit: str) -> np.ndarray:
    """Returns the seconds since the beginning of the day, month or year, float64."""
    return (times - times.astype(f"datetime64[{unit}]")).astype(np.float64)


def _length(times: Times, unit: str) -> np.ndarray:
    """Returns the seconds of the month or year that a time is in, float64."""
    begins = times.astype(f"datetime64[{unit}]")
    return ((begins + 1).astype("datetime64[s]") - begins.astype("datetime64[s]")).astype(np.float64)


# The share of a cycle that has passed, from 0 to 1. The first day of all was a Thursday.
_PHASES: dict[str, Callable[[Times], np.ndarray]] = {
    "minute": lambda times: _since(times, "h") / 3600,
    "hour": lambda times: _since(times, "D") / DAY,
    "weekday": lambda times: ((times.astype("datetime64[D]").astype(np.int64) + 3) % 7) / 7,
    "day_of_month": lambda times: _since(times, "M") / _length(times, "M"),
    "day_of_year": lambda times: _since(times, "Y") / _length(times, "Y"),
    "month": lambda times: (times.astype("datetime64[M]").astype(np.int64) % 12) / 12,
}
_FLAGS: dict[str, Callable[[Times], np.ndarray]] = {
    "business_day": lambda times: np.is_busday(times.astype("datetime64[D]")),
}
CALENDAR = (*_PHASES, *_FLAGS)
"""The names that `dataset.calendar` may hold."""


def check_calendar(names: tuple[str, ...]) -> None:
    """Raises a `UserError` for a name that is no calendar feature."""
    for name in names:
        if name not in CALENDAR:
            raise unknown("dataset.calendar", name, CALENDAR)


def calendar_size(names: tuple[str, ...]) -> int:
    """Returns the number of columns of `calendar_features`."""
    return sum(2 if name in _PHASES else 1 for name in names)


def calendar_features(times: Times, names: tuple[str, ...]) -> Float[np.ndarray, "N K"]:
    """Returns the features side by side, in the order of the names.

    A cycle is two columns, sin 2πφ and cos 2πφ with φ the share of it that has passed, so that its end is beside its
    beginning: `minute` of the hour, `hour` of the day (with its minutes), `weekday`, `day_of_month`, `day_of_year`,
    `month`. `business_day` is 1 from Monday to Friday and otherwise 0.
    """
    columns: list[np.ndarray] = [np.zeros((len(times), 0))]
    for name in names:
        if name in _PHASES:
            angles = 2 * np.pi * _PHASES[name](times)
            columns.append(np.stack([np.sin(angles), np.cos(angles)], axis=1))
        else:
            columns.append(_FLAGS[name](times)[:, None].astype(np.float64))
    return np.concatenate(columns, axis=1)
