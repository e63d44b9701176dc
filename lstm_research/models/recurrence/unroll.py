"""The one function that runs a cell through time, whatever the engine."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Int, Params
from lstm_research.models.cells.base import Carry, Cell, tree_dtype
from lstm_research.models.recurrence.check import check_carry, check_inputs, check_masks
from lstm_research.models.recurrence.engines import Run, check_engine, pick_engine
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.mesh import vary_alike
from lstm_research.models.recurrence.observe import observer


def unroll(
    cell: Cell,
    params: Params,
    xs: Float[Array, "T B D"],
    carry: Carry | None = None,
    *,
    lengths: Int[Array, "B"] | None = None,
    resets: Bool[Array, "T B"] | None = None,
    reverse: bool = False,
    masks: RecurrentMasks | None = None,
    engine: str = "auto",
) -> tuple[Carry, Float[Array, "T B H"]]:
    """Runs a cell over a batch of sequences. The semantics are exact and the same for every engine.

    Args:
      cell: which cell. Outside of `jax.jit` a call is compiled once for every cell object: keep one, rather than make
        one for each call.
      params: its parameters.
      xs: the inputs, time-major.
      carry: the state before the first step; the cell's initial carry if None. Passing the returned carry to the next
        call continues the sequences: two calls on two halves equal one call on the whole.
      lengths: the number of valid steps of each sequence, 0 allowed. From its length on a sequence keeps its carry and
        its outputs are 0; what `xs` holds there (NaN included) changes no result and no gradient.
      resets: where True, the carry becomes the initial carry before that step is taken (in the order of reading). No
        effect on padding.
      reverse: reads each sequence from its last valid step to its first; outputs stay at their positions.
      masks: recurrent dropout and zoneout.
      engine: a name of `ENGINES`, or "auto"; see `lstm_research.models.recurrence.engines.pick_engine`.

    Returns:
      The carry after the last step, and the outputs. The dtype of both is the one in which the arithmetic of `xs` and
      `params` ends: bfloat16 kernels beside float32 biases give bfloat16 products between float32 states.

    Raises:
      ValueError: shapes that do not agree, an unknown engine, or one that cannot serve the call.
    """
    check_engine(engine)
    params = jax.tree.map(jnp.asarray, params)
    T, B = check_inputs(params, xs, lengths, resets)
    masks = masks or RecurrentMasks()
    check_carry(cell, params, carry, B)
    check_masks(cell, masks, T, B)
    dtype = tree_dtype(xs, params)
    if carry is None:
        carry = cell.initial_carry(params, (B,), dtype)
    carry = jax.tree.map(lambda leaf: leaf.astype(dtype), carry)
    masks = jax.tree.map(lambda mask: mask if mask.dtype == bool else mask.astype(dtype), masks)
    if lengths is not None:
        # Padding must be harmless before it meets a weight: 0 · NaN in a weight gradient would be NaN.
        valid = jnp.arange(T)[:, None] < lengths[None]
        xs = jnp.where(valid[:, :, None], xs, 0)
    else:
        valid = None
    params, xs, carry, masks = vary_alike(params, xs, carry, masks, lengths, resets)
    _, run = pick_engine(engine, cell, params, xs, carry, resets=resets, masks=masks)
    options: dict[str, Any] = {"valid": valid, "resets": resets, "reverse": bool(reverse), "masks": masks}
    if (watching := observer()) is not None:
        return watching.run(cell, params, xs, carry, **options)
    return _run(run, _Itself(cell), params, xs, carry, **options)


class _Itself:
    """A cell that is equal to no other: which cells compute the same is not for the cache of programs to guess."""

    def __init__(self, cell: Cell):
        self.cell = cell

    def __hash__(self) -> int:
        return id(self.cell)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.cell is self.cell


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("reverse",))
def _run(run: Run, itself: _Itself, *arguments: Any, **options: Any) -> tuple[Carry, Array]:
    """Runs an engine; compiled once for all calls outside of `jax.jit`, where a loop would be compiled at each."""
    return run(itself.cell, *arguments, **options)
