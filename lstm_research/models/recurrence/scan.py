"""The reference engine: `jax.lax.scan` over time, differentiated by JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells.base import Carry, Cell, Product, apply
from lstm_research.models.recurrence.masks import RecurrentMasks, zoneout


class Step(NamedTuple):
    """What a step is given besides the carry; with a leading axis T, what all steps are given.

    Attributes:
      z: the projected input.
      dropout: mask on the hidden state where it enters the recurrent weights.
      zoneout_c: share of the old memory that is kept.
      zoneout_h: share of the old hidden state that is kept.
      valid: False on padding.
      reset: True where the carry becomes the initial carry before the step.
    """

    z: Any
    dropout: Float[Array, "*batch #H"] | None
    zoneout_c: Float[Array, "*batch #H"] | Bool[Array, "*batch #H"] | None
    zoneout_h: Float[Array, "*batch #H"] | Bool[Array, "*batch #H"] | None
    valid: Bool[Array, "*batch"] | None
    reset: Bool[Array, "*batch"] | None


def take_step(
    cell: Cell, params: Params, carry: Carry, initial: Carry | None, step: Step, product: Product = apply
) -> tuple[Carry, Float[Array, "*batch P"]]:
    """Advances a cell by one step of `unroll`: `cell.advance` with resets, noise and padding around it."""
    before = carry
    if step.reset is not None:
        carry = _select(step.reset, initial, carry)
    new, y = cell.advance(params, carry, step.z, step.dropout, product)
    if step.zoneout_c is not None or step.zoneout_h is not None:
        new = zoneout(carry, new, step.zoneout_c, step.zoneout_h)
        y = y if step.zoneout_h is None else new.h
    if step.valid is not None:
        new = _select(step.valid, new, before)
        y = jnp.where(step.valid[..., None], y, 0)
    return new, y


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
) -> tuple[Carry, Float[Array, "T B P"]]:
    """Runs a cell step by step; the arguments are those of `unroll`, checked, with padding zeroed in `xs`."""
    initial = initial_like(cell, params, carry) if resets is not None else None

    def body(carry: Carry, step: Step) -> tuple[Carry, Array]:
        dropout = step.dropout if masks.once is None else masks.once
        step = step._replace(z=cell.project(params, step.z), dropout=dropout)
        return take_step(cell, params, carry, initial, step)

    steps = Step(xs, masks.each, masks.zoneout_c, masks.zoneout_h, valid, resets)
    return jax.lax.scan(body, carry, steps, reverse=reverse)


def initial_like(cell: Cell, params: Params, carry: Carry) -> Carry:
    """Returns the initial carry, with the shape and dtype of `carry` and divided over devices as that is."""
    initial = cell.initial_carry(params, carry.h.shape[:-1], carry.h.dtype)
    return jax.tree.map(lambda leaf, like: leaf + jnp.zeros_like(like), initial, carry)


def _select(condition: Bool[Array, "*batch"], if_true: Carry, if_false: Carry) -> Carry:
    return jax.tree.map(lambda a, b: jnp.where(condition[..., None], a.astype(b.dtype), b), if_true, if_false)
