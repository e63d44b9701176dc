"""What searches over prefixes share: their numbers, the best of many, and states that are stepped together."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from lstm_research.common.errors import UserError


class Labelling(NamedTuple):
    """What was recognised.

    Attributes:
      symbols: the symbols' numbers.
      frames: for each symbol the frame that stands for it.
      score: what the decoder ranks by.
    """

    symbols: tuple[int, ...]
    frames: tuple[int, ...]
    score: float


class Prefixes:
    """Sequences of symbols by number; 0 is the empty one. A sequence has one number, however often it is asked for."""

    def __init__(self) -> None:
        self._parents, self._symbols = [-1], [-1]
        self._children: dict[tuple[int, int], int] = {}

    def child(self, prefix: int, symbol: int) -> int:
        """Returns the number of a prefix and one more symbol."""
        number = self._children.setdefault((prefix, symbol), len(self._parents))
        if number == len(self._parents):
            self._parents.append(prefix)
            self._symbols.append(symbol)
        return number

    def parent(self, prefix: int) -> int:
        """Returns the number of a prefix without its last symbol; -1 for that of the empty one."""
        return self._parents[prefix]

    def read(self, prefix: int) -> tuple[int, ...]:
        """Returns the symbols of a prefix."""
        symbols = []
        while prefix:
            symbols.append(self._symbols[prefix])
            prefix = self._parents[prefix]
        return tuple(symbols[::-1])


def best_indices(scores: Float[np.ndarray, "n"], count: int) -> Int[np.ndarray, "m"]:
    """Returns where the `count` largest scores are, the largest first, of equal ones the first; none that is -inf."""
    indices = np.flatnonzero(scores > -np.inf)
    if len(indices) > count:
        indices = indices[scores[indices] >= np.partition(scores[indices], -count)[-count]]
    return indices[np.argsort(-scores[indices], kind="stable")][:count]


def check_beam(beam_size: int, num_best: int) -> None:
    """Raises a `UserError` for sizes that are none."""
    if beam_size < 1:
        raise UserError(f"beam_size must be at least 1, got {beam_size}")
    if not 1 <= num_best <= beam_size:
        raise UserError(f"num_best must be from 1 to beam_size ({beam_size}), got {num_best}")


def step_rows(step: Callable[..., Any], num_rows: int, *rows: Sequence[Any]) -> list[Any]:
    """Runs a function of a batch on single rows, and returns its results row by row, as NumPy arrays.

    Args:
      step: a jitted function of arrays (or trees of them) whose first axis is the batch.
      num_rows: rows of a batch, so that one program is compiled; more rows are several batches.
      *rows: for each argument the rows.
    """
    results: list[Any] = []
    for start in range(0, len(rows[0]), num_rows):
        some = [list(each[start : start + num_rows]) for each in rows]
        filled = [each + each[:1] * (num_rows - len(each)) for each in some]
        result = jax.device_get(step(*(jax.tree.map(lambda *leaves: np.stack(leaves), *each) for each in filled)))
        results += [jax.tree.map(lambda leaf, row=row: leaf[row], result) for row in range(len(some[0]))]
    return results
