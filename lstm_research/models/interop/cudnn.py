"""Weights from and to the one vector that cuDNN's LSTM takes, as in `jax.experimental.rnn`.

The layout is that of `lstm_research.models.recurrence.cudnn_weights`. It has two biases a gate, of which only the sum
matters: `from_cudnn` adds them, `to_cudnn` puts the bias first and zeros second.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.models.cells import LSTM, Cell
from lstm_research.models.interop.layout import Layer, check_options, check_shape, make_stack, read_stack, to_numpy
from lstm_research.models.recurrence.cudnn_weights import pack_lstm, packed_length, unpack_lstm


def from_cudnn(
    weights: Any, *, input_size: int, hidden_size: int, num_layers: int = 1, bidirectional: bool = False
) -> tuple[Cell, Params]:
    """Reads the weights of an LSTM of `jax.experimental.rnn`.

    Args:
      weights: `[N]`, as `init_lstm_weight` makes them.
      input_size: D.
      hidden_size: H.
      num_layers: L.
      bidirectional: whether every layer reads both ways.

    Returns:
      The cell, and the parameters of a `RecurrentStack` of it, as NumPy arrays.

    Raises:
      UserError: the vector has another length.
    """
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if size < 1:
            raise UserError(f"{name} must be at least 1, got {size}")
    directions = (False, True) if bidirectional else (False,)
    sizes = [input_size] * len(directions) + [hidden_size * len(directions)] * (len(directions) * (num_layers - 1))
    vector = to_numpy(weights)
    check_shape("weights", vector.shape, (packed_length(sizes, hidden_size),))
    _check_dtype("weights", vector)
    unpacked = jax.tree.map(np.array, unpack_lstm(jnp.asarray(vector), sizes, hidden_size))
    places = [(index, backward) for index in range(num_layers) for backward in directions]
    return LSTM(hidden_size), make_stack(Layer(*place, params) for place, params in zip(places, unpacked, strict=True))


def to_cudnn(cell: Cell, params: Params) -> np.ndarray:
    """Makes the weights of an LSTM of `jax.experimental.rnn`.

    It has the layers, and not what is wired around them: `residual` and `skip_output` leave no trace in the parameters,
    and are the caller's to rebuild (see `lstm_research.models.interop`).

    Args:
      cell: an `LSTM` without peepholes or other options.
      params: of a `RecurrentStack` of this cell (with `merge="concat"` if bidirectional).

    Returns:
      A vector `[N]`, which `jax.experimental.rnn.lstm` takes together with the sizes.

    Raises:
      UserError: cuDNN has no such cell, or the parameters are none of such a stack.
    """
    check_options(cell, {LSTM: ()}, "jax.experimental.rnn")
    layers = [layer.params for layer in read_stack(cell, params)]
    for layer in layers:
        for name, array in layer.items():
            _check_dtype(name, array)
    return np.array(pack_lstm(jax.tree.map(jnp.asarray, layers)))


def _check_dtype(name: str, array: np.ndarray) -> None:
    if array.dtype != np.float32:
        raise UserError(f"{name} must be float32, the only type that cuDNN's LSTM takes in JAX, got {array.dtype}")
