"""The minimal gated unit."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import Cell, HiddenCarry, Product, apply, dense
from lstm_research.models.cells.initializers import check_chrono, init_memory_bias
from lstm_research.models.cells.observe import observed


@dataclasses.dataclass(frozen=True)
class MGU(Cell):
    """Minimal gated unit: one gate says both what the candidate sees of the state and how much of it is renewed.

        f = σ(x W_f + h U_f + b_f)        n = tanh(x Wₙ + (f*h) Uₙ + bₙ)
        h' = (1 - f)*h + f*n,    y = h'

    Zhou, Wu, Zhang and Zhou, "Minimal Gated Unit for Recurrent Neural Networks", 2016. It is an `OriginalGRU` with
    r = f and u = 1 - f. (Flax's `MGUCell` is another: it has the gate after the product, and h' = f*h + (1 - f)*n.)
    Its candidate needs f before the second product, so it gives `advance` and not `mix` and `update`.

    Parameters, gates side by side in the order f, n: `input_kernel` W `[D, 2H]`, `recurrent_kernel` U `[H, 2H]`,
    `bias` b `[2H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
      learned_initial_state: see `Cell`.
      gate_activation: σ, a name of `ACTIVATIONS`.
      activation: tanh, a name of `ACTIVATIONS`.
      forget_bias: initial value of b_f, None for 0. The state is kept where f is small, so a negative value lengthens
        the memory.
      chrono_max_length: T; draws b_f = -log(v) with v uniform in [1, T - 1] instead, for memories of all lengths up
        to T. Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """

    gate_activation: str = "sigmoid"
    activation: str = "tanh"
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
        constant = self.forget_bias or 0.0
        bias = init_memory_bias(jax.random.fold_in(key, 1), H, dtype, constant, self.chrono_max_length, sign=-1)
        params["bias"] = params["bias"].at[:H].set(bias)
        return params

    def advance(
        self,
        params: Params,
        carry: HiddenCarry,
        z: Float[Array, "*batch GH"],
        recurrent_mask: Float[Array, "*#batch H"] | None = None,
        product: Product = apply,
    ) -> tuple[HiddenCarry, Float[Array, "*batch H"]]:
        """See `Cell.advance`."""
        dropped = carry.h if recurrent_mask is None else carry.h * recurrent_mask
        z_f, z_n = jnp.split(z, 2, axis=-1)
        f = observed(
            "forget gate", get_activation(self.gate_activation)(z_f + product(self._mix_gate, params, dropped))
        )
        n = get_activation(self.activation)(z_n + product(self._mix_candidate, params, f * dropped))
        n = observed("candidate", n)
        h = (1 - f) * carry.h + f * n
        return self.finish(carry, HiddenCarry(h=h), h)

    def _mix_gate(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any H"]:
        return dense(h, params["recurrent_kernel"][:, : self.hidden_size])

    def _mix_candidate(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any H"]:
        return dense(h, params["recurrent_kernel"][:, self.hidden_size :])
