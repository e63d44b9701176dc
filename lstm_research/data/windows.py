"""Batches of consecutive windows of a token stream, so that the recurrent state is carried from window to window.

All documents of a split are joined to one stream of N tokens. The stream is cut in B long rows; a batch is one window
of T tokens from every row, and the next batch continues every row where the last one ended::

    row 0   | window 0 | window 1 | window 2 | ...
    row 1   | window 0 | window 1 | window 2 | ...

The arrays of a batch are batch-major: `inputs`, `targets` int32 [B, T], `resets` bool [B, T], `weights` float32 [B, T].
`targets[b, t]` is the token after `inputs[b, t]`. Where an input is the first token of a document, `resets` is true:
the state becomes the initial state before that step. Where a target is the first token of a document, nothing in the
document precedes it, and its weight is 0.
"""

import functools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch, Batches


class TokenStream(NamedTuple):
    """The documents of one split, one after another."""

    tokens: Int[np.ndarray, "N"]
    starts: Bool[np.ndarray, "N"]  # true at the first token of a document

    @property
    def num_targets(self) -> int:
        """The number of tokens that have a predecessor in their own document."""
        return len(self.tokens) - int(self.starts.sum())


def join_documents(documents: Sequence[Int[np.ndarray, "_"]]) -> TokenStream:
    """Joins encoded documents, each int [length], to one stream. Empty documents leave no trace."""
    filled = [np.asarray(document, np.int32) for document in documents if len(document)]
    tokens = np.concatenate(filled) if filled else np.zeros(0, np.int32)
    starts = np.zeros(len(tokens), bool)
    starts[np.cumsum([0, *map(len, filled)])[:-1]] = True
    return TokenStream(tokens, starts)


@functools.lru_cache(maxsize=64)
def _offset(seed: int, epoch: int, num_tokens: int) -> int:
    """The position in the stream at which an epoch begins."""
    return int(np.random.default_rng([seed, epoch]).integers(num_tokens))


@functools.lru_cache(maxsize=64)
def _cuts(
    num_windows: int,
    row_length: int,
    unroll_length: int,
    deviation: float | None,
    short_rate: float,
    seed: int,
    epoch: int,
) -> Int[np.ndarray, "_"]:
    """Where in a row the windows of an epoch begin, and where the last one ends."""
    if deviation is None:
        return np.arange(num_windows + 1) * unroll_length
    rng = np.random.default_rng([seed, epoch, 2])
    means = np.where(rng.random(num_windows) < short_rate, unroll_length / 2, unroll_length)
    lengths = np.clip(np.round(rng.normal(means, deviation)), 5, unroll_length + 3 * deviation)
    ends = np.cumsum(lengths)
    return np.round(np.append(0, ends) * (row_length / ends[-1])).astype(np.int64)


class _Windows(Batches):
    """What training and evaluation windows share: the stream and its measures."""

    def __init__(
        self, documents: Sequence[Int[np.ndarray, "_"]], *, batch_size: int, unroll_length: int, split: str
    ) -> None:
        super().__init__()
        for name, value in (("batch size", batch_size), ("unroll_length", unroll_length)):
            if value < 1:
                raise UserError(f"the {name} of split {split!r} must be at least 1, got {value}")
        self.stream = join_documents(documents)
        self.batch_size = batch_size
        self.unroll_length = unroll_length
        self.split = split


