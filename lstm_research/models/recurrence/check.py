"""What `unroll` refuses: arguments that do not agree."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Params
from lstm_research.models.cells.base import Carry, Cell
from lstm_research.models.recurrence.masks import RecurrentMasks


def check_inputs(params: Params, xs: Array, lengths: Array | None, resets: Array | None) -> tuple[Any, Any]:
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


def check_carry(cell: Cell, params: Params, carry: Carry | None, batch_size: Any) -> None:
    """Raises a `ValueError` for a carry that is not one of this cell for this batch."""
    if carry is None:
        return
    wanted = jax.eval_shape(lambda: cell.initial_carry(params, (batch_size,)))
    if not isinstance(carry, type(wanted)):
        raise ValueError(f"carry must be a {type(wanted).__name__}, got a {type(carry).__name__}")
    for leaf, wanted_leaf in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted), strict=True):
        if leaf.shape != wanted_leaf.shape:
            raise ValueError(f"carry must have arrays of the shape [B, H] = {wanted_leaf.shape}, got {leaf.shape}")


def check_masks(cell: Cell, masks: RecurrentMasks, T: Any, B: Any) -> None:
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
