"""Texts as sequences of ids that fit the lengths of a config: what every task does that reads whole texts."""

from collections.abc import Sequence

import numpy as np

from lstm_research.common.errors import UserError
from lstm_research.data.buckets import limit_lengths
from lstm_research.data.vocabulary import Vocabulary


def encode_texts(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    *,
    max_length: int,
    truncate: bool,
    where: str,
    noun: str = "text",
    num_ends: int = 0,
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Encodes texts.

    Args:
      vocabulary: what encodes them.
      texts: any number; an empty one has no ids.
      max_length: the longest length, end symbols included.
      truncate: whether longer ones are cut.
      where: where they come from, for messages, as in "split 'train'".
      noun: what one of them is, for messages.
      num_ends: end symbols that are still to be added to each.

    Returns:
      The ids of each, without end symbols; their lengths int32 [N], with these; and how many were cut.

    Raises:
      UserError: a text has symbols that the vocabulary neither has nor replaces, or is too long.
    """
    tokens = []
    for number, text in enumerate(texts, 1):
        try:
            tokens.append(vocabulary.encode_line(text))
        except UserError as error:
            raise UserError(f"{where}, {noun} {number}: {error}") from error
    lengths = np.array([len(each) + num_ends for each in tokens], np.int32)
    lengths, num_cut = limit_lengths(lengths, max_length=max_length, truncate=truncate, where=where)
    return [each[: n - num_ends] for each, n in zip(tokens, lengths, strict=True)], lengths, num_cut


def make_boundaries(bucket_boundaries: tuple[int, ...], max_length: int) -> tuple[int, ...]:
    """Returns the lengths that texts are padded to: those of the config below `max_length`, and that.

    Raises:
      UserError: the boundaries are not positive and increasing.
    """
    if any(b < 1 for b in bucket_boundaries) or sorted(set(bucket_boundaries)) != list(bucket_boundaries):
        raise UserError(f"task.bucket_boundaries must be positive and increasing, got {bucket_boundaries}")
    return (*(b for b in bucket_boundaries if b < max_length), max_length)
