"""The recurrent decoder: layers that write a sequence while they attend to another."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.cells.base import dense
from lstm_research.models.layers.attention import Attention, AttentionLayer, AttentionMemory
from lstm_research.models.layers.dropout import DropoutRates, dropout_mask, recurrent_masks, split_key, weight_drop
from lstm_research.models.layers.recurrent import Recurrent
from lstm_research.models.recurrence import RecurrentMasks, unroll
from lstm_research.models.recurrence.scan import Step, take_step


class DecoderState(NamedTuple):
    """The state between two steps; all arrays have the batch axis first.

    Attributes:
      carry: of every layer.
      features: of the step before, with input feeding.
      coverage: the sum of all attention so far, for an attention with coverage.
    """

    carry: tuple[Any, ...]
    features: Float[Array, "B A"] | None
    coverage: Float[Array, "B S"] | None


class DecoderOutput(NamedTuple):
    """What a step gives; with a leading axis T, what all steps give.

    Attributes:
      features: the attentional state, which the output layer reads.
      weights: of the attention.
      copy_logits: of copying rather than generating, with the copy mechanism.
    """

    features: Float[Array, "*T B A"]
    weights: Float[Array, "*T B S"]
    copy_logits: Float[Array, "*T B"] | None


class _Noise(NamedTuple):
    """All that is drawn before the loop over time; a mask's leading axis is T, or 1 if all steps share it."""

    inputs: Array | None
    between: tuple[Array | None, ...]
    features: Array | None
    params: tuple[Params, ...]
    masks: tuple[RecurrentMasks, ...]


class _Layer(Recurrent):
    """A recurrent layer whose noise is drawn apart from its steps."""

    def draw(self, key: PRNGKeyArray | None, steps: tuple[int, int], dtype: DTypeLike) -> tuple[Params, RecurrentMasks]:
        """Returns the parameters with weight-drop, and the masks on the state, as `Recurrent` has them in a call."""
        weight_key, state_key = split_key(key, 2)
        params = weight_drop(weight_key, self.cell, self._cell_params(dtype), self.rates.weight_rate)
        return params, recurrent_masks(state_key, self.rates, self.cell, steps)


