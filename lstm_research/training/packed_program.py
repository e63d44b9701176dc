"""Programs that differ only in numbers, as one program that takes the numbers as an argument.

A function is traced once for every trial, with that trial's own config. What JAX records of it (its jaxpr) holds the
learning rate, the rates of dropout and all else that a config gives as numbers: as literals, after whatever Python made
of them. So no list says which keys may differ. Where two programs are the same but for literals, these are handed in as
arrays; where they differ in anything else, such as an operation that a rate of 0 leaves out, they are two programs. The
numbers are exactly those that each trial computes with alone.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# Where the program is that a call runs. Those of custom derivatives are always replaced by it: what only a derivative
# would need is of no interest.
_CALLS = {"jit": "jaxpr", **dict.fromkeys(("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr")}
_REPLACED = ("closed_call", "custom_jvp_call", "custom_vjp_call")
_ENTERED = (*_CALLS, "checkpoint", "remat2", "scan", "while", "cond")


class NotPackableError(Exception):
    """Programs cannot be one program; the message says what is in the way."""


@dataclasses.dataclass
class _Step:
    """One operation of a program.

    Attributes:
      equation: JAX's record of it.
      numbers: by position among its inputs, the index of the number that stands there.
      bodies: by parameter, the programs in it (those of a loop or a branch).
    """

    equation: Any
    numbers: dict[int, int]
    bodies: dict[str, list["_Body"]]


@dataclasses.dataclass
class _Body:
    """A program, or one inside of another.

    Attributes:
      jaxpr: JAX's record of it.
      constants: the indices of the numbers that it is closed over.
      steps: its operations.
      results: by position among its outputs, the index of the number that is returned as it is.
      first: the first index of a number in it.
      last: one beyond the last.
      stores: whether it writes into a part of an array.
    """

    jaxpr: Any
    constants: list[int]
    steps: list[_Step]
    results: dict[int, int]
    first: int
    last: int
    stores: bool


class TracedProgram:
    """What JAX records of one call of a function.

    Args:
      function: pure, of pytrees of arrays.
      *arguments: arrays, or their shapes and types.

    Attributes:
      numbers: every literal and constant in it, in the order of the record.
      inputs: shapes and types of the arguments.
      result: shapes and types of the result.
      size: the bytes of its arguments and of what its loops return, of all their steps: what it goes over.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        closed, out = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.numbers: list[np.ndarray] = []
        self._keys: dict[int, Any] = {}  # of numbers that are random keys, the kind
        self.inputs = tuple(str(aval) for aval in closed.in_avals)
        self.result = out
        self._out_tree: Any = jax.tree.structure(out)
        self._in_tree = jax.tree.structure(arguments)
        self._body = self._read(closed)
        self.size = sum(map(_bytes, closed.jaxpr.invars)) + _kept_by_loops(self._body)

    def is_like(self, other: "TracedProgram") -> bool:
        """Whether this program and another one are the same but for numbers."""
        same = (self.inputs, self._in_tree, self._out_tree) == (other.inputs, other._in_tree, other._out_tree)
        return same and _alike(self._body, other._body)

    def equals(self, other: "TracedProgram") -> bool:
        """Whether this program and another one are the same, numbers included."""
        return self.is_like(other) and not self.differences(other)

    def differences(self, other: "TracedProgram") -> set[int]:
        """Returns the indices of the numbers that are not the same in a program like this one."""
        pairs = enumerate(zip(self.numbers, other.numbers, strict=True))
        return {index for index, (one, two) in pairs if one is not two and one.tobytes() != two.tobytes()}

    def run(self, values: Mapping[int, Any], *arguments: Any) -> Any:
        """Runs the program.

        Args:
          values: what stands in the place of numbers, by their index.
          *arguments: as those that it was traced with.

        Raises:
          NotPackableError: a number is where none can be put.
        """
        leaves = jax.tree.leaves(arguments)
        return jax.tree.unflatten(self._out_tree, self._run(self._body, values, leaves))

    def _read(self, closed: Any) -> _Body:
        jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
        first = len(self.numbers)
        values = closed.consts if isinstance(closed, ClosedJaxpr) else ()
        constants = [self._add_constant(value) for value in values]
        steps = []
        for equation in jaxpr.eqns:
            literals = enumerate(equation.invars)
            numbers = {at: self._add(item.val, item.aval) for at, item in literals if isinstance(item, Literal)}
            bodies = {name: [self._read(each) for each in inner] for name, inner in _inner(equation)}
            steps.append(_Step(equation, numbers, bodies))
        outvars = enumerate(jaxpr.outvars)
        results = {at: self._add(item.val, item.aval) for at, item in outvars if isinstance(item, Literal)}
        stores = any(
            step.equation.primitive.name == "dynamic_update_slice" or any(body.stores for body in _all(step.bodies))
            for step in steps
        )
        return _Body(jaxpr, constants, steps, results, first, len(self.numbers), stores)

    def _add(self, value: Any, aval: Any = None) -> int:
        self.numbers.append(np.asarray(value, None if aval is None else aval.dtype))
        return len(self.numbers) - 1

    def _add_constant(self, value: Any) -> int:
        if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return self._add(value)
        self._keys[len(self.numbers)] = jax.random.key_impl(value)
        return self._add(jax.random.key_data(value))

    def _number(self, values: Mapping[int, Any], index: int) -> Any:
        number = values.get(index, self.numbers[index])
        return jax.random.wrap_key_data(number, impl=self._keys[index]) if index in self._keys else number

    def _run(self, body: _Body, values: Mapping[int, Any], arguments: Sequence[Any]) -> list[Any]:
        known: dict[Any, Any] = dict(zip(body.jaxpr.invars, arguments, strict=True))
        known |= {var: self._number(values, at) for var, at in zip(body.jaxpr.constvars, body.constants, strict=True)}
        for step in body.steps:
            inputs = [
                self._number(values, step.numbers[at]) if at in step.numbers else known[item]
                for at, item in enumerate(step.equation.invars)
            ]
            outputs = self._take(step, values, inputs)
            known |= zip(step.equation.outvars, outputs, strict=True)
        return [
            self._number(values, body.results[at]) if at in body.results else known[item]
            for at, item in enumerate(body.jaxpr.outvars)
        ]

    def _take(self, step: _Step, values: Mapping[int, Any], inputs: list[Any]) -> Sequence[Any]:
        """Returns the results of one operation."""
        primitive, params = step.equation.primitive, step.equation.params
        if primitive.name == "dynamic_update_slice":
            return [_update_slice(*inputs)]
        bodies = list(_all(step.bodies))
        differs = any(body.first <= index < body.last for body in bodies for index in values)
        stores = primitive.name in _ENTERED and any(body.stores for body in bodies)
        if not differs and not stores and primitive.name not in _REPLACED:
            with step.equation.ctx.manager:
                result = primitive.bind(*inputs, **params)
            return result if primitive.multiple_results else [result]

        def runs(name: str, at: int = 0) -> Callable[..., list[Any]]:
            return lambda *arguments: self._run(step.bodies[name][at], values, arguments)

        if primitive.name in _CALLS:
            return runs(_CALLS[primitive.name])(*inputs)
        if primitive.name in ("checkpoint", "remat2"):
            return self._recompute(step, values, inputs)
        if primitive.name == "scan":
            return _scan(runs("jaxpr"), params, inputs)
        if primitive.name == "while":
            return _while(runs("cond_jaxpr"), runs("body_jaxpr"), params, inputs)
        if primitive.name == "cond":
            branches = [runs("branches", at) for at in range(len(step.bodies["branches"]))]
            return jax.lax.switch(inputs[0], branches, *inputs[1:])
        raise NotPackableError(f"a number inside of the operation {primitive.name!r} differs")

    def _recompute(self, step: _Step, values: Mapping[int, Any], inputs: list[Any]) -> Sequence[Any]:
        """Runs an operation of `jax.checkpoint`, as which the compiler must know it, with its numbers as arguments."""
        (body,) = step.bodies["jaxpr"]
        inside = range(body.first, body.last)
        # What is no scalar would become a constant of the program inside, which may have none.
        arguments = {
            index: values.get(index, self.numbers[index])
            for index in inside
            if index in values or self.numbers[index].ndim
        }

        def run(numbers: list[Any], *inputs: Any) -> list[Any]:
            return self._run(body, dict(zip(arguments, numbers, strict=True)), inputs)

        closed = jax.make_jaxpr(run)(list(arguments.values()), *inputs)
        if closed.consts:
            raise NotPackableError("a program that is computed again has constants")
        return step.equation.primitive.bind(
            *arguments.values(), *inputs, **{**step.equation.params, "jaxpr": closed.jaxpr}
        )


