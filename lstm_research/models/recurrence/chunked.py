"""The engine for long sequences: memory for √T steps at a time.

The sequence is cut into chunks of about √T steps. Only the carries between chunks are kept on the way forward; on the
way back each chunk is run again before it is differentiated. Chen, Xu, Zhang and Guestrin, "Training Deep Nets with
Sublinear Memory Cost", 2016; for recurrent networks: Gruslys et al., "Memory-Efficient Backpropagation Through Time",
2016. The price is a second run forward, and one addition of the kernels' gradients per chunk.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells.base import Carry, Cell
from lstm_research.models.recurrence.fused import fused
from lstm_research.models.recurrence.masks import RecurrentMasks


def chunked_refusal(cell: Cell, params: Params, xs: Array, *_: Any, **__: Any) -> str | None:
    """Returns what keeps the engine from serving a call, or None."""
    if isinstance(xs.shape[0], int):
        return None
    return f"it needs a number of steps that is known when it is traced, and xs has the shape {xs.shape}"


def chunked(
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
    T = len(xs)
    size = max(math.isqrt(T), 1)
    whole = T - T % size
    once = masks.once
    steps = (xs, valid, resets, masks._replace(dropout=masks.each))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def run(params: Params, once: Any, carry: Carry, steps: tuple) -> tuple[Carry, Array]:
        xs, valid, resets, masks = steps
        masks = masks if once is None else masks._replace(dropout=once)
        return fused(cell, params, xs, carry, valid=valid, resets=resets, reverse=reverse, masks=masks)

    def run_rest(carry: Carry) -> tuple[Carry, Array]:
        return run(params, once, carry, jax.tree.map(lambda leaf: leaf[whole:], steps))

    # Read backwards, what is left over at the end comes first.
    rest = None
    if whole < T and reverse:
        carry, rest = run_rest(carry)
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(whole // size, size, *leaf.shape[1:]), steps)
    carry, ys = jax.lax.scan(lambda carry, steps: run(params, once, carry, steps), carry, chunks, reverse=reverse)
    ys = ys.reshape(whole, *ys.shape[2:])
    if whole < T and not reverse:
        carry, rest = run_rest(carry)
    return carry, ys if rest is None else jnp.concatenate([ys, rest])
