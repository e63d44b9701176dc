"""What an example is, in datasets of each kind."""

import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


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


class Utterance(NamedTuple):
    """Something said.

    Attributes:
      name: of the utterance, for people.
      signal: a waveform, int16 [N]; or features of its frames, float32 [T, D].
      transcript: what is said; nothing where nobody speaks.
    """

    name: str
    signal: Int[np.ndarray, "N"] | Float[np.ndarray, "T D"]
    transcript: str


class Observations(NamedTuple):
    """What was observed of one variable.

    Attributes:
      variable: its name.
      times: int64 [N], seconds since 1970.
      values: float64 [N], NaN where nothing was observed.
    """

    variable: str
    times: Int[np.ndarray, "N"]
    values: Float[np.ndarray, "N"]


def normalize(text: str) -> str:
    """Returns a text with single spaces and composed letters (Unicode NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).split())
