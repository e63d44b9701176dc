"""Weights from and to the cells of Flax, Linen and NNX.

Flax keeps kernels as this package does, `[D, H]` for a gate, and one bias a gate. What differs is where: Linen's cells
and NNX's `LSTMCell` have a dense layer for every gate, NNX's other cells two for all gates, in the order of this
package. So weights go there and back bit for bit, with these limits:

- NNX's `GRUCell` has no `recurrent_bias`: ours must be zero.
- Linen's `MGUCell` is not the cell `MGU`; it is read as the `GRU` whose gates r and u are both its gate f.
- Linen's `SimpleCell` with `residual=True` is no cell of this package, and its weights do not tell: do not read it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, RNN, Cell
from lstm_research.models.interop.layout import (
    Reader,
    check_one_activation,
    check_options,
    count_gates,
    make_cell,
    read_params,
)

_OPTIONS: dict[type[Cell], tuple[str, ...]] = {
    LSTM: ("gate_activation", "input_activation", "output_activation"),
    GRU: ("gate_activation", "activation"),
    RNN: ("activation",),
}
# The dense layers of Linen's cells, gate by gate in this package's order: (of the input, of the state).
_LSTM = (("ii", "hi"), ("if", "hf"), ("ig", "hg"), ("io", "ho"))
_GRU = (("ir", "hr"), ("iz", "hz"), ("in", "hn"))
_MGU = (("if", "hf"), ("if", "hf"), ("in", "hn"))
_SIMPLE = (("i", "h"),)
_CELLS: dict[int, type[Cell]] = {1: RNN, 3: GRU, 4: LSTM}
_KINDS = {1: "SimpleCell", 3: "GRUCell", 4: "OptimizedLSTMCell"}


def from_linen(
    variables: Mapping[str, Any], *, gate_activation: str = "sigmoid", activation: str = "tanh"
) -> tuple[Cell, Params]:
    """Reads the variables of Linen's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, `SimpleCell` or `MGUCell`.

    Args:
      variables: `{"params": {"ii": {"kernel": ...}, ...}}`, or what stands under "params".
      gate_activation: the cell's `gate_fn`, a name of `ACTIVATIONS`; the variables do not tell it.
      activation: the cell's `activation_fn`, likewise.

    Returns:
      The cell and its parameters, as NumPy arrays. An `MGUCell` gives a `GRU`.

    Raises:
      UserError: an array is missing, has another shape, or is none of such a cell's.
    """
    reader = Reader(_flatten(variables.get("params", variables)), "the variables of a recurrent cell of Linen")
    layers: tuple[tuple[str, str], ...]
    if "ii.kernel" in reader:
        layers, biased = _LSTM, "h"
    elif "ir.kernel" in reader:
        layers, biased = _GRU, "i"
    elif "if.kernel" in reader:
        layers, biased = _MGU, "i"
    else:
        layers, biased = _SIMPLE, "i"
    H = reader.take(f"{layers[0][1]}.kernel", (None, None)).shape[1]
    D = reader.take(f"{layers[0][0]}.kernel", (None, H)).shape[0]
    params = {
        "input_kernel": np.concatenate([reader.take(f"{i}.kernel", (D, H)) for i, _ in layers], 1),
        "recurrent_kernel": np.concatenate([reader.take(f"{h}.kernel", (H, H)) for _, h in layers], 1),
        "bias": np.concatenate([reader.take(f"{h if biased == 'h' else i}.bias", (H,)) for i, h in layers]),
    }
    if layers in (_GRU, _MGU):
        params["recurrent_bias"] = reader.take("hn.bias", (H,)).copy()
    reader.finish()
    return make_cell(_CELLS[len(layers)], H, gate_activation, activation), params


def to_linen(cell: Cell, params: Params) -> dict[str, Any]:
    """Makes the variables of Linen's `LSTMCell` and `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.

    One call makes one cell; how layers are wired leaves no trace in its parameters and is the caller's to rebuild (see
    `lstm_research.models.interop`).

    Args:
      cell: an `LSTM`, a `GRU` or an `RNN`; other activations than the default ones go into the Linen cell's `gate_fn`
        and `activation_fn`.
      params: of the cell.

    Returns:
      `{"params": ...}`, as `apply` takes it.

    Raises:
      UserError: Flax has no such cell, or the parameters are none of it.
    """
    _check(cell)
    arrays = read_params(cell, params)
    layers = {4: _LSTM, 3: _GRU, 1: _SIMPLE}[cell.num_gates]
    W, U, b = (np.split(arrays[name], len(layers), -1) for name in ("input_kernel", "recurrent_kernel", "bias"))
    tree: dict[str, dict[str, np.ndarray]] = {}
    for k, (input_layer, state_layer) in enumerate(layers):
        tree[input_layer] = {"kernel": W[k].copy()}
        tree[state_layer] = {"kernel": U[k].copy()}
        tree[state_layer if isinstance(cell, LSTM) else input_layer]["bias"] = b[k].copy()
    if isinstance(cell, GRU):
        tree["hn"]["bias"] = arrays["recurrent_bias"].copy()
    return {"params": tree}


def from_nnx(
    state: Mapping[Any, Any], *, gate_activation: str = "sigmoid", activation: str = "tanh"
) -> tuple[Cell, Params]:
    """Reads the state of NNX's `LSTMCell`, `OptimizedLSTMCell`, `GRUCell` or `SimpleCell`.

    Args:
      state: `nnx.state(cell, nnx.Param)`, or the pure dict of it.
      gate_activation: the cell's `gate_fn`, a name of `ACTIVATIONS`; the state does not tell it.
      activation: the cell's `activation_fn`, likewise.

    Returns:
      The cell and its parameters, as NumPy arrays.

    Raises:
      UserError: an array is missing, has another shape, or is none of such a cell's.
    """
    flat = _flatten(state)
    if "ii.kernel" in flat:
        tree = {name.replace("if_.", "if."): array for name, array in flat.items()}
        return from_linen(tree, gate_activation=gate_activation, activation=activation)
    reader = Reader(flat, "the state of a recurrent cell of NNX")
    U = reader.take("dense_h.kernel", (None, None))
    H, gates = U.shape[0], count_gates("dense_h.kernel", U.shape, _KINDS, axis=1)
    params = {
        "input_kernel": reader.take("dense_i.kernel", (None, gates * H)).copy(),
        "recurrent_kernel": U.copy(),
        "bias": reader.take("dense_h.bias" if gates == 4 else "dense_i.bias", (gates * H,)).copy(),
    }
    if gates == 3:
        params["recurrent_bias"] = np.zeros(H, params["bias"].dtype)
    reader.finish()
    return make_cell(_CELLS[gates], H, gate_activation, activation), params


def to_nnx(cell: Cell, params: Params, *, optimized: bool = True) -> dict[str, Any]:
    """Makes the state of NNX's `OptimizedLSTMCell` or `LSTMCell`, `GRUCell` or `SimpleCell`; see `to_linen`.

    Args:
      cell: an `LSTM`, a `GRU` or an `RNN`; other activations than the default ones go into the NNX cell's `gate_fn`
        and `activation_fn`.
      params: of the cell. Of a `GRU`, `recurrent_bias` must be zero, for which NNX has no place.
      optimized: of an `LSTM`: for `OptimizedLSTMCell` rather than `LSTMCell`.

    Returns:
      A pure dict: `nnx.update(nnx_cell, nnx.State(pure_dict))`.

    Raises:
      UserError: NNX has no such cell, or the parameters are none of it.
    """
    if isinstance(cell, LSTM) and not optimized:
        tree = to_linen(cell, params)["params"]
        return {name.replace("if", "if_"): arrays for name, arrays in tree.items()}
    _check(cell)
    arrays = read_params(cell, params)
    if isinstance(cell, GRU) and arrays["recurrent_bias"].any():
        raise UserError("NNX's GRUCell has no place for recurrent_bias: it must be zero; Linen's GRUCell has one")
    biased = "dense_h" if isinstance(cell, LSTM) else "dense_i"
    state = {
        "dense_i": {"kernel": arrays["input_kernel"].copy()},
        "dense_h": {"kernel": arrays["recurrent_kernel"].copy()},
    }
    state[biased]["bias"] = arrays["bias"].copy()
    return state


def _check(cell: Cell) -> None:
    check_options(cell, _OPTIONS, "Flax")
    check_one_activation(cell, "Flax")


def _flatten(tree: Mapping[Any, Any], path: str = "") -> dict[str, Any]:
    """Returns the leaves by dotted name; NNX's variables, which are no mappings, are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flatten(value, f"{path}{key}.")
        else:
            leaves[f"{path}{key}"] = value
    return leaves
