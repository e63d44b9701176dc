"""Gated recurrent units: the form that vendor libraries compute, and the original."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import sigmoid
from lstm_research.models.cells.base import Cell, GatedCell, Product, apply, dense


class GRUCarry(NamedTuple):
    """State of a `GRU` or an `OriginalGRU`."""

    h: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class _GRU(Cell):
    """What the two forms share: gates and state."""

    carry_type: ClassVar[type] = GRUCarry
    num_gates: ClassVar[int] = 3


@dataclasses.dataclass(frozen=True)
class GRU(_GRU, GatedCell):
    """Gated recurrent unit with the reset after the recurrent product, as cuDNN, PyTorch and Keras compute it.

        r = σ(x Wᵣ + h Uᵣ + bᵣ)        u = σ(x Wᵤ + h Uᵤ + bᵤ)
        n = tanh(x Wₙ + bₙ + r*(h Uₙ + dₙ))
        h' = (1 - u)*n + u*h,    y = h'

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, version 1, which has the reset after
    the product; see `OriginalGRU` for the form that was published.

    Parameters, gates side by side in the order r, u, n: `input_kernel` W `[D, 3H]`, `recurrent_kernel` U `[H, 3H]`,
    `bias` b `[3H]`, `recurrent_bias` dₙ `[H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
    """

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        return super().init(key, input_size, dtype) | {"recurrent_bias": jnp.zeros((self.hidden_size,), dtype)}

    def update(
        self, params: Params, carry: GRUCarry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[GRUCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        z_r, z_u, z_n = jnp.split(z, 3, axis=-1)
        r_r, r_u, r_n = jnp.split(r, 3, axis=-1)
        reset = sigmoid(z_r + r_r)
        u = sigmoid(z_u + r_u)
        n = jnp.tanh(z_n + reset * (r_n + params["recurrent_bias"]))
        h = (1 - u) * n + u * carry.h
        return GRUCarry(h=h), h


@dataclasses.dataclass(frozen=True)
class OriginalGRU(_GRU):
    """Gated recurrent unit with the reset before the recurrent product, as published.

        r = σ(x Wᵣ + h Uᵣ + bᵣ)        u = σ(x Wᵤ + h Uᵤ + bᵤ)
        n = tanh(x Wₙ + (r*h) Uₙ + bₙ)
        h' = (1 - u)*n + u*h,    y = h'

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation", 2014.
    Its candidate needs r before the second product, so it gives `advance` and not `mix` and `update`.

    Parameters, gates side by side in the order r, u, n: `input_kernel` W `[D, 3H]`, `recurrent_kernel` U `[H, 3H]`,
    `bias` b `[3H]`.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
    """

    def advance(
        self,
        params: Params,
        carry: GRUCarry,
        z: Float[Array, "*batch GH"],
        recurrent_mask: Float[Array, "*#batch H"] | None = None,
        product: Product = apply,
    ) -> tuple[GRUCarry, Float[Array, "*batch H"]]:
        """See `Cell.advance`."""
        dropped = carry.h if recurrent_mask is None else carry.h * recurrent_mask
        z_ru, z_n = jnp.split(z, [2 * self.hidden_size], axis=-1)
        r, u = jnp.split(sigmoid(z_ru + product(self._mix_gates, params, dropped)), 2, axis=-1)
        n = jnp.tanh(z_n + product(self._mix_candidate, params, r * dropped))
        h = (1 - u) * n + u * carry.h
        return self.finish(carry, GRUCarry(h=h), h)

    def _mix_gates(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any N"]:
        return dense(h, params["recurrent_kernel"][:, : 2 * self.hidden_size])

    def _mix_candidate(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any H"]:
        return dense(h, params["recurrent_kernel"][:, 2 * self.hidden_size :])
