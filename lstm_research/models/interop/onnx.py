"""Weights from and to the ONNX operators LSTM, GRU and RNN.

ONNX keeps, of each direction, W `[G·H, D]`, R `[G·H, H]`, B `[2·G·H]` (the biases of W, then those of R) and of an LSTM
P `[3H]`. The gates of an LSTM stand in the order i, o, f, c = g, its peepholes in the order i, o, f; those of a GRU in
the order z = u, r, h = n. Of the two biases only the sum matters, but for the candidate of a GRU with
`linear_before_reset`, whose second one is `recurrent_bias`: `from_onnx` adds them, `to_onnx` puts zeros second.

`input_forget` is `input_gate="coupled"`: f = 1 - i, so that what W, R, B and P hold for f is read by nobody;
`from_onnx` leaves it out and `to_onnx` fills it with zeros. (The specification says no more than that the two gates are
coupled; this is how onnxruntime does it.) A GRU is this package's `GRU` with `linear_before_reset` and an `OriginalGRU`
without.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells import GRU, LSTM, RNN, Cell, OriginalGRU
from lstm_research.models.interop.layout import Reader, add_biases, check_options, read_params, reorder, transpose

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_OPTIONS: dict[type[Cell], tuple[str, ...]] = {
    LSTM: ("peepholes", "input_gate", "gate_activation", "input_activation", "output_activation"),
    GRU: ("gate_activation", "activation"),
    OriginalGRU: ("gate_activation", "activation"),
    RNN: ("activation",),
}
# Block k of ours is block order[k] of theirs. The LSTM's: i, f, g, o out of i, o, f, c.
_FROM = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
_TO = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
_DEFAULT_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
# (their name, alpha, beta): ours; None where the function has no such number.
_ACTIVATIONS: dict[tuple[str, float | None, float | None], str] = {
    ("Affine", 1.0, 0.0): "identity",
    ("Elu", 1.0, None): "elu",
    ("HardSigmoid", 1 / 6, 0.5): "hard_sigmoid",
    ("Relu", None, None): "relu",
    ("Sigmoid", None, None): "sigmoid",
    ("Softplus", None, None): "softplus",
    ("Softsign", None, None): "softsign",
    ("Tanh", None, None): "tanh",
}
# What a number is if the attributes do not give it, by the operator of that name.
_DEFAULT_NUMBERS = {"Affine": (1.0, 0.0), "Elu": (1.0, None), "HardSigmoid": (0.2, 0.5)}
_ATTRIBUTES = (
    "hidden_size",
    "direction",
    "activations",
    "activation_alpha",
    "activation_beta",
    "clip",
    "layout",  # that of inputs and outputs, not of weights
)
_OWN_ATTRIBUTES = {"RNN": (), "GRU": ("linear_before_reset",), "LSTM": ("input_forget",)}


def from_onnx(
    op_type: str, arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> tuple[Cell, Params]:
    """Reads the weights and attributes of an operator.

    Nothing that the operator computes with is lost, but not all bits come back: the two biases are added, and with
    `input_forget=1` the blocks of the forget gate in W, R, B and P, which the operator does not read, are dropped.

    Args:
      op_type: "LSTM", "GRU" or "RNN".
      arrays: W, R and, if given, B and P, by these names.
      attributes: by name, text as str or bytes: `{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}`.

    Returns:
      The cell, and its parameters as NumPy arrays: those of the cell for one direction (with `direction="reverse"` call
      `unroll(..., reverse=True)`), those of a `Bidirectional` of it for both.

    Raises:
      UserError: an array is missing or has another shape, or an attribute is none of this operator's, asks for what no
        cell computes, or gives numbers that no activation takes.
    """
    attributes = _check_attributes(op_type, attributes or {})
    gates = _GATES[op_type]
    reader = Reader(arrays, f"the arrays of the ONNX operator {op_type}")
    directions = 2 if attributes["direction"] == "bidirectional" else 1
    H = reader.take("R", (directions, None, None)).shape[2]
    if attributes.get("hidden_size", H) != H:
        raise UserError(f"hidden_size is {attributes['hidden_size']}, but the last axis of R has {H} entries")
    R = reader.take("R", (directions, gates * H, H))
    W = reader.take("W", (directions, gates * H, None))
    B = (
        reader.take("B", (directions, 2 * gates * H))
        if "B" in reader
        else np.zeros((directions, 2 * gates * H), W.dtype)
    )
    P = reader.take("P", (directions, 3 * H)) if op_type == "LSTM" and "P" in reader else None
    reader.finish()
    cell = _cell(op_type, H, attributes, directions, peepholes=P is not None)
    params = [_from_direction(cell, op_type, W[k], R[k], B[k], None if P is None else P[k]) for k in range(directions)]
    if directions == 1:
        return cell, params[0]
    return cell, {"forward": {"params": params[0]}, "backward": {"params": params[1]}}


def to_onnx(cell: Cell, params: Params, *, reverse: bool = False) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    """Makes the weights and attributes of an operator.

    One call makes one layer; how layers are wired, and how two directions are merged, leaves no trace in the parameters
    and is the caller's to rebuild (see `lstm_research.models.interop`): the operator keeps the directions apart.

    Args:
      cell: an `LSTM` (also with peepholes or a coupled input gate), `GRU`, `OriginalGRU` or `RNN`.
      params: of the cell, or of a `Bidirectional` of it.
      reverse: whether a single direction reads from last to first.

    Returns:
      The operator's name, its arrays W, R, B and P by name, and its attributes, which `onnx.helper.make_node` takes.

    Raises:
      UserError: ONNX has no such cell, or the parameters are none of it.
    """
    check_options(cell, _OPTIONS, "ONNX")
    if isinstance(cell, LSTM) and cell.input_gate not in ("free", "coupled"):
        raise UserError(f"ONNX has no LSTM with input_gate={cell.input_gate!r}, only with 'free' or 'coupled'")
    op_type = "LSTM" if isinstance(cell, LSTM) else "RNN" if isinstance(cell, RNN) else "GRU"
    both = set(params) == {"forward", "backward"}
    if both and reverse:
        raise UserError("reverse is for a single direction; these parameters are those of both")
    parts = [(params[way]["params"], f"{way}.params.") for way in ("forward", "backward")] if both else [(params, "")]
    directions = [_to_direction(cell, op_type, *part) for part in parts]
    arrays = {name: np.stack([direction[name] for direction in directions]) for name in directions[0]}
    attributes: dict[str, Any] = {
        "hidden_size": cell.hidden_size,
        "direction": "bidirectional" if both else "reverse" if reverse else "forward",
        **_to_activations(op_type, _activations(cell), len(parts)),
    }
    if isinstance(cell, LSTM) and cell.input_gate == "coupled":
        attributes["input_forget"] = 1
    if op_type == "GRU":
        attributes["linear_before_reset"] = int(isinstance(cell, GRU))
    return op_type, arrays, attributes


def _from_direction(
    cell: Cell, op_type: str, W: np.ndarray, R: np.ndarray, B: np.ndarray, P: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Returns the parameters of a cell from one direction's arrays."""
    H, order = cell.hidden_size, _FROM[op_type]
    first, second = (reorder(bias, order) for bias in np.split(B, 2))
    params = {"input_kernel": transpose(reorder(W, order, 0)), "recurrent_kernel": transpose(reorder(R, order, 0))}
    if isinstance(cell, GRU):
        gates = add_biases(first[: 2 * H], second[: 2 * H])
        params |= {"bias": np.concatenate([gates, first[2 * H :]]), "recurrent_bias": second[2 * H :]}
    else:
        params["bias"] = add_biases(first, second)
    if P is not None:
        params["peephole"] = reorder(P, (0, 2, 1)).reshape(3, H)  # i, f, o out of i, o, f
    if isinstance(cell, LSTM) and cell.input_gate == "coupled":
        params = {name: _without_f(array, H, name == "peephole") for name, array in params.items()}
    return params


