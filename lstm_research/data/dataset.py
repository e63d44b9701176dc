"""What every dataset is, whatever its examples are: splits, a description and a fingerprint."""

import abc
import hashlib
import json
from collections.abc import Iterable
from typing import ClassVar

from lstm_research.common.errors import UserError, unknown

SPLITS = ("train", "valid", "test")


class Dataset(abc.ABC):
    """Examples in the splits train, valid and test.

    Attributes:
      splits: the names of the splits.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns one line: what the dataset is, where it comes from and under which licence."""

    @abc.abstractmethod
    def contents(self, split: str) -> Iterable[str]:
        """Returns all that the examples of a split hold, as one text an example."""

    def fingerprint(self) -> str:
        """Returns the sha256 of all examples of all splits, in hexadecimal: equal exactly if the data is equal."""
        digest = hashlib.sha256()
        for split in self.splits:
            for text in self.contents(split):
                data = text.encode("utf-8", "surrogatepass")
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


def known_split(split: str) -> str:
    """Returns `split` if there is one of this name, and raises a `UserError` otherwise."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return split
