"""Decoding one symbol after the other, without going back: greedy, and ancestral sampling."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Key

from lstm_research.common.arrays import Array, Bool
from lstm_research.common.errors import UserError
from lstm_research.decoding.hypotheses import Decode, Hypotheses, LengthLimit, Step, outputs_of, repeat_rows
from lstm_research.decoding.sampling import Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(LengthLimit):
    """Takes the most likely symbol at every step; of equal ones that of the lowest number."""

    def make(self, step: Step, end_id: int) -> Decode:
        """Returns the jitted decoder; see `BeamSearch.make`. The keys are not used."""
        return _make(self, Sampler(temperature=0.0), 1, step, end_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(LengthLimit):
    """Draws every symbol from the model's distribution, restricted as in `Sampler`.

    Sample m of a sentence is drawn with the sentence's key, m and the step: neither the other sentences of the batch
    nor the number of samples change it.

    Attributes:
      temperature: log-probabilities are divided by it; 0 takes the most likely symbol.
      top_k: only the k most likely symbols can be drawn; None for all.
      top_p: only the most likely symbols that together reach this probability can be drawn.
      num_best: how many hypotheses to draw for each sentence. Their score is the model's own log-probability.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    num_best: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        Sampler(self.temperature, self.top_k, self.top_p)  # checks them
        if self.num_best < 1:
            raise UserError(f"num_best must be at least 1, got {self.num_best}")

    def make(self, step: Step, end_id: int) -> Decode:
        """Returns the jitted decoder; see `BeamSearch.make`."""
        return _make(self, Sampler(self.temperature, self.top_k, self.top_p), self.num_best, step, end_id)


def _make(limit: LengthLimit, sampler: Sampler, M: int, step: Step, end_id: int) -> Decode:
    @jax.jit
    def decode(params: Any, state: Any, source_mask: Bool[Array, "B S"], keys: Key[Array, " B"]) -> Hypotheses:
        B, S = source_mask.shape
        limits, longest = limit.limits(source_mask)
        T = longest + 1
        limits = jnp.repeat(limits, M)
        keys = jax.vmap(lambda key: jax.vmap(lambda m: jax.random.fold_in(key, m))(jnp.arange(M)))(keys).reshape(B * M)
        state = repeat_rows(state, M)
        dtype, attends = outputs_of(step, params, state, end_id)

        def body(loop: Any) -> Any:
            t, tokens, log_probs, lengths, attention, state = loop
            last = jnp.where(t == 0, end_id, tokens[:, t - 1])
            state, scores, attended = step(params, state, last)
            drawn = jax.vmap(sampler)(jax.vmap(lambda key: jax.random.fold_in(key, t))(keys), scores)
            live = lengths == 0
            token = jnp.where(live & (t < limits), drawn, end_id)
            gained = jnp.take_along_axis(scores, token[:, None], axis=1)[:, 0]
            return (
                t + 1,
                tokens.at[:, t].set(token),
                log_probs + jnp.where(live, gained, 0).astype(dtype),
                jnp.where(live & (token == end_id), t + 1, lengths),
                None if attended is None else attention.at[:, t].set(attended),
                state,
            )

        start = (
            jnp.zeros((), jnp.int32),
            jnp.full((B * M, T), end_id, jnp.int32),
            jnp.zeros(B * M, dtype),
            jnp.zeros(B * M, jnp.int32),
            None if attends is None else jnp.zeros((B * M, T, S), attends.dtype),
            state,
        )
        _, tokens, log_probs, lengths, attention, _ = jax.lax.while_loop(
            lambda loop: jnp.any(loop[3] == 0), body, start
        )
        if attention is not None:
            inside = (jnp.arange(T) < lengths[:, None])[:, :, None] & jnp.repeat(source_mask, M, axis=0)[:, None]
            attention = jnp.where(inside, attention, 0).reshape(B, M, T, S)
        log_probs = log_probs.reshape(B, M)
        return Hypotheses(tokens.reshape(B, M, T), lengths.reshape(B, M), log_probs, log_probs, attention)

    return decode
