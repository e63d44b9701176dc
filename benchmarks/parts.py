"""The parts of an LSTM alone: what share of a layer's time they would take, and so what holds the layer back.

- `products`: the product of the state with the recurrent weights, `[B, H] x [H, 4H]`, T times in a row, each of what
  the one before has made.
- `elementwise`: the rest of a step, T times in a row.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array
from lstm_research.models.cells import LSTM, LSTMCarry
from lstm_research.models.cells.base import dense

from .entries import Arrays, Entry, Label, Shape, compile_entry, median_ratio

PARTS = ("products", "elementwise")
"""The names that stand in a label for the cell's."""


def make_labels(dtype: str) -> list[Label]:
    """Returns all parts that are measured beside layers of a dtype."""
    return [Label("xla", part, None, "none", dtype) for part in PARTS]


def make_part(label: Label, shape: Shape) -> Entry:
    """Makes the entry of a part, which goes forward only."""
    cell = LSTM(shape.hidden_size)
    # Orthogonal for each gate, so that numbers neither grow nor vanish however many products follow one another.
    kernel = cell.init(jax.random.key(0), 1)["recurrent_kernel"]
    z = jax.random.normal(jax.random.key(1), (shape.batch, kernel.shape[1]))

    def products(z: Array, kernel: Array) -> Arrays:
        def body(z: Array, _: None) -> tuple[Array, None]:
            return dense(z[:, : shape.hidden_size], kernel), None

        return [jax.lax.scan(body, z, length=shape.time)[0]]

    def elementwise(z: Array, carry: LSTMCarry) -> Arrays:
        def body(carry: LSTMCarry, _: None) -> tuple[LSTMCarry, Array]:
            # One number of the state is enough to make each step wait for the one before.
            return cell.update({}, carry, z, jnp.broadcast_to(carry.h[:, :1], z.shape))

        return [jax.lax.scan(body, carry, length=shape.time)[1]]

    if label.cell == "products":
        return compile_entry(label, {"forward": products}, z, kernel.astype(label.dtype))
    return compile_entry(label, {"forward": elementwise}, z, cell.initial_carry({}, (shape.batch,)))


def describe_parts(
    shape: Shape, entries: Sequence[Entry], seconds: Mapping[str, Mapping[str, list[float]]]
) -> list[dict[str, Any]]:
    """Returns one record for every part.

    `share` is by layer and measure: the time that the layer's products would take at the rate of the product alone, or
    that of the part `elementwise`, over the layer's time. Layers are the plain LSTMs of the part's dtype: ours, and for
    the products PyTorch's, which makes them in its own way: a share above 1 says that this is the faster one.

    Args:
      shape: of the layers.
      entries: parts and layers.
      seconds: by name and measure, of every round; see `measure`.
    """
    D, H = shape.input_size, shape.hidden_size
    # How many times the work of the part a layer does. A product is followed by two on the way back.
    factors: dict[str, dict[str, float]] = {
        "products": {"forward": (D + H) / H, "forward_backward": 3 * (D + H) / H},
        "elementwise": {"forward": 1},
    }
    rows = []
    for part in entries:
        label = part.label
        if label.cell not in PARTS:
            continue
        own = seconds[label.name]["forward"]
        median = statistics.median(own)
        layers = [
            layer.name
            for layer in (entry.label for entry in entries)
            if (layer.cell, layer.noise, layer.dtype) == ("lstm", "none", label.dtype)
            and (layer.engine is not None or (layer.library, label.cell) == ("torch", "products"))
        ]
        rows.append(
            {
                "name": label.name,
                "library": label.library,
                "part": label.cell,
                "dtype": label.dtype,
                "device": part.device,
                "seconds": list(own),
                "median_seconds": median,
                "gflops": 8e-9 * shape.time * shape.batch * H**2 / median if label.cell == "products" else None,
                "share": {
                    layer: {
                        measure: factor * median_ratio(own, seconds[layer][measure])
                        for measure, factor in factors[label.cell].items()
                    }
                    for layer in layers
                },
            }
        )
    return rows
