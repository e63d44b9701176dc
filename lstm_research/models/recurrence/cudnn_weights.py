"""LSTM weights as the one vector that cuDNN takes, in the layout of `jax.experimental.rnn`.

The vector holds, for every pseudo-layer (each direction of each layer, from the bottom up, forward before backward),
W_ih `[4H, D]` and then W_hh `[4H, H]`, row by row, gates in the order i, f, g, o; after the weights of all of them
follow, in the same order, their two biases, b_ih `[4H]` and b_hh `[4H]`, of which only the sum matters.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from lstm_research.common.arrays import Array, Float, Params


def pack_lstm(layers: Sequence[Params]) -> Float[Array, "N"]:
    """Packs the parameters of plain LSTMs; a pure function, which `jax.jit` and `jax.grad` take.

    Args:
      layers: `input_kernel`, `recurrent_kernel` and `bias` of every pseudo-layer. The bias becomes b_ih; b_hh is 0.
    """
    weights = [layer[name].T.ravel() for layer in layers for name in ("input_kernel", "recurrent_kernel")]
    biases = [bias for layer in layers for bias in (layer["bias"], jnp.zeros_like(layer["bias"]))]
    return jnp.concatenate([*weights, *biases])


def unpack_lstm(weights: Float[Array, "N"], input_sizes: Sequence[int], hidden_size: int) -> list[Params]:
    """Unpacks the vector; the two biases are added.

    Args:
      weights: the vector.
      input_sizes: D of every pseudo-layer.
      hidden_size: H.

    Returns:
      `input_kernel`, `recurrent_kernel` and `bias` of every pseudo-layer.

    Raises:
      ValueError: the vector has another length.
    """
    length = packed_length(input_sizes, hidden_size)
    if weights.shape != (length,):
        raise ValueError(f"weights must have the shape [{length}], got {list(weights.shape)}")
    width, offset = 4 * hidden_size, 0

    def take(*shape: int) -> Array:
        nonlocal offset
        offset += math.prod(shape)
        return weights[offset - math.prod(shape) : offset].reshape(shape)

    kernels = [(take(width, size).T, take(width, hidden_size).T) for size in input_sizes]
    biases = [_add(take(width), take(width)) for _ in input_sizes]
    return [{"input_kernel": W, "recurrent_kernel": U, "bias": b} for (W, U), b in zip(kernels, biases, strict=True)]


def _add(first: Array, second: Array) -> Array:
    """Returns the sum, and `first` bit for bit (negative zeros too) where `second` is 0."""
    return jnp.where(second == 0, first, first + second)


def packed_length(input_sizes: Sequence[int], hidden_size: int) -> int:
    """Returns N, the number of weights of all pseudo-layers; see `unpack_lstm`."""
    return sum(4 * hidden_size * (size + hidden_size + 2) for size in input_sizes)