class ContiguousWindows(_Windows):
    """Training batches: item k is the batch of training step k, a pure function of (seed, k), without end.

    An epoch has `windows_per_epoch` = N // (B T) batches. Each epoch rotates the stream by its own seeded offset, so
    windows are cut at other places and another tail (of fewer than B T tokens) is left out; every other token is a
    target exactly once. The first window of an epoch resets every row. Where the rotation wraps, the stream's first
    document begins, as at any other document boundary.

    With `unroll_deviation` σ, windows have lengths of their own, so that they are cut at other places in every epoch
    (Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", 2018): about T, or T / 2 with
    probability `short_rate`, drawn from a normal distribution with deviation σ, at least 5 and at most T + 3 σ. An
    epoch has a fixed number of windows all the same, N / B divided by the mean length: its lengths are scaled, by a
    factor close to one, to fill the rows, and fewer than B tokens are left out. Batches then also have `lengths` int32
    [B], the number of steps of the window. Beyond them, up to the next multiple of 2 σ, is padding of weight 0: a
    multiple of 10 steps for the paper's σ = 5, and about eight shapes to compile whatever σ is.

    Args:
      documents: the encoded documents, each int [length].
      batch_size: B, the number of rows.
      unroll_length: T, the number of steps in a window.
      seed: picks the offsets.
      reset_rate: the probability that a row is reset at the start of a window, drawn from (seed, step). Without it a
        model sees the initial state once an epoch, and may not know what to do from there when it is evaluated.
      unroll_deviation: σ; None: every window has T steps.
      short_rate: the probability that a window has about T / 2 steps; nothing without `unroll_deviation`.
      split: the name of the split, for messages.

    Raises:
      UserError: the split has fewer than B T tokens, or a number that cannot be.
    """

    def __init__(
        self,
        documents: Sequence[Int[np.ndarray, "_"]],
        *,
        batch_size: int,
        unroll_length: int,
        seed: int,
        reset_rate: float = 0.0,
        unroll_deviation: float | None = None,
        short_rate: float = 0.05,
        split: str = "train",
    ) -> None:
        super().__init__(documents, batch_size=batch_size, unroll_length=unroll_length, split=split)
        if seed < 0:
            raise UserError(f"seed must be 0 or more, got {seed}")
        self.seed = seed
        self.reset_rate = reset_rate
        needed = batch_size * unroll_length
        if len(self.stream.tokens) < needed or not self.stream.num_targets:
            raise UserError(
                f"split {split!r} has {len(self.stream.tokens):,} tokens, shorter than one window: batch_size × "
                f"unroll_length = {batch_size} × {unroll_length} = {needed:,}; reduce one of them or give more text"
            )
        row_length, mean_length = len(self.stream.tokens) // batch_size, unroll_length * (1 - short_rate / 2)
        if unroll_deviation is None:
            self.windows_per_epoch = row_length // unroll_length
            row_length = self.windows_per_epoch * unroll_length
        elif not 0 < unroll_deviation <= unroll_length / 2 or unroll_length < 10:
            raise UserError(
                "task.unroll_deviation must be above 0 and at most half of task.unroll_length, which must then be at "
                f"least 10; got {unroll_deviation} and {unroll_length}"
            )
        elif not 0 <= short_rate <= 1:
            raise UserError(f"task.short_rate must be between 0 and 1, got {short_rate}")
        else:
            self.windows_per_epoch = math.ceil(row_length / mean_length)
        self.unroll_deviation = unroll_deviation
        self._rows = np.arange(batch_size)[:, None] * row_length  # where they begin in the stream, before rotation
        self._cuts = functools.partial(
            _cuts, self.windows_per_epoch, row_length, unroll_length, unroll_deviation, short_rate, seed
        )

    def __len__(self) -> int:
        return sys.maxsize

    def _batch(self, index: int) -> Batch:
        epoch, window = divmod(index, self.windows_per_epoch)
        first, end = self._cuts(epoch)[window : window + 2]
        num_tokens = len(self.stream.tokens)
        # One more than the steps: from each row's first input to its last target.
        positions = (self._rows + np.arange(first - 1, end) + _offset(self.seed, epoch, num_tokens)) % num_tokens
        tokens = self.stream.tokens[positions]
        starts = self.stream.starts[positions]
        resets = starts[:, :-1].copy()
        if window == 0:
            resets[:, 0] = True
        elif self.reset_rate > 0:
            resets[:, 0] |= np.random.default_rng([self.seed, index, 1]).random(self.batch_size) < self.reset_rate
        batch = {
            "inputs": tokens[:, :-1].copy(),
            "targets": tokens[:, 1:].copy(),
            "resets": resets,
            "weights": np.logical_not(starts[:, 1:]).astype(np.float32),
        }
        if self.unroll_deviation is not None:
            padding = -(end - first) % math.ceil(2 * self.unroll_deviation)
            batch = {key: np.pad(array, ((0, 0), (0, padding))) for key, array in batch.items()}
            batch["lengths"] = np.full(self.batch_size, end - first, np.int32)
        return batch


class EvaluationWindows(_Windows):
    """Evaluation batches: a finite sequence in which every target of the split has weight 1 exactly once.

    Row b holds the positions b R to (b + 1) R of the stream, R = ⌈N / B⌉; its first input is the token before its
    first target, so no target is lost between rows, whatever B is. What lies beyond a row's or the stream's end is
    padding (token 0, weight 0). The first token of a document has no context and is not counted. A row that begins
    inside a document begins with the initial state; fewer rows cut fewer contexts.

    Args:
      documents: the encoded documents, each int [length].
      batch_size: B, the number of rows.
      unroll_length: T, the number of steps in a window.
      split: the name of the split, for messages.

    Raises:
      UserError: the split is shorter than one window, that is, it has at most T tokens.
    """

    def __init__(
        self,
        documents: Sequence[Int[np.ndarray, "_"]],
        *,
        batch_size: int,
        unroll_length: int,
        split: str,
    ) -> None:
        super().__init__(documents, batch_size=batch_size, unroll_length=unroll_length, split=split)
        num_tokens = len(self.stream.tokens)
        if num_tokens <= unroll_length or not self.stream.num_targets:
            raise UserError(
                f"split {split!r} has {num_tokens:,} tokens, shorter than one window of unroll_length + 1 = "
                f"{unroll_length + 1:,}; reduce the unroll_length or give more text"
            )
        self.num_targets = self.stream.num_targets
        self._row_length = -(-num_tokens // batch_size)
        self._num_windows = -(-self._row_length // unroll_length)

    def __len__(self) -> int:
        return self._num_windows

    def _batch(self, index: int) -> Batch:
        num_tokens = len(self.stream.tokens)
        in_row = index * self.unroll_length + np.arange(self.unroll_length)  # [T]
        targets = np.arange(self.batch_size)[:, None] * self._row_length + in_row[None, :]  # [B, T] positions
        real = (in_row[None, :] < self._row_length) & (targets < num_tokens)
        target_positions = np.where(real, targets, 0)
        has_input = real & (targets > 0)
        input_positions = np.where(has_input, targets - 1, 0)
        resets = self.stream.starts[input_positions] & has_input
        if index == 0:
            resets[:, 0] = True
        return {
            "inputs": np.where(has_input, self.stream.tokens[input_positions], 0).astype(np.int32),
            "targets": np.where(real, self.stream.tokens[target_positions], 0).astype(np.int32),
            "resets": resets,
            "weights": (real & ~self.stream.starts[target_positions]).astype(np.float32),
        }