@jax.custom_batching.custom_vmap
def _update_slice(operand: Any, update: Any, *indices: Any) -> Any:
    """Writes into a part of an array.

    `jax.vmap` makes a scatter of it, for which XLA copies the whole array, at every step of a loop: where all trials
    write to the same place, it is the same operation with one axis more.
    """
    return jax.lax.dynamic_update_slice(operand, update, indices)


@_update_slice.def_vmap
def _(size: int, batched: Sequence[bool], operand: Any, update: Any, *indices: Any) -> tuple[Any, bool]:
    if any(batched[2:]):
        axes = [0 if each else None for each in batched]
        return jax.vmap(lambda o, u, *i: jax.lax.dynamic_update_slice(o, u, i), axes)(operand, update, *indices), True
    operand, update = (
        array if each else jnp.broadcast_to(array, (size, *array.shape))
        for array, each in zip((operand, update), batched, strict=False)
    )
    return jax.lax.dynamic_update_slice(operand, update, (jnp.zeros_like(indices[0]), *indices)), True


def _scan(run: Callable[..., list[Any]], params: Mapping[str, Any], inputs: list[Any]) -> Sequence[Any]:
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, carry, xs = (
        inputs[:num_consts],
        inputs[num_consts : num_consts + num_carry],
        inputs[num_consts + num_carry :],
    )

    def body(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        out = run(*consts, *carry, *x)
        return out[:num_carry], out[num_carry:]

    options = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, ys = jax.lax.scan(body, list(carry), list(xs), **options)
    return [*carry, *ys]


def _while(
    condition: Callable[..., list[Any]],
    body: Callable[..., list[Any]],
    params: Mapping[str, Any],
    inputs: list[Any],
) -> Sequence[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, start = inputs[:first], inputs[first:second], inputs[second:]
    return jax.lax.while_loop(
        lambda state: condition(*of_condition, *state)[0], lambda state: body(*of_body, *state), list(start)
    )


def _kept_by_loops(body: _Body) -> int:
    total = 0
    for step in body.steps:
        if step.equation.primitive.name == "scan":
            total += sum(map(_bytes, step.equation.outvars))
        else:
            total += sum(map(_kept_by_loops, _all(step.bodies)))
    return total


def _bytes(variable: Any) -> int:
    return int(math.prod(variable.aval.shape) * variable.aval.dtype.itemsize)


def _all(bodies: Mapping[str, Sequence[_Body]]) -> Iterator[_Body]:
    for each in bodies.values():
        yield from each


def _inner(equation: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yields the parameters of an operation that are programs."""
    for name in sorted(equation.params):
        value = equation.params[name]
        items = value if isinstance(value, tuple | list) else [value]
        if items and all(isinstance(item, ClosedJaxpr | Jaxpr) for item in items):
            yield name, list(items)


def _alike(one: _Body, two: _Body) -> bool:
    """Whether two programs are the same but for numbers."""
    if one.jaxpr is two.jaxpr:
        return True
    names: dict[Any, Any] = {}
    if not _same_variables(one.jaxpr.constvars, two.jaxpr.constvars, names):
        return False
    if not _same_variables(one.jaxpr.invars, two.jaxpr.invars, names):
        return False
    if len(one.steps) != len(two.steps):
        return False
    for ours, theirs in zip(one.steps, two.steps, strict=True):
        if not _same_operation(ours, theirs, names):
            return False
    return _same_inputs(one.jaxpr.outvars, two.jaxpr.outvars, names)


def _same_operation(ours: _Step, theirs: _Step, names: dict[Any, Any]) -> bool:
    a, b = ours.equation, theirs.equation
    if a.primitive is not b.primitive or not _same_inputs(a.invars, b.invars, names):
        return False
    if not _same_variables(a.outvars, b.outvars, names) or ours.bodies.keys() != theirs.bodies.keys():
        return False
    for key, bodies in ours.bodies.items():
        others = theirs.bodies[key]
        if len(bodies) != len(others) or not all(map(_alike, bodies, others)):
            return False
    if a.primitive.name in _REPLACED:  # the rest says how to differentiate it
        return True
    plain = [{k: v for k, v in e.params.items() if k not in ours.bodies} for e in (a, b)]
    return plain[0].keys() == plain[1].keys() and all(_equal(value, plain[1][key]) for key, value in plain[0].items())


def _same_inputs(ours: Sequence[Any], theirs: Sequence[Any], names: Mapping[Any, Any]) -> bool:
    """Whether operations read the same, or both a number of the same type."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Literal) or isinstance(b, Literal):
            return isinstance(a, Literal) and isinstance(b, Literal) and _type(a) == _type(b)
        return names.get(a) is b

    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def _same_variables(ours: Sequence[Any], theirs: Sequence[Any], names: dict[Any, Any]) -> bool:
    """Whether new variables have the same types; remembers which is which."""
    if len(ours) != len(theirs) or any(_type(a) != _type(b) for a, b in zip(ours, theirs, strict=True)):
        return False
    names.update(zip(ours, theirs, strict=True))
    return True


def _type(variable: Any) -> tuple[Any, ...]:
    return variable.aval.shape, variable.aval.dtype


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(b, type(a)) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple | list) and type(a) is type(b) and len(a) == len(b):
        return all(map(_equal, a, b))
    return bool(a == b)
