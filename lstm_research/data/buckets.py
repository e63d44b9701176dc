"""Batches of sequences of similar length, so that little is padded and few shapes are compiled.

A bucket holds the sequences up to one boundary and above the one before; a batch is padded to its bucket's boundary, so
there are as many shapes as buckets. What the arrays of a batch are is the task's choice: its function `collate` is told
which examples a batch has.
"""

import functools
import sys
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch, Batches

Lengths = Int[np.ndarray, "N"] | Int[np.ndarray, "N 2"]
Collate = Callable[[Int[np.ndarray, "B"], Bool[np.ndarray, "B"], int], Batch]
"""`(indices [B], valid [B], length) -> batch`: the examples of a batch, padded to `length`.

Rows that are not valid only fill the batch, and must weigh nothing; their index is that of another row."""


def limit_lengths(
    lengths: Lengths, *, max_length: int, truncate: bool, where: str, trained: bool = False
) -> tuple[Lengths, int]:
    """Applies the longest length that a config allows.

    Args:
      lengths: [N], or [N, 2] for pairs.
      max_length: the longest length.
      truncate: whether longer sequences are cut (the end is lost) rather than refused.
      where: where the sequences come from, for the message, as in "split 'train'".
      trained: whether the config is that of a run that has been trained, which cannot be changed any more.

    Returns:
      The lengths after cutting, and how many examples were cut.

    Raises:
      UserError: `max_length` is below 1, or sequences are longer and must not be cut; the message counts them.
    """
    if max_length < 1:
        raise UserError(f"task.max_length must be at least 1, got {max_length}")
    num_cut = int((_larger(lengths) > max_length).sum())
    if num_cut and not truncate:
        way_out = "shorten or divide them" if trained else "raise it, or have them cut by task.truncate=True"
        raise UserError(
            f"{where}: {num_cut:,} of {len(lengths):,} sequences are longer than task.max_length={max_length} "
            f"(the longest: {lengths.max():,}); {way_out}"
        )
    return np.minimum(lengths, max_length), num_cut


class _Buckets(Batches):
    """What training and evaluation share: the bucket of every example, and rows that fill a batch."""

    def __init__(self, lengths: Lengths, collate: Collate, *, batch_size: int, boundaries: Sequence[int]) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.boundaries = tuple(boundaries)
        if not self.boundaries or self.boundaries[0] < 1 or (np.diff(self.boundaries) < 1).any():
            raise UserError(f"boundaries must be positive and increasing, got {self.boundaries}")
        self._lengths = _larger(lengths)
        self._collate = collate
        too_long = int((self._lengths > self.boundaries[-1]).sum())
        if too_long:
            raise UserError(
                f"{too_long:,} of {len(self._lengths):,} sequences are longer than the largest boundary, "
                f"{self.boundaries[-1]} (the longest: {self._lengths.max():,}); give a larger one, or cut the sequences"
            )
        self._buckets = np.searchsorted(self.boundaries, self._lengths)  # the first boundary that is not below

    def _collated(self, examples: Int[np.ndarray, "n"], bucket: int) -> Batch:
        """Returns the batch of at most B examples."""
        indices = np.full(self.batch_size, examples[0])
        indices[: len(examples)] = examples
        return self._collate(indices, np.arange(self.batch_size) < len(examples), self.boundaries[bucket])


class TrainingBuckets(_Buckets):
    """Training batches: item k is the batch of training step k, a pure function of (seed, k), without end.

    Every example is in exactly one valid row of an epoch of `batches_per_epoch` batches. Each epoch shuffles the
    examples of every bucket, cuts them in batches, and shuffles the batches of all buckets. The last batch of a bucket
    is filled with rows that are not valid.

    Args:
      lengths: of the sequences, [N]; for pairs (source, target) [N, 2], of which the larger counts. Symbols that
        `collate` adds, such as the end of a target, count too. 0 is legal.
      collate: makes the arrays of a batch, see `Collate`.
      batch_size: B, the number of rows.
      boundaries: the increasing largest lengths of the buckets.
      seed: of the shuffling.

    Raises:
      UserError: no example, one that is longer than the largest boundary (the message counts them), or a number that
        cannot be.
    """

    def __init__(
        self, lengths: Lengths, collate: Collate, *, batch_size: int, boundaries: Sequence[int], seed: int
    ) -> None:
        super().__init__(lengths, collate, batch_size=batch_size, boundaries=boundaries)
        if seed < 0:
            raise UserError(f"seed must be 0 or more, got {seed}")
        if not len(self._lengths):
            raise UserError("there are no examples to train on")
        self.seed = seed
        counts = np.bincount(self._buckets, minlength=len(self.boundaries))
        self._members = np.split(np.argsort(self._buckets, kind="stable"), np.cumsum(counts)[:-1])
        self._ends = np.cumsum(-(-counts // batch_size))  # the number of batches up to and with each bucket
        self.batches_per_epoch = int(self._ends[-1])

    def __len__(self) -> int:
        return sys.maxsize

    def _batch(self, index: int) -> Batch:
        epoch, index = divmod(index, self.batches_per_epoch)
        number = int(_permutation(self.seed, epoch, 0, self.batches_per_epoch)[index])
        bucket = int(np.searchsorted(self._ends, number, side="right"))
        members = self._members[bucket]
        last = int(self._ends[bucket]) - number  # 1: the last batch of the bucket
        first = (-(-len(members) // self.batch_size) - last) * self.batch_size
        order = _permutation(self.seed, epoch, 1 + bucket, len(members))
        return self._collated(members[order[first : first + self.batch_size]], bucket)


class EvaluationBuckets(_Buckets):
    """Evaluation batches: a finite sequence in which every example is in exactly one valid row.

    Examples come longest first, those of one length in their own order: row b of batch k holds the example
    `order[k B + b]`, and what lies beyond the last example is not valid. A batch has the boundary of its first row.

    Args:
      lengths: as for `TrainingBuckets`.
      collate: as for `TrainingBuckets`.
      batch_size: B, the number of rows.
      boundaries: the increasing largest lengths of the buckets.

    Attributes:
      order: int [N], the examples in the order of the rows.

    Raises:
      UserError: as for `TrainingBuckets`, but no example makes no batch.
    """

    def __init__(self, lengths: Lengths, collate: Collate, *, batch_size: int, boundaries: Sequence[int]) -> None:
        super().__init__(lengths, collate, batch_size=batch_size, boundaries=boundaries)
        self.order = np.argsort(-self._lengths, kind="stable")

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def _batch(self, index: int) -> Batch:
        examples = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self._collated(examples, int(self._buckets[examples[0]]))


def _larger(lengths: Lengths) -> Int[np.ndarray, "N"]:
    return lengths if lengths.ndim == 1 else lengths.max(axis=1)


@functools.lru_cache(maxsize=32)
def _permutation(seed: int, epoch: int, part: int, count: int) -> Int[np.ndarray, "N"]:
    """The order, in one epoch, of all batches (part 0) or of the examples of a bucket (1 and more)."""
    return np.random.default_rng([seed, epoch, part]).permutation(count)