class AttentionDecoder(nnx.Module):
    """Recurrent layers, an attention, and the attentional state that is read from both.

        h_t = layers(x_t)        c_t = attention(h_t, memory)        y_t = tanh([c_t; h_t] W)

    Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation", 2015. With
    `input_feeding` the layers read [x_t; y_{t-1}]. With `attend_from="bottom"` the first layer asks, and all layers
    above it read the context beside the output of the layer below: Wu et al., "Google's Neural Machine Translation
    System", 2016, as in Chen et al., "The Best of Both Worlds" (RNMT+), 2018.

    A whole sequence of inputs goes through layer by layer, on the fast engines, and attention is one product for all
    its steps. Where a step needs what the step before has made (input feeding, an attention with coverage,
    `feed_back`), it goes step by step.

    Parameters: `layer_0.params.*` and so on, `attention.params.*`, `features_kernel` W `[C + H, A]`; with the copy
    mechanism `copy_kernel` `[C + H + E, 1]` and `copy_bias` `[1]`.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        memory_size: int,
        features_size: int,
        *,
        attention: Attention,
        num_layers: int = 1,
        residual: bool = False,
        attend_from: Literal["top", "bottom"] = "top",
        input_feeding: bool = False,
        copy: bool = False,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          cell: the cell of every layer.
          input_size: E.
          memory_size: M.
          features_size: A, the size of the attentional state.
          attention: which attention.
          num_layers: L.
          residual: adds to every layer's output that of the layer below, from the second layer on.
          attend_from: which layer's output is the query.
          input_feeding: whether the first layer reads the attentional state of the step before.
          copy: whether each step says how likely it copies a symbol of the source (`DecoderOutput.copy_logits`).
          rates: of the dropout; the output rate acts on the attentional state.
          engine: see `lstm_research.models.unroll`; steps one by one need none.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          dtype: of the products with kernels, see `Recurrent`.
          param_dtype: of the parameters.
          rngs: draws the parameters.

        Raises:
          UserError: choices that do not go together.
        """
        if num_layers < 1:
            raise UserError(f"the decoder needs at least 1 layer, got num_layers = {num_layers}")
        for key, is_set in {"residual": residual, 'attend_from = "bottom"': attend_from == "bottom"}.items():
            if is_set and num_layers == 1:
                raise UserError(f"model.{key} has no effect on one layer; leave it out, or set num_layers above 1")
        self.num_layers, self.residual = num_layers, residual
        self.input_feeding, self.features_size = input_feeding, features_size
        self.rates = rates or DropoutRates()
        self.dtype = dtype
        self.asking = 0 if attend_from == "bottom" else num_layers - 1
        self.attention = AttentionLayer(
            attention, cell.output_size, memory_size, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        context_size = self.attention.context_size
        if context_size == 0:
            for key, is_set in {"copy": copy, 'attend_from = "bottom"': attend_from == "bottom"}.items():
                if is_set:
                    raise UserError(f'model.{key} needs an attention, and model.attention.name is "none"')
        size = input_size + (features_size if input_feeding else 0)
        for index in range(num_layers):
            layer = _Layer(
                cell,
                size,
                rates=self.rates,
                engine=engine,
                remat=remat,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            setattr(self, f"layer_{index}", layer)
            size = cell.output_size + (context_size if attend_from == "bottom" else 0)
        initialize = nnx.initializers.lecun_normal()
        size = context_size + cell.output_size
        self.features_kernel = nnx.Param(initialize(rngs.params(), (size, features_size), param_dtype))
        self.copy = copy
        if copy:
            self.copy_kernel = nnx.Param(initialize(rngs.params(), (size + input_size, 1), param_dtype))
            self.copy_bias = nnx.Param(jnp.zeros((1,), param_dtype))

    @property
    def layers(self) -> list[_Layer]:
        """The layers from the bottom to the top."""
        return [getattr(self, f"layer_{index}") for index in range(self.num_layers)]

    def initial_state(self, carry: tuple[Any, ...], memory: AttentionMemory) -> DecoderState:
        """Returns the state before the first step, from every layer's carry."""
        B, S = memory.valid.shape
        dtype = carry[0].h.dtype
        return DecoderState(
            carry,
            jnp.zeros((B, self.features_size), dtype) if self.input_feeding else None,
            jnp.zeros((B, S), dtype) if self.attention.attention.coverage else None,
        )

    def __call__(
        self,
        xs: Float[Array, "T B E"],
        memory: AttentionMemory,
        state: DecoderState,
        *,
        key: PRNGKeyArray | None = None,
        feed_back: Callable[[DecoderOutput, Array, Array], Array] | None = None,
    ) -> tuple[DecoderState, DecoderOutput]:
        """Reads a sequence of inputs.

        Args:
          xs: the inputs.
          memory: what is attended to, from `attention.remember`.
          state: before the first step.
          key: the random key of the dropout; None in evaluation.
          feed_back: `(output of the step before, x, t) -> x`, what a step reads instead of its input x; also called at
            the first step, with an output of zeros.

        Returns:
          The state after the last step, and the outputs.
        """
        if feed_back is not None or self.input_feeding or state.coverage is not None:
            return self.scan(xs, memory, state, key=key, feed_back=feed_back)
        noise = self._draw(key, xs.shape[:2], xs.dtype)
        carry = []

        def run(index: int, inputs: Array) -> Array:
            layer = self.layers[index]
            params, masks = noise.params[index], noise.masks[index]
            unrolled = functools.partial(unroll, layer.cell, params, masks=masks, engine=layer.engine)
            after, ys = layer.rematerialized(unrolled)(inputs, state.carry[index])
            carry.append(after)
            return ys

        output = self._combine(xs, xs, noise, run, lambda queries: self.attention(queries, memory))
        return state._replace(carry=tuple(carry)), output

    def scan(
        self,
        xs: Float[Array, "T B E"],
        memory: AttentionMemory,
        state: DecoderState,
        *,
        key: PRNGKeyArray | None = None,
        feed_back: Callable[[DecoderOutput, Array, Array], Array] | None = None,
    ) -> tuple[DecoderState, DecoderOutput]:
        """Does what a call does step by step, with the same noise."""
        noise = self._draw(key, xs.shape[:2], xs.dtype)

        def body(before: tuple[DecoderState, DecoderOutput], t_x: tuple[Array, Array]) -> Any:
            t, x = t_x
            x = x if feed_back is None else feed_back(before[1], x, t)
            after = self._step(x, memory, before[0], _at(noise, t))
            return after, after[1]

        shapes = jax.eval_shape(lambda: self._step(xs[0], memory, state, _at(noise, 0)))[1]
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (state, _), output = jax.lax.scan(body, (state, start), (jnp.arange(len(xs)), xs))
        return state, output

    def step(
        self, x: Float[Array, "B E"], memory: AttentionMemory, state: DecoderState
    ) -> tuple[DecoderState, DecoderOutput]:
        """Takes one step in evaluation: no dropout, and zoneout by its expectation."""
        return self._step(x, memory, state, _at(self._draw(None, (1, len(x)), x.dtype), 0))

    def _step(self, x: Array, memory: AttentionMemory, state: DecoderState, noise: _Noise) -> Any:
        inputs = x if state.features is None else jnp.concatenate([x, state.features.astype(x.dtype)], axis=-1)
        carry = []

        def run(index: int, inputs: Array) -> Array:
            cell, params, masks = self.layers[index].cell, noise.params[index], noise.masks[index]
            given = Step(cell.project(params, inputs), masks.dropout, masks.zoneout_c, masks.zoneout_h, None, None)
            after, y = take_step(cell, params, state.carry[index], None, given)
            carry.append(after)
            return y

        def attend(queries: Array) -> tuple[Array, Array]:
            coverage = None if state.coverage is None else state.coverage[None]
            contexts, weights = self.attention(queries[None], memory, coverage)
            return contexts[0], weights[0]

        output = self._combine(x, inputs, noise, run, attend)
        state = DecoderState(
            tuple(carry),
            None if state.features is None else output.features,
            None if state.coverage is None else state.coverage + output.weights,
        )
        return state, output

    def _combine(
        self,
        xs: Float[Array, "*T B E"],
        inputs: Float[Array, "*T B I"],
        noise: _Noise,
        run: Callable[[int, Array], Array],
        attend: Callable[[Array], tuple[Array, Array]],
    ) -> DecoderOutput:
        """Runs the layers, for one step or for all; `run` runs one of them, and `attend` the attention."""
        hidden = _times(inputs, noise.inputs)
        contexts = weights = jnp.zeros(())  # until the asking layer has run
        for index in range(self.num_layers):
            below = hidden if index == 0 else _times(hidden, noise.between[index - 1])
            beside = [contexts] if self.asking < index else []
            ys = run(index, jnp.concatenate([below, *beside], axis=-1))
            hidden = below + ys if self.residual and index > 0 else ys
            if index == self.asking:
                contexts, weights = attend(hidden)
        both = jnp.concatenate([contexts, hidden], axis=-1)
        features = _times(jnp.tanh(dense(both, self._kernel(self.features_kernel, xs.dtype))), noise.features)
        copy_logits = None
        if self.copy:
            seen = jnp.concatenate([both, xs], axis=-1)
            copy_logits = (dense(seen, self._kernel(self.copy_kernel, xs.dtype)) + self.copy_bias[...])[..., 0]
        return DecoderOutput(features, weights, copy_logits)

    def _kernel(self, kernel: nnx.Param, dtype: DTypeLike) -> Array:
        return kernel[...].astype(self.dtype or dtype)

    def _draw(self, key: PRNGKeyArray | None, steps: tuple[int, ...], dtype: DTypeLike) -> _Noise:
        input_key, features_key, *layer_keys = split_key(key, 2 + 2 * self.num_layers)
        T, B = steps
        wide = jnp.promote_types(dtype, "float32")

        def mask(key: PRNGKeyArray | None, rate: float, size: int) -> Array | None:
            if key is None or rate == 0:
                return None
            return dropout_mask(key, rate, (1 if self.rates.locked else T, B, size), wide)

        drawn = [layer.draw(k, (T, B), dtype) for layer, k in zip(self.layers, layer_keys[::2], strict=True)]
        sizes = [self.layers[0].params["input_kernel"].shape[0], *(layer.output_size for layer in self.layers)]
        return _Noise(
            inputs=mask(input_key, self.rates.input_rate, sizes[0]),
            between=tuple(
                mask(k, self.rates.layer_rate, size) for k, size in zip(layer_keys[3::2], sizes[1:-1], strict=True)
            ),
            features=mask(features_key, self.rates.output_rate, self.features_size),
            params=tuple(params for params, _ in drawn),
            masks=tuple(masks for _, masks in drawn),
        )


def _at(noise: _Noise, t: Any) -> _Noise:
    """Returns the noise of step t."""

    def pick(mask: Array | None) -> Array | None:
        return None if mask is None else mask[0 if len(mask) == 1 else t]

    def pick_masks(masks: RecurrentMasks) -> RecurrentMasks:
        return RecurrentMasks(masks.once, pick(masks.zoneout_c), pick(masks.zoneout_h))

    return _Noise(
        pick(noise.inputs),
        tuple(map(pick, noise.between)),
        pick(noise.features),
        noise.params,
        tuple(map(pick_masks, noise.masks)),
    )


def _times(x: Array, mask: Array | None) -> Array:
    return x if mask is None else x * mask.astype(x.dtype)
