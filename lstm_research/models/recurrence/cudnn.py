"""The engine of the vendor: NVIDIA's cuDNN, through `jax.experimental.rnn`.

cuDNN has the function and the transpose of its derivative. Forward mode and higher derivatives are taken from engine
`fused`, which computes the same, and `jax.vmap` runs the kernel row by row.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Int, Params
from lstm_research.models.cells import LSTM, LSTMCarry
from lstm_research.models.cells.base import Cell
from lstm_research.models.recurrence.cudnn_weights import pack_lstm, unpack_lstm
from lstm_research.models.recurrence.fused import fused
from lstm_research.models.recurrence.linear_map import linear_map
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.mesh import is_divided_by_hand

_PRECISIONS = (None, "high", "highest", "float32", "tensorfloat32")


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
    if not all(isinstance(size, int) for size in xs.shape):
        return f"it needs sizes that are known when it is traced, and xs has the shape {xs.shape}"
    if 0 in xs.shape:
        return f"it serves no empty arrays, and xs has the shape {xs.shape}"
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if precision not in _PRECISIONS:
        return f"it has no products of precision {precision!r} (jax_default_matmul_precision)"
    if is_divided_by_hand():
        return "its call cannot be divided among devices, by jax.shard_map or explicit axes"
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
    portable: bool = False,
) -> tuple[LSTMCarry, Float[Array, "T B H"]]:
    """Runs a plain LSTM; the arguments are those of `unroll`, checked, with padding zeroed in `xs`.

    Sequences of length 0, whose gradient cuDNN gets wrong, never reach it: they are run for one step, and the result
    is replaced.

    With `portable`, a program that is lowered for another platform after all (a computation put on the CPU, an export)
    runs engine `fused` there; without, JAX refuses to lower it.
    """
    T, B, _ = xs.shape
    lengths = jnp.full((B,), T, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
    order = jnp.arange(T)[:, None]
    # Where step t of the order of reading stands; its own inverse.
    position = jnp.where(order < lengths[None], lengths[None] - 1 - order, order) if reverse else None

    def turn(array: Array) -> Array:
        return array if position is None else jnp.take_along_axis(array, position[:, :, None], axis=0)

    operands = Operands(turn(xs).swapaxes(0, 1), carry.h, carry.c, pack_lstm([params]))
    results, _ = _lstm(portable, operands, jnp.maximum(lengths, 1))
    ys = turn(results.ys.swapaxes(0, 1))
    if valid is None:
        return LSTMCarry(c=results.c, h=results.h), ys
    started = (lengths > 0)[:, None]
    ys = jnp.where(valid[:, :, None], ys, 0)
    return LSTMCarry(c=jnp.where(started, results.c, carry.c), h=jnp.where(started, results.h, carry.h)), ys


class Operands(NamedTuple):
    """What the kernel is differentiated by: batch-major inputs, the state before them, and the packed weights."""

    xs: Float[Array, "B T D"]
    h: Float[Array, "B H"]
    c: Float[Array, "B H"]
    weights: Float[Array, "N"]


class Results(NamedTuple):
    """Batch-major outputs, and the state after the last valid step."""

    ys: Float[Array, "B T H"]
    h: Float[Array, "B H"]
    c: Float[Array, "B H"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _lstm(portable: bool, operands: Operands, lengths: Int[Array, "B"]) -> tuple[Results, Array]:
    """Returns the results, and what the kernel keeps for its way back."""
    if not portable:
        return _kernel_forward(operands, lengths)
    _, kept = jax.eval_shape(_kernel_forward, operands, lengths)

    def elsewhere(operands: Operands, lengths: Array) -> tuple[Results, Array]:
        return _fused(operands, lengths), jnp.zeros(kept.shape, kept.dtype)

    return jax.lax.platform_dependent(operands, lengths, cuda=_kernel_forward, default=elsewhere)


@_lstm.defjvp
def _lstm_jvp(portable: bool, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    operands, lengths = primals
    results, kept = _lstm(portable, operands, lengths)
    residuals = (operands, lengths, results.ys, kept)
    moved = linear_map(_tangents, functools.partial(_cotangents, portable), residuals, tangents[0])
    return (results, kept), (moved, jnp.zeros_like(kept))


def _tangents(residuals: tuple, moved: Operands) -> Results:
    operands, lengths, *_ = residuals
    return jax.jvp(lambda operands: _fused(operands, lengths), (operands,), (moved,))[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cotangents(portable: bool, residuals: tuple, cotangents: Results) -> Operands:
    """The transpose of `_tangents`."""
    if not portable:
        return _kernel_backward(residuals, cotangents)
    return jax.lax.platform_dependent(residuals, cotangents, cuda=_kernel_backward, default=_fused_backward)


@_cotangents.defjvp
def _cotangents_jvp(portable: bool, primals: tuple, tangents: tuple) -> tuple[Operands, Operands]:
    (operands, lengths, *_), cotangents = primals
    (operands_moved, *_), cotangents_moved = tangents

    def backward(operands: Operands, cotangents: Results) -> Operands:
        return _fused_backward((operands, lengths), cotangents)

    moved = jax.jvp(backward, (operands, cotangents), (operands_moved, cotangents_moved))[1]
    return _cotangents(portable, *primals), moved


# `jax.experimental.rnn` is imported where it is used: without a GPU it is not needed, and not loaded.


@jax.custom_batching.sequential_vmap
def _kernel_forward(operands: Operands, lengths: Array) -> tuple[Results, Array]:
    from jax.experimental import rnn

    xs, h, c, weights = operands
    sizes = (xs.shape[-1], h.shape[-1], 1, 0.0, False, None)
    (ys, h, c), (*_, kept) = rnn.lstm_fwd(xs, h[None], c[None], weights, lengths, *sizes)
    return Results(ys, h[0], c[0]), kept


@jax.custom_batching.sequential_vmap
def _kernel_backward(residuals: tuple, cotangents: Results) -> Operands:
    from jax.experimental import rnn

    (xs, h, c, weights), lengths, ys, kept = residuals
    sizes = (xs.shape[-1], h.shape[-1], 1, 0.0, False, None)
    residuals = (xs, h[None], c[None], weights, lengths, ys, kept)
    gradients = (cotangents.ys, cotangents.h[None], cotangents.c[None])
    xs, h, c, weights, _ = rnn.lstm_bwd(*sizes, residuals, gradients)
    return Operands(xs, h[0], c[0], weights)


def _fused(operands: Operands, lengths: Array) -> Results:
    """The same function by engine `fused`."""
    xs, h, c, weights = operands
    (params,) = unpack_lstm(weights, [xs.shape[-1]], h.shape[-1])
    xs, valid = xs.swapaxes(0, 1), jnp.arange(xs.shape[1])[:, None] < lengths[None]
    carry, ys = fused(
        LSTM(h.shape[-1]),
        params,
        jnp.where(valid[:, :, None], xs, 0),
        LSTMCarry(c=c, h=h),
        valid=valid,
        resets=None,
        reverse=False,
        masks=RecurrentMasks(),
    )
    return Results(ys.swapaxes(0, 1), carry.h, carry.c)


def _fused_backward(residuals: tuple, cotangents: Results) -> Operands:
    operands, lengths, *_ = residuals
    return jax.vjp(lambda operands: _fused(operands, lengths), operands)[1](cotangents)[0]


def _options(cell: LSTM) -> list[str]:
    """Returns the options by which an LSTM computes something else than the plain one, however its parameters start."""
    starts = ("input_initializer", "recurrent_initializer", "learned_initial_state", "forget_bias", "chrono_max_length")
    plain = LSTM(cell.hidden_size)
    names = [field.name for field in dataclasses.fields(cell) if field.name not in starts]
    return [f"{name}={getattr(cell, name)!r}" for name in names if getattr(cell, name) != getattr(plain, name)]
