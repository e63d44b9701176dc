"""The simple recurrent network, and what it is with the identity as recurrent weights."""

import dataclasses
from typing import ClassVar

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import GatedCell, HiddenCarry


@dataclasses.dataclass(frozen=True)
class RNN(GatedCell):
    """The simple recurrent network (Elman, "Finding Structure in Time", 1990).

        h' = φ(x W + h U + b),    y = h'

    With φ = relu and U drawn as the identity, the row `irnn`, it is the IRNN of Le, Jaitly and Hinton, "A Simple Way to
    Initialize Recurrent Networks of Rectified Linear Units", 2015; `recurrent_factor` is the paper's scaled identity.

    Parameters: `input_kernel` W `[D, H]`, `recurrent_kernel` U `[H, H]`, `bias` b `[H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of W.
      recurrent_initializer: of U.
      learned_initial_state: see `Cell`.
      activation: φ, a name of `ACTIVATIONS`.
      recurrent_factor: what the initial U is multiplied by. Below 1 it shortens the memory at the start.
    """

    activation: str = "tanh"
    recurrent_factor: float = 1.0

    carry_type: ClassVar[type] = HiddenCarry
    num_gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        get_activation(self.activation)

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        params = super().init(key, input_size, dtype)
        return params | {"recurrent_kernel": params["recurrent_kernel"] * self.recurrent_factor}

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def update(
        self, params: Params, carry: HiddenCarry, z: Float[Array, "*batch H"], r: Float[Array, "*batch H"]
    ) -> tuple[HiddenCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        h = get_activation(self.activation)(z + r)
        return HiddenCarry(h=h), h
