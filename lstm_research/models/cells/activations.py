"""Elementwise functions that cells share."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Float
from lstm_research.common.errors import unknown


def sigmoid(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Returns σ(x) = 1 / (1 + exp(-x)).

    In float32 and above as ½ tanh(½ x) + ½, which is as near to σ as 1 can be told from its neighbours: an error of
    6e-8, absolute. In bfloat16 and float16 that error would close a gate for good, so there it is computed in float32,
    as written above.
    """
    if jnp.finfo(x.dtype).bits < 32:
        return jax.nn.sigmoid(x.astype(jnp.float32)).astype(x.dtype)
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def hard_sigmoid(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Returns min(max(x/6 + ½, 0), 1), the piecewise linear σ of Keras and PyTorch."""
    return jnp.clip(x / 6 + 0.5, 0, 1)


def identity(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Returns x: no activation."""
    return x


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "elu": jax.nn.elu,
    "hard_sigmoid": hard_sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
    "identity": identity,
    "relu": jax.nn.relu,
    "sigmoid": sigmoid,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "tanh": jnp.tanh,
}
"""Every activation by the name that configs use."""


def get_activation(name: str, keyword: str = "activation") -> Callable[[Array], Array]:
    """Returns the function behind a name.

    Args:
      name: a name of `ACTIVATIONS`.
      keyword: what the name was given for, for the message.

    Raises:
      UserError: the name is not in the table.
    """
    if name not in ACTIVATIONS:
        raise unknown(keyword, name, ACTIVATIONS)
    return ACTIVATIONS[name]
