"""The text datasets a config can name, and what each gives: the documents of every split."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from lstm_research.common.errors import UserError, unknown
from lstm_research.data import shakespeare
from lstm_research.data.bible import CHAPTERS
from lstm_research.data.dataset import SPLITS, Dataset, known_split
from lstm_research.data.movie_reviews import REVIEWS
from lstm_research.data.text_files import Paths, check_file, paths_of, read_text


class TextDataset(Dataset):
    """Documents in the splits train, valid and test."""

    @abc.abstractmethod
    def documents(self, split: str) -> list[str]:
        """Returns the texts of a split; the first use fetches, prepares or reads what is needed.

        Raises:
          UserError: no such split, or the data is missing, empty, damaged or cannot be fetched.
        """

    def contents(self, split: str) -> list[str]:
        """Returns the documents."""
        return self.documents(split)


@dataclasses.dataclass(frozen=True)
class Shakespeare(TextDataset):
    """Shakespeare's plays.

    Attributes:
      part: "tiny" (the rebuilt tiny Shakespeare, cut 90/5/5 by characters) or "all" (38 plays, whole plays held out).
    """

    part: str = "tiny"

    def __post_init__(self) -> None:
        if self.part not in shakespeare.SHAKESPEARE.parts:
            raise unknown("dataset.part of 'shakespeare':", self.part, shakespeare.SHAKESPEARE.parts)

    def documents(self, split: str) -> list[str]:
        """Returns the plays of a split; of `tiny` one text."""
        return [document.text for document in shakespeare.load(self.part, split)]

    def describe(self) -> str:
        """Returns one line on the part."""
        what = "tiny Shakespeare, rebuilt" if self.part == "tiny" else "Shakespeare's 38 plays"
        return f"{what} ({shakespeare.SHAKESPEARE.source})"


@dataclasses.dataclass(frozen=True)
class TextFiles(TextDataset):
    """The user's own text files, one document a file.

    Attributes:
      train: path or paths of the training text, UTF-8.
      valid: path or paths of the validation text.
      test: path or paths of the test text.
    """

    train: Paths
    valid: Paths
    test: Paths

    def __post_init__(self) -> None:
        for split in SPLITS:
            for path in self._paths(split):
                check_file(path, f"dataset.{split}")

    def _paths(self, split: str) -> tuple[str, ...]:
        return paths_of(getattr(self, known_split(split)), f"dataset.{split}")

    def documents(self, split: str) -> list[str]:
        """Returns the texts of a split's files."""
        return [read_text(path, f"dataset.{split}") for path in self._paths(split)]

    def describe(self) -> str:
        """Returns one line with the files' paths."""
        return "text files: " + "; ".join(f"{split} {', '.join(self._paths(split))}" for split in SPLITS)


@dataclasses.dataclass(frozen=True)
class TextFile(TextDataset):
    """One text file, cut in three at exact places, as the usual splits of enwik8 and text8 are.

    Attributes:
      path: path of the file, UTF-8 unless the unit is bytes.
      fractions: what part of it is for training, validation and test; they add to 1.
      unit: what is counted. With "bytes" the file may hold any; a vocabulary of bytes gets exactly those of the file.
    """

    path: str
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
    unit: Literal["characters", "bytes"] = "characters"

    def __post_init__(self) -> None:
        if not all(0 < fraction < 1 for fraction in self.fractions) or not math.isclose(sum(self.fractions), 1):
            given = ", ".join(map(str, self.fractions))
            raise UserError(f"dataset.fractions must be three numbers above 0 that add to 1, got ({given})")
        check_file(self.path, "dataset.path")

    def documents(self, split: str) -> list[str]:
        """Returns the one text of a split."""
        text = read_text(self.path, "dataset.path", any_bytes=self.unit == "bytes")
        whole = text.encode("utf-8", "surrogateescape") if self.unit == "bytes" else text
        train, valid, _ = self.fractions
        cuts = (0, round(len(whole) * train), round(len(whole) * (train + valid)), len(whole))
        index = SPLITS.index(known_split(split))
        piece = whole[cuts[index] : cuts[index + 1]]
        if not piece:
            raise UserError(
                f"dataset.path: {self.path} has {len(whole)} {self.unit}, too few: split {split!r} with "
                f"{self.fractions[index]:g} of them is empty; raise its fraction or give more text"
            )
        return [piece if isinstance(piece, str) else piece.decode("utf-8", "surrogateescape")]

    def describe(self) -> str:
        """Returns one line with the file's path."""
        fractions = " / ".join(f"{fraction:.4g}" for fraction in self.fractions)
        return f"text file: {self.path}, {fractions} of its {self.unit}"


@dataclasses.dataclass(frozen=True)
class IMDBReviews(TextDataset):
    """The texts of IMDB's reviews, in the same splits as the labelled ones; see `lstm_research.data.movie_reviews`.

    Attributes:
      max_documents: only so many of the training split, and the same share of the other splits. None: all.
    """

    max_documents: int | None = None

    def __post_init__(self) -> None:
        if self.max_documents is not None and self.max_documents < 1:
            raise UserError(f"dataset.max_documents must be None or at least 1, got {self.max_documents}")

    def documents(self, split: str) -> list[str]:
        """Returns the reviews of a split, a paragraph a line."""
        texts = [review.text for review in REVIEWS.load("imdb", split)]
        if self.max_documents is None:
            return texts
        return texts[: -(-len(texts) * self.max_documents // len(REVIEWS.load("imdb", "train")))]

    def describe(self) -> str:
        """Returns one line on the reviews."""
        return f"IMDB reviews, of the standard training part ({REVIEWS.source})"


@dataclasses.dataclass(frozen=True)
class Bible(TextDataset):
    """The World English Bible, a chapter a document, a verse a line; see `lstm_research.data.bible`."""

    def documents(self, split: str) -> list[str]:
        """Returns the chapters of a split."""
        return [chapter.text for chapter in CHAPTERS.load("en", split)]

    def describe(self) -> str:
        """Returns one line on the text."""
        return f"World English Bible ({CHAPTERS.source})"


def check_unit(section: Mapping[str, Any], vocabulary: Any) -> None:
    """Raises a `UserError` if a config's section `dataset` cuts its text in the middle of a vocabulary's symbols."""
    if section.get("unit") == "bytes" and vocabulary != "bytes":
        raise UserError(
            "dataset.unit='bytes' cuts the text inside of characters, for vocabulary.name='bytes'; set it to "
            f"'characters' for vocabulary.name={vocabulary!r}"
        )


DATASETS: dict[str, Any] = {
    "shakespeare": Shakespeare,
    "imdb_reviews": IMDBReviews,
    "bible": Bible,
    "text_files": TextFiles,
    "text_file": TextFile,
}
"""Every dataset of texts by the name that configs use."""
