"""The engine of the vendor: NVIDIA's cuDNN, through `jax.experimental.rnn`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Params
from lstm_research.models.cells import LSTM, LSTMCarry
from lstm_research.models.cells.base import Cell
from lstm_research.models.recurrence.cudnn_weights import pack_lstm
from lstm_research.models.recurrence.masks import RecurrentMasks


def cudnn_refusal(
    cell: Cell, params: Params, xs: Array, carry: Any, *, resets: Array | None, masks: RecurrentMasks, **_: Any
) -> str | None:
    """Returns what keeps cuDNN from serving a call, or None."""
    if type(cell) is not LSTM:
        return f"it serves plain LSTMs only, not {type(cell).__name__}"
    options = _options(cell)
    if options:
        return f"it serves plain LSTMs only, without {', '.join(options)}"
    if resets is not None:
        return "it has no resets"
    if any(mask is not None for mask in masks):
        return "it has no recurrent dropout and no zoneout"
    dtypes = {leaf.dtype.name for leaf in jax.tree.leaves((params, xs, carry))}
    if dtypes != {"float32"}:
        return f"it serves float32 only, not {', '.join(sorted(dtypes - {'float32'}))}"
    if 0 in xs.shape:
        return f"it serves no empty arrays, and xs has the shape {xs.shape}"
    if jax.default_backend() != "gpu" or "cuda" not in jax.devices()[0].client.platform_version.lower():
        return f"it needs an NVIDIA GPU, and the device is {jax.devices()[0].device_kind}"
    return None


def cudnn(
    cell: Cell,
    params: Params,
    xs: Float[Array, "T B D"],
    carry: LSTMCarry,
    *,
    valid: Bool[Array, "T B"] | None,
    resets: Bool[Array, "T B"] | None,
    reverse: bool,
    masks: RecurrentMasks,
) -> tuple[LSTMCarry, Float[Array, "T B H"]]:
    """Runs a plain LSTM; the arguments are those of `unroll`, checked, with padding zeroed in `xs`.

    cuDNN differentiates in reverse mode, once. Sequences of length 0, whose gradient it gets wrong, never reach it:
    they are run for one step, and the result is replaced.
    """
    T, B, D = xs.shape
    lengths = jnp.full((B,), T, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
    order = jnp.arange(T)[:, None]
    # Where step t of the order of reading stands; its own inverse.
    position = jnp.where(order < lengths, lengths - 1 - order, order) if reverse else None

    def turn(array: Array) -> Array:
        return array if position is None else jnp.take_along_axis(array, position[:, :, None], axis=0)

    ys, h, c = _call_cudnn(
        turn(xs).swapaxes(0, 1), carry.h, carry.c, pack_lstm([params]), jnp.maximum(lengths, 1), D, cell.hidden_size
    )
    ys = turn(ys.swapaxes(0, 1))
    if valid is None:
        return LSTMCarry(c=c, h=h), ys
    started = (lengths > 0)[:, None]
    ys = jnp.where(valid[:, :, None], ys, 0)
    return LSTMCarry(c=jnp.where(started, c, carry.c), h=jnp.where(started, h, carry.h)), ys


def _call_cudnn(xs: Array, h: Array, c: Array, weights: Array, lengths: Array, D: int, H: int) -> tuple:
    from jax.experimental import rnn  # not needed, and not loaded, without a GPU

    ys, h, c = rnn.lstm(xs, h[None], c[None], weights, lengths, D, H, 1, 0.0, False)
    return ys, h[0], c[0]


def _options(cell: LSTM) -> list[str]:
    """Returns the options by which an LSTM computes something else than the plain one, however its parameters start."""
    starts = ("input_initializer", "recurrent_initializer", "learned_initial_state", "forget_bias", "chrono_max_length")
    plain = LSTM(cell.hidden_size)
    names = [field.name for field in dataclasses.fields(cell) if field.name not in starts]
    return [f"{name}={getattr(cell, name)!r}" for name in names if getattr(cell, name) != getattr(plain, name)]
