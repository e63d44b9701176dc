"""The simple recurrent network."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params
from lstm_research.common.errors import unknown
from lstm_research.models.cells.base import GatedCell

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
      input_initializer: of W.
      recurrent_initializer: of U.
      activation: φ, "tanh" or "relu".
    """

    activation: Literal["tanh", "relu"] = "tanh"

    num_gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)

    def initial_carry(self, params: Params, batch_shape: tuple[int, ...], dtype: DTypeLike = "float32") -> RNNCarry:
        """See `Cell.initial_carry`: zeros."""
        return RNNCarry(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def update(
        self, params: Params, carry: RNNCarry, z: Float[Array, "*batch H"], r: Float[Array, "*batch H"]
    ) -> tuple[RNNCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        h = ACTIVATIONS[self.activation](z + r + params["bias"])
        return RNNCarry(h=h), h
