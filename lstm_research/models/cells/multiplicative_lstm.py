"""The multiplicative LSTM."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.base import Product, apply, dense
from lstm_research.models.cells.initializers import init_gates
from lstm_research.models.cells.lstm import LSTM


@dataclasses.dataclass(frozen=True)
class MultiplicativeLSTM(LSTM):
    """An LSTM whose recurrent weights depend on the input: m takes the place of h wherever it enters them.

        m = (x Wₘ)*(h Uₘ)
        i = σ(x Wᵢ + m Uᵢ + bᵢ)        f = σ(x W_f + m U_f + b_f)
        g = tanh(x W_g + m U_g + b_g)  c' = f*c + i*g
        o = σ(x Wₒ + m Uₒ + bₒ)        h' = o*tanh(c'),    y = h'

    Krause, Lu, Murray and Renals, "Multiplicative LSTM for Sequence Modelling", 2016.

    Parameters: those of `LSTM`, where `recurrent_kernel` U has m in its rows, and `multiplicative_input_kernel` Wₘ
    `[D, P]` and `multiplicative_recurrent_kernel` Uₘ `[P, P]` (P is H without projection).

    Attributes:
      hidden_size: H; this and all other options are those of `LSTM`. `input_initializer` draws Wₘ too, and
        `recurrent_initializer` Uₘ.
    """

    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_kernel", "multiplicative_recurrent_kernel")

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        P = self.output_size
        W_m = init_gates(self.input_initializer, jax.random.fold_in(key, 3), input_size, P, 1, dtype)
        U_m = init_gates(self.recurrent_initializer, jax.random.fold_in(key, 4), P, P, 1, dtype)
        params = super().init(key, input_size, dtype)
        return params | {"multiplicative_input_kernel": W_m, "multiplicative_recurrent_kernel": U_m}

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return False

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any N"]:
        """Returns x Wₘ and the input pre-activations of all gates, side by side."""
        return jnp.concatenate([dense(xs, params["multiplicative_input_kernel"]), super().project(params, xs)], axis=-1)

    def advance(
        self,
        params: Params,
        carry: Any,
        z: Float[Array, "*batch N"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Any, Float[Array, "*batch P"]]:
        """See `Cell.advance`; the mask is on h where it enters Uₘ."""
        dropped = carry.h if recurrent_mask is None else carry.h * recurrent_mask
        z_m, z_gates = jnp.split(z, [self.output_size], axis=-1)
        m = z_m * product(_mix_hidden, params, dropped)
        return self._complete(params, carry, z_gates, product(self.mix, params, carry._replace(h=m)), product)


def _mix_hidden(params: Params, h: Float[Array, "*any P"]) -> Float[Array, "*any P"]:
    return dense(h, params["multiplicative_recurrent_kernel"])
