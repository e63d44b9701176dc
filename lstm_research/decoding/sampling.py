"""Sampling the next symbol, and whole texts symbol by symbol."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Float, Int, Params, PRNGKeyArray
from lstm_research.common.errors import UserError

Predict = Callable[[Params, Any, Any], tuple[Any, Any]]
"""`(params, carry, tokens [T, B]) -> (carry, logits [T, B, V])`."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How the next symbol is drawn from logits.

    Attributes:
      temperature: logits are divided by it; 0 takes the most likely symbol.
      top_k: only the k most likely symbols can be drawn; None for all.
      top_p: only the smallest set of most likely symbols whose probabilities (at this temperature) reach p can be
        drawn (nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    def __call__(self, key: PRNGKeyArray, logits: Float[Array, "*batch V"]) -> Int[Array, "*batch"]:
        """Draws one symbol for each row of logits."""
        if self.temperature < np.finfo(np.float32).tiny:  # as 0: differences over it are infinite
            return jnp.argmax(logits, axis=-1)
        # Relative to the largest, so that no temperature makes it overflow.
        logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / self.temperature
        return jax.random.categorical(key, self.restrict(logits))

    def restrict(self, logits: Float[Array, "*batch V"]) -> Float[Array, "*batch V"]:
        """Returns the logits with those of symbols that `top_k` and `top_p` rule out at -inf."""
        if (self.top_k is None or self.top_k >= logits.shape[-1]) and self.top_p == 1:
            return logits
        order = jnp.argsort(-logits, axis=-1)  # ties: the symbol of the lower number first
        ranked = jnp.take_along_axis(logits, order, axis=-1)
        allowed = jnp.ones(ranked.shape, bool)
        if self.top_k is not None:
            allowed &= jnp.arange(ranked.shape[-1]) < self.top_k
        if self.top_p < 1:
            probabilities = jax.nn.softmax(jnp.where(allowed, ranked, -jnp.inf), axis=-1)
            # A symbol is in the set if those before it have not reached p yet; so the first always is.
            allowed &= jnp.cumsum(probabilities, axis=-1) - probabilities < self.top_p
        inverse = jnp.argsort(order, axis=-1)
        return jnp.where(jnp.take_along_axis(allowed, inverse, axis=-1), logits, -jnp.inf)


def generate(
    predict: Predict,
    params: Params,
    carry: Any,
    prompt: Int[np.ndarray, "B N"],
    *,
    sampler: Sampler,
    key: PRNGKeyArray,
    length: int,
    chunk_length: int = 16,
) -> Iterator[Int[np.ndarray, "B n"]]:
    """Continues prompts, and yields the new symbols as they come, `chunk_length` at a time.

    The symbols do not depend on the chunk length: symbol k is drawn with `fold_in(key, k)`.

    Args:
      predict: `(params, carry, tokens [T, B]) -> (carry, logits [T, B, V])`.
      params: of the model.
      carry: the state before the prompt.
      prompt: symbols, at least one a row.
      sampler: how a symbol is drawn.
      key: the random key.
      length: how many symbols to draw for each row.
      chunk_length: how many symbols are drawn between two yields.
    """
    read, write = _compiled(predict, sampler, chunk_length)
    carry, logits = read(params, carry, jnp.asarray(prompt).T)
    for first in range(0, length, chunk_length):
        carry, logits, tokens = write(params, carry, logits, jnp.asarray(first), key)
        yield np.asarray(tokens).T[:, : length - first]


@functools.lru_cache(maxsize=2)
def _compiled(predict: Predict, sampler: Sampler, chunk_length: int) -> tuple[Any, Any]:
    """Returns what reads a prompt, and what writes a chunk; the last ones are kept for prompts to come."""

    @jax.jit
    def read(params: Params, carry: Any, tokens: Array) -> tuple[Any, Array]:
        carry, logits = predict(params, carry, tokens)
        return carry, logits[-1]

    @jax.jit
    def write(params: Params, carry: Any, logits: Array, first: Array, key: Array) -> tuple[Any, Array, Array]:
        def body(state: Any, k: Array) -> tuple[Any, Array]:
            carry, logits = state
            token = sampler(jax.random.fold_in(key, k), logits)
            carry, logits = predict(params, carry, token[None])
            return (carry, logits[0]), token

        (carry, logits), tokens = jax.lax.scan(body, (carry, logits), first + jnp.arange(chunk_length))
        return carry, logits, tokens

    return read, write
