"""The language of `get_hyper`: lists of trials, made of sweeps over single keys."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lstm_research.common.errors import UserError

Point = dict[str, Any]
"""Overrides of a trial: values by dotted config key."""


class Hyper:
    """What `get_hyper` is called with: each method returns a list of points, in the manner of big_vision."""

    def sweep(self, key: str, values: Iterable[Any]) -> list[Point]:
        """Returns a point for each value of one key.

        Args:
          key: dotted config key, as `model.cell.hidden_size`.
          values: what a config can hold: numbers, bools, texts, None, tuples of these.
        """
        return [{_key(key): plain_value(key, value)} for value in values]

    def fixed(self, key: str, value: Any, length: int = 1) -> list[Point]:
        """Returns `length` points that give a key the same value."""
        return self.sweep(key, [value] * length)

    def product(self, sweeps: Sequence[Sequence[Point]]) -> list[Point]:
        """Returns every combination of one point from each of the sweeps, the last changing first."""
        return [_merge(parts) for parts in itertools.product(*sweeps)]

    def zipit(self, sweeps: Sequence[Sequence[Point]]) -> list[Point]:
        """Returns the sweeps side by side: the first points of all, the second points of all, and so on.

        Raises:
          UserError: they are not equally long.
        """
        lengths = [len(sweep) for sweep in sweeps]
        if len(set(lengths)) > 1:
            raise UserError(f"zipit needs sweeps of equal length, got {', '.join(map(str, lengths))}")
        return [_merge(parts) for parts in zip(*sweeps, strict=True)]

    def chainit(self, sweeps: Sequence[Sequence[Point]]) -> list[Point]:
        """Returns the sweeps one after another."""
        return [dict(point) for sweep in sweeps for point in sweep]


def check_points(points: Any) -> tuple[Point, ...]:
    """Returns what `get_hyper` gave.

    Raises:
      UserError: it is no list of dicts by key, it is empty, or a point comes twice.
    """
    if not isinstance(points, Sequence) or not all(isinstance(point, Mapping) for point in points):
        raise UserError(f"get_hyper must return a list of dicts by config key, got {type(points).__name__}")
    if not points:
        raise UserError("get_hyper returns no points; give at least one")
    found: dict[str, Point] = {}
    for point in points:
        checked = {_key(key): plain_value(key, value) for key, value in point.items()}
        known = found.setdefault(repr(sorted(checked.items())), checked)
        if known is not checked:
            text = ", ".join(f"{key}={value!r}" for key, value in checked.items())
            raise UserError(f"get_hyper returns a point twice: {text}; the two trials would be the same")
    return tuple(found.values())


def plain_value(key: str, value: Any) -> Any:
    """Returns a value in the types of a config: NumPy's scalars as Python's, lists as tuples.

    Raises:
      UserError: a config cannot hold it.
    """
    if isinstance(value, tuple | list):
        return tuple(plain_value(key, item) for item in value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{key}: a config cannot hold {type(value).__name__} {value!r}; give numbers, texts, None, tuples")


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same for a config, to which 1, 1.0 and True are three."""
    return repr(one) == repr(other)


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key:
        raise UserError(f"a config key is a text like 'optimizer.learning_rate', got {key!r}")
    return key


def _merge(parts: Iterable[Point]) -> Point:
    merged: Point = {}
    for part in parts:
        for key in part:
            if key in merged:
                raise UserError(f"{key} comes from two of the sweeps that are put together; give it in one")
        merged |= part
    return merged
