"""Recurrent layers of other libraries, each used as its own documentation does.

A peer is measured on the cells that it has with the same equations; libraries that are not installed are no peers.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.errors import UserError

from .entries import Entry, Label, Shape, make_jax_entry
from .machine import usable_cores


class Peer(NamedTuple):
    """A library.

    Attributes:
      distribution: what `pip install` calls it.
      module: what `import` calls it.
      cells: its name for each of our cells that it has.
      make: `(label, its name for the cell, shape, xs [T, B, D]) -> Entry`.
    """

    distribution: str
    module: str
    cells: Mapping[str, str]
    make: Callable[[Label, str, Shape, np.ndarray], Entry]

    def is_installed(self) -> bool:
        """Whether the library can be imported; does not import it."""
        return importlib.util.find_spec(self.module) is not None


def make_entry(label: Label, shape: Shape, xs: np.ndarray) -> Entry:
    """Makes the entry of a peer.

    Args:
      label: names the peer, the cell and the dtype.
      shape: of the layer.
      xs: the inputs `[T, B, D]`, float32.

    Raises:
      UserError: the peer cannot be measured on this; says why.
    """
    peer = PEERS[label.library]
    if label.cell not in peer.cells:
        raise UserError(f"has no cell with the equations of {label.cell}")
    return peer.make(label, peer.cells[label.cell], shape, xs)


def _cast(tree: Any, dtype: Any) -> Any:
    """Returns parameters or states in another dtype: layers draw them in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _flax(label: Label, cell: str, shape: Shape, xs: np.ndarray) -> Entry:
    linen: Any = importlib.import_module("flax.linen")
    dtype = jnp.dtype(label.dtype)
    # Parameters are drawn by a layer that is float32 throughout, and cast: not every initialiser can do less.
    drawing, layer = (
        linen.RNN(getattr(linen, cell)(shape.hidden_size, dtype=each, param_dtype=each), time_major=True)
        for each in (jnp.float32, dtype)
    )
    inputs = jnp.asarray(xs, dtype)
    return make_jax_entry(label, layer.apply, _cast(drawing.init(jax.random.key(0), inputs), dtype), inputs)


def _haiku(label: Label, cell: str, shape: Shape, xs: np.ndarray) -> Entry:
    haiku: Any = importlib.import_module("haiku")
    dtype = jnp.dtype(label.dtype)

    def layer(xs: jax.Array) -> jax.Array:
        core = getattr(haiku, cell)(shape.hidden_size)
        state = _cast(core.initial_state(shape.batch), dtype)
        return haiku.dynamic_unroll(core, xs, state)[0]

    pure = haiku.without_apply_rng(haiku.transform(layer))
    inputs = jnp.asarray(xs, dtype)
    params = _cast(pure.init(jax.random.key(0), inputs), dtype)
    return make_jax_entry(label, pure.apply, params, inputs)


def _equinox(label: Label, cell: str, shape: Shape, xs: np.ndarray) -> Entry:
    equinox: Any = importlib.import_module("equinox")
    dtype = jnp.dtype(label.dtype)
    module = getattr(equinox.nn, cell)(shape.input_size, shape.hidden_size, dtype=dtype, key=jax.random.key(0))
    params, rest = equinox.partition(module, equinox.is_array)
    zeros = jnp.zeros((shape.batch, shape.hidden_size), dtype)

    def layer(params: Any, xs: jax.Array) -> jax.Array:
        one = equinox.combine(params, rest)

        def body(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state = jax.vmap(one)(x, state)
            return state, state[0] if isinstance(state, tuple) else state

        return jax.lax.scan(body, (zeros, zeros) if cell == "LSTMCell" else zeros, xs)[1]

    return make_jax_entry(label, layer, params, jnp.asarray(xs, dtype))


def _keras(label: Label, cell: str, shape: Shape, xs: np.ndarray) -> Entry:
    os.environ["KERAS_BACKEND"] = "jax"  # it is read when Keras is imported
    keras: Any = importlib.import_module("keras")
    if keras.backend.backend() != "jax":
        raise UserError(f"runs on {keras.backend.backend()} in this process, where it was imported before")
    options: dict[str, Any] = {"reset_after": label.cell == "gru"} if cell == "GRU" else {}
    options["recurrent_initializer"] = "glorot_uniform"  # orthogonal, which it would be, has no bfloat16
    layer = getattr(keras.layers, cell)(shape.hidden_size, return_sequences=True, dtype=label.dtype, **options)
    layer.build((shape.batch, shape.time, shape.input_size))
    params = [variable.value for variable in layer.trainable_variables]
    others = [variable.value for variable in layer.non_trainable_variables]

    def apply(params: Any, xs: jax.Array) -> jax.Array:
        return layer.stateless_call(params, others, xs)[0]

    return make_jax_entry(label, apply, params, jnp.asarray(xs.swapaxes(0, 1), label.dtype))  # Keras is batch-major


def torch_device() -> tuple[Any, str, Callable[[], None]]:
    """Returns PyTorch, its name for the kind of device that JAX runs on, and what waits for that.

    Raises:
      UserError: it cannot use that device.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(usable_cores())
    if jax.default_backend() != "gpu":
        return torch, "cpu", lambda: None
    if not torch.cuda.is_available():
        raise UserError("this build of PyTorch has no CUDA, and a CPU is no match for the GPU that JAX runs on")
    return torch, "cuda", torch.cuda.synchronize


def _torch(label: Label, cell: str, shape: Shape, xs: np.ndarray) -> Entry:
    torch, device, wait = torch_device()
    dtype = getattr(torch, label.dtype)
    torch.manual_seed(0)
    layer = getattr(torch.nn, cell)(shape.input_size, shape.hidden_size, device=device, dtype=dtype)
    inputs = torch.tensor(xs, device=device, dtype=dtype, requires_grad=True)

    def forward() -> list[Any]:
        with torch.no_grad():
            ys = layer(inputs)[0]
        wait()
        return [ys]

    def forward_backward() -> list[Any]:
        layer.zero_grad(set_to_none=True)
        inputs.grad = None
        (layer(inputs)[0] ** 2).sum().backward()
        wait()
        return [inputs.grad, *(param.grad for param in layer.parameters())]

    return Entry(
        label,
        {"forward": forward, "forward_backward": forward_backward},
        read=lambda array: array.detach().float().cpu().numpy(),
        device=torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
    )


PEERS: Mapping[str, Peer] = {
    "flax": Peer("flax", "flax", {"lstm": "OptimizedLSTMCell", "gru": "GRUCell", "rnn": "SimpleCell"}, _flax),
    "torch": Peer("torch", "torch", {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}, _torch),
    "haiku": Peer("dm-haiku", "haiku", {"lstm": "LSTM", "original_gru": "GRU"}, _haiku),
    "equinox": Peer("equinox", "equinox", {"lstm": "LSTMCell", "gru": "GRUCell"}, _equinox),
    "keras": Peer("keras", "keras", {"lstm": "LSTM", "gru": "GRU", "original_gru": "GRU", "rnn": "SimpleRNN"}, _keras),
}
"""Every peer by the name that the command line uses."""
