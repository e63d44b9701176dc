"""Texts as sequences of ids that fit the lengths of a config: what every task does that reads whole texts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch
from lstm_research.data.buckets import limit_lengths
from lstm_research.data.vocabulary import Vocabulary


def encode_texts(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    *,
    max_length: int,
    truncate: bool,
    where: str,
    trained: bool = False,
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
      trained: see `limit_lengths`.
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
    lengths, num_cut = limit_lengths(lengths, max_length=max_length, truncate=truncate, where=where, trained=trained)
    return [each[: n - num_ends] for each, n in zip(tokens, lengths, strict=True)], lengths, num_cut


def make_boundaries(bucket_boundaries: tuple[int, ...], max_length: int) -> tuple[int, ...]:
    """Returns the lengths that texts are padded to: those of the config below `max_length`, and that.

    Raises:
      UserError: the boundaries are not positive and increasing.
    """
    if any(b < 1 for b in bucket_boundaries) or sorted(set(bucket_boundaries)) != list(bucket_boundaries):
        raise UserError(f"task.bucket_boundaries must be positive and increasing, got {bucket_boundaries}")
    return (*(b for b in bucket_boundaries if b < max_length), max_length)


class EncodedPairs(NamedTuple):
    """Encoded sentences with their translations, which begin and end with the end symbol.

    Attributes:
      sources: the ids of each sentence.
      targets: those of its translation.
      lengths: symbols to read, and to predict.
    """

    sources: list[np.ndarray]
    targets: list[np.ndarray]
    lengths: Int[np.ndarray, "N 2"]


def collate_sources(
    pairs: EncodedPairs, indices: Int[np.ndarray, "B"], valid: Bool[np.ndarray, "B"], length: int
) -> Batch:
    """Returns the sentences of a batch: `source` int32 `[B, S]` and `source_lengths` int32 `[B]`; see `Collate`."""
    source = np.zeros((len(indices), length), np.int32)
    for row, index in enumerate(indices):
        source[row, : len(pairs.sources[index])] = pairs.sources[index]
    lengths = np.array([len(pairs.sources[index]) for index in indices], np.int32)
    return {"source": source, "source_lengths": lengths}


def collate_pairs(
    pairs: EncodedPairs, indices: Int[np.ndarray, "B"], valid: Bool[np.ndarray, "B"], length: int
) -> Batch:
    """Returns a batch of pairs: what `collate_sources` does, with translations.

    `inputs` int32 `[B, T]` are the end symbol, then the translation; `targets` int32 `[B, T]` the translation, then the
    end symbol; `weights` float32 `[B, T]` are 0 on padding and in rows that are not valid.
    """
    inputs, targets = np.zeros((2, len(indices), length), np.int32)
    for row, index in enumerate(indices):
        count = pairs.lengths[index, 1]
        inputs[row, :count], targets[row, :count] = pairs.targets[index][:-1], pairs.targets[index][1:]
    weights = valid[:, None] & (np.arange(length) < pairs.lengths[indices, 1:])
    batch = collate_sources(pairs, indices, valid, length)
    return {**batch, "inputs": inputs, "targets": targets, "weights": weights.astype(np.float32)}
