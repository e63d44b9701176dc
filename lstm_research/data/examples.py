"""What an example is, in datasets of each kind."""

import unicodedata
from typing import NamedTuple


class Document(NamedTuple):
    """A text with its title."""

    title: str
    text: str


class LabelledText(NamedTuple):
    """A text and its label: an index into the dataset's labels, or a score where it has none."""

    text: str
    label: int | float


class Pair(NamedTuple):
    """A sentence in two languages."""

    source: str
    target: str


class SentencePair(NamedTuple):
    """A sentence and its translations: one where it is for training, otherwise all there are."""

    source: str
    references: tuple[str, ...]


def normalize(text: str) -> str:
    """Returns a text with single spaces and composed letters (Unicode NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).split())
