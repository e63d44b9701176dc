"""A recurrence that lets its states be seen and moved: for the analysis of a model that is trained by any engine."""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells.base import Carry, Cell
from lstm_research.models.cells.observe import observing
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.scan import Step, initial_like, take_step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "states", "gates", "retention", "last", "valid", "resets"),
    meta_fields=("cell", "reverse"),
)
@dataclasses.dataclass(frozen=True)
class Observed:
    """What one layer did in one direction; a tree of arrays, that compiled functions may return.

    Attributes:
      cell: its cell.
      params: the cell's parameters, as the step reads them.
      states: the state after each step, of the carry's type, with arrays `[T, B, H]`.
      gates: by name, what the cell shows of each step, `[T, B, H]`; see the equations of the cell.
      retention: `[T, B, H]`, the factor on each unit's memory (c, or h where there is no c) in the step: its derivative
        by itself, with all products held fast and zoneout heeded. Without zoneout that is the forget gate of an LSTM
        without peepholes and the update gate of a GRU; 0 for a cell that keeps nothing but by its weights. A step with
        a reset starts from the initial memory.
      last: the state after the last step.
      valid: `[T, B]`, False on padding; None where no lengths were given, so that padding, if any, counts.
      resets: `[T, B]`, True where the state becomes the initial one before the step; None without resets.
      reverse: whether it reads from the last step to the first.
    """

    cell: Cell
    params: Params
    states: Carry
    gates: dict[str, Any]
    retention: Any
    last: Carry
    valid: Any
    resets: Any
    reverse: bool


class Observer:
    """Stands in for the engine of every recurrence inside of `observe`, and keeps what it sees in `layers`.

    A recurrence of a single step is run and not kept, since that is what a decoder takes inside of its own loop.

    Attributes:
      layers: in the order in which they ran.
    """

    def __init__(self, offsets: Sequence[Carry] | None):
        self.layers: list[Observed] = []
        self._offsets = offsets

    def run(
        self,
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
        """Does what `scan` does; see there for the arguments."""
        initial = initial_like(cell, params, carry) if resets is not None else None
        single = len(xs) == 1
        offsets = None if single or self._offsets is None else self._offsets[len(self.layers)]

        def body(carry: Carry, inputs: tuple[Step, Any]) -> tuple[Carry, Any]:
            step, offset = inputs
            if offset is not None:
                carry = jax.tree.map(jnp.add, carry, offset)
            dropout = step.dropout if masks.once is None else masks.once
            step = step._replace(z=cell.project(params, step.z), dropout=dropout)
            if single:
                new, y = take_step(cell, params, carry, initial, step)
                return new, (y, None)
            with observing() as gates:
                new, y = take_step(cell, params, carry, initial, step)
            return new, (y, (new, dict(gates), _retention(cell, params, carry, initial, step)))

        steps = Step(xs, masks.each, masks.zoneout_c, masks.zoneout_h, valid, resets)
        last, (ys, seen) = jax.lax.scan(body, carry, (steps, offsets), reverse=reverse)
        if not single:
            states, gates, retention = seen
            self.layers.append(Observed(cell, params, states, gates, retention, last, valid, resets, reverse))
        return last, ys


_OBSERVER: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("observer", default=None)


def observer() -> Observer | None:
    """Returns who observes, or None."""
    return _OBSERVER.get()


@contextlib.contextmanager
def observe(offsets: Sequence[Carry] | None = None) -> Iterator[list[Observed]]:
    """Gives a list that fills with what every call of `unroll` does inside of the context.

    The arrays belong to the trace of the caller: a function that is compiled or differentiated opens the context inside
    of itself, and returns what it needs of them.

    Args:
      offsets: for every layer what is added to its state before each step, arrays `[T, B, H]` in the carry's type: the
        gradient with regard to zeros is that with regard to the states. None adds nothing.
    """
    token = _OBSERVER.set(Observer(offsets))
    try:
        current = _OBSERVER.get()
        assert current is not None
        yield current.layers
    finally:
        _OBSERVER.reset(token)


def _retention(cell: Cell, params: Params, carry: Carry, initial: Carry | None, step: Step) -> Float[Array, "B H"]:
    """Returns the derivative of each unit's memory by itself; see `Observed`."""
    field = "c" if "c" in carry._fields else "h"
    if step.reset is not None:
        reset = step.reset[:, None]
        carry = jax.tree.map(lambda first, old: jnp.where(reset, first, old), initial, carry)
    step = step._replace(reset=None, valid=None)

    def held(function: Any, params: Params, operand: Any) -> Array:
        return jax.lax.stop_gradient(function(params, operand))

    def kept(memory: Array) -> Array:
        new, _ = take_step(cell, params, carry._replace(**{field: memory}), None, step, held)
        return getattr(new, field)

    memory = getattr(carry, field)
    return jax.jvp(kept, (memory,), (jnp.ones_like(memory),))[1]
