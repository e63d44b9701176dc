"""Gated recurrent units: the form that vendor libraries compute, and the original."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import Cell, GatedCell, HiddenCarry, Product, apply, dense
from lstm_research.models.cells.initializers import check_chrono, init_memory_bias
from lstm_research.models.cells.layer_norm import layer_norm_gates
from lstm_research.models.cells.observe import observed


@dataclasses.dataclass(frozen=True)
class _GRU(Cell):
    """What the two forms share: gates, state, activations and the update gate's initial bias."""

    gate_activation: str = "sigmoid"
    activation: str = "tanh"
    update_bias: float | None = None
    chrono_max_length: int | None = None

    carry_type: ClassVar[type] = HiddenCarry
    num_gates: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        get_activation(self.gate_activation, "gate_activation")
        get_activation(self.activation)
        check_chrono(self.chrono_max_length, "update_bias", self.update_bias)

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        H = self.hidden_size
        params = super().init(key, input_size, dtype)
        constant = self.update_bias or 0.0
        bias = init_memory_bias(jax.random.fold_in(key, 1), H, dtype, constant, self.chrono_max_length)
        params["bias"] = params["bias"].at[H : 2 * H].set(bias)
        return params


@dataclasses.dataclass(frozen=True)
class GRU(_GRU, GatedCell):
    """Gated recurrent unit with the reset after the recurrent product, as cuDNN, PyTorch and Keras compute it.

        r = σ(x Wᵣ + h Uᵣ + bᵣ)        u = σ(x Wᵤ + h Uᵤ + bᵤ)
        n = tanh(x Wₙ + bₙ + r*(h Uₙ + dₙ))
        h' = (1 - u)*n + u*h,    y = h'

    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, version 1, which has the reset after
    the product; see `OriginalGRU` for the form that was published.

    With `layer_norm`, LN(x W) and LN(h U) stand for x W and h U, each gate's block normalised by itself:

        LN(a) = γ*(a - mean(a)) / √(var(a) + ε)

    Ba, Kiros and Hinton, "Layer Normalization", 2016; b and d are the paper's β. (There r and u are normalised
    together, as one vector of 2H features.)

    Parameters, gates side by side in the order r, u, n: `input_kernel` W `[D, 3H]`, `recurrent_kernel` U `[H, 3H]`,
    `bias` b `[3H]`, `recurrent_bias` dₙ `[H]` and, with layer norm, `input_norm_scale` and `recurrent_norm_scale`
    `[3H]`, the γ of x W and of h U, which start at 1.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W.
      recurrent_initializer: of each gate's block of U.
      learned_initial_state: see `Cell`.
      gate_activation: σ, a name of `ACTIVATIONS`.
      activation: tanh, a name of `ACTIVATIONS`.
      update_bias: initial value of bᵤ, None for 0; the other biases start at 0.
      chrono_max_length: T; draws bᵤ = log(v) with v uniform in [1, T - 1] instead, for memories of all lengths up to
        T. Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
      layer_norm: whether the products are normalised.
    """

    layer_norm: bool = False

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        H = self.hidden_size
        params = super().init(key, input_size, dtype) | {"recurrent_bias": jnp.zeros((H,), dtype)}
        if self.layer_norm:
            params |= {name: jnp.ones((3 * H,), dtype) for name in ("input_norm_scale", "recurrent_norm_scale")}
        return params

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any GH"]:
        """Returns z = x W + b; with layer norm z = x W, since b comes after the normalisation."""
        return dense(xs, params["input_kernel"]) if self.layer_norm else super().project(params, xs)

    def update(
        self, params: Params, carry: HiddenCarry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[HiddenCarry, Float[Array, "*batch H"]]:
        """See `GatedCell.update`."""
        if self.layer_norm:
            z_r, z_u, z_n = layer_norm_gates(z, params["input_norm_scale"], params["bias"], 3)
            r_r, r_u, r_n = layer_norm_gates(r, params["recurrent_norm_scale"], None, 3)
        else:
            z_r, z_u, z_n = jnp.split(z, 3, axis=-1)
            r_r, r_u, r_n = jnp.split(r, 3, axis=-1)
        gate, activation = get_activation(self.gate_activation), get_activation(self.activation)
        reset = observed("reset gate", gate(z_r + r_r))
        u = observed("update gate", gate(z_u + r_u))
        n = observed("candidate", activation(z_n + reset * (r_n + params["recurrent_bias"])))
        h = (1 - u) * n + u * carry.h
        return HiddenCarry(h=h), h


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
      learned_initial_state: see `Cell`.
      gate_activation: σ, a name of `ACTIVATIONS`.
      activation: tanh, a name of `ACTIVATIONS`.
      update_bias: initial value of bᵤ, None for 0; the other biases start at 0.
      chrono_max_length: T; draws bᵤ = log(v) with v uniform in [1, T - 1] instead, for memories of all lengths up to
        T. Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.
    """

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
        z_ru, z_n = jnp.split(z, [2 * self.hidden_size], axis=-1)
        gate, activation = get_activation(self.gate_activation), get_activation(self.activation)
        r, u = jnp.split(gate(z_ru + product(self._mix_gates, params, dropped)), 2, axis=-1)
        r, u = observed("reset gate", r), observed("update gate", u)
        n = observed("candidate", activation(z_n + product(self._mix_candidate, params, r * dropped)))
        h = (1 - u) * n + u * carry.h
        return self.finish(carry, HiddenCarry(h=h), h)

    def _mix_gates(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any N"]:
        return dense(h, params["recurrent_kernel"][:, : 2 * self.hidden_size])

    def _mix_candidate(self, params: Params, h: Float[Array, "*any H"]) -> Float[Array, "*any H"]:
        return dense(h, params["recurrent_kernel"][:, 2 * self.hidden_size :])
