"""Time series as datasets: values that were observed at regular times, and what is known beside them."""

import abc
import hashlib
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lstm_research.data.dataset import Dataset, known_split
from lstm_research.data.series.frequency import Frequency, Times

SINGLE = "series"
"""The name of a series that is alone in its dataset."""


class Series(NamedTuple):
    """One or several variables that were observed at the same regular times.

    Attributes:
      name: of the series.
      times: `datetime64[s]` [N + F], without gaps: of N observations, and of F steps after them.
      targets: what is forecast, of the first N steps; NaN where nothing was observed.
      known: what is known of all steps in advance (known-future covariates).
      static: what is constant in the series, as it was written.
    """

    name: str
    times: Times
    targets: Float[np.ndarray, "N V"]
    known: Float[np.ndarray, "M K"]
    static: tuple[str, ...] = ()


class SeriesDataset(Dataset):
    """Series in the splits train, valid and test, which follow each other in time.

    The splits begin at the same two times in all series, so that nothing is trained on what is later than a forecast.

    Attributes:
      calendar: names of calendar features, see `lstm_research.data.series.calendar_features`.
      known_names: of the columns `Series.known`.
      static_names: of `Series.static`.
    """

    calendar: tuple[str, ...]
    known_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()

    @property
    @abc.abstractmethod
    def target_names(self) -> tuple[str, ...]:
        """The names of the variables that are forecast."""

    @property
    @abc.abstractmethod
    def step(self) -> Frequency:
        """From one time to the next."""

    @abc.abstractmethod
    def series(self) -> list[Series]:
        """Returns all series, whole; the first use fetches, prepares or reads what is needed.

        Raises:
          UserError: the data is missing, empty, damaged or cannot be fetched.
        """

    @abc.abstractmethod
    def cuts(self) -> tuple[np.datetime64, np.datetime64]:
        """Returns the times at which the validation and the test split begin."""

    def rows(self, series: Series, split: str) -> tuple[int, int]:
        """Returns the first row of a split in a series, and the one after the last."""
        observed = series.times[: len(series.targets)]
        valid, test = np.searchsorted(observed, np.asarray(self.cuts(), "datetime64[s]")).tolist()
        return {"train": (0, valid), "valid": (valid, test), "test": (test, len(observed))}[known_split(split)]

    def contents(self, split: str) -> Iterator[str]:
        """Yields the name of every series and a digest of its part of the split."""
        for each in self.series():
            begin, end = self.rows(each, split)
            last = None if split == "test" else end  # what is known of the future belongs to the last split
            arrays = each.times[begin:last].astype(np.int64), each.targets[begin:end], each.known[begin:last]
            digest = hashlib.sha256()
            for array in arrays:
                digest.update(np.where(array == array, array, np.nan).tobytes())  # one NaN is as good as another
            # As JSON, in which a config's tuples and lists are the same.
            yield json.dumps([each.name, self.target_names, self.known_names, each.static, digest.hexdigest()])
