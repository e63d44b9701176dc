"""What all partners need: arrays checked by name, gates in another order, the layers of a stack one by one."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.models.cells import LSTM, RNN, Cell

# Options that decide only how parameters are drawn: weights that are already there do not depend on them.
_DRAWING = (
    "input_initializer",
    "recurrent_initializer",
    "forget_bias",
    "update_bias",
    "chrono_max_length",
    "recurrent_factor",
)


def to_numpy(value: Any) -> np.ndarray:
    """Returns a NumPy array, JAX array, PyTorch tensor (on any device) or variable of NNX or Keras as a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which PyTorch does not hand to NumPy
            return np.asarray(value.float()).astype(jax.numpy.bfloat16)
    elif hasattr(value, "__jax_array__"):
        value = value.__jax_array__()
    return np.asarray(value)


class Reader:
    """Named arrays, each checked as it is taken, so that none is forgotten.

    Attributes:
      arrays: the arrays by name.
      what: whose they are, for messages.
    """

    def __init__(self, arrays: Mapping[str, Any], what: str):
        self.arrays = {name: to_numpy(array) for name, array in arrays.items()}
        for name, array in self.arrays.items():
            if array.dtype == object:
                raise UserError(f"{name} in {what} must be an array, got a {type(arrays[name]).__name__}")
        self.what = what
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, name: str, shape: Sequence[int | None] | None = None) -> np.ndarray:
        """Returns an array.

        Args:
          name: which.
          shape: what it must be, None where any size will do.

        Raises:
          UserError: it is missing, or its shape is another.
        """
        if name not in self.arrays:
            raise UserError(f"{name} is missing in {self.what}; found: {', '.join(sorted(self.arrays)) or 'nothing'}")
        self._taken.add(name)
        array = self.arrays[name]
        if shape is not None:
            check_shape(name, array.shape, shape)
        return array

    def finish(self) -> None:
        """Raises a `UserError` if an array has not been taken: what it means would be lost."""
        left = sorted(self.arrays.keys() - self._taken)
        if left:
            raise UserError(f"{left[0]} is unknown in {self.what}; expected: {', '.join(sorted(self._taken))}")


def check_shape(name: str, actual: Sequence[int], wanted: Sequence[int | None]) -> None:
    """Raises a `UserError` for a shape that is not the wanted one; None stands for any size."""
    fits = len(actual) == len(wanted) and all(w in (None, a) for a, w in zip(actual, wanted, strict=True))
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in wanted)
        raise UserError(f"{name} must have the shape [{sizes}], got {list(actual)}")


def count_gates(name: str, shape: Sequence[int], kinds: Mapping[int, str], axis: int) -> int:
    """Returns G from the shape of recurrent weights, G·H along `axis` and H along the other one of two.

    Raises:
      UserError: no kind has so many gates.
    """
    if len(shape) == 2:
        wide, hidden_size = shape[axis], shape[1 - axis]
        if hidden_size and wide % hidden_size == 0 and wide // hidden_size in kinds:
            return wide // hidden_size
    times = {1: "H"} | {count: f"{count}H" for count in kinds if count > 1}
    sizes = [(f"[{times[c]}, H]" if axis == 0 else f"[H, {times[c]}]") + f" ({kinds[c]})" for c in sorted(kinds)]
    raise UserError(f"{name} must have the shape {' or '.join(sizes)}, got {list(shape)}")


def reorder(array: np.ndarray, order: Sequence[int], axis: int = -1) -> np.ndarray:
    """Returns the equal blocks along an axis in another order: block k of the result is block `order[k]`."""
    blocks = np.split(array, len(order), axis)
    return np.concatenate([blocks[k] for k in order], axis)


def transpose(array: np.ndarray) -> np.ndarray:
    """Returns the transpose as an array of its own, in the memory order of its shape."""
    return np.array(array.T, order="C")


