"""The language of `get_space`: parameters with ranges, some of which exist only beside certain values of another."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lstm_research.common.errors import UserError
from lstm_research.sweeps.points import Point, plain_value, same

Condition = tuple[str, tuple[Any, ...]]
"""A categorical key, and the values of it that are meant."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One searched key.

    Attributes:
      key: dotted config key.
      kind: "float", "integer" or "categorical".
      low: least value of a number.
      high: greatest value of a number, itself included.
      log: whether a number is searched in its logarithm.
      values: of a categorical.
      conditions: all must hold for the parameter to exist.
    """

    key: str
    kind: str
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    values: tuple[Any, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """The key; with the conditions where there are any, since a key may have a range for each."""
        conditions = [f"{key}={'|'.join(map(str, values))}" for key, values in self.conditions]
        return f"{self.key} [{', '.join(conditions)}]" if conditions else self.key

    @property
    def ends(self) -> tuple[Any, ...]:
        """The two ends of a range, or all values of a categorical."""
        return self.values if self.kind == "categorical" else (self.low, self.high)

    def exists_beside(self, point: Mapping[str, Any]) -> bool:
        """Whether all conditions hold in a point."""
        return all(key in point and any(same(point[key], value) for value in values) for key, values in self.conditions)

    def to_json(self) -> dict[str, Any]:
        """Returns the parameter in types that JSON has."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Parameter":
        """Returns the parameter that `to_json` described."""
        values = plain_value(content["key"], content["values"])
        conditions = tuple((key, plain_value(key, wanted)) for key, wanted in content["conditions"])
        return cls(**{**content, "values": values, "conditions": conditions})


class Space:
    """What `get_space` is called with: each method returns a parameter, `conditional` a list of them."""

    def uniform(self, key: str, low: float | int, high: float | int) -> Parameter:
        """Returns a number from a range, its ends included."""
        return _number(key, "float", low, high, log=False)

    def log_uniform(self, key: str, low: float | int, high: float | int) -> Parameter:
        """Returns a positive number from a range, uniform in its logarithm."""
        return _number(key, "float", low, high, log=True)

    def integer(self, key: str, low: int, high: int, log: bool = False) -> Parameter:
        """Returns a whole number from a range, its ends included; with `log`, uniform in its logarithm."""
        return _number(key, "integer", low, high, log=log)

    def categorical(self, key: str, values: Sequence[Any]) -> Parameter:
        """Returns one of several values, of any kind that a config can hold.

        Raises:
          UserError: there are none, or one comes twice.
        """
        plain = tuple(plain_value(key, value) for value in values)
        if not plain:
            raise UserError(f"{key}: a categorical needs at least one value")
        for one, other in itertools.combinations(plain, 2):
            if same(one, other) or storable(one) == storable(other):
                raise UserError(f"{key}: the values {one!r} and {other!r} of a categorical cannot be told apart")
        return Parameter(key, "categorical", values=plain)

    def conditional(self, key: str, values: Sequence[Any], parameters: Sequence[Any]) -> list[Parameter]:
        """Returns parameters that exist only where the categorical `key` has one of `values`."""
        condition = (key, tuple(plain_value(key, value) for value in values))
        return [
            dataclasses.replace(parameter, conditions=(condition, *parameter.conditions))
            for parameter in _flat(parameters)
        ]


def check_space(parameters: Any) -> tuple[Parameter, ...]:
    """Returns the parameters that `get_space` gave, those of conditionals among the others.

    Raises:
      UserError: something else is in the list, a condition names no categorical before it or none of its values, or
        a key could get two values at once.
    """
    if not isinstance(parameters, Sequence):
        raise UserError(f"get_space must return a list of parameters, got {type(parameters).__name__}")
    found = _flat(parameters)
    if not found:
        raise UserError("get_space returns no parameters; give at least one")
    for i, parameter in enumerate(found):
        for key, values in parameter.conditions:
            parents = [other for other in found[:i] if other.key == key and other.kind == "categorical"]
            if not parents:
                raise UserError(f"{parameter.key}: its condition needs a categorical {key!r} before it in the list")
            for value in values:
                if not any(same(value, possible) for parent in parents for possible in parent.values):
                    raise UserError(f"{parameter.key}: its condition {key}={value!r} is no value of that categorical")
        for other in found[:i]:
            if other.key == parameter.key and not _exclude_one_another(other, parameter):
                raise UserError(f"{parameter.key} is given twice, and no condition keeps the two apart")
    return tuple(found)


