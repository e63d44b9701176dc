"""Initialisers of cell parameters. Weights of several gates are always drawn gate by gate."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, PRNGKeyArray
from lstm_research.common.errors import unknown

InitializerFunction = Callable[..., Array]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""
Initializer = str | InitializerFunction
"""A name of the table `INITIALIZERS` or a function."""


def _uniform_hidden(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = "float32") -> Array:
    """Uniform in ±1/√H for a weight `[D, H]`: PyTorch's default for recurrent layers."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


INITIALIZERS: Mapping[str, InitializerFunction] = {
    "glorot_normal": jax.nn.initializers.glorot_normal(),
    "glorot_uniform": jax.nn.initializers.glorot_uniform(),
    "he_normal": jax.nn.initializers.he_normal(),
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "lecun_uniform": jax.nn.initializers.lecun_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "uniform_hidden": _uniform_hidden,
}


def get_initializer(initializer: Initializer) -> InitializerFunction:
    """Returns the function behind a name; a function is returned as it is.

    Raises:
      UserError: the name is not in `INITIALIZERS`.
    """
    if callable(initializer):
        return initializer
    if initializer not in INITIALIZERS:
        raise unknown("initializer", initializer, INITIALIZERS)
    return INITIALIZERS[initializer]


def init_gates(
    initializer: Initializer, key: PRNGKeyArray, input_size: int, hidden_size: int, num_gates: int, dtype: DTypeLike
) -> Float[Array, "D GH"]:
    """Draws the weights of several gates, side by side, each gate's block `[D, H]` by itself.

    One draw of the whole `[D, G·H]` matrix would be wrong for every initialiser that looks at the shape: an orthogonal
    matrix has no orthogonal blocks, and a variance scaled by the fan-out is G times too small.
    """
    draw = get_initializer(initializer)
    keys = jax.random.split(key, num_gates)
    # Drawn in float32 at least: the orthogonal initialiser's QR decomposition does not exist in half precision.
    draw_dtype = jnp.promote_types(dtype, "float32")
    blocks = [draw(k, (input_size, hidden_size), draw_dtype) for k in keys]
    return jnp.concatenate(blocks, axis=-1).astype(dtype)
