"""Weights from and to PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN` and their single cells.

PyTorch keeps every kernel transposed, `[G·H, D]` and `[G·H, H]`, with the gates in the order of this package (i, f, g,
o and r, z = u, n), and two biases a gate. Only their sum matters, but for the candidate of a GRU, whose second bias is
this package's `recurrent_bias`. So

- `from_pytorch` adds the two; where `bias_hh` is all zeros, nothing is rounded;
- `to_pytorch` puts the bias in `bias_ih` and zeros in `bias_hh`. Back again gives the same bits.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells import GRU, LSTM, RNN, Cell
from lstm_research.models.interop.layout import (
    Layer,
    Reader,
    add_biases,
    check_options,
    count_gates,
    make_stack,
    read_params,
    read_stack,
    transpose,
)

_KINDS = {1: "nn.RNN", 3: "nn.GRU", 4: "nn.LSTM"}
_OPTIONS: dict[type[Cell], tuple[str, ...]] = {LSTM: ("projection_size",), GRU: (), RNN: ("activation",)}


def from_pytorch(state_dict: Mapping[str, Any], *, nonlinearity: str = "tanh", prefix: str = "") -> tuple[Cell, Params]:
    """Reads the state dict of an `nn.LSTM`, `nn.GRU` or `nn.RNN`, of any depth, in one or both directions.

    Args:
      state_dict: `module.state_dict()`: tensors or NumPy arrays.
      nonlinearity: that of an `nn.RNN`, which its state dict does not tell: "tanh" or "relu".
      prefix: of the names that are meant, as `encoder.lstm.` in the state dict of a larger module.

    Returns:
      The cell, and the parameters of a `RecurrentStack` of this cell, as NumPy arrays.

    Raises:
      UserError: an array is missing, has another shape, or is none of such a module's.
    """
    reader = Reader(_without_prefix(state_dict, prefix), f"the state dict {prefix}* of a recurrent module of PyTorch")
    numbers = [int(match[1]) for name in reader.arrays if (match := re.fullmatch(r"weight_ih_l(\d+)", name))]
    cell = _cell(reader, "_l0", nonlinearity)
    directions = (False, True) if "weight_ih_l0_reverse" in reader else (False,)
    layers, input_size = [], None
    for index in range(max(numbers, default=0) + 1):
        for backward in directions:
            suffix = f"_l{index}" + "_reverse" * backward
            layers.append(Layer(index, backward, _from_layer(reader, suffix, cell, input_size)))
            input_size = layers[-1].params["input_kernel"].shape[0]  # the backward direction reads the same
        input_size = cell.output_size * len(directions)
    reader.finish()
    return cell, make_stack(layers)


def to_pytorch(cell: Cell, params: Params, *, bias: bool = True, prefix: str = "") -> dict[str, np.ndarray]:
    """Makes the state dict of an `nn.LSTM`, `nn.GRU` or `nn.RNN`.

    The module has the layers, and not what is wired around them: `residual` and `skip_output` leave no trace in the
    parameters, and are the caller's to rebuild (see `lstm_research.models.interop`).

    Args:
      cell: an `LSTM` (with projection: to fewer than H features), a `GRU`, or an `RNN` with the activation "tanh" or
        "relu".
      params: of a `RecurrentStack` of this cell (with `merge="concat"` if bidirectional).
      bias: whether the module has biases; without, ours must be zero.
      prefix: goes before every name.

    Returns:
      NumPy arrays by name: `module.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})`.

    Raises:
      UserError: PyTorch has no such cell, or the parameters are none of such a stack.
    """
    _check(cell)
    state_dict: dict[str, np.ndarray] = {}
    for index, backward, arrays in read_stack(cell, params):
        state_dict |= _to_layer(cell, arrays, f"_l{index}" + "_reverse" * backward, bias)
    return {prefix + name: array for name, array in state_dict.items()}


def cell_from_pytorch(
    state_dict: Mapping[str, Any], *, nonlinearity: str = "tanh", prefix: str = ""
) -> tuple[Cell, Params]:
    """Reads the state dict of an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`; see `from_pytorch`.

    Returns:
      The cell and its parameters, as NumPy arrays.
    """
    reader = Reader(_without_prefix(state_dict, prefix), f"the state dict {prefix}* of a recurrent cell of PyTorch")
    cell = _cell(reader, "", nonlinearity)
    params = _from_layer(reader, "", cell, None)
    reader.finish()
    return cell, params


def cell_to_pytorch(cell: Cell, params: Params, *, bias: bool = True, prefix: str = "") -> dict[str, np.ndarray]:
    """Makes the state dict of an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`; see `to_pytorch`.

    Args:
      cell: an `LSTM` without projection, a `GRU`, or an `RNN` with the activation "tanh" or "relu".
      params: of the cell.
      bias: whether the module has biases; without, ours must be zero.
      prefix: goes before every name.
    """
    _check(cell)
    if getattr(cell, "projection_size", None) is not None:
        raise UserError("nn.LSTMCell has no projection; use to_pytorch, which makes the state dict of an nn.LSTM")
    arrays = _to_layer(cell, read_params(cell, params), "", bias)
    return {prefix + name: array for name, array in arrays.items()}


def _without_prefix(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in state_dict.items() if name.startswith(prefix)}


def _cell(reader: Reader, suffix: str, nonlinearity: str) -> Cell:
    """Returns the cell that the shapes of the recurrent weights tell of."""
    name = f"weight_hh{suffix}"
    rows, columns = reader.take(name, (None, None)).shape
    if f"weight_hr{suffix}" in reader:
        if rows % 4:
            raise UserError(f"{name} must have the shape [4H, P] beside weight_hr{suffix}, got {[rows, columns]}")
        return LSTM(rows // 4, projection_size=columns)
    gates = count_gates(name, (rows, columns), _KINDS, axis=0)
    if gates == 4:
        return LSTM(columns)
    if gates == 3:
        return GRU(columns)
    if nonlinearity not in ("tanh", "relu"):
        raise unknown("nonlinearity", nonlinearity, ("tanh", "relu"))
    return RNN(columns, activation=nonlinearity)


def _from_layer(reader: Reader, suffix: str, cell: Cell, input_size: int | None) -> dict[str, np.ndarray]:
    H, P, width = cell.hidden_size, cell.output_size, cell.num_gates * cell.hidden_size
    input_kernel = reader.take(f"weight_ih{suffix}", (width, input_size))
    recurrent_kernel = reader.take(f"weight_hh{suffix}", (width, P))
    params = {"input_kernel": transpose(input_kernel), "recurrent_kernel": transpose(recurrent_kernel)}
    # A module has all biases or none; which of the two, the first layer tells.
    first_layer = re.sub(r"_l.*", "_l0", suffix)
    if f"bias_ih{first_layer}" in reader or f"bias_hh{first_layer}" in reader:
        bias = reader.take(f"bias_ih{suffix}", (width,))
        second = reader.take(f"bias_hh{suffix}", (width,))
    else:
        bias = second = np.zeros(width, input_kernel.dtype)
    if isinstance(cell, GRU):
        # The reset gate stands between the candidate's two biases.
        gates = add_biases(bias[: 2 * H], second[: 2 * H])
        params |= {"bias": np.concatenate([gates, bias[2 * H :]]), "recurrent_bias": second[2 * H :].copy()}
    else:
        params["bias"] = add_biases(bias, second)
    if isinstance(cell, LSTM) and cell.projection_size is not None:
        params["projection_kernel"] = transpose(reader.take(f"weight_hr{suffix}", (P, H)))
    return params


def _to_layer(cell: Cell, params: dict[str, np.ndarray], suffix: str, bias: bool) -> dict[str, np.ndarray]:
    H = cell.hidden_size
    arrays = {
        f"weight_ih{suffix}": transpose(params["input_kernel"]),
        f"weight_hh{suffix}": transpose(params["recurrent_kernel"]),
    }
    second = np.zeros_like(params["bias"])
    if isinstance(cell, GRU):
        second[2 * H :] = params["recurrent_bias"]
    if bias:
        arrays |= {f"bias_ih{suffix}": params["bias"].copy(), f"bias_hh{suffix}": second}
    elif params["bias"].any() or second.any():
        raise UserError(f"a module with bias=False has no bias_ih{suffix}, and ours is not zero")
    if "projection_kernel" in params:
        arrays[f"weight_hr{suffix}"] = transpose(params["projection_kernel"])
    return arrays


def _check(cell: Cell) -> None:
    check_options(cell, _OPTIONS, "PyTorch")
    if isinstance(cell, RNN) and cell.activation not in ("tanh", "relu"):
        raise UserError(f"PyTorch has no RNN with activation={cell.activation!r}, only with 'tanh' or 'relu'")
    if isinstance(cell, LSTM) and cell.projection_size is not None and cell.projection_size >= cell.hidden_size:
        raise UserError(
            f"PyTorch has no LSTM with projection_size={cell.projection_size} and hidden_size={cell.hidden_size}, only "
            "with a projection_size below hidden_size"
        )
