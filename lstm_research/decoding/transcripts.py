"""What was recognised in words, and when each of them was heard."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.text import RunningText, printable

_WORD = re.compile(r"\S+")


class Word(NamedTuple):
    """A word of a transcript and when it was heard, in seconds; in frames where the features' rate is not known."""

    text: str
    begin: float
    end: float


class Transcript(NamedTuple):
    """What was recognised in a recording.

    Attributes:
      text: in words; U+FFFD for bytes that are not UTF-8.
      score: what the decoder ranks by.
      words: with their times, from the first of a word's symbols to the last.
      symbols: their numbers.
      steps: for each of them the output of the encoder that stands for it.
    """

    text: str
    score: float
    words: tuple[Word, ...]
    symbols: tuple[int, ...]
    steps: tuple[int, ...]


def transcribed(labelling: Labelling, vocabulary: Any, step_seconds: float) -> Transcript:
    """Returns what was recognised in words, with times, in time that is linear in its symbols.

    Args:
      labelling: what a decoder found.
      vocabulary: of its symbols.
      step_seconds: from one output of the encoder to the next.
    """
    symbols, steps = tuple(labelling.symbols), tuple(labelling.frames)
    text = vocabulary.decode(symbols)
    begins, ends = _places(vocabulary, symbols, text)
    text = printable(text)  # which moves no character
    found = list(_WORD.finditer(text))
    # The symbols of a word: those that end behind its begin, and begin before its end.
    firsts = np.searchsorted(ends, [word.start() for word in found], "right").tolist()
    lasts = np.searchsorted(begins, [word.end() for word in found], "left").tolist()
    words = []
    for word, first, last in zip(found, firsts, lasts, strict=True):
        heard = steps[first:last]
        words.append(Word(word[0], min(heard) * step_seconds, (max(heard) + 1) * step_seconds))
    return Transcript(text, labelling.score, tuple(words), symbols, steps)


def _places(vocabulary: Any, symbols: Sequence[int], text: str) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Returns where in their text the symbols are: the first character of each, and that behind its last."""
    if vocabulary.kind == "bytes":  # each has the place of the character that it is a part of
        sizes = np.array([len(vocabulary.encode(character)) for character in text], np.int64)
        begins = np.repeat(np.arange(len(text)), sizes)
        return begins, begins + 1
    running = RunningText(vocabulary)
    sizes = np.array([len(running.read([symbol])) for symbol in symbols], np.int64)
    ends = np.cumsum(sizes)
    return ends - sizes, ends
