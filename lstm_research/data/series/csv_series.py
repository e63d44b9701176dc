"""Series in the user's own table: a column of times, columns of values, and one of names for several series."""

import dataclasses
import datetime
import functools
import math
import re
from typing import ClassVar, Literal

import numpy as np

from lstm_research.common.errors import UserError
from lstm_research.data.delimited import Column, Row, check_delimiter, read_header, read_rows
from lstm_research.data.series.base import SINGLE, Series, SeriesDataset
from lstm_research.data.series.calendar_features import check_calendar
from lstm_research.data.series.frequency import Frequency, Times
from lstm_research.data.text_files import check_file

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "?"})
"""What stands for a missing value, in lower case."""


@dataclasses.dataclass(frozen=True)
class CSVSeries(SeriesDataset):
    """Series in a table whose first line names its columns.

    A row is one time of one series. Rows of a series stand in the order of their times, those of several series in any
    order. A target may be missing; rows at the end without any target are the future, of which only `known_columns` are
    read. Times with an offset from UTC become UTC, and predictions are then in UTC; seconds are the finest step.

    Attributes:
      path: of the table, UTF-8.
      time_column: times as ISO 8601 has them (2024-01-31, 2024-01-31 18:00, 2024-01, ...), or by `time_format`.
      target_columns: what is forecast. None of them named: every column that no other key names.
      known_columns: numbers that are known in advance, such as prices or planned events.
      static_columns: what is constant in a series; words are categories.
      id_column: which series a row is of; None: there is one series.
      calendar: calendar features, see `lstm_research.data.series.calendar_features`.
      frequency: the step from row to row, as in 15min, h, D, B (business days), W or M; None: the most common one.
      time_format: of the times, as `datetime.strptime` has it; None: ISO 8601.
      gaps: whether missing rows are refused, or filled with rows in which all targets are missing.
      valid: where the validation split begins: at a time, or so that it has this share of all times.
      test: the same for the test split, which reaches to the end.
      delimiter: the character between fields.
    """

    path: str
    time_column: str = "time"
    target_columns: tuple[str, ...] = ()
    known_columns: tuple[str, ...] = ()
    static_columns: tuple[str, ...] = ()
    id_column: str | None = None
    calendar: tuple[str, ...] = ()
    frequency: str | None = None
    time_format: str | None = None
    gaps: Literal["refuse", "fill"] = "refuse"
    valid: float | str = 0.1
    test: float | str = 0.2
    delimiter: str = ","

    keys: ClassVar[dict[str, str]] = {}
    """What messages call a key, if not `dataset.KEY`."""

    can_set: ClassVar[bool] = True
    """Whether messages may propose another value for a key of section dataset: not for a run that is trained."""

    def __post_init__(self) -> None:
        check_delimiter(self.delimiter)
        check_file(self.path, self._key("path"))
        check_calendar(self.calendar)
        columns = self._columns(self.target_columns)
        for column in columns.values():
            keys = [key for key, other in columns.items() if other == column]
            if len(keys) > 1:
                raise UserError(f"column {column!r} is named more than once, by {' and '.join(keys)}; name it once")
        for key in ("valid", "test"):
            share = getattr(self, key)
            if not isinstance(share, str) and not 0 < share < 0.5:
                raise UserError(f"dataset.{key} must be a time, or a share above 0 and below 0.5, got {share}")
        if self.frequency is not None:
            Frequency.parse(self.frequency, "dataset.frequency")

    @property
    def known_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that are known in advance."""
        return self.known_columns

    @property
    def static_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns of what is constant."""
        return self.static_columns

    @functools.cached_property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The columns that are forecast."""
        if self.target_columns:
            return self.target_columns
        others = set(self._columns(()).values())
        names = tuple(name for name in read_header(self.path, self._key("path"), self.delimiter) if name not in others)
        if not names:
            named = ", ".join(map(str, others))
            raise UserError(f"{self._key('path')}: {self.path} has no column to forecast besides {named}")
        if not all(name.strip() for name in names):
            raise UserError(
                f"{self._key('path')}: {self.path} has a column without a name, such as an index that was written with "
                "the table; leave it out, or name what is to be forecast in dataset.target_columns"
            )
        return names

    @property
    def step(self) -> Frequency:
        """The frequency that is named, or found in the longest series."""
        return self._read[0]

    def series(self) -> list[Series]:
        """Returns the series in the order in which they begin in the file."""
        return self._read[1]

    def cuts(self) -> tuple[np.datetime64, np.datetime64]:
        """Returns the times that the keys name, or that leave the shares of all times."""
        return self._cuts

    @functools.cached_property
    def _cuts(self) -> tuple[np.datetime64, np.datetime64]:
        """Computed once: every series asks for them in every split."""
        times = np.unique(np.concatenate([each.times[: len(each.targets)] for each in self.series()]))
        test = self._cut("test", times, len(times))
        valid = self._cut("valid", times, int(np.searchsorted(times, test)))
        if not times[0] < valid < test <= times[-1]:
            raise UserError(
                f"dataset.valid={self.valid!r} and dataset.test={self.test!r} begin at {valid} and {test}, and the "
                f"times of {self.path} reach from {times[0]} to {times[-1]}; give two of these times, the first earlier"
            )
        return valid, test

    def describe(self) -> str:
        """Returns one line with the file's path."""
        return f"series in {self.path}: {', '.join(self.target_names)}"

    def _cut(self, key: str, times: Times, end: int) -> np.datetime64:
        begin = getattr(self, key)
        if isinstance(begin, str):
            return _time(begin, None, f"dataset.{key}", "correct it")[0]
        return times[max(end - max(round(len(times) * begin), 1), 0)]

    def _key(self, key: str) -> str:
        return self.keys.get(key, f"dataset.{key}")

    def _columns(self, targets: tuple[str, ...]) -> dict[str, Column]:
        """Returns the columns by what messages call them."""
        columns: dict[str, Column] = {self._key("time_column"): self.time_column}
        if self.id_column is not None:
            columns[self._key("id_column")] = self.id_column
        lists = {"target_columns": targets, "known_columns": self.known_columns, "static_columns": self.static_columns}
        for key, names in lists.items():
            columns |= {f"{self._key(key)}[{number}]": name for number, name in enumerate(names)}
        return columns

    @functools.cached_property
    def _read(self) -> tuple[Frequency, list[Series]]:
        """The frequency and the series, read once."""
        columns = self._columns(self.target_names)
        rows = read_rows(self.path, self._key("path"), columns, self.delimiter)
        places: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            places.setdefault(row.values[1] if self.id_column is not None else SINGLE, []).append(number)
        groups = {name: [rows[number] for number in numbers] for name, numbers in places.items()}
        all_times = self._times(rows)
        times = {name: all_times[numbers] for name, numbers in places.items()}
        for name, own in groups.items():
            self._check_order(own, times[name], name)
        if self.frequency is not None:
            step = Frequency.parse(self.frequency, "dataset.frequency")
        else:
            longest = max(times.values(), key=len)
            if len(longest) < 2:
                raise UserError(f"{self._key('path')}: {self.path} has no series of two rows or more")
            step = Frequency.infer(longest)
        return step, [self._make(name, rows, times[name], step) for name, rows in groups.items()]

    def _times(self, rows: list[Row]) -> Times:
        """Returns the times of the rows, of which all or none have an offset from UTC."""
        way_out = "correct it" + ", or set dataset.time_format" * (self.can_set and self.time_format is None)
        times = []
        has_offset: bool | None = None
        for row in rows:
            where = f"{self._place(row)}, {self.time_column}"
            time, with_offset = _time(row.values[0], self.time_format, where, way_out)
            if has_offset not in (None, with_offset):
                having, others = ("an", "no") if with_offset else ("no", "an")
                raise UserError(
                    f"{where}: {row.values[0]!r} has {having} offset from UTC, and those before it have {others} "
                    "offset; write all of them in one way"
                )
            has_offset = with_offset
            times.append(time)
        return np.array(times, "datetime64[s]")

    def _check_order(self, rows: list[Row], times: Times, name: str) -> None:
        """Raises a `UserError` unless the times of a series increase."""
        for number in np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s"))[:1].tolist():
            before, row = rows[number], rows[number + 1]
            what = f"repeats the time {times[number]} of line {before.line}"
            way_out = f"leave one of the two out, or name the column of the series' names in {self._key('id_column')}"
            if times[number + 1] < times[number]:
                what, way_out = (
                    f"has an earlier time ({times[number + 1]}) than line {before.line}",
                    "sort the file by time",
                )
            raise UserError(f"{self._place(row)}{self._of(name)} {what}; {way_out}")

    def _make(self, name: str, rows: list[Row], times: Times, step: Frequency) -> Series:
        """Returns the series of these rows."""
        positions, on_grid = step.positions(times)
        if not on_grid.all():
            number = int(np.flatnonzero(~on_grid)[0])
            raise UserError(
                f"{self._place(rows[number])}{self._of(name)} has the time {times[number]}, which is no multiple of "
                f"{step} after {times[0]}; round or resample the times" + ", or set dataset.frequency" * self.can_set
            )
        missing = np.flatnonzero(np.diff(positions) > 1)
        if len(missing) and (self.gaps == "refuse" or self.known_columns):
            number = int(missing[0])
            can_fill = self.can_set and not self.known_columns
            way_out = "add them, or set dataset.gaps='fill' for missing values" if can_fill else "add the rows"
            raise UserError(
                f"{self._place(rows[number])}{self._of(name)}: {len(missing)} gap(s) in steps of {step}, the first "
                f"from {times[number]} to {times[number + 1]}; rows are missing there: {way_out}"
            )
        first = 1 + (self.id_column is not None)
        ends = np.cumsum([first, len(self.target_names), len(self.known_columns)]).tolist()
        targets = np.full((int(positions[-1]) + 1, len(self.target_names)), np.nan)
        targets[positions] = self._numbers(rows, ends[0], self.target_names)
        known = self._numbers(rows, ends[1], self.known_columns)
        for number, column in np.argwhere(np.isnan(known))[:1].tolist():
            raise UserError(
                f"{self._place(rows[number])}{self._of(name)} has no value in column {self.known_columns[column]!r} of "
                "dataset.known_columns; give it, or make the column a target"
            )
        observed = np.flatnonzero(np.isfinite(targets).any(axis=1))
        if not len(observed):
            raise UserError(f"{self._key('path')}: {self.path}{self._of(name)} has no value of any target")
        static = {row.values[ends[2] :] for row in rows}
        if len(static) > 1:
            raise UserError(
                f"{self._key('path')}: {self.path}{self._of(name)} has several values of "
                f"{', '.join(self.static_columns)} in dataset.static_columns, which are constant in a series"
            )
        num_observed = int(observed[-1]) + 1
        if not self.known_columns:
            known = np.zeros((num_observed, 0))
        times = step.grid(times, len(known))
        return Series(name, times, targets[:num_observed], known, next(iter(static)))

    def _numbers(self, rows: list[Row], first: int, names: tuple[str, ...]) -> np.ndarray:
        """Returns the numbers of columns that stand side by side, NaN where they are missing."""
        numbers = np.full((len(rows), len(names)), np.nan)
        way_out = "a missing value is empty or NA"
        if names == self.target_names and not self.target_columns:
            way_out += "; if it is not to be forecast, name what is in dataset.target_columns"
            way_out += ", or this one in dataset.id_column" * (self.id_column is None)
        for index, row in enumerate(rows):
            for column, text in enumerate(row.values[first : first + len(names)]):
                if text.strip().lower() in MISSING:
                    continue
                try:
                    numbers[index, column] = number = float(text)
                except ValueError:
                    number = math.nan
                if not math.isfinite(number):
                    raise UserError(
                        f"{self._place(row)} has {text!r} in column {names[column]!r}, which is no number; {way_out}"
                    )
        return numbers

    def _place(self, row: Row) -> str:
        return f"{self._key('path')}: {row.path} line {row.line}"

    def _of(self, name: str) -> str:
        return "" if self.id_column is None else f", series {name!r},"


def _time(text: str, format: str | None, where: str, way_out: str) -> tuple[np.datetime64, bool]:
    """Returns the time that a text writes, and whether it has an offset from UTC."""
    try:
        if format is not None:
            time = datetime.datetime.strptime(text.strip(), format)
        elif re.fullmatch(r"\d{4}(-\d{2})?", text.strip()):
            return np.datetime64(text.strip(), "s"), False
        else:
            time = datetime.datetime.fromisoformat(text.strip())
        has_offset = time.tzinfo is not None
        if has_offset:
            time = time.astimezone(datetime.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # a time of year 1 may be in year 0 in UTC, which there is not
        wanted = f"{format!r} (dataset.time_format)" if format else "ISO 8601, as in 2024-01-31 18:00"
        raise UserError(f"{where}: {text!r} is no time of the form {wanted}; {way_out}") from None
    if time.microsecond:
        raise UserError(f"{where}: {text!r} has a fraction of a second, and seconds are the finest step; round it")
    return np.datetime64(time, "s"), has_offset
