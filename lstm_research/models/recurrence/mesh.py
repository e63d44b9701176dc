"""What is divided among the devices of a program: the sequences of a batch, or whole models."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from lstm_research.common.arrays import Array, Params
from lstm_research.models.cells.base import Carry
from lstm_research.models.recurrence.masks import RecurrentMasks

_STACKED = contextvars.ContextVar("stacked", default=False)


@contextlib.contextmanager
def stacked() -> Iterator[None]:
    """While entered, what is traced is one of several models that `jax.vmap` stacks later on.

    Devices then divide the models, and never the sequences of a batch.
    """
    token = _STACKED.set(True)
    try:
        yield
    finally:
        _STACKED.reset(token)


def are_stacked() -> bool:
    """Whether `stacked` is entered."""
    return _STACKED.get()


def is_divided_by_hand() -> bool:
    """Whether the program and not the compiler divides arrays: inside `jax.shard_map`, or with explicit axes."""
    return any(kind != AxisType.Auto for kind in jax.sharding.get_abstract_mesh().axis_types)


def vary_alike(params: Params, xs: Array, carry: Carry, masks: RecurrentMasks, *others: Any) -> tuple:
    """Returns the arguments as the loop over time needs them on a mesh of devices.

    Inside `jax.shard_map` all numbers come to vary over the same axes of the mesh. The state must, before the first
    step as after it; and where a weight is the same on all devices, its gradient is then summed over them once, and not
    at every step. On a mesh of explicit axes the batch axis of the carry comes to be divided as that of `xs` is.
    """
    if not is_divided_by_hand():
        return params, xs, carry, masks
    leaves = jax.tree.leaves((params, xs, carry, masks, others))
    zero = sum((jnp.zeros_like(leaf, "float32").sum() for leaf in leaves), jnp.zeros(()))
    zeros = zero + jnp.zeros_like(xs, "float32").sum((0, 2))[:, None]

    def vary(leaf: Array) -> Array:
        return leaf if leaf.dtype == bool else leaf + zero.astype(leaf.dtype)

    carry = jax.tree.map(lambda leaf: leaf + zeros.astype(leaf.dtype), carry)
    return jax.tree.map(vary, params), vary(xs), carry, jax.tree.map(vary, masks)
