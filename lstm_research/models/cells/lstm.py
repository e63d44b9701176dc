"""Long short-term memory, with what the literature added to it and took from it as options."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells.activations import get_activation
from lstm_research.models.cells.base import GatedCell, Product, apply, dense
from lstm_research.models.cells.initializers import check_chrono, init_gates, init_memory_bias
from lstm_research.models.cells.layer_norm import layer_norm, layer_norm_gates
from lstm_research.models.cells.observe import observed

INPUT_GATES = ("free", "coupled", "capped", "none")
"""What the input gate can be, see `LSTM`."""


class LSTMCarry(NamedTuple):
    """State of an `LSTM`: the memory and the hidden state."""

    c: Float[Array, "*batch H"]
    h: Float[Array, "*batch P"]


class GateRecurrentLSTMCarry(NamedTuple):
    """State of an `LSTM` with `gate_recurrence`: also the gates of the step before, side by side."""

    c: Float[Array, "*batch H"]
    h: Float[Array, "*batch P"]
    gates: Float[Array, "*batch KH"]


@dataclasses.dataclass(frozen=True)
class LSTM(GatedCell):
    """Long short-term memory. Without options it is the one of all libraries, with a forget gate.

        i = σ(x Wᵢ + h Uᵢ + bᵢ)        f = σ(x W_f + h U_f + b_f)
        g = φ(x W_g + h U_g + b_g)     c' = f*c + i*g
        o = σ(x Wₒ + h Uₒ + bₒ)        m = o*ψ(c')        h' = m,    y = h'

    with φ = ψ = tanh. Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the forget gate: Gers, Schmidhuber
    and Cummins, "Learning to Forget", 2000; a forget bias of 1: Jozefowicz, Zaremba and Sutskever, "An Empirical
    Exploration of Recurrent Network Architectures", 2015.

    The options change these equations as follows, alone or together; most of the combinations are in Greff,
    Srivastava, Koutník, Steunebrink and Schmidhuber, "LSTM: A Search Space Odyssey", 2017, whose vanilla LSTM has
    peepholes. A gate that is left out is 1, and has no weights.

    - `input_gate="none"`, `forget_gate=False`, `output_gate=False`: i = 1, f = 1, o = 1.
    - `input_gate="coupled"`: f = 1 - i, where i has the weights and b_f stands for -bᵢ. `"capped"`: the input gate is
      min(i, 1 - f); Melis, Dyer and Blunsom, "On the State of the Art of Evaluation in Neural Language Models", 2018.
    - `peepholes`: the arguments of i, f, o gain pᵢ*c, p_f*c, pₒ*c'. Gers, Schraudolph and Schmidhuber, "Learning
      Precise Timing with LSTM Recurrent Networks", 2002.
    - `gate_recurrence`: the arguments of i, f, o gain [i f o] R, with the gates of the step before. Hochreiter and
      Schmidhuber 1997.
    - `layer_norm`: with LN(a) = γ*(a - mean(a))/√(var(a) + ε), the products x W + h U become LN(x W + h U), each gate
      by itself, and ψ(c') becomes ψ(LN(c') + β). Ba, Kiros and Hinton, "Layer Normalization", 2016, who normalise x W
      and h U apart and all gates together.
    - `projection_size=P`: h' = m V, which then has P features. Sak, Senior and Beaufays, "Long Short-Term Memory Based
      Recurrent Neural Network Architectures for Large Vocabulary Speech Recognition", 2014.
    - `chrono_max_length=T`: b_f is drawn from log(uniform(1, T - 1)) and bᵢ = -b_f, for dependencies as long as T
      steps. Tallec and Ollivier, "Can Recurrent Neural Networks Warp Time?", 2018.

    Parameters: of the G gates i, f, g, o that have weights, side by side in this order, `input_kernel` W `[D, GH]`,
    `recurrent_kernel` U `[P, GH]` (P is H without projection) and `bias` b `[GH]`. Of the K gates among them without g:
    `peephole` p `[K, H]` and `gate_kernel` R `[KH, KH]`, from the gates in the rows to those in the columns. With
    layer norm `norm_scale` γ `[GH]`, and `memory_norm_scale` γ and `memory_norm_bias` β `[H]`. With projection
    `projection_kernel` V `[H, P]`.

    Attributes:
      hidden_size: H.
      input_initializer: of each gate's block of W, and of V.
      recurrent_initializer: of each gate's block of U and of R.
      learned_initial_state: see `Cell`.
      input_gate: "free", "coupled", "capped" or "none".
      forget_gate: whether there is one.
      output_gate: whether there is one.
      peepholes: whether the gates see the memory.
      gate_recurrence: whether the gates see the gates of the step before, which is called full gate recurrence.
      gate_activation: σ, a name of `ACTIVATIONS`.
      input_activation: φ, a name of `ACTIVATIONS`.
      output_activation: ψ, a name of `ACTIVATIONS`.
      layer_norm: whether gates and memory are normalised.
      projection_size: P; None for no projection.
      forget_bias: initial value of b_f, None for 1; the other biases and the peepholes start at 0.
      chrono_max_length: T of the chrono initialisation, in the place of `forget_bias`.

    Raises:
      UserError: options that exclude each other.
    """

    input_gate: str = "free"
    forget_gate: bool = True
    output_gate: bool = True
    peepholes: bool = False
    gate_recurrence: bool = False
    gate_activation: str = "sigmoid"
    input_activation: str = "tanh"
    output_activation: str = "tanh"
    layer_norm: bool = False
    projection_size: int | None = None
    forget_bias: float | None = None
    chrono_max_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_gate not in INPUT_GATES:
            raise unknown("input_gate", self.input_gate, INPUT_GATES)
        for keyword in ("gate_activation", "input_activation", "output_activation"):
            get_activation(getattr(self, keyword), keyword)
        if not self.forget_gate:
            if self.input_gate in ("coupled", "capped"):
                raise UserError(f'input_gate="{self.input_gate}" needs forget_gate=True, whose counterpart it is')
            for keyword in ("forget_bias", "chrono_max_length"):
                if getattr(self, keyword) is not None:
                    raise UserError(f"{keyword} needs a forget gate; set forget_gate=True, or leave {keyword} out")
        if not self.gates:
            raise UserError('an LSTM needs a gate; set one of input_gate="free", forget_gate=True, output_gate=True')
        check_chrono(self.chrono_max_length, "forget_bias", self.forget_bias)
        if self.projection_size is not None and self.projection_size < 1:
            raise UserError(f"projection_size must be at least 1, or None, got {self.projection_size}")

    @property
    def gates(self) -> tuple[str, ...]:
        """Those of i, f, o that have weights."""
        i, f, o = self.input_gate != "none", self.forget_gate and self.input_gate != "coupled", self.output_gate
        return tuple(gate for gate, is_there in zip("ifo", (i, f, o), strict=True) if is_there)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Those of i, f, g, o that have weights, in the order of their columns."""
        return tuple(sorted((*self.gates, "g"), key="ifgo".index))

    @property
    def num_gates(self) -> int:  # type: ignore[override]
        """See `Cell.num_gates`."""
        return len(self.blocks)

    @property
    def carry_type(self) -> Any:  # type: ignore[override]
        """See `Cell.carry_type`."""
        return GateRecurrentLSTMCarry if self.gate_recurrence else LSTMCarry

    @property
    def carry_sizes(self) -> dict[str, int]:
        """See `Cell.carry_sizes`."""
        sizes = {"c": self.hidden_size, "h": self.projection_size or self.hidden_size}
        return sizes | ({"gates": len(self.gates) * self.hidden_size} if self.gate_recurrence else {})

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        H, K = self.hidden_size, len(self.gates)
        params = super().init(key, input_size, dtype)
        params["bias"] = self._init_bias(jax.random.fold_in(key, 0), dtype)
        if self.peepholes:
            params["peephole"] = jnp.zeros((K, H), dtype)
        if self.gate_recurrence:
            gate_key = jax.random.fold_in(key, 1)
            params["gate_kernel"] = init_gates(self.recurrent_initializer, gate_key, K * H, H, K, dtype)
        if self.layer_norm:
            params["norm_scale"] = jnp.ones((self.num_gates * H,), dtype)
            params["memory_norm_scale"] = jnp.ones((H,), dtype)
            params["memory_norm_bias"] = jnp.zeros((H,), dtype)
        if self.projection_size is not None:
            params["projection_kernel"] = init_gates(
                self.input_initializer, jax.random.fold_in(key, 2), H, self.projection_size, 1, dtype
            )
        return params

    def _init_bias(self, key: PRNGKeyArray, dtype: DTypeLike) -> Float[Array, "GH"]:
        H = self.hidden_size
        bias = dict.fromkeys(self.blocks, jnp.zeros(H, dtype))
        if self.forget_gate:
            constant = 1.0 if self.forget_bias is None else self.forget_bias
            bias["f"] = init_memory_bias(key, H, dtype, constant, self.chrono_max_length)
            if self.input_gate == "coupled" or self.chrono_max_length is not None:
                bias["i"] = -bias["f"]
        return jnp.concatenate([bias[block] for block in self.blocks])

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return True

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any N"]:
        """See `Cell.project`; with layer norm z = x W, since b comes after the normalisation."""
        return dense(xs, params["input_kernel"]) if self.layer_norm else super().project(params, xs)

    def mix(self, params: Params, carry: Any) -> Float[Array, "*batch GH"]:
        """See `GatedCell.mix`."""
        r = super().mix(params, carry)
        if not self.gate_recurrence:
            return r
        from_gates = dense(carry.gates, params["gate_kernel"])
        before, after = jnp.split(from_gates, [self.blocks.index("g") * self.hidden_size], axis=-1)
        return r + jnp.concatenate([before, jnp.zeros_like(r[..., : self.hidden_size]), after], axis=-1)

    def update(
        self, params: Params, carry: Any, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[Any, Float[Array, "*batch H"]]:
        """See `GatedCell.update`; with projection m takes the place of h'."""
        σ, φ, ψ = map(get_activation, (self.gate_activation, self.input_activation, self.output_activation))
        if self.layer_norm:
            split = layer_norm_gates(z + r, params["norm_scale"], params["bias"], self.num_gates)
        else:
            split = jnp.split(z + r, self.num_gates, axis=-1)
        a = dict(zip(self.blocks, split, strict=True))
        p = dict(zip(self.gates, params["peephole"], strict=True)) if self.peepholes else {}

        def gate(name: str, memory: Array) -> Any:
            if name not in a:
                return 1.0
            return σ(a[name] + p[name] * memory) if self.peepholes else σ(a[name])

        i, f = gate("i", carry.c), gate("f", carry.c)
        if self.input_gate == "coupled":
            f = 1 - i
        elif self.input_gate == "capped":
            i = jnp.minimum(i, 1 - f)
        c = f * carry.c + i * observed("candidate", φ(a["g"]))
        o = gate("o", c)
        seen = layer_norm(c, params["memory_norm_scale"], params["memory_norm_bias"]) if self.layer_norm else c
        m = o * ψ(seen)
        for name, value in (("input gate", i), ("forget gate", f), ("output gate", o)):
            if not isinstance(value, float):  # 1.0 stands for a gate that is not there
                observed(name, value)
        if not self.gate_recurrence:
            return LSTMCarry(c=c, h=m), m
        values = {"i": i, "f": f, "o": o}
        return GateRecurrentLSTMCarry(c=c, h=m, gates=jnp.concatenate([values[name] for name in self.gates], -1)), m

    def advance(
        self,
        params: Params,
        carry: Any,
        z: Float[Array, "*batch N"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Any, Float[Array, "*batch P"]]:
        """See `Cell.advance`."""
        mixed = carry if recurrent_mask is None else carry._replace(h=carry.h * recurrent_mask)
        return self._complete(params, carry, z, product(self.mix, params, mixed), product)

    def _complete(
        self, params: Params, carry: Any, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"], product: Product
    ) -> tuple[Any, Float[Array, "*batch P"]]:
        """Ends a step: `update` and the projection."""
        new, y = self.update(params, carry, z, r)
        if self.projection_size is not None:
            y = product(_project_hidden, params, y)
            new = new._replace(h=y)
        return self.finish(carry, new, y)


def _project_hidden(params: Params, m: Float[Array, "*any H"]) -> Float[Array, "*any P"]:
    return dense(m, params["projection_kernel"])
