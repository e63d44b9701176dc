"""The labelled texts a config can name: a class or a score for every text."""

import abc
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from typing import Any, Literal

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.dataset import Dataset, known_split
from lstm_research.data.delimited import Column, Row, TableFiles
from lstm_research.data.examples import LabelledText
from lstm_research.data.held_out import hold_out
from lstm_research.data.movie_reviews import LABELS, REVIEWS
from lstm_research.data.tfds_examples import DatasetTable, TFDSReader
from lstm_research.data.vader import VADER

Target = Literal["classes", "score"]


class LabelledDataset(Dataset):
    """Texts with labels in the splits train, valid and test."""

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes; None where labels are scores."""

    @abc.abstractmethod
    def examples(self, split: str) -> list[LabelledText]:
        """Returns the examples of a split; the first use fetches, prepares or reads what is needed.

        Raises:
          UserError: no such split, or the data is missing, empty, damaged or cannot be fetched.
        """

    def contents(self, split: str) -> Iterator[str]:
        """Yields the text and label of every example."""
        labels = self.labels
        for text, label in self.examples(split):
            yield json.dumps([text, labels[int(label)] if labels else label])


@dataclasses.dataclass(frozen=True)
class RottenTomatoes(LabelledDataset):
    """8,530 sentences of film reviews, negative or positive; see `lstm_research.data.movie_reviews`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Negative and positive."""
        return LABELS

    def examples(self, split: str) -> list[LabelledText]:
        """Returns the sentences of a split."""
        return REVIEWS.load("rotten_tomatoes", split)

    def describe(self) -> str:
        """Returns one line on the dataset."""
        return f"Rotten Tomatoes sentences, of the standard training part ({REVIEWS.source})"


@dataclasses.dataclass(frozen=True)
class IMDB(LabelledDataset):
    """25,000 film reviews, negative or positive; see `lstm_research.data.movie_reviews`. A text is one line."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Negative and positive."""
        return LABELS

    def examples(self, split: str) -> list[LabelledText]:
        """Returns the reviews of a split."""
        return [LabelledText(text.replace("\n", " "), label) for text, label in REVIEWS.load("imdb", split)]

    def describe(self) -> str:
        """Returns one line on the dataset."""
        return f"IMDB reviews, of the standard training part ({REVIEWS.source})"


@dataclasses.dataclass(frozen=True)
class Vader(LabelledDataset):
    """Texts with mean human scores from -4 to 4; see `lstm_research.data.vader`.

    Attributes:
      part: movies, tweets, amazon, news, or all of them.
      target: "classes": negative (a score of at most -0.5), positive (of at least 0.5) or neutral; "score".
    """

    part: str = "all"
    target: Target = "classes"

    def __post_init__(self) -> None:
        if self.part not in (valid := (*VADER.parts, "all")):
            raise unknown("dataset.part of 'vader':", self.part, valid)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Negative, neutral and positive; None for scores."""
        return ("negative", "neutral", "positive") if self.target == "classes" else None

    def examples(self, split: str) -> list[LabelledText]:
        """Returns the texts of a split."""
        parts = VADER.parts if self.part == "all" else (self.part,)
        scored = [example for part in parts for example in VADER.load(part, split)]
        if self.target == "score":
            return scored
        return [LabelledText(text, 0 if score <= -0.5 else 2 if score >= 0.5 else 1) for text, score in scored]

    def describe(self) -> str:
        """Returns one line on the part."""
        return f"texts scored by people for VADER: {self.part}, {self.target} ({VADER.source})"


@dataclasses.dataclass(frozen=True)
class CSVFiles(TableFiles, LabelledDataset):
    """The user's own tables; see `lstm_research.data.delimited` on their form and `TableFiles` on the other keys.

    Equal texts are in one split where a split is cut from the training table. A text may be empty, a label may not.

    Attributes:
      text_column: name or number of the column of texts.
      label_column: name or number of the column of labels.
      target: "classes": labels are names; "score": they are numbers.
    """

    text_column: Column = "text"
    label_column: Column = "label"
    target: Target = "classes"

    def columns(self) -> dict[str, Column]:
        """The two columns."""
        return {"dataset.text_column": self.text_column, "dataset.label_column": self.label_column}

    def cut(self, rows: list[Row], valid_fraction: float, test_fraction: float) -> dict[str, list[Row]]:
        """Holds rows out by a hash of their texts."""
        num_valid, num_test = (round(len(rows) * fraction) for fraction in (valid_fraction, test_fraction))
        return hold_out(rows, lambda row: row.values[0], num_valid=num_valid, num_test=num_test)

    @functools.cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the training split, numbers by size and others by alphabet; None for scores."""
        if self.target == "score":
            return None
        labels = {label for _, label in map(self._values, self.rows("train"))}
        if len(labels) < 2:
            raise UserError(f"dataset.train: {self.train} has only one label, {labels.pop()!r}")
        try:
            return tuple(sorted(sorted(labels), key=float))  # 1 and 1.0, or nan, in no order that is drawn
        except ValueError:
            return tuple(sorted(labels))

    def examples(self, split: str) -> list[LabelledText]:
        """Returns the texts of a split."""
        return [LabelledText(self._values(row)[0], self._label(row)) for row in self.rows(split)]

    def _values(self, row: Row) -> tuple[str, str]:
        text, label = row.values
        if not label.strip():
            raise UserError(f"{row.path} line {row.line} has no label in column {self.label_column!r}")
        return text, label.strip()

    def _label(self, row: Row) -> int | float:
        _, label = self._values(row)
        labels = self.labels
        if labels is not None:
            if label not in self._numbers:
                if row.path == self.train:
                    raise UserError(
                        f"{row.path} line {row.line} has the label {label!r}, and is held out, with no other example "
                        "of it left for training; add more of them, leave the line out, or give dataset.valid and "
                        "dataset.test"
                    )
                raise UserError(
                    f"{row.path} line {row.line} has the label {label!r}, which no training example has ({len(labels)} "
                    f"labels, {', '.join(labels[:20])}); give examples of it in {self.train}, or leave the line out"
                )
            return self._numbers[label]
        try:
            score = float(label)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise UserError(
                f"{row.path} line {row.line} has the label {label!r} in column {self.label_column!r}, and "
                "dataset.target='score' needs numbers; names of classes need dataset.target='classes'"
            )
        return score

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels or ())}

    def describe(self) -> str:
        """Returns one line with the files' paths."""
        return f"CSV files: {self.describe_files()}"