def _to_direction(cell: Cell, op_type: str, params: Params, path: str) -> dict[str, np.ndarray]:
    """Returns one direction's arrays from the parameters of a cell."""
    H, order = cell.hidden_size, _TO[op_type]
    params = read_params(cell, params, path)
    if isinstance(cell, LSTM) and cell.input_gate == "coupled":
        params = {name: _with_f(array, H, name == "peephole") for name, array in params.items()}
    bias = params["bias"]
    second = np.zeros_like(bias)
    if isinstance(cell, GRU):
        second[2 * H :] = params["recurrent_bias"]
    arrays = {
        "W": transpose(reorder(params["input_kernel"], order)),
        "R": transpose(reorder(params["recurrent_kernel"], order)),
        "B": np.concatenate([reorder(bias, order), reorder(second, order)]),
    }
    if "peephole" in params:
        arrays["P"] = params["peephole"][[0, 2, 1]].ravel()
    return arrays


def _without_f(array: np.ndarray, H: int, is_peephole: bool) -> np.ndarray:
    """Returns an array of an LSTM without what belongs to the forget gate, the second block or row."""
    return np.delete(array, 1, 0) if is_peephole else np.delete(array, np.s_[H : 2 * H], -1)


def _with_f(array: np.ndarray, H: int, is_peephole: bool) -> np.ndarray:
    """Returns an array of an LSTM with zeros for the forget gate: the inverse of `_without_f`."""
    return np.insert(array, 1, 0, 0) if is_peephole else np.insert(array, [H] * H, 0, -1)


