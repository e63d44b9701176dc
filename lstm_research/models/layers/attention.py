"""Attention: at every step of a decoder, a weighted mean of what an encoder wrote.

An attention is a frozen dataclass of choices with pure functions, as a cell is; `AttentionLayer` holds its parameters.
With N heads (one, but for `MultiHeadAttention`), keys k and values v:

    e_nts = score(q_t, k_ns)        a_nt = softmax(e_nt) over the valid s        c_nt = Σ_s a_nts v_ns

Keys and values depend on the source alone and are computed once a sentence (`AttentionLayer.remember`). A sentence of
length 0 has nothing to attend to: its weights and its context are zeros.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, Params
from lstm_research.common.errors import UserError
from lstm_research.models.cells.base import dense


class AttentionMemory(NamedTuple):
    """What is attended to; the batch axis is first, as in every state.

    Attributes:
      keys: of the N heads.
      values: of the N heads.
      valid: False on padding.
    """

    keys: Float[Array, "B S N K"]
    values: Float[Array, "B S N C"]
    valid: Bool[Array, "B S"]


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """How queries and keys make scores.

    Attributes:
      coverage: whether the scores depend on the attention that the positions have had so far.
    """

    coverage = False

    @abc.abstractmethod
    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the parameters by name.

        Raises:
          UserError: sizes that this attention cannot compare.
        """

    def context_size(self, query_size: int, memory_size: int) -> int:
        """Returns the number of features of a context."""
        return memory_size

    def keys(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N K"]:
        """Returns the keys: the memory's projection."""
        return dense(memory, params["memory_kernel"])[:, :, None]

    def values(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N C"]:
        """Returns the values: the memory itself."""
        return memory[:, :, None]

    @abc.abstractmethod
    def scores(
        self,
        params: Params,
        queries: Float[Array, "T B Q"],
        keys: Float[Array, "B S N K"],
        coverage: Float[Array, "T B S"] | None,
    ) -> Float[Array, "T B N S"]:
        """Returns the scores e; `coverage` is Σ_{t' < t} a_t', given if `self.coverage`."""

    def join(self, params: Params, contexts: Float[Array, "T B NC"]) -> Float[Array, "T B O"]:
        """Returns the context from those of all heads, side by side."""
        return contexts


@dataclasses.dataclass(frozen=True)
class NoAttention(Attention):
    """Attends to nothing; the context has size 0. The baseline: Sutskever, Vinyals and Le, 2014."""

    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns none."""
        return {}

    def context_size(self, query_size: int, memory_size: int) -> int:
        """Returns 0."""
        return 0

    def keys(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N K"]:
        """Returns keys without features."""
        return memory[:, :, None, :0]

    values = keys

    def scores(
        self,
        params: Params,
        queries: Float[Array, "T B Q"],
        keys: Float[Array, "B S N K"],
        coverage: Float[Array, "T B S"] | None,
    ) -> Float[Array, "T B N S"]:
        """Returns -inf, which is no weight."""
        return jnp.full((*queries.shape[:2], 1, keys.shape[1]), -jnp.inf, queries.dtype)


@dataclasses.dataclass(frozen=True)
class DotAttention(Attention):
    """e_ts = q_t · m_s, without parameters. Luong, Pham and Manning, 2015."""

    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns none."""
        if query_size != memory_size:
            raise UserError(
                f'model.attention "dot" compares vectors of one size, but the decoder\'s have {query_size} features '
                f'and the encoder\'s {memory_size}; set model.merge="sum", or use the attention "general"'
            )
        return {}

    def keys(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N K"]:
        """Returns the memory itself."""
        return memory[:, :, None]

    def scores(
        self,
        params: Params,
        queries: Float[Array, "T B Q"],
        keys: Float[Array, "B S N K"],
        coverage: Float[Array, "T B S"] | None,
    ) -> Float[Array, "T B N S"]:
        """Returns q · k."""
        return _inner_products(queries[:, :, None], keys)


@dataclasses.dataclass(frozen=True)
class GeneralAttention(DotAttention):
    """e_ts = q_t · m_s W. Luong, Pham and Manning, "Effective Approaches to Attention-based NMT", 2015.

    Parameters: `memory_kernel` W `[M, Q]`.
    """

    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns that of W."""
        return {"memory_kernel": (memory_size, query_size)}

    keys = Attention.keys


@dataclasses.dataclass(frozen=True)
class AdditiveAttention(Attention):
    """e_ts = v · tanh(q_t W + m_s U + b).

    Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate", 2015. With
    `coverage` the argument of tanh gains w Σ_{t' < t} a_t's: See, Liu and Manning, "Get To The Point: Summarization
    with Pointer-Generator Networks", 2017.

    Parameters: `query_kernel` W `[Q, A]`, `memory_kernel` U `[M, A]`, `bias` b `[A]`, `score_kernel` v `[A, 1]`; with
    coverage `coverage_kernel` w `[1, A]`.

    Attributes:
      attention_size: A; None is Q.
      coverage: whether a position's score depends on the attention that it has had.
    """

    attention_size: int | None = None
    coverage: bool = False

    def __post_init__(self) -> None:
        _check_positive(attention_size=self.attention_size)

    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns those of W, U, b, v, and w."""
        A = self.attention_size or query_size
        shapes: dict[str, tuple[int, ...]] = {"query_kernel": (query_size, A), "memory_kernel": (memory_size, A)}
        shapes |= {"bias": (A,), "score_kernel": (A, 1)}
        return shapes | ({"coverage_kernel": (1, A)} if self.coverage else {})

    def scores(
        self,
        params: Params,
        queries: Float[Array, "T B Q"],
        keys: Float[Array, "B S N K"],
        coverage: Float[Array, "T B S"] | None,
    ) -> Float[Array, "T B N S"]:
        """Returns v · tanh(...)."""
        queries = dense(queries, params["query_kernel"]) + params["bias"]
        total = queries[:, :, None] + keys[None, :, :, 0]  # [T, B, S, A]
        if coverage is not None:
            total += coverage[..., None] * params["coverage_kernel"]
        return jnp.sum(jnp.tanh(total) * params["score_kernel"][:, 0], axis=-1)[:, :, None]


@dataclasses.dataclass(frozen=True)
class MultiHeadAttention(Attention):
    """N attentions side by side, each with its own projections to K = A/N features, joined by one more.

        e_nts = (q_t W_n) · (m_s U_n) / √K        c_t = [Σ_s a_1ts m_s V_1; ...; Σ_s a_Nts m_s V_N] O

    Vaswani et al., "Attention Is All You Need", 2017. With `additive` the scores are v_n · tanh(q_t W_n + m_s U_n):
    Chen et al., "The Best of Both Worlds: Combining Recent Advances in Neural Machine Translation" (RNMT+), 2018.

    Parameters: `query_kernel` W `[Q, A]`, `memory_kernel` U `[M, A]`, `value_kernel` V `[M, A]`, heads side by side,
    `output_kernel` O `[A, A]`; with additive heads `score_kernel` v `[A, 1]`.

    Attributes:
      num_heads: N.
      attention_size: A, a multiple of N; None is Q.
      additive: whether the heads are additive.
    """

    num_heads: int = 4
    attention_size: int | None = None
    additive: bool = False

    def __post_init__(self) -> None:
        _check_positive(num_heads=self.num_heads, attention_size=self.attention_size)

    def shapes(self, query_size: int, memory_size: int) -> dict[str, tuple[int, ...]]:
        """Returns those of W, U, V, O, and v."""
        A = self.context_size(query_size, memory_size)
        if A % self.num_heads:
            raise UserError(f"model.attention.num_heads = {self.num_heads} does not divide the attention's size {A}")
        shapes: dict[str, tuple[int, ...]] = {"query_kernel": (query_size, A), "output_kernel": (A, A)}
        shapes |= dict.fromkeys(("memory_kernel", "value_kernel"), (memory_size, A))
        return shapes | ({"score_kernel": (A, 1)} if self.additive else {})

    def context_size(self, query_size: int, memory_size: int) -> int:
        """Returns A."""
        return self.attention_size or query_size

    def keys(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N K"]:
        """Returns m U."""
        return self._heads(dense(memory, params["memory_kernel"]))

    def values(self, params: Params, memory: Float[Array, "B S M"]) -> Float[Array, "B S N C"]:
        """Returns m V."""
        return self._heads(dense(memory, params["value_kernel"]))

    def scores(
        self,
        params: Params,
        queries: Float[Array, "T B Q"],
        keys: Float[Array, "B S N K"],
        coverage: Float[Array, "T B S"] | None,
    ) -> Float[Array, "T B N S"]:
        """Returns the scores of every head."""
        heads = self._heads(dense(queries, params["query_kernel"]))
        if not self.additive:
            return _inner_products(heads, keys) / keys.shape[-1] ** 0.5
        total = jnp.tanh(heads[:, :, None] + keys)  # [T, B, S, N, K]
        scores = jnp.sum(total * self._heads(params["score_kernel"][:, 0]), axis=-1)
        return jnp.swapaxes(scores, 2, 3)

    def join(self, params: Params, contexts: Float[Array, "T B NC"]) -> Float[Array, "T B O"]:
        """Returns [...] O."""
        return dense(contexts, params["output_kernel"])

    def _heads(self, x: Float[Array, "*any A"]) -> Float[Array, "*any N K"]:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)


ATTENTIONS: Mapping[str, Callable[..., Attention]] = {
    "additive": AdditiveAttention,
    "dot": DotAttention,
    "general": GeneralAttention,
    "multi_head": MultiHeadAttention,
    "none": NoAttention,
}
"""Every attention by the name that configs use."""


class AttentionLayer(nnx.Module):
    """An attention with its parameters.

    Attributes:
      attention: which one.
      params: its parameters, under the names that its docstring gives; kernels are drawn with variance 1/rows.
    """

    def __init__(
        self,
        attention: Attention,
        query_size: int,
        memory_size: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Draws the parameters.

        Args:
          attention: which one.
          query_size: Q.
          memory_size: M.
          dtype: of the products with kernels, that of the operands if None; scores and weights are in float32 at least.
          param_dtype: of the parameters.
          rngs: draws them.

        Raises:
          UserError: sizes that this attention cannot compare.
        """
        self.attention = attention
        self.dtype = dtype
        self.context_size = attention.context_size(query_size, memory_size)
        initialize = nnx.initializers.lecun_normal()
        self.params: nnx.Dict = nnx.Dict()
        for name, shape in attention.shapes(query_size, memory_size).items():
            kernel = name.endswith("kernel")
            value = initialize(rngs.params(), shape, param_dtype) if kernel else jnp.zeros(shape, param_dtype)
            self.params[name] = nnx.Param(value)

    def remember(self, memory: Float[Array, "S B M"], lengths: Int[Array, "B"]) -> AttentionMemory:
        """Computes all that depends on the source alone.

        Args:
          memory: what is attended to, time-major.
          lengths: valid positions of each sequence; what lies beyond them changes nothing, NaN included.
        """
        valid = jnp.arange(len(memory)) < lengths[:, None]
        memory = jnp.where(valid[:, :, None], jnp.swapaxes(memory, 0, 1), 0)
        params = self._cast_params(memory.dtype)
        return AttentionMemory(self.attention.keys(params, memory), self.attention.values(params, memory), valid)

    def __call__(
        self,
        queries: Float[Array, "T B Q"],
        memory: AttentionMemory,
        coverage: Float[Array, "T B S"] | None = None,
    ) -> tuple[Float[Array, "T B O"], Float[Array, "T B S"]]:
        """Attends with T queries for each sequence.

        Args:
          queries: the states that ask.
          memory: what `remember` returned.
          coverage: the attention that every position has had before; for an attention with coverage.

        Returns:
          The contexts, and the weights (their mean over the heads).
        """
        params = self._cast_params(queries.dtype)
        scores = self.attention.scores(params, queries, memory.keys, coverage)
        weights = masked_softmax(scores, memory.valid[:, None, :])  # [T, B, N, S]
        contexts = jnp.einsum("tbns,bsnc->tbnc", weights, memory.values)
        return self.attention.join(params, contexts.reshape(*contexts.shape[:2], -1)), jnp.mean(weights, axis=2)

    def _cast_params(self, dtype: DTypeLike) -> Params:
        dtype = self.dtype or dtype
        wide = jnp.promote_types(dtype, "float32")
        return {k: p[...].astype(dtype if k.endswith("kernel") else wide) for k, p in self.params.items()}


def masked_softmax(scores: Float[Array, "*any S"], valid: Bool[Array, "*#any S"]) -> Float[Array, "*any S"]:
    """Returns the softmax over the valid positions, in float32 at least; 0 elsewhere, and where none is valid."""
    scores = jnp.where(valid, scores.astype(jnp.promote_types(scores.dtype, "float32")), -jnp.inf)
    # From below the largest finite number, so that a row without a valid position stays at -inf.
    largest = jnp.max(scores, axis=-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)
    exponentials = jnp.exp(scores - jax.lax.stop_gradient(largest))
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / jnp.where(total > 0, total, 1)


def _inner_products(queries: Float[Array, "T B N K"], keys: Float[Array, "B S N K"]) -> Float[Array, "T B N S"]:
    dtype = jnp.promote_types(jnp.result_type(queries, keys), "float32")
    return jnp.einsum("tbnk,bsnk->tbns", queries, keys, preferred_element_type=dtype)


def _check_positive(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise UserError(f"model.attention.{name} must be at least 1, got {size}")
