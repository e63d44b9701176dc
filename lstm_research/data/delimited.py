"""Tables in the user's own text files (CSV, TSV): columns by name or number, and splits without a file of their own."""

import abc
import csv
import dataclasses
import functools
import io
import sys
from collections.abc import Iterator
from typing import NamedTuple

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.dataset import known_split
from lstm_research.data.text_files import check_file, read_text

Column = str | int
DEFAULT_FRACTION = 0.1


class Row(NamedTuple):
    """The values of the columns that are asked for, and the file and line where the row begins."""

    values: tuple[str, ...]
    path: str
    line: int


def read_rows(path: str, where: str, columns: dict[str, Column], delimiter: str) -> list[Row]:
    """Returns the rows of a table.

    Columns are named by the first line, or numbered from 0 in a file without such a line. Fields may be quoted as in
    CSV, unless they are separated by tabs: then a quotation mark is a quotation mark. Blank lines are no rows. All rows
    have as many fields as the first line.

    Args:
      path: the file's path.
      where: the config key that names the file, for messages.
      columns: the wanted columns by the keys or flags that name them: all names or all numbers.
      delimiter: the character between fields.

    Raises:
      UserError: the file cannot be read as such a table, a column is not in it, or it has no row.
    """
    rows: list[Row] = []
    width: int | None = None
    indices: list[int] | None = [column for column in columns.values() if isinstance(column, int)] or None
    for begin, fields in _lines(path, where, delimiter):
        width = len(fields) if width is None else width
        if len(fields) != width:
            raise UserError(
                f"{where}: {path} line {begin} has {len(fields)} fields separated by {delimiter!r}, and the first "
                f"line has {width}; quote fields that hold the separator"
            )
        if indices is None:
            indices = [_find(column, fields, f"{where}: {path}", key) for key, column in columns.items()]
            continue
        if max(indices) >= width:
            raise UserError(
                f"{where}: {path} has {width} columns separated by {delimiter!r}, and {' or '.join(columns)} names "
                f"number {max(indices)}; the first is number 0"
            )
        rows.append(Row(tuple(fields[index] for index in indices), path, begin))
    if not rows:
        raise UserError(f"{where}: {path} has no rows")
    return rows


def read_header(path: str, where: str, delimiter: str) -> list[str]:
    """Returns the fields of a table's first line; for the arguments see `read_rows`."""
    return next(_lines(path, where, delimiter))[1]


def _lines(path: str, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the line where each row of a table begins, and its fields; see `read_rows`."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit is shorter than some documents
    text = io.StringIO(read_text(path, where), newline="")
    reader = csv.reader(
        text, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL, strict=True
    )
    line = 1
    try:
        for fields in reader:
            begin, line = line, reader.line_num + 1
            if fields:
                yield begin, fields
    except csv.Error as error:
        raise UserError(f"{where}: {path} line {reader.line_num} is not CSV ({error})") from error


def check_delimiter(delimiter: str) -> None:
    """Raises a `UserError` for what cannot be `dataset.delimiter`."""
    if len(delimiter) != 1 or delimiter in '\r\n" ':
        raise UserError(f"dataset.delimiter must be one character, such as ',' or a tab, got {delimiter!r}")


def _find(column: Column, names: list[str], where: str, key: str) -> int:
    if column not in names:
        raise unknown(f"column ({key}; columns in {where}):", column, names)
    if names.count(str(column)) > 1:
        raise UserError(f"{where} has {names.count(str(column))} columns {column!r}; name them differently")
    return names.index(str(column))


@dataclasses.dataclass(frozen=True)
class TableFiles(abc.ABC):
    """Tables for the splits; a split without a file of its own is cut from the training file.

    Attributes:
      train: path of the training table, UTF-8.
      valid: path of the validation table. None: a part of the training table, chosen by a hash of the texts.
      test: path of the test table, likewise.
      valid_fraction: how much of the training table is for validation; None: 0.1 if `valid` is None.
      test_fraction: how much of the training table is for test; None: 0.1 if `test` is None.
      delimiter: the character between fields.
    """

    train: str
    valid: str | None = None
    test: str | None = None
    valid_fraction: float | None = None
    test_fraction: float | None = None
    delimiter: str = ","

    def __post_init__(self) -> None:
        for key in ("valid", "test"):
            path, fraction = getattr(self, key), getattr(self, f"{key}_fraction")
            if path is not None and fraction is not None:
                raise UserError(f"dataset.{key} and dataset.{key}_fraction are both set; give one of the two")
            if fraction is not None and not 0 < fraction < 0.5:
                raise UserError(f"dataset.{key}_fraction must be above 0 and below 0.5, got {fraction:g}")
        columns = self.columns()
        if len({type(column) for column in columns.values()}) > 1 or len(set(columns.values())) < len(columns):
            given = ", ".join(f"{key}={column!r}" for key, column in columns.items())
            raise UserError(f"columns are given by different names or by different numbers, got {given}")
        if any(isinstance(column, int) and column < 0 for column in columns.values()):
            raise UserError(f"columns are numbered from 0, got {', '.join(map(str, columns.values()))}")
        check_delimiter(self.delimiter)
        for key in ("train", "valid", "test"):
            if getattr(self, key) is not None:
                check_file(getattr(self, key), f"dataset.{key}")

    @abc.abstractmethod
    def columns(self) -> dict[str, Column]:
        """Returns the wanted columns by the config keys that name them."""

    @abc.abstractmethod
    def cut(self, rows: list[Row], valid_fraction: float, test_fraction: float) -> dict[str, list[Row]]:
        """Divides the rows of the training table in splits."""

    def read(self, path: str, where: str) -> list[Row]:
        """Returns the rows of a table, which the config key `where` names."""
        return read_rows(path, where, self.columns(), self.delimiter)

    def rows(self, split: str) -> list[Row]:
        """Returns the rows of a split."""
        return self._rows[known_split(split)]

    @functools.cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """The rows of every split, read once."""
        given = {"train": self.train, "valid": self.valid, "test": self.test}
        tables = {split: self.read(path, f"dataset.{split}") for split, path in given.items() if path is not None}
        splits = tables
        if len(tables) < len(given):
            fractions = (
                0.0 if split in tables else getattr(self, f"{split}_fraction") or DEFAULT_FRACTION
                for split in ("valid", "test")
            )
            cut = self.cut(tables["train"], *fractions)
            splits = {split: tables[split] if split in tables and split != "train" else cut[split] for split in given}
        for split, rows in splits.items():
            if not rows:
                raise UserError(f"dataset.train: {self.train} has {len(tables['train'])} rows, none left for {split!r}")
        return splits

    def describe_files(self) -> str:
        """Returns the files of all splits, in words."""
        given = {"train": self.train, "valid": self.valid, "test": self.test}
        return "; ".join(f"{split} {path or 'cut from train'}" for split, path in given.items())
