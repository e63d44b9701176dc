"""Beam search with length and coverage penalties, over a batch of sentences in one compiled loop."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key

from lstm_research.common.arrays import Array, Bool, Float, Int
from lstm_research.common.errors import UserError
from lstm_research.decoding.hypotheses import Decode, Hypotheses, LengthLimit, Step, outputs_of, repeat_rows

UNATTENDED = 1e-30
"""What the coverage penalty takes as the attention on a source position that got less: log 0 would be no score."""

MAX_ALPHA = 5
"""Of the length penalty: more would leave the range of float32 with the longest sentences."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch(LengthLimit):
    """Keeps the `beam_size` most likely unfinished hypotheses at every step, and the best finished ones.

    The score of a finished hypothesis Y of |Y| symbols, the end symbol among them, is (Wu et al., "Google's Neural
    Machine Translation System", 2016, equation 14)

      s(Y) = log P(Y | X) / lp(|Y|) + β Σ_i log min(Σ_j p_ij, 1)

    with p_ij the attention on source position i when symbol j was predicted, over the positions of X alone (less than
    1e-30 counts as 1e-30), and lp by `length_penalty`:

      "none":     1
      "wu":       ((5 + |Y|) / 6)^α (the same paper)
      "average":  |Y|^α; with α = 1 the mean log-probability of a symbol (Cho et al., "On the Properties of Neural
                  Machine Translation", 2014)

    One step: the K live hypotheses have K · V continuations, ranked by log-probability (all have one length, so a
    length penalty would not change the order; coverage counts only in what is finished, since half a translation has
    no reason to cover its source). Continuations by the end symbol among the first K are finished, and kept if they
    are among the `num_best` finished ones with the best scores (Sutskever et al., "Sequence to Sequence Learning",
    2014); the first K others are the next live ones. So the finished never take room from the live, and the kept ones
    need not be more than are asked for.

    A sentence ends once no live hypothesis can get into a full set of finished ones. Let l be its log-probability and
    n the length of what it becomes, at most N = limit + 1. Its log-probability can only fall, l ≤ 0, and lp does not
    fall with n (α ≥ 0), so log P / lp(n) ≤ l / lp(n) ≤ l / lp(N); the coverage penalty is at most 0, and nothing is
    known to keep it from 0. So s ≤ l / lp(N). Every step of this holds for rounded numbers too. The search therefore
    gives what it would give if it ran to the limit.

    Equal numbers: the hypothesis that is finished earlier, then the higher rank of what is continued, then the lower
    number of the symbol, comes first. With `beam_size=1` and no penalty this is greedy decoding (but where the sum so
    far rounds two unequal symbols to equal ones).

    Attributes:
      beam_size: K, the number of live hypotheses.
      num_best: how many finished hypotheses to return, at most K.
      length_penalty: "none", "wu" or "average".
      alpha: α of the length penalty, from 0 to 5; None for the usual: 0.6 for "wu", 1 for "average".
      coverage_penalty: β, at least 0; above 0 it needs a model with attention.
      no_repeat_ngram: n, if no hypothesis may contain the same n symbols in a row twice; None to allow it.
    """

    beam_size: int = 5
    num_best: int = 1
    length_penalty: Literal["none", "wu", "average"] = "none"
    alpha: float | None = None
    coverage_penalty: float = 0.0
    no_repeat_ngram: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam_size < 1:
            raise UserError(f"beam_size must be at least 1, got {self.beam_size}")
        if not 1 <= self.num_best <= self.beam_size:
            raise UserError(f"num_best must be from 1 to beam_size ({self.beam_size}), got {self.num_best}")
        if self.length_penalty not in ("none", "wu", "average"):
            raise UserError(f"length_penalty must be none, wu or average, got {self.length_penalty!r}")
        if self.alpha is not None and self.length_penalty == "none":
            raise UserError("alpha changes nothing with length_penalty='none'; set length_penalty to wu or average")
        if self.alpha is not None and not 0 <= self.alpha <= MAX_ALPHA:
            raise UserError(f"alpha must be from 0 to {MAX_ALPHA}, got {self.alpha}")
        if not 0 <= self.coverage_penalty < math.inf:
            raise UserError(f"coverage_penalty must be at least 0, got {self.coverage_penalty}")
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
            raise UserError(f"no_repeat_ngram must be at least 1, got {self.no_repeat_ngram}")

    def length_penalties(self, lengths: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns lp of each length."""
        if self.length_penalty == "none":
            return np.ones(len(lengths))
        if self.length_penalty == "wu":
            return ((5.0 + lengths) / 6.0) ** (0.6 if self.alpha is None else self.alpha)
        return lengths.astype(np.float64) ** (1.0 if self.alpha is None else self.alpha)

    def make(self, step: Step, end_id: int) -> Decode:
        """Returns the jitted search; keep it, for it holds what is compiled.

        Args:
          step: one step of the model, see `Step`.
          end_id: the symbol that ends a hypothesis; also what the step is given before the first symbol.

        Returns:
          A function of the parameters, the state before the first step with one row for each sentence, which source
          positions belong to a sentence [B, S], and random keys [B] (not used here; samplers use them). T of what it
          returns is the longest length, end included, that a sentence of S source symbols can have.

        Raises:
          UserError: when it is called, a coverage penalty for a model without attention.
        """

        @jax.jit
        def search(params: Any, state: Any, source_mask: Bool[Array, "B S"], keys: Key[Array, " B"]) -> Hypotheses:
            del keys
            return _search(self, step, end_id, params, state, source_mask)

        return search


class _Live(NamedTuple):
    """Unfinished hypotheses, the most likely first; those that do not exist have the log-probability -inf."""

    log_probs: Float[Array, "B K"]
    tokens: Int[Array, "B K T"]  # filled up with the end symbol
    path: Int[Array, "B K T"]  # which of the K rows held the hypothesis at each step: where its attention is
    coverage: Float[Array, "B K S"] | None


class _Finished(NamedTuple):
    """The best finished hypotheses, the best first; those that do not exist have the score -inf."""

    scores: Float[Array, "B M"]
    log_probs: Float[Array, "B M"]
    lengths: Int[Array, "B M"]
    tokens: Int[Array, "B M T"]
    path: Int[Array, "B M T"]


class _Loop(NamedTuple):
    t: Int[Array, ""]
    done: Bool[Array, " B"]
    live: _Live
    finished: _Finished
    attention: Float[Array, "T B K S"] | None
    state: Any


def _search(
    options: BeamSearch, step: Step, end_id: int, params: Any, state: Any, source_mask: Bool[Array, "B S"]
) -> Hypotheses:
    (B, S), K, M = source_mask.shape, options.beam_size, options.num_best
    limits, longest = options.limits(source_mask)
    T = longest + 1
    state = repeat_rows(state, K)
    dtype, attends = outputs_of(step, params, state, end_id)
    if options.coverage_penalty and attends is None:
        raise UserError("coverage_penalty needs a model with attention; set it to 0")
    penalties = jnp.asarray(options.length_penalties(np.arange(1, T + 1)), dtype)  # of length t + 1 at t

    def body(loop: _Loop) -> _Loop:
        t, done, live, finished, attention, state = loop
        last = jnp.where(t == 0, end_id, live.tokens[:, :, t - 1])
        new_state, log_probs, attended = step(params, state, last.reshape(B * K))
        # What rounding leaves above 0 would break the bound on what a hypothesis can become.
        log_probs = jnp.minimum(log_probs.astype(dtype), 0).reshape(B, K, -1)
        V = log_probs.shape[-1]
        allowed = (t < limits)[:, None, None] | (jnp.arange(V) == end_id)
        if options.no_repeat_ngram is not None:
            allowed &= ~_repeats(live.tokens, t, V, options.no_repeat_ngram)
        continued = jnp.where(allowed, live.log_probs[:, :, None] + log_probs, -jnp.inf).reshape(B, K * V)
        # Of the first 2 K at most K end, so K others are among them. Without the barrier XLA moves the slices below
        # into it and then sorts all K V on a CPU, which takes a hundred times as long.
        ranked, index = jax.lax.optimization_barrier(jax.lax.top_k(continued, min(2 * K, K * V)))
        row, token = index // V, index % V
        ends = token == end_id

        path = live.path
        if attention is not None:
            attended = jnp.where(source_mask[:, None], attended.reshape(B, K, S), 0)
            attention = attention.at[t].set(attended)
            path = path.at[:, :, t].set(jnp.arange(K, dtype=path.dtype))
        coverage, penalty = None, jnp.zeros((B, K), dtype)
        if options.coverage_penalty:
            coverage = live.coverage + attended
            covered = jnp.where(source_mask[:, None], jnp.clip(coverage, UNATTENDED, 1), 1)
            penalty = options.coverage_penalty * jnp.sum(jnp.log(covered), axis=-1)

        new_log_probs = jnp.where(ends[:, :K], ranked[:, :K], -jnp.inf)
        parents = row[:, :K]
        new = _Finished(
            scores=new_log_probs / penalties[t] + _take(penalty, parents),
            log_probs=new_log_probs,
            lengths=jnp.full((B, parents.shape[1]), t + 1, jnp.int32),
            tokens=_take(live.tokens, parents),
            path=_take(path, parents),
        )
        both = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), finished, new)
        best = jax.lax.top_k(both.scores, M)[1]  # of equal ones the first
        finished = jax.tree.map(lambda leaf: _take(leaf, best), both)

        log_probs, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, ranked), K)
        row, token = _take(row, order), _take(token, order)
        live = _Live(
            log_probs=log_probs,
            tokens=_take(live.tokens, row).at[:, :, t].set(token),
            path=_take(path, row),
            coverage=None if coverage is None else _take(coverage, row),
        )
        rows = (jnp.arange(B)[:, None] * K + row).reshape(B * K)
        # A leaf that the step hands on is equal in all rows of a sentence.
        state = jax.tree.map(lambda new, old: old if new is old else new[rows], new_state, state)
        # A sentence that is done goes on with its batch: what it may still finish is not good enough to be kept.
        bound = live.log_probs[:, 0] / penalties[limits]
        done |= (t == limits) | (bound <= finished.scores[:, -1])
        return _Loop(t + 1, done, live, finished, attention, state)

    def none(*shape: int) -> Array:
        return jnp.full((B, *shape), -jnp.inf, dtype)

    loop = _Loop(
        t=jnp.zeros((), jnp.int32),
        done=jnp.zeros(B, bool),
        live=_Live(
            log_probs=none(K).at[:, 0].set(0),
            tokens=jnp.full((B, K, T), end_id, jnp.int32),
            path=jnp.zeros((B, K, T), jnp.int32),
            coverage=jnp.zeros((B, K, S), dtype) if options.coverage_penalty else None,
        ),
        finished=_Finished(
            scores=none(M),
            log_probs=none(M),
            lengths=jnp.zeros((B, M), jnp.int32),
            tokens=jnp.full((B, M, T), end_id, jnp.int32),
            path=jnp.zeros((B, M, T), jnp.int32),
        ),
        attention=None if attends is None else jnp.zeros((T, B, K, S), attends.dtype),
        state=state,
    )
    loop = jax.lax.while_loop(lambda loop: ~jnp.all(loop.done), body, loop)
    best, attention = loop.finished, None
    if loop.attention is not None:
        steps = jnp.arange(T)
        attention = loop.attention[steps, jnp.arange(B)[:, None, None], best.path]  # [B, M, T, S]
        attention = jnp.where((steps < best.lengths[:, :, None])[..., None], attention, 0)
    return Hypotheses(best.tokens, best.lengths, best.scores, best.log_probs, attention)


def _take(values: Array, index: Int[Array, "B n"]) -> Array:
    """Returns entries of axis 1, other ones for each sentence."""
    return jnp.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - 2)), axis=1)


def _repeats(tokens: Int[Array, "B K T"], t: Int[Array, ""], V: int, n: int) -> Bool[Array, "B K V"]:
    """Returns which symbols at position t would repeat n symbols in a row that are there already."""
    B, K, T = tokens.shape
    if n > T:
        return jnp.zeros((B, K, V), bool)
    there = jnp.broadcast_to(jnp.arange(n - 1, T) < t, (B, K, T - n + 1))  # by the position of their last symbol
    for i in range(n - 1):
        there &= tokens[:, :, i : T - n + 1 + i] == tokens[:, :, t - (n - 1) + i, None]
    sentence, row = jnp.arange(B)[:, None, None], jnp.arange(K)[:, None]
    return jnp.zeros((B, K, V), bool).at[sentence, row, tokens[:, :, n - 1 :]].max(there)