@dataclasses.dataclass(frozen=True)
class TFDSLabelled(LabelledDataset):
    """A TFDS dataset of texts with labels, prepared in array_record files; in a config also named `tfds:DATASET`.

    Labels are the names of a `ClassLabel` feature, otherwise the values that occur in training; of a feature with
    fractions they are scores.

    Attributes:
      dataset: its name as TFDS has it: `name`, `name/config` or `name/config:version`.
      data_dir: the folder of prepared datasets; None: that of TFDS.
      text_feature: the feature of texts; one inside another as in `review/text`.
      label_feature: the feature of labels.
      train: the training split as TFDS has it, as in "train" or "train[:90%]".
      valid: the validation split.
      test: the test split.
    """

    dataset: str
    data_dir: str | None = None
    text_feature: str = "text"
    label_feature: str = "label"
    train: str = "train"
    valid: str = "validation"
    test: str = "test"

    @functools.cached_property
    def _reader(self) -> TFDSReader:
        return TFDSReader(self.dataset, self.data_dir)

    @functools.cached_property
    def _label(self) -> Any:
        return self._reader.feature(self.label_feature, "label_feature", text=False)

    @functools.cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes; None for scores."""
        if names := getattr(self._label, "names", None):
            return tuple(names)
        labels = {label for _, label in self._rows("train")}
        return None if any(isinstance(label, float) for label in labels) else tuple(map(str, sorted(labels)))

    def examples(self, split: str) -> list[LabelledText]:
        """Returns the texts of a split."""
        rows, labels = self._rows(split), self.labels
        if labels is None:
            for number, (_, score) in enumerate(rows):
                if not math.isfinite(score):
                    raise UserError(
                        f"dataset.{split}: example {number} of split {getattr(self, split)!r} of TFDS dataset "
                        f"{self.dataset!r} has the score {score}; scores must be finite, name a split where they are"
                    )
            return list(map(LabelledText._make, rows))
        by_number = hasattr(self._label, "names")  # a number of a class; otherwise its name
        valid = {number if by_number else label: number for number, label in enumerate(labels)}
        for _, label in rows:
            if (label if by_number else str(label)) not in valid:
                raise UserError(
                    f"dataset.{split}: split {getattr(self, split)!r} of TFDS dataset {self.dataset!r} has the label "
                    f"{label!r}, which is none of {', '.join(labels)}; name another split"
                )
        return [LabelledText(text, valid[label if by_number else str(label)]) for text, label in rows]

    def _rows(self, split: str) -> list[tuple[Any, ...]]:
        self._reader.feature(self.text_feature, "text_feature", text=True)
        self._label  # noqa: B018  (a wrong feature is named)
        return self._reader.rows(getattr(self, known_split(split)), split, (self.text_feature, self.label_feature))

    def describe(self) -> str:
        """Returns one line on the dataset."""
        return f"TFDS dataset {self.dataset}"


LABELLED_DATASETS = DatasetTable(
    rotten_tomatoes=RottenTomatoes, imdb=IMDB, vader=Vader, csv=CSVFiles, tfds=TFDSLabelled
)
"""Every dataset of labelled texts by the name that configs use."""
