"""The reference engine: `jax.lax.scan` over time, differentiated by JAX."""

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells.base import Carry, Cell
from lstm_research.models.recurrence.masks import RecurrentMasks, zoneout


def scan(
    cell: Cell,
    params: Params,
    xs: Float[Array, "T B D"],
    carry: Carry,
    *,
    valid: Bool[Array, "T B"] | None,
    resets: Bool[Array, "T B"] | None,
    reverse: bool,
    masks: RecurrentMasks,
) -> tuple[Carry, Float[Array, "T B H"]]:
    """Runs a cell step by step; the arguments are those of `unroll`, checked, with padding zeroed in `xs`."""
    batch_shape = xs.shape[1:2]
    initial = cell.initial_carry(params, batch_shape, xs.dtype) if resets is not None else None
    mask_per_step = masks.dropout is not None and masks.dropout.ndim == 3

    def body(carry: Carry, inputs: tuple) -> tuple[Carry, Array]:
        x, valid_t, reset, dropout, keep_c, keep_h = inputs
        before = carry
        if reset is not None:
            carry = _select(reset, initial, carry)
        new, y = cell.step(params, carry, x, dropout if mask_per_step else masks.dropout)
        if keep_c is not None or keep_h is not None:
            new = zoneout(carry, new, keep_c, keep_h)
            y = y if keep_h is None else new.h
        if valid_t is not None:
            new = _select(valid_t, new, before)
            y = jnp.where(valid_t[:, None], y, 0)
        return new, y

    inputs = (xs, valid, resets, masks.dropout if mask_per_step else None, masks.zoneout_c, masks.zoneout_h)
    return jax.lax.scan(body, carry, inputs, reverse=reverse)


def _select(condition: Bool[Array, "B"], if_true: Carry, if_false: Carry) -> Carry:
    return jax.tree.map(lambda a, b: jnp.where(condition[:, None], a.astype(b.dtype), b), if_true, if_false)
