"""The one function that runs a cell through time, whatever the engine."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Int, Params
from lstm_research.models.cells.base import Carry, Cell, tree_dtype
from lstm_research.models.recurrence.engines import Run, check_engine, pick_engine
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.mesh import vary_alike


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
    T, B = _check_inputs(params, xs, lengths, resets)
    masks = masks or RecurrentMasks()
    _check_carry(cell, params, carry, B)
    _check_masks(cell, masks, T, B)
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
    reverse = bool(reverse)
    return _run(run, _Itself(cell), params, xs, carry, valid=valid, resets=resets, reverse=reverse, masks=masks)


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


def _check_inputs(params: Params, xs: Array, lengths: Array | None, resets: Array | None) -> tuple[Any, Any]:
    """Returns T and B, which are no `int` in an export with symbols; raises a `ValueError` for what does not agree."""
    if not hasattr(xs, "dtype") or xs.ndim != 3:
        raise ValueError(f"xs must be an array of the shape [T, B, D], got {_describe(xs)}")
    T, B, D = xs.shape
    wanted = params["input_kernel"].shape[0] if "input_kernel" in params else D
    if wanted != D:
        raise ValueError(f"xs must have the {wanted} features that the parameters are for, got {_describe(xs)}")
    if lengths is not None and not _is_array(lengths, jnp.integer, (B,)):
        raise ValueError(f"lengths must be whole numbers of the shape [B] = [{B}], got {_describe(lengths)}")
    if resets is not None and not _is_array(resets, jnp.bool_, (T, B)):
        raise ValueError(f"resets must be booleans of the shape [T, B] = [{T}, {B}], got {_describe(resets)}")
    return T, B


def _is_array(value: Any, kind: Any, shape: tuple) -> bool:
    return hasattr(value, "dtype") and value.shape == shape and jnp.issubdtype(value.dtype, kind)


def _describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def _check_carry(cell: Cell, params: Params, carry: Carry | None, batch_size: Any) -> None:
    """Raises a `ValueError` for a carry that is not one of this cell for this batch."""
    if carry is None:
        return
    wanted = jax.eval_shape(lambda: cell.initial_carry(params, (batch_size,)))
    if not isinstance(carry, type(wanted)):
        raise ValueError(f"carry must be a {type(wanted).__name__}, got a {type(carry).__name__}")
    for leaf, wanted_leaf in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted), strict=True):
        if leaf.shape != wanted_leaf.shape:
            raise ValueError(f"carry must have arrays of the shape [B, H] = {wanted_leaf.shape}, got {leaf.shape}")


def _check_masks(cell: Cell, masks: RecurrentMasks, T: Any, B: Any) -> None:
    """Raises a `ValueError` for noise on a state that the cell does not have, or of the wrong shape."""
    for name, mask in masks._asdict().items():
        field = "c" if name == "zoneout_c" else "h"
        if mask is None:
            continue
        if field not in cell.carry_sizes:
            fields = ", ".join(cell.carry_sizes)
            raise ValueError(f"zoneout on c needs a cell with a memory c; {type(cell).__name__} has only {fields}")
        shape = (T, B, cell.carry_sizes[field])
        # From the last axis on, so that [B, H] is compared with [B, H]; only the scanned axis T may not be 1.
        agrees = all(size in (1, wanted) for size, wanted in zip(mask.shape[::-1], shape[::-1], strict=False))
        if mask.ndim == 3:
            agrees = agrees and mask.shape[0] == T
        if not agrees or mask.ndim not in ((2, 3) if name == "dropout" else (3,)):
            or_once = f" or [B, H] = {shape[1:]}" if name == "dropout" else ""
            raise ValueError(f"masks.{name} must have the shape [T, B, H] = {shape}{or_once}, got {mask.shape}")
        if name == "dropout" and mask.dtype == bool:
            raise ValueError("masks.dropout must be numbers, with what is kept scaled by 1/(1 - rate), got bool")
