"""JANET: an LSTM of which only the forget gate is left."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import GatedCell, HiddenCarry
from lstm_research.models.cells.initializers import check_chrono, init_memory_bias
from lstm_research.models.cells.observe import observed


@dataclasses.dataclass(frozen=True)
class JANET(GatedCell):
    """Just another network: an LSTM with the forget gate alone.

        s = x W_f + h U_f + b_f        g = tanh(x W_g + h U_g + b_g)
        h' = σ(s)*h + (1 - σ(s - β))*g,    y = h'

    The paper's memory c equals h, so the state is h alone (zoneout on h is zoneout on both). Van der Westhuizen and
    Lasenby, "The Unreasonable Effectiveness of the Forget Gate", 2018; the last form there, with β = 1, the letter g
    for the paper's c̃.

    Parameters, gates side by side in the order f, g: `input_kernel` W `[D, 2H]`, `recurrent_kernel` U `[H, 2H]`,
    `bias` b `[2H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
      learned_initial_state: see `Cell`.
      gate_activation: σ, a name of `ACTIVATIONS`.
      activation: tanh, a name of `ACTIVATIONS`.
      beta: β, by how much more is taken in than forgotten; 0 couples the two.
      forget_bias: initial value of b_f, None for 1; b_g starts at 0.
      chrono_max_length: T; draws b_f = log(v) with v uniform in [1, T - 1] instead, for memories of all lengths up to
        T, as the paper does. Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """

    gate_activation: str = "sigmoid"
    activation: str = "tanh"
    beta: float = 1.0
    forget_bias: float | None = None
    chrono_max_length: int | None = None

    carry_type: ClassVar[type] = HiddenCarry
    num_gates: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        get_activation(self.gate_activation, "gate_activation")
        get_activation(self.activation)
        check_chrono(self.chrono_max_length, "forget_bias", self.forget_bias)

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        H = self.hidden_size
        params = super().init(key, input_size, dtype)
        constant = 1.0 if self.forget_bias is None else self.forget_bias
        bias = init_memory_bias(jax.random.fold_in(key, 1), H, dtype, constant, self.chrono_max_length)
        params["bias"] = params["bias"].at[:H].set(bias)
        return params

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def update(
        self, params: Params, carry: HiddenCarry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[HiddenCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        gate = get_activation(self.gate_activation)
        s, g = jnp.split(z + r, 2, axis=-1)
        f = observed("forget gate", gate(s))
        i = observed("input gate", 1 - gate(s - self.beta))
        h = f * carry.h + i * observed("candidate", get_activation(self.activation)(g))
        return HiddenCarry(h=h), h
