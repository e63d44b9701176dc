"""Initialisers of cell parameters. Weights of several gates are always drawn gate by gate."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, PRNGKeyArray
from lstm_research.common.errors import UserError, unknown

InitializerFunction = Callable[..., Array]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""
Initializer = str | InitializerFunction
"""A name of the table `INITIALIZERS` or a function."""


def _uniform_hidden(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = "float32") -> Array:
    """Uniform in ±1/√H for a weight `[D, H]`: PyTorch's default for recurrent layers."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _identity(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = "float32") -> Array:
    """Ones on the diagonal, whatever the key: a state that is only added to (Le, Jaitly and Hinton 2015)."""
    rows, columns = shape
    return jnp.eye(rows, columns, dtype=dtype)


INITIALIZERS: Mapping[str, InitializerFunction] = {
    "glorot_normal": jax.nn.initializers.glorot_normal(),
    "glorot_uniform": jax.nn.initializers.glorot_uniform(),
    "he_normal": jax.nn.initializers.he_normal(),
    "identity": _identity,
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "lecun_uniform": jax.nn.initializers.lecun_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "uniform_hidden": _uniform_hidden,
    "uniform_unit": jax.nn.initializers.uniform(scale=1.0),
}


def get_initializer(initializer: Initializer) -> InitializerFunction:
    """Returns the function behind a name; a function is returned as it is.

    Raises:
      UserError: the name is not in `INITIALIZERS`.
    """
    if callable(initializer):
        return initializer
    if not isinstance(initializer, str) or initializer not in INITIALIZERS:
        raise unknown("initializer", initializer, INITIALIZERS)
    return INITIALIZERS[initializer]


def init_gates(
    initializer: Initializer, key: PRNGKeyArray, input_size: int, hidden_size: int, num_gates: int, dtype: DTypeLike
) -> Float[Array, "D GH"]:
    """Draws the weights of several gates, side by side, each gate's block `[D, H]` by itself.

    One draw of the whole `[D, G·H]` matrix would be wrong for every initialiser that looks at the shape: an orthogonal
    matrix has no orthogonal blocks, and a variance scaled by the fan-out is G times too small.
    """
    if 0 in (input_size, hidden_size):  # of a cell without input: most initialisers draw no empty weights
        return jnp.zeros((input_size, num_gates * hidden_size), dtype)
    draw = get_initializer(initializer)
    keys = jax.random.split(key, num_gates)
    # Drawn in float32 at least: the orthogonal initialiser's QR decomposition does not exist in half precision.
    draw_dtype = jnp.promote_types(dtype, "float32")
    blocks = [draw(k, (input_size, hidden_size), draw_dtype) for k in keys]
    return jnp.concatenate(blocks, axis=-1).astype(dtype)


def check_chrono(max_length: int | None, keyword: str, bias: float | None) -> None:
    """Raises a `UserError` for a length that `init_memory_bias` cannot draw from, or one besides a constant bias.

    Args:
      max_length: `chrono_max_length` of a cell; None is no chrono initialisation.
      keyword: the cell's keyword for a constant initial bias of the same gate.
      bias: its value; None where it is not given.
    """
    if max_length is not None and bias is not None:
        raise UserError(f"{keyword} and chrono_max_length both set the same bias; leave one of them out")
    if max_length is not None and max_length < 3:
        raise UserError(f"chrono_max_length must be at least 3, got {max_length}")


def init_memory_bias(
    key: PRNGKeyArray,
    hidden_size: int,
    dtype: DTypeLike,
    constant: float,
    chrono_max_length: int | None,
    *,
    sign: int = 1,
) -> Float[Array, "H"]:
    """Returns the initial bias of the gate σ that decides how long a state is kept.

    It is a constant or, with chrono initialisation, log(u) with u uniform in [1, `chrono_max_length` - 1]. A gate of
    σ(log(u)) forgets in about 1 + u steps, so the units begin with memories of all lengths up to `chrono_max_length`.
    Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.

    Args:
      key: the random key of the draw.
      hidden_size: H.
      dtype: of the bias.
      constant: every unit's bias, without chrono initialisation.
      chrono_max_length: None for the constant.
      sign: that of the draw: -1 for a gate that keeps the state where it is small.
    """
    if chrono_max_length is None:
        return jnp.full((hidden_size,), constant, dtype)
    draw_dtype = jnp.promote_types(dtype, "float32")
    steps = jax.random.uniform(key, (hidden_size,), draw_dtype, 1, chrono_max_length - 1)
    return sign * jnp.log(steps).astype(dtype)
