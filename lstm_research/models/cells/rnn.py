"""The simple recurrent network."""

import dataclasses
from typing import ClassVar, NamedTuple

from lstm_research.common.arrays import Array, Float, Params
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import GatedCell


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
      activation: φ, a name of `ACTIVATIONS`.
    """

    activation: str = "tanh"

    carry_type: ClassVar[type] = RNNCarry
    num_gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        get_activation(self.activation)

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def update(
        self, params: Params, carry: RNNCarry, z: Float[Array, "*batch H"], r: Float[Array, "*batch H"]
    ) -> tuple[RNNCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        h = get_activation(self.activation)(z + r)
        return RNNCarry(h=h), h
