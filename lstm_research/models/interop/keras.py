"""Weights from and to Keras 3: `LSTM`, `GRU`, `SimpleRNN`, alone or in a `Bidirectional` wrapper.

Keras keeps the same kernels, `[D, G·H]` and `[H, G·H]`. The gates of its LSTM stand in the order of this package (i, f,
c = g, o), those of its GRU in the order z = u, r, h = n. Its GRU with `reset_after=True` is this package's `GRU` and
has two biases, `[2, 3H]`, of which only the sum matters but for the candidate's second one, which is `recurrent_bias`:
`from_keras` adds them and `to_keras` puts zeros in the second. With `reset_after=False` it is `OriginalGRU`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, RNN, Cell, OriginalGRU
from lstm_research.models.interop.layout import (
    Reader,
    add_biases,
    check_one_activation,
    check_options,
    check_shape,
    count_gates,
    make_cell,
    read_params,
    reorder,
)

_KINDS = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
_OPTIONS: dict[type[Cell], tuple[str, ...]] = {
    LSTM: ("gate_activation", "input_activation", "output_activation"),
    GRU: ("gate_activation", "activation"),
    OriginalGRU: ("gate_activation", "activation"),
    RNN: ("activation",),
}
_OURS = {"linear": "identity"}  # the one activation with another name in Keras
_SWAPPED = (1, 0, 2)  # z, r, h to r, u, n, and back


def from_keras(
    weights: Sequence[Any],
    *,
    reset_after: bool | None = None,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Cell, Params]:
    """Reads the weights of an `LSTM`, `GRU` or `SimpleRNN`, or of `Bidirectional` around one.

    Args:
      weights: `layer.get_weights()`: kernel, recurrent kernel and bias if there is one; both directions' one after the
        other.
      reset_after: of a GRU. Its bias tells, so only one without needs this.
      activation: the layer's, which the weights do not tell; its name in Keras.
      recurrent_activation: likewise; that of the gates.

    Returns:
      The cell, and its parameters as NumPy arrays: those of the cell, or of a `Bidirectional` of it.

    Raises:
      UserError: an array is missing or has another shape.
    """
    if len(weights) not in (2, 3, 4, 6):
        raise UserError(
            "the weights of a recurrent layer of Keras are kernel, recurrent_kernel and, if it has one, bias, and "
            f"twice as many of a Bidirectional one; got {len(weights)} arrays"
        )
    form = (reset_after, _OURS.get(activation, activation), _OURS.get(recurrent_activation, recurrent_activation))
    if len(weights) < 4:
        return _from_layer(weights, "", form)
    half = len(weights) // 2
    cell, forward = _from_layer(weights[:half], "forward ", form)
    backward_cell, backward = _from_layer(weights[half:], "backward ", form)
    if backward_cell != cell:
        raise UserError(f"both directions must have one kind of cell, got {cell} and {backward_cell}")
    check_shape("backward kernel", backward["input_kernel"].shape, forward["input_kernel"].shape)
    return cell, {"forward": {"params": forward}, "backward": {"params": backward}}


def to_keras(cell: Cell, params: Params, *, use_bias: bool = True) -> list[np.ndarray]:
    """Makes the weights of an `LSTM`, `GRU` or `SimpleRNN`, or of `Bidirectional` around one.

    One call makes one layer; how layers are wired, and how two directions are merged (Keras' `merge_mode`), leaves no
    trace in the parameters and is the caller's to rebuild (see `lstm_research.models.interop`).

    Args:
      cell: an `LSTM`, `RNN`, `GRU` (Keras' with `reset_after=True`) or `OriginalGRU` (`reset_after=False`). Other
        activations than the default ones go into the Keras layer's `activation` and `recurrent_activation`.
      params: of the cell, or of a `Bidirectional` of it.
      use_bias: whether the layer has a bias; without, ours must be zero.

    Returns:
      What `layer.set_weights` takes.

    Raises:
      UserError: Keras has no such cell, or the parameters are none of it.
    """
    check_options(cell, _OPTIONS, "Keras")
    check_one_activation(cell, "Keras")
    if set(params) == {"forward", "backward"}:
        return [
            array
            for direction in ("forward", "backward")
            for array in _to_layer(cell, params[direction]["params"], f"{direction}.params.", use_bias)
        ]
    return _to_layer(cell, params, "", use_bias)


def _from_layer(
    weights: Sequence[Any], path: str, form: tuple[bool | None, str, str]
) -> tuple[Cell, dict[str, np.ndarray]]:
    reset_after, activation, gate_activation = form
    names = [path + name for name in ("kernel", "recurrent_kernel", "bias")]
    reader = Reader(dict(zip(names, weights, strict=False)), "the weights of a recurrent layer of Keras")
    U = reader.take(names[1], (None, None))
    H = U.shape[0]
    gates = count_gates(names[1], U.shape, _KINDS, axis=1)
    W = reader.take(names[0], (None, gates * H))
    bias = reader.take(names[2]) if names[2] in reader else None
    if gates == 3:
        kind, biases = _gru(names[2], bias, H, reset_after, W.dtype)
        kernels = {"input_kernel": reorder(W, _SWAPPED), "recurrent_kernel": reorder(U, _SWAPPED)}
        return make_cell(kind, H, gate_activation, activation), kernels | biases
    if bias is not None:
        check_shape(names[2], bias.shape, (gates * H,))
    params = {
        "input_kernel": W.copy(),
        "recurrent_kernel": U.copy(),
        "bias": np.zeros(gates * H, W.dtype) if bias is None else bias.copy(),
    }
    return make_cell(LSTM if gates == 4 else RNN, H, gate_activation, activation), params


def _gru(
    name: str, bias: np.ndarray | None, H: int, reset_after: bool | None, dtype: Any
) -> tuple[type[Cell], dict[str, np.ndarray]]:
    """Returns the form of a GRU, which its bias tells, and its biases as ours."""
    if bias is None:
        if reset_after is None:
            raise UserError("the weights of a GRU without bias do not tell its form; give reset_after=True or False")
        bias = np.zeros((2, 3 * H) if reset_after else 3 * H, dtype)
    elif reset_after is None:
        reset_after = bias.ndim == 2
    check_shape(name, bias.shape, (2, 3 * H) if reset_after else (3 * H,))
    if not reset_after:
        return OriginalGRU, {"bias": reorder(bias, _SWAPPED)}
    first, second = reorder(bias, _SWAPPED)
    return GRU, {
        "bias": np.concatenate([add_biases(first[: 2 * H], second[: 2 * H]), first[2 * H :]]),
        "recurrent_bias": second[2 * H :],
    }


def _to_layer(cell: Cell, params: Params, path: str, use_bias: bool) -> list[np.ndarray]:
    arrays = read_params(cell, params, path)
    order = _SWAPPED if cell.num_gates == 3 else range(cell.num_gates)
    bias = reorder(arrays["bias"], order)
    if isinstance(cell, GRU):
        second = np.zeros_like(bias)
        second[2 * cell.hidden_size :] = arrays["recurrent_bias"]
        bias = np.stack([bias, second])
    if not use_bias and bias.any():
        raise UserError(f"a layer with use_bias=False has no place for {path}bias: it is not zero")
    kernels = [reorder(arrays[name], order) for name in ("input_kernel", "recurrent_kernel")]
    return [*kernels, bias] if use_bias else kernels
