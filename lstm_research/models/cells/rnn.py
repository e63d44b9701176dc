"""The simple recurrent network."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import unknown
from lstm_research.models.cells.base import GatedCell
from lstm_research.models.cells.initializers import Initializer, get_initializer, init_gates

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class RNNCarry(NamedTuple):
    """State of an `RNN`."""

    h: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class RNN(GatedCell):
    """The simple recurrent network (Elman, "Finding Structure in Time", 1990).

        h' = φ(x W + h U + b),    y = h'

    Parameters: `input_kernel` W `[D, H]`, `recurrent_kernel` U `[H, H]`, `bias` b `[H]`.

    Attributes:
      hidden_size: H.
      activation: φ, "tanh" or "relu".
      input_initializer: of W.
      recurrent_initializer: of U.
    """

    activation: Literal["tanh", "relu"] = "tanh"
    input_initializer: Initializer = "lecun_normal"
    recurrent_initializer: Initializer = "orthogonal"

    def __post_init__(self) -> None:
        super().__post_init__()
        get_initializer(self.input_initializer)
        get_initializer(self.recurrent_initializer)
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        input_key, recurrent_key = jax.random.split(key)
        H = self.hidden_size
        return {
            "input_kernel": init_gates(self.input_initializer, input_key, input_size, H, 1, dtype),
            "recurrent_kernel": init_gates(self.recurrent_initializer, recurrent_key, H, H, 1, dtype),
            "bias": jnp.zeros((H,), dtype),
        }

    def initial_carry(self, params: Params, batch_shape: tuple[int, ...], dtype: DTypeLike = "float32") -> RNNCarry:
        """See `Cell.initial_carry`: zeros."""
        return RNNCarry(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any H"]:
        """See `GatedCell.project`: x W."""
        return xs @ params["input_kernel"]

    def mix(self, params: Params, carry: RNNCarry) -> Float[Array, "*batch H"]:
        """See `GatedCell.mix`: h U."""
        return carry.h @ params["recurrent_kernel"]

    def update(
        self, params: Params, carry: RNNCarry, z: Float[Array, "*batch H"], r: Float[Array, "*batch H"]
    ) -> tuple[RNNCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        h = ACTIVATIONS[self.activation](z + r + params["bias"])
        return RNNCarry(h=h), h
