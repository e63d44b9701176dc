"""The engine for training: no gradient of a kernel is accumulated inside the loop over time.

What JAX makes of a scan adds a weight-sized gradient to an accumulator at every step. Here the loop on the way back
only finds the cotangents δ of the pre-activations, and the gradients of the kernels are afterwards one product each,
over all steps at once:

    ∂L/∂U = Σ_t h_{t-1}ᵀ δ_t   as one   [H, TB] × [TB, GH]   product,

with Σ_t x_tᵀ δ_t for the input side, and δ Wᵀ for the gradient of the inputs. Appleyard, Kočiský and Blunsom,
"Optimizing Performance of Recurrent Neural Networks on GPUs", 2016.

The loop forward keeps the carry before each step and the pre-activations, from which the loop back recomputes
everything elementwise; the cotangents then take the place of the pre-activations in the same memory.

All of that is only the transpose of the derivative (`linear_map`). Forward mode, higher derivatives and `jax.vmap`
follow from the derivative itself.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells.base import Carry, Cell, GatedCell
from lstm_research.models.recurrence.linear_map import linear_map
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.mesh import are_stacked, is_divided_by_hand
from lstm_research.models.recurrence.scan import Step, initial_like, scan, take_step


class Loop(NamedTuple):
    """What is fixed when the loop is traced."""

    cell: Cell
    reverse: bool
    hoisted: bool
    """Whether the inputs are projected before the loop and not inside it."""


class Inputs(NamedTuple):
    """Every array that the loop reads. `dropout` is the mask that all steps share, if they do."""

    params: Params
    xs: Array
    carry: Carry
    initial: Carry | None
    dropout: Array | None
    steps: Step


class Moving(NamedTuple):
    """What a step is differentiated by; tangents and cotangents have this form too, with None for what is constant.

    Attributes:
      params: the parameters but for the kernels.
      initial: the carry after a reset.
      dropout: the mask that all steps share.
      steps: the projected input and the masks of each step.
      values: the results of the products with kernels, in the order of their computation.
    """

    params: Params
    initial: Any
    dropout: Any
    steps: Step
    values: tuple


class Residuals(NamedTuple):
    """What the forward loop leaves to its derivative: the inputs, and `[T, B, ...]` arrays of every step."""

    params: Params
    moving: Moving
    carries: Carry


def fused(
    cell: Cell,
    params: Params,
    xs: Float[Array, "T B D"],
    carry: Carry,
    *,
    valid: Bool[Array, "T B"] | None,
    resets: Bool[Array, "T B"] | None,
    reverse: bool,
    masks: RecurrentMasks,
) -> tuple[Carry, Float[Array, "T B P"]]:
    """Runs a cell; the arguments are those of `unroll`, checked, with padding zeroed in `xs`."""
    if xs.shape[0] == 0:
        return scan(cell, params, xs, carry, valid=valid, resets=resets, reverse=reverse, masks=masks)
    initial = initial_like(cell, params, carry) if resets is not None else None
    steps = Step(None, masks.each, masks.zoneout_c, masks.zoneout_h, valid, resets)
    # A CPU pays for memory rather than for launches, unless the batch is too small to make a matrix product.
    batch_size = xs.shape[1]
    small = isinstance(batch_size, int) and batch_size < 8  # exported with a symbol for its size, it is not an int
    hoisted = jax.default_backend() != "cpu" or small
    return _run(Loop(cell, reverse, hoisted), Inputs(params, xs, carry, initial, masks.once, steps))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(loop: Loop, inputs: Inputs) -> tuple[Carry, Array]:
    final, (ys, _) = _forward(loop, inputs, keep=False)
    return final, ys


@functools.partial(_run.defjvp, symbolic_zeros=True)
def _run_jvp(loop: Loop, primals: tuple[Inputs], tangents: tuple[Inputs]) -> tuple[Any, Any]:
    (inputs,), (moved,) = primals, tangents
    moved = jax.tree.map(lambda leaf: None if isinstance(leaf, SymbolicZero) else leaf, moved)
    final, (ys, (carries, z, values)) = _forward(loop, inputs, keep=True)
    moving = Moving(_without_kernels(inputs.params), inputs.initial, inputs.dropout, inputs.steps._replace(z=z), values)
    residuals = Residuals(inputs.params, moving, carries)
    z_moved, values_moved = _moved_by_kernels(loop, residuals, inputs.xs, moved)
    moving_moved = Moving(
        _without_kernels(moved.params), moved.initial, moved.dropout, moved.steps._replace(z=z_moved), values_moved
    )
    operands = (moving_moved, moved.carry)
    wanted = jax.tree.map(lambda _: True, operands)
    tangents_out = linear_map(
        functools.partial(_tangents, loop), functools.partial(_cotangents, loop, wanted), residuals, operands
    )
    return (final, ys), tangents_out


def _forward(loop: Loop, inputs: Inputs, *, keep: bool) -> tuple[Carry, tuple[Array, Any]]:
    """Returns the last carry, the outputs, and of every step, if asked to: the carry before it, z and the products."""
    cell, params, steps = loop.cell, inputs.params, inputs.steps
    steps = steps._replace(z=_over_rows(cell.project, params, inputs.xs) if loop.hoisted else inputs.xs)

    def body(carry: Carry, step: Step) -> tuple[Carry, Any]:
        values: list[Any] = []

        def product(function: Any, given: Params, operand: Any) -> Array:
            _check_same(given, params, cell)
            values.append(function(params, operand))
            return values[-1]

        z = step.z if loop.hoisted else cell.project(params, step.z)
        step = step._replace(z=z, dropout=step.dropout if inputs.dropout is None else inputs.dropout)
        new, y = take_step(cell, params, carry, inputs.initial, step, product)
        if _additive(cell):
            z, values[0] = z + values[0], None
        return new, (y, (carry, z, tuple(values)) if keep else None)

    return jax.lax.scan(body, inputs.carry, steps, reverse=loop.reverse)


def _moved_by_kernels(loop: Loop, residuals: Residuals, xs: Array, moved: Inputs) -> tuple[Any, tuple]:
    """Returns the tangents of all z and of all products, as far as they come from the parameters and the inputs.

    Each is one product over the whole sequence, and so is its transpose.
    """
    z_moved = _push(lambda params, xs: _over_rows(loop.cell.project, params, xs), (residuals.params, xs), moved[:2])
    functions: list[Any] = []

    def find_operands(steps: Step, values: tuple, carry: Carry) -> list[Any]:
        moving = residuals.moving._replace(steps=steps, values=values)
        operands: list[Any] = []
        functions.clear()

        def product(function: Any, operand: Any) -> Array:
            functions.append(function)
            operands.append(operand)
            return _value(moving, len(operands) - 1)

        _take_step(loop, residuals.params, moving, carry, product)
        return operands

    # What else of a step is computed here, nothing reads.
    operands = jax.vmap(find_operands)(residuals.moving.steps, residuals.moving.values, residuals.carries)
    values_moved = [
        _push(lambda params, f=function, o=operand: _over_rows(f, params, o), (residuals.params,), (moved.params,))
        for function, operand in zip(functions, operands, strict=True)
    ]
    if _additive(loop.cell):
        z_moved, values_moved[0] = _add(z_moved, values_moved[0]), None
    return z_moved, tuple(values_moved)


def _tangents(loop: Loop, residuals: Residuals, operands: tuple[Moving, Carry]) -> tuple[Carry, Array]:
    """Returns the tangents of the last carry and of the outputs."""
    moved, carry_moved = operands
    if carry_moved is None or None in carry_moved:
        zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), residuals.carries)
        carry_moved = zeros if carry_moved is None else type(zeros)(*map(_add, zeros, carry_moved))

    def body(carry_moved: Carry, inputs: tuple) -> tuple[Carry, Array]:
        carry, steps, values, steps_moved, values_moved = inputs
        at = (residuals.moving._replace(steps=steps, values=values), carry)
        direction = (moved._replace(steps=steps_moved, values=values_moved), carry_moved)
        return _push(functools.partial(_differentiable_step, loop, residuals.params), at, direction)

    moving = residuals.moving
    inputs = (residuals.carries, moving.steps, moving.values, moved.steps, moved.values)
    return jax.lax.scan(body, carry_moved, inputs, reverse=loop.reverse)


def _cotangents(
    loop: Loop, wanted: tuple[Moving, Carry], residuals: Residuals, cotangents: tuple[Carry, Array]
) -> tuple[Moving, Carry]:
    """The transpose of `_tangents`; `wanted` has True for each of its operands, and None elsewhere."""
    moving, carries = residuals.moving, residuals.carries
    num_steps = cotangents[1].shape[0]
    fixed = (moving.params, moving.initial, moving.dropout)
    fixed_wanted = (wanted[0].params, wanted[0].initial, wanted[0].dropout)
    every_carry = jax.tree.map(lambda _: True, carries)

    def body(state: tuple, inputs: tuple) -> tuple[tuple, Step]:
        carry_cotangent, fixed_cotangent, memory, (z, values) = state
        t, carry, step, y_cotangent = inputs
        at = (moving._replace(steps=step._replace(z=z), values=values), carry)
        moving_cotangent, carry_cotangent = _pull(
            functools.partial(_differentiable_step, loop, residuals.params),
            at,
            (wanted[0], every_carry),
            (carry_cotangent, y_cotangent),
        )
        found = (moving_cotangent.params, moving_cotangent.initial, moving_cotangent.dropout)
        fixed_cotangent = jax.tree.map(jnp.add, fixed_cotangent, found)
        step_cotangent = moving_cotangent.steps
        memory = _store(memory, t, (step_cotangent.z, moving_cotangent.values))
        # What the next step reads is read after this step has written: then XLA needs no second copy of the memory.
        following = jnp.clip(t + (1 if loop.reverse else -1), 0, num_steps - 1)
        state = (carry_cotangent, fixed_cotangent, memory, _load(memory, following))
        return state, step_cotangent._replace(z=None)

    memory = (moving.steps.z, moving.values)
    no_cotangent = jax.tree.map(jnp.zeros_like, _like(fixed_wanted, fixed))
    state = (cotangents[0], no_cotangent, memory, _load(memory, 0 if loop.reverse else num_steps - 1))
    inputs = (jnp.arange(num_steps), carries, moving.steps._replace(z=None), cotangents[1])
    state, steps_cotangent = jax.lax.scan(body, state, inputs, reverse=not loop.reverse)
    carry_cotangent, fixed_cotangent, (z, values), _ = state
    steps = steps_cotangent._replace(z=z)
    params, initial, dropout = fixed_cotangent
    result = (Moving(params, initial, dropout, steps, values), carry_cotangent)
    return _like(wanted, result)


class _WithoutKernels(dict):
    """Parameters inside the loop: all names are there, and a kernel cannot be read."""

    def __init__(self, params: Params, small: Params, cell: Cell):
        super().__init__({name: small.get(name) for name in params})
        self._cell = cell

    def __getitem__(self, name: str) -> Any:
        if name.endswith("kernel"):
            raise TypeError(
                f"{type(self._cell).__name__}.advance reads the parameter {name!r} outside of `product`, where engine "
                "'fused' would lose its gradient; see `Cell.step`, or take engine 'scan'"
            )
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


def _check_same(given: Params, params: Params, cell: Cell) -> None:
    if given is not params:
        raise TypeError(
            f"{type(cell).__name__}.advance hands other parameters to `product` than it was given, whose gradients "
            "engine 'fused' would lose; see `Cell.step`, or take engine 'scan'"
        )


def _take_step(loop: Loop, params: Params, moving: Moving, carry: Carry, product: Any) -> tuple[Carry, Array]:
    """Takes a step with `product(function, operand)` in place of the products."""
    step = moving.steps if moving.dropout is None else moving.steps._replace(dropout=moving.dropout)
    small = _WithoutKernels(params, moving.params, loop.cell)

    def checked(function: Any, given: Params, operand: Any) -> Array:
        _check_same(given, small, loop.cell)
        return product(function, operand)

    return take_step(loop.cell, small, carry, moving.initial, step, checked)


def _differentiable_step(loop: Loop, params: Params, moving: Moving, carry: Carry) -> tuple[Carry, Array]:
    """A step whose products are not computed again: `moving.values` are their results, and what they are moved by."""
    count = 0

    def product(function: Any, operand: Any) -> Array:
        nonlocal count
        count += 1
        return _known(function, _value(moving, count - 1), params, operand)

    return _take_step(loop, params, moving, carry, product)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _known(function: Any, value: Array, params: Params, operand: Any) -> Array:
    """Returns `value`, which is `function(params, operand)`, and moves with `value` and `operand` alike."""
    return value


@_known.defjvp
def _known_jvp(function: Any, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    value, params, operand = primals
    value_moved, _, operand_moved = tangents
    return value, value_moved + jax.jvp(functools.partial(function, params), (operand,), (operand_moved,))[1]


def _additive(cell: Cell) -> bool:
    """Whether z and the first product are kept as their sum.

    A class answers for the methods that it has itself or inherits; one that overrides a method and not `additive` has
    not said that the sum still suffices.
    """
    if not isinstance(cell, GatedCell) or not cell.additive:
        return False
    order = type(cell).__mro__

    def place(name: str) -> int:
        return next(index for index, each in enumerate(order) if name in vars(each))

    return all(place("additive") <= place(name) for name in ("advance", "mix", "project", "update"))


def _value(moving: Moving, index: int) -> Array:
    value = moving.values[index]
    return jnp.zeros_like(moving.steps.z) if value is None else value


def _without_kernels(params: Params) -> Params:
    return {name: value for name, value in params.items() if not name.endswith("kernel")}


def _over_rows(function: Any, params: Params, operand: Any) -> Array:
    """Returns `function(params, operand)`, on a CPU with [T, B] as one axis where B is not sharded.

    There a product that sums over two axes would first copy the array to swap them. Where the batch is sharded over
    devices, merging its axis with another would gather it on all of them.
    """
    is_sharded = (jax.device_count() > 1 and not are_stacked()) or is_divided_by_hand()
    if jax.default_backend() != "cpu" or is_sharded:
        return function(params, operand)
    T, B = jax.tree.leaves(operand)[0].shape[:2]
    rows = function(params, jax.tree.map(lambda leaf: leaf.reshape(T * B, *leaf.shape[2:]), operand))
    return rows.reshape(T, B, *rows.shape[1:])


def _push(function: Any, primals: tuple, tangents: tuple) -> Any:
    """Returns the tangent of `function(*primals)`, where None is the tangent of a constant; None if all are."""
    leaves, tree = _flatten(primals)
    moved = tree.flatten_up_to(tangents)
    moving = [index for index, tangent in enumerate(moved) if tangent is not None]
    if not moving:
        return None
    of_moving = _of_some(function, leaves, tree, moving)
    return jax.jvp(of_moving, [leaves[i] for i in moving], [moved[i] for i in moving])[1]


def _pull(function: Any, primals: tuple, wanted: tuple, cotangents: Any) -> Any:
    """Returns the cotangents of those `primals` where `wanted` is True, and None for the others."""
    leaves, tree = _flatten(primals)
    moving = [index for index, is_wanted in enumerate(tree.flatten_up_to(wanted)) if is_wanted]
    _, transpose = jax.vjp(_of_some(function, leaves, tree, moving), *(leaves[i] for i in moving))
    found = dict(zip(moving, transpose(cotangents), strict=True))
    return tree.unflatten([found.get(index) for index in range(len(leaves))])


def _of_some(function: Any, leaves: list, tree: Any, moving: list[int]) -> Any:
    def of_moving(*values: Any) -> Any:
        replaced = dict(zip(moving, values, strict=True))
        return function(*tree.unflatten([replaced.get(index, leaf) for index, leaf in enumerate(leaves)]))

    return of_moving


def _like(wanted: Any, tree: Any) -> Any:
    """Returns `tree` with None wherever `wanted` has None."""
    leaves, structure = _flatten(tree)
    kept = zip(structure.flatten_up_to(wanted), leaves, strict=True)
    return structure.unflatten([leaf if is_wanted else None for is_wanted, leaf in kept])


def _store(memory: Any, t: Array, values: Any) -> Any:
    """Writes `values` into step t of the arrays `memory`; None leaves an array as it is."""
    leaves, tree = _flatten(memory)
    written = zip(leaves, tree.flatten_up_to(values), strict=True)
    update = jax.lax.dynamic_update_index_in_dim
    return tree.unflatten([leaf if value is None else update(leaf, value, t, 0) for leaf, value in written])


def _load(memory: Any, t: Array | int) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, t, 0, keepdims=False), memory)


def _flatten(tree: Any) -> tuple[list, Any]:
    """`jax.tree.flatten`, whose result type checkers do not know."""
    return jax.tree.flatten(tree)


def _add(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
