"""The independently recurrent network."""

import dataclasses
from typing import ClassVar

import jax

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import GatedCell, HiddenCarry
from lstm_research.models.cells.initializers import Initializer, init_gates


@dataclasses.dataclass(frozen=True)
class IndRNN(GatedCell):
    """The independently recurrent network: every unit sees its own state and no other; layers above mix the units.

        h' = φ(x W + u*h + b),    y = h'

    Li, Li, Cook, Zhu and Gao, "Independently Recurrent Neural Network (IndRNN): Building a Longer and Deeper RNN",
    2018. Over T steps a state is multiplied by u^T, so the paper keeps |u| below γ^(1/T), with γ the growth that is
    allowed (2, for instance); `recurrent_factor` sets this bound for the initial u. Training is not bound by it.

    Parameters: `input_kernel` W `[D, H]`, `recurrent_kernel` u `[H]`, `bias` b `[H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of W.
      recurrent_initializer: of u, drawn as a weight `[1, H]`; uniform in [0, 1] if not told otherwise. "identity" and
        "orthogonal" are of matrices and refused; a function such as `jax.nn.initializers.ones` makes u the diagonal of
        the identity.
      learned_initial_state: see `Cell`.
      activation: φ, a name of `ACTIVATIONS`.
      recurrent_factor: what the initial u is multiplied by.

    Raises:
      UserError: a recurrent initializer of matrices, or another choice that a `Cell` refuses.
    """

    recurrent_initializer: Initializer = "uniform_unit"
    activation: str = "relu"
    recurrent_factor: float = 1.0

    carry_type: ClassVar[type] = HiddenCarry
    num_gates: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        get_activation(self.activation)
        if self.recurrent_initializer in ("identity", "orthogonal"):
            raise UserError(
                f"recurrent_initializer={self.recurrent_initializer!r} draws a matrix, but the recurrent weights of an "
                'IndRNN are one number a unit; leave it out for "uniform_unit", or take "uniform_hidden"'
            )

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        recurrent_key = jax.random.split(key)[1]
        params = super().init(key, input_size, dtype)
        u = init_gates(self.recurrent_initializer, recurrent_key, 1, self.hidden_size, 1, dtype)[0]
        return params | {"recurrent_kernel": u * self.recurrent_factor}

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def mix(self, params: Params, carry: HiddenCarry) -> Float[Array, "*batch H"]:
        """Returns r = u*h; works for any leading axes."""
        return carry.h * params["recurrent_kernel"]

    def update(
        self, params: Params, carry: HiddenCarry, z: Float[Array, "*batch H"], r: Float[Array, "*batch H"]
    ) -> tuple[HiddenCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        h = get_activation(self.activation)(z + r)
        return HiddenCarry(h=h), h