def choose(parameters: Sequence[Parameter], value_of: Callable[[Parameter], Any]) -> Point:
    """Returns a point: in order, the value of every parameter that exists beside those before it."""
    point: Point = {}
    for parameter in parameters:
        if parameter.exists_beside(point):
            point[parameter.key] = value_of(parameter)
    return point


def corners(parameters: Sequence[Parameter]) -> Iterator[Point]:
    """Yields points in which every parameter has each of its ends once, and the others their first one."""
    for parameter in parameters:
        needed = {key: values[0] for key, values in parameter.conditions}
        for end in parameter.ends:
            wanted = {**needed, parameter.key: end}

            def value_of(each: Parameter, wanted: Point = wanted) -> Any:
                # A key may have another parameter elsewhere, whose values are others.
                fits = each.key in wanted and (
                    each.kind != "categorical" or any(same(wanted[each.key], value) for value in each.values)
                )
                return wanted[each.key] if fits else each.ends[0]

            yield choose(parameters, value_of)


def grid(parameters: Sequence[Parameter]) -> tuple[Point, ...]:
    """Returns every point of a space that has no range of fractions.

    Raises:
      UserError: it has one.
    """
    points: list[Point] = [{}]
    for parameter in parameters:
        if parameter.kind == "float":
            raise UserError(f"--sampler=grid: {parameter.key} is a range of fractions; give a categorical or integer")
        values = parameter.values
        if parameter.kind == "integer":
            assert parameter.low is not None
            assert parameter.high is not None
            values = tuple(range(int(parameter.low), int(parameter.high) + 1))
        points = [
            {**point, **extra}
            for point in points
            for extra in ([{parameter.key: value} for value in values] if parameter.exists_beside(point) else [{}])
        ]
    return tuple(points)


def storable(value: Any) -> Any:
    """Returns a value as Optuna can store it in a categorical: itself, or its Python literal."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _number(key: str, kind: str, low: Any, high: Any, *, log: bool) -> Parameter:
    low, high = plain_value(key, low), plain_value(key, high)
    what = "a whole number" if kind == "integer" else "a number"
    for end in (low, high):
        valid = isinstance(end, int if kind == "integer" else int | float) and not isinstance(end, bool)
        if not valid or not math.isfinite(end):
            raise UserError(f"{key}: an end of its range must be {what}, got {end!r}")
    if low >= high:
        raise UserError(f"{key}: the range from {low} to {high} is empty; give the lower end first")
    if log and low <= 0:
        raise UserError(f"{key}: a logarithmic range must begin above 0, got {low}")
    as_kind = int if kind == "integer" else float
    return Parameter(key, kind, as_kind(low), as_kind(high), log)


def _flat(parameters: Sequence[Any]) -> list[Parameter]:
    found: list[Parameter] = []
    for item in parameters:
        if isinstance(item, Parameter):
            found.append(item)
        elif isinstance(item, Sequence) and not isinstance(item, str):
            found += _flat(item)
        else:
            raise UserError(f"a space holds what space.uniform and its like return, got {type(item).__name__} {item!r}")
    return found


def _exclude_one_another(one: Parameter, other: Parameter) -> bool:
    return any(
        key == other_key and not any(same(a, b) for a in values for b in other_values)
        for key, values in one.conditions
        for other_key, other_values in other.conditions
    )
