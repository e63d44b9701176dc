"""Long short-term memory."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import sigmoid
from lstm_research.models.cells.base import GatedCell


class LSTMCarry(NamedTuple):
    """State of an `LSTM`: the memory and the hidden state."""

    c: Float[Array, "*batch H"]
    h: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class LSTM(GatedCell):
    """Long short-term memory with a forget gate, and with peepholes on request.

        i = σ(x Wᵢ + h Uᵢ + bᵢ + pᵢ*c)        f = σ(x W_f + h U_f + b_f + p_f*c)
        g = tanh(x W_g + h U_g + b_g)         c' = f*c + i*g
        o = σ(x Wₒ + h Uₒ + bₒ + pₒ*c')       h' = o*tanh(c'),    y = h'

    The terms with p are there with `peepholes` only. Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the
    forget gate: Gers, Schmidhuber and Cummins, "Learning to Forget", 2000; peepholes: Gers, Schraudolph and
    Schmidhuber, "Learning Precise Timing with LSTM Recurrent Networks", 2002; a forget bias of 1: Jozefowicz, Zaremba
    and Sutskever, "An Empirical Exploration of Recurrent Network Architectures", 2015.

    Parameters, gates side by side in the order i, f, g, o: `input_kernel` W `[D, 4H]`, `recurrent_kernel` U `[H, 4H]`,
    `bias` b `[4H]` and, with peepholes, `peephole` p `[3, H]` in the order i, f, o.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
      peepholes: whether the gates see the memory.
      forget_bias: initial value of b_f; the other biases and the peepholes start at 0.
    """

    peepholes: bool = False
    forget_bias: float = 1.0

    carry_type: ClassVar[type] = LSTMCarry
    num_gates: ClassVar[int] = 4

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        H = self.hidden_size
        params = super().init(key, input_size, dtype)
        params["bias"] = params["bias"].at[H : 2 * H].set(self.forget_bias)
        if self.peepholes:
            params["peephole"] = jnp.zeros((3, H), dtype)
        return params

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def update(
        self, params: Params, carry: LSTMCarry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[LSTMCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        i, f, g, o = jnp.split(z + r, 4, axis=-1)
        if self.peepholes:
            p_i, p_f, p_o = params["peephole"]
            i = i + p_i * carry.c
            f = f + p_f * carry.c
        c = sigmoid(f) * carry.c + sigmoid(i) * jnp.tanh(g)
        if self.peepholes:
            o = o + p_o * c
        h = sigmoid(o) * jnp.tanh(c)
        return LSTMCarry(c=c, h=h), h