def add_biases(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the sum, and `first` bit for bit (negative zeros too) where `second` is all zeros."""
    return first + second if second.any() else first.copy()


def check_options(cell: Cell, types: Mapping[type[Cell], Iterable[str]], partner: str) -> None:
    """Raises a `UserError` for a cell that computes what the partner's does not.

    Args:
      cell: which cell.
      types: the classes that the partner has too, and which of their options it has.
      partner: its name, for messages.
    """
    if type(cell) not in types:
        names = ", ".join(sorted(t.__name__ for t in types))
        raise UserError(f"{partner} has no {type(cell).__name__}; it has: {names}")
    known = {"hidden_size", *_DRAWING, *types[type(cell)]}
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name not in known and value != field.default:
            raise UserError(
                f"{partner} has no {type(cell).__name__} with {field.name}={value!r}, only with {field.default!r}"
            )


def check_one_activation(cell: Cell, partner: str) -> None:
    """Raises a `UserError` for an `LSTM` with two activations besides that of its gates, where the partner has one."""
    if isinstance(cell, LSTM) and cell.input_activation != cell.output_activation:
        raise UserError(
            f"{partner} has one activation for input and output of an LSTM, got "
            f"input_activation={cell.input_activation!r} and output_activation={cell.output_activation!r}"
        )


def make_cell(kind: type[Cell], hidden_size: int, gate_activation: str, activation: str) -> Cell:
    """Returns an `LSTM`, `GRU`, `OriginalGRU` or `RNN` with one activation for gates, if any, and one for the rest."""
    if kind is RNN:
        return RNN(hidden_size, activation=activation)
    if kind is LSTM:
        return LSTM(
            hidden_size,
            gate_activation=gate_activation,
            input_activation=activation,
            output_activation=activation,
        )
    return kind(hidden_size, gate_activation=gate_activation, activation=activation)  # type: ignore[call-arg]


def read_params(cell: Cell, params: Params, path: str = "") -> dict[str, np.ndarray]:
    """Returns a cell's parameters as NumPy arrays, names and shapes checked against what its `init` gives.

    Args:
      cell: which cell.
      params: its parameters.
      path: where they are, for messages: `layer_0.params.`.
    """
    reader = Reader({path + name: array for name, array in params.items()}, f"the parameters of {type(cell).__name__}")
    input_size = reader.take(f"{path}input_kernel", (None, None)).shape[0]
    shapes = jax.eval_shape(lambda key: cell.init(key, input_size), jax.random.key(0))
    arrays = {name: reader.take(path + name, struct.shape) for name, struct in shapes.items()}
    reader.finish()
    return arrays


class Layer(NamedTuple):
    """One direction of one layer of a stack.

    Attributes:
      number: of the layer, from the bottom on, 0 first.
      backward: whether it reads from last to first.
      params: of its cell, as NumPy arrays.
    """

    number: int
    backward: bool
    params: dict[str, np.ndarray]


def read_stack(cell: Cell, params: Params) -> Iterator[Layer]:
    """Yields the layers of a `RecurrentStack` from the bottom up, forward before backward.

    Raises:
      UserError: the parameters are not those of a stack of this cell whose directions are concatenated.
    """
    example = "layer_0.params or layer_0.forward.params and layer_0.backward.params"
    if set(params) != {f"layer_{index}" for index in range(len(params))} or not params:
        raise UserError(
            f"the parameters of a RecurrentStack are {example}, then layer_1 and so on; found: {', '.join(params)}"
        )
    input_size: int | None = None
    bidirectional = "forward" in params["layer_0"]
    for index in range(len(params)):
        layer = params[f"layer_{index}"]
        wanted = {"forward", "backward"} if bidirectional else {"params"}
        if set(layer) != wanted:
            raise UserError(f"layer_{index} must hold {' and '.join(sorted(wanted))}, found: {', '.join(layer)}")
        for backward in (False, True) if bidirectional else (False,):
            path = f"layer_{index}." + (
                "backward.params." if backward else "forward.params." if bidirectional else "params."
            )
            direction = layer["backward" if backward else "forward"] if bidirectional else layer
            arrays = read_params(cell, direction["params"], path)
            if input_size is not None:
                check_shape(f"{path}input_kernel", arrays["input_kernel"].shape, (input_size, None))
            yield Layer(index, backward, arrays)
        input_size = cell.output_size * (2 if bidirectional else 1)


def make_stack(layers: Iterable[Layer]) -> Params:
    """Returns the parameters of a `RecurrentStack`: the inverse of `read_stack`."""
    layers = list(layers)
    bidirectional = any(layer.backward for layer in layers)
    params: Params = {}
    for layer in layers:
        entry = params.setdefault(f"layer_{layer.number}", {})
        if bidirectional:
            entry = entry.setdefault("backward" if layer.backward else "forward", {})
        entry["params"] = layer.params
    return params