def _check_attributes(op_type: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes with text as str and the direction filled in."""
    if op_type not in _GATES:
        raise unknown("op_type", op_type, _GATES)
    valid = _ATTRIBUTES + _OWN_ATTRIBUTES[op_type]
    for name in attributes:
        if name not in valid:
            raise unknown(f"attribute of {op_type}", name, valid)
    checked = dict(attributes)
    checked["direction"] = _text(attributes.get("direction", "forward"))
    if checked["direction"] not in ("forward", "reverse", "bidirectional"):
        raise unknown("direction", checked["direction"], ("forward", "reverse", "bidirectional"))
    if checked.get("clip"):
        raise UserError(f"no cell clips the arguments of its activations, got clip={checked['clip']}; it must be 0")
    return checked


def _cell(op_type: str, H: int, attributes: Mapping[str, Any], directions: int, *, peepholes: bool) -> Cell:
    activations = _from_activations(op_type, attributes, directions)
    if op_type == "RNN":
        return RNN(H, activation=activations[0])
    if op_type == "GRU":
        kind = GRU if attributes.get("linear_before_reset") else OriginalGRU
        return kind(H, gate_activation=activations[0], activation=activations[1])
    return LSTM(
        H,
        input_gate="coupled" if attributes.get("input_forget") else "free",
        peepholes=peepholes,
        gate_activation=activations[0],
        input_activation=activations[1],
        output_activation=activations[2],
    )


def _activations(cell: Cell) -> list[str]:
    """Returns our names of the cell's activations in ONNX's order."""
    if isinstance(cell, LSTM):
        return [cell.gate_activation, cell.input_activation, cell.output_activation]
    if isinstance(cell, GRU | OriginalGRU):
        return [cell.gate_activation, cell.activation]
    return [cell.activation]  # type: ignore[attr-defined]


def _from_activations(op_type: str, attributes: Mapping[str, Any], directions: int) -> list[str]:
    """Returns our names of the activations, which must be the same in both directions."""
    defaults = _DEFAULT_ACTIVATIONS[op_type]
    names = [_text(name) for name in attributes.get("activations") or defaults * directions]
    if len(names) != len(defaults) * directions:
        raise UserError(f"activations must hold {len(defaults) * directions} names, got {len(names)}: {names}")
    numbers = {key: list(attributes.get(key, ())) for key in ("activation_alpha", "activation_beta")}
    ours = [_from_activation(name, list(numbers.values())) for name in names]
    for key, left in numbers.items():
        if left:
            taken = len(attributes[key]) - len(left)
            raise UserError(f"the activations {names} take {taken} numbers of {key}, got {len(left)} more")
    if ours[: len(defaults)] != ours[-len(defaults) :]:
        raise UserError(f"activations must be the same in both directions, got {names}")
    return ours[: len(defaults)]


def _from_activation(name: str, numbers: Sequence[list[float]]) -> str:
    """Returns our name of an activation; takes its numbers from the front of the lists, as the operators do."""
    key = next((key for key in _ACTIVATIONS if key[0].lower() == name.lower()), None)
    if key is None:
        raise unknown("activation", name, [key[0] for key in _ACTIVATIONS])
    theirs: list[float] = []
    for default, given in zip(_DEFAULT_NUMBERS.get(key[0], ()), numbers, strict=False):
        if default is not None:
            theirs.append(given.pop(0) if given else default)
    wanted = [number for number in key[1:] if number is not None]
    if not np.allclose(theirs, wanted, rtol=1e-6, atol=0):
        raise UserError(f"{name} must have alpha and beta {wanted}, as in this package, got {theirs}")
    return _ACTIVATIONS[key]


def _to_activations(op_type: str, ours: list[str], directions: int) -> dict[str, list]:
    """Returns the attributes that name the activations and give their numbers."""
    keys = []
    for name in ours:
        key = next((key for key, our_name in _ACTIVATIONS.items() if our_name == name), None)
        if key is None:
            raise UserError(
                f"ONNX has no activation {name!r} for {op_type}; it has: {', '.join(_ACTIVATIONS.values())}"
            )
        keys.append(key)
    attributes: dict[str, list] = {"activations": [key[0] for key in keys] * directions}
    for which, position in (("alpha", 1), ("beta", 2)):
        numbers = [key[position] for key in keys if key[position] is not None] * directions
        if numbers:
            attributes[f"activation_{which}"] = numbers
    return attributes


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
