"""Utterances as batches: features of frames, and the symbols of their transcripts."""

import string
import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.data.batches import Batch
from lstm_research.data.examples import normalize


class EncodedUtterances(NamedTuple):
    """Utterances as a model reads and writes them.

    Attributes:
      frames: features `[T, D]` of each.
      labels: the symbols of each transcript.
      lengths: frames of each.
      label_lengths: symbols of each.
      transcripts: as they are scored; a vocabulary may have lost some of them in `labels`.
    """

    frames: list[np.ndarray]
    labels: list[np.ndarray]
    lengths: Int[np.ndarray, "N"]
    label_lengths: Int[np.ndarray, "N"]
    transcripts: list[str]

    def part(self, which: slice) -> "EncodedUtterances":
        """Returns some of the utterances."""
        return EncodedUtterances._make(field[which] for field in self)


def collate_utterances(
    utterances: EncodedUtterances, indices: Int[np.ndarray, "B"], valid: Bool[np.ndarray, "B"], length: int
) -> Batch:
    """Returns a batch: `frames` float32 `[B, T, D]` and `lengths` `[B]`, `labels` int32 `[B, U]` and `label_lengths`.

    U is that of the longest transcript of the utterances that are no longer than `length`, so batches of one `length`
    have one shape. `weights` float32 `[B]` is 0 in rows that are not valid.
    """
    longest = utterances.label_lengths[utterances.lengths <= length].max(initial=0)
    frames = np.zeros((len(indices), length, utterances.frames[0].shape[1]), np.float32)
    labels = np.zeros((len(indices), longest), np.int32)
    for row, index in enumerate(indices):
        frames[row, : utterances.lengths[index]] = utterances.frames[index]
        labels[row, : len(utterances.labels[index])] = utterances.labels[index]
    return {
        "frames": frames,
        "lengths": utterances.lengths[indices].astype(np.int32),
        "labels": labels,
        "label_lengths": utterances.label_lengths[indices].astype(np.int32),
        "weights": valid.astype(np.float32),
    }


def written_alike(transcript: str, *, lower_case: bool, punctuation: bool) -> str:
    """Returns a transcript with single spaces and composed letters; in lower case, and without signs, if so wanted.

    Signs are all of Unicode's punctuation and symbols but apostrophes inside of words.
    """
    text = normalize(transcript.lower() if lower_case else transcript)
    if punctuation:
        return text
    kept = "".join(" " if _is_sign(character) and character not in "'’" else character for character in text)
    words = (word.strip("'’" + string.punctuation) for word in kept.split())
    return " ".join(word for word in words if word)


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
