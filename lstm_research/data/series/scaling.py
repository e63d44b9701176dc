"""Series as a model reads them: in units of the training rows' deviation, with all that is known beside them."""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.series.base import Series, SeriesDataset
from lstm_research.data.series.calendar_features import calendar_features, calendar_size
from lstm_research.data.series.frequency import Frequency


class Statistics(NamedTuple):
    """What is known of a series' variables from its training rows.

    Attributes:
      mean: of each variable.
      deviation: the standard deviation of each variable; 1 where it does not vary.
      naive_error: the mean error of forecasting the value of the season before; 0 where there is none.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    naive_error: tuple[float, ...]

    @classmethod
    def of(cls, targets: Float[np.ndarray, "N V"], season: int, where: str, names: Sequence[str]) -> "Statistics":
        """Computes them.

        Raises:
          UserError: nothing was observed of a variable.
        """
        for column, name in zip(targets.T, names, strict=True):
            if not np.isfinite(column).any():
                raise UserError(f"{where} has no value of {name!r}; leave it out, or give more data")
        # The deviation of equal numbers is not always 0, as their mean is rounded.
        varies = np.nanmax(targets, axis=0) > np.nanmin(targets, axis=0)
        mean, deviation = np.nanmean(targets, axis=0), np.where(varies, np.nanstd(targets, axis=0), 1.0)
        errors = np.abs(targets[season:] - targets[:-season])
        counts = np.isfinite(errors).sum(axis=0)
        naive = np.nansum(errors, axis=0) / np.maximum(counts, 1)
        return cls(*(tuple(each.tolist()) for each in (mean, deviation, naive)))


class ScaledSeries(NamedTuple):
    """A series in the model's units: value = (written value - shift) / scale.

    Attributes:
      values: float32 [N, V], 0 where nothing was observed.
      observed: float32 [N, V], 1 or 0.
      known: float32 [N + F, K]: what is known in advance, scaled, then the calendar.
      static: float32 [S].
      units: float32 [4, V]: shift and scale; then, in the model's units, the training rows' deviation, and the mean
        error of forecasting the value of the season before, 0 where there is none.
    """

    values: Float[np.ndarray, "N V"]
    observed: Float[np.ndarray, "N V"]
    known: Float[np.ndarray, "M K"]
    static: Float[np.ndarray, "S"]
    units: Float[np.ndarray, "4 V"]


@dataclasses.dataclass(frozen=True)
class SeriesScaler:
    """How series are scaled, from training rows alone; stored with a run.

    Attributes:
      frequency: of the series.
      season: in steps.
      targets: names of the variables.
      known: names of the columns that are known in advance, with mean and deviation.
      static: names of the columns that are constant: with mean and deviation, or with all categories.
      calendar: names of calendar features.
      counts: whether the variables are counts, which the model reads as they are.
      series: the statistics of every series by its name.
    """

    frequency: str
    season: int
    targets: tuple[str, ...]
    known: dict[str, tuple[float, float]]
    static: dict[str, tuple[Any, ...]]
    calendar: tuple[str, ...]
    counts: bool
    series: dict[str, Statistics]

    @classmethod
    def fit(cls, dataset: SeriesDataset, *, season: int | None, counts: bool, min_rows: int = 1) -> "SeriesScaler":
        """Reads the training rows of a dataset.

        Args:
          dataset: whose series are to be scaled.
          season: in steps; None: that of the frequency.
          counts: whether the variables are counts.
          min_rows: training rows of a series whose statistics are kept; those of fewer rows would say little.

        Raises:
          UserError: no series has so many training rows, a variable has no value in them, or counts are none.
        """
        season = dataset.step.season if season is None else season
        statistics, known, static = {}, [], []
        for each in dataset.series():
            _, end = dataset.rows(each, "train")
            if end:
                if end >= min_rows:
                    rows, where = each.targets[:end], f"the training part of series {each.name!r}"
                    statistics[each.name] = Statistics.of(rows, season, where, dataset.target_names)
                known.append(each.known[:end])
                static.append(each.static)
                written = each.targets[np.isfinite(each.targets)]
                if counts and ((written < 0) | (written % 1 > 0)).any():
                    raise UserError(
                        "model.distribution 'negative_binomial' is for counts, and the dataset has values that are "
                        "negative or no whole numbers; use 'gaussian', 'student_t' or 'quantiles'"
                    )
        if not statistics:
            raise UserError(
                f"no series has {min_rows} row(s) before the validation split, as many as a training window; give more "
                "data or another dataset.valid, or reduce task.history or task.horizon"
            )
        rows = np.concatenate(known)
        return cls(
            str(dataset.step),
            season,
            tuple(dataset.target_names),
            {name: _moments(column) for name, column in zip(dataset.known_names, rows.T, strict=True)},
            {
                name: _numbers_or_words(column)
                for name, column in zip(dataset.static_names, zip(*static, strict=True), strict=True)
            },
            tuple(dataset.calendar),
            counts,
            statistics,
        )

    @classmethod
    def from_json(cls, text: str) -> "SeriesScaler":
        """Reads what `to_json` wrote.

        Raises:
          UserError: it is something else.
        """
        try:
            state = json.loads(text)
            state["series"] = {name: Statistics(*map(tuple, each)) for name, each in state["series"].items()}
            for key in ("known", "static"):
                state[key] = {name: tuple(each) for name, each in state[key].items()}
            return cls(**state | {"targets": tuple(state["targets"]), "calendar": tuple(state["calendar"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"series.json is damaged ({error}); restore it from a copy or train again") from error

    def to_json(self) -> str:
        """Returns all of it as JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    @property
    def num_known(self) -> int:
        """K, the number of features that are known in advance."""
        return len(self.known) + calendar_size(self.calendar)

    @property
    def num_static(self) -> int:
        """S, the number of features that are constant: one a number, and one a category."""
        return sum(len(each) if isinstance(each[0], str) else 1 for each in self.static.values())

    @functools.cached_property
    def step(self) -> Frequency:
        """From one time to the next."""
        return Frequency.parse(self.frequency, "frequency")

    def statistics(self, series: Series) -> Statistics:
        """Returns those of the training rows; of a series that was not trained on, those of all its rows."""
        if series.name in self.series:
            return self.series[series.name]
        return Statistics.of(series.targets, self.season, f"series {series.name!r}", self.targets)

    def scale(self, series: Series) -> ScaledSeries:
        """Returns a series as the model reads it.

        Raises:
          UserError: a category that no training series has.
        """
        mean, deviation, naive = map(np.array, self.statistics(series))
        shift, scale = (0 * mean, 1 + 0 * mean) if self.counts else (mean, deviation)
        values = (series.targets - shift) / scale
        observed = np.isfinite(values)
        moments = np.array(list(self.known.values())).reshape(-1, 2).T
        known = (series.known - moments[0]) / moments[1]
        calendar = calendar_features(series.times, self.calendar)
        return ScaledSeries(
            np.where(observed, values, 0).astype(np.float32),
            observed.astype(np.float32),
            np.concatenate([known, calendar], axis=1).astype(np.float32),
            np.array(self._static(series), np.float32),
            np.stack([shift, scale, deviation / scale, naive / scale]).astype(np.float32),
        )

    def unscale(self, series: Series, values: Float[np.ndarray, "*any V"]) -> Float[np.ndarray, "*any V"]:
        """Returns values of the model as they are written."""
        if self.counts:
            return values
        mean, deviation, _ = map(np.array, self.statistics(series))
        return values.astype(np.float64) * deviation + mean

    def _static(self, series: Series) -> list[float]:
        features: list[float] = []
        for (name, fitted), text in zip(self.static.items(), series.static, strict=True):
            if isinstance(fitted[0], str):
                if text not in fitted:
                    raise unknown(
                        f"{name} of series {series.name!r}, a column of dataset.static_columns:", text, fitted
                    )
                features += [float(text == category) for category in fitted]
            else:
                number = _number(text)
                if not math.isfinite(number):
                    raise UserError(f"{name} of series {series.name!r} is {text!r}; dataset.static_columns has numbers")
                features.append((number - fitted[0]) / fitted[1])
        return features


def _moments(column: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns mean and deviation; 1 where nothing varies, see `Statistics.of`."""
    return float(np.mean(column)), float(np.std(column)) if np.max(column) > np.min(column) else 1.0


def _numbers_or_words(column: Sequence[str]) -> tuple[Any, ...]:
    """Returns mean and deviation of numbers, or the different words."""
    numbers = list(map(_number, column))
    return _moments(numbers) if np.isfinite(numbers).all() else tuple(sorted(set(column)))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
