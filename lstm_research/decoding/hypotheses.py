"""What every sequence-to-sequence decoder shares: the step it asks, the hypotheses it returns, their longest length."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Key

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int
from lstm_research.common.errors import UserError

Step = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
"""`(params, state, tokens [N]) -> (state, log_probs [N, V], attention [N, S] or None)`.

`tokens` are the symbols before, and `log_probs` those of the next ones, normalised. Every leaf of `state` has the
leading axis N. What the step hands on as it is, like the encoder's outputs, costs nothing in a beam search; any other
leaf is reordered with the hypotheses.
"""


class Hypotheses(NamedTuple):
    """What a decoder found for each sentence; M hypotheses each, the best first (samples: in the order of the draws).

    Attributes:
      tokens: the symbols and the end symbol, which also fills the rest.
      lengths: number of symbols, the end symbol among them; 0 where there are fewer than M hypotheses.
      scores: what the hypotheses are sorted by, with penalties; -inf where there is none.
      log_probs: log P(hypothesis | source), end symbol included; -inf where there is none.
      attention: of each symbol on each source position, if the step gives it; 0 outside of either sentence.
    """

    tokens: Int[Array, "B M T"]
    lengths: Int[Array, "B M"]
    scores: Float[Array, "B M"]
    log_probs: Float[Array, "B M"]
    attention: Float[Array, "B M T S"] | None


Decode = Callable[[Any, Any, Any, Any], Hypotheses]
"""`(params, state of B rows, source_mask [B, S], keys [B]) -> Hypotheses`, jitted; one compilation for each shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """The longest hypothesis of a sentence: floor(ratio · source length) + offset symbols and the end symbol.

    A hypothesis that reaches it can only end, at the price of the end symbol's probability: what is searched are all
    sequences within the limit that end, and none without end. The limit depends on the sentence alone and not on its
    batch.

    Attributes:
      max_length_ratio: symbols for each source symbol, at least 0.
      max_length_offset: further symbols, at least 0.
    """

    max_length_ratio: float = 2.0
    max_length_offset: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.max_length_ratio < math.inf:
            raise UserError(f"max_length_ratio must be at least 0, got {self.max_length_ratio}")
        if self.max_length_offset < 0:
            raise UserError(f"max_length_offset must be at least 0, got {self.max_length_offset}")

    def limits(self, source_mask: Bool[Array, "B S"]) -> tuple[Int[Array, " B"], int]:
        """Returns each sentence's limit, and the longest that any sentence of S positions can have."""
        S = source_mask.shape[1]
        table = [math.floor(self.max_length_ratio * n) + self.max_length_offset for n in range(S + 1)]
        return jnp.asarray(np.array(table, np.int32))[jnp.sum(source_mask, axis=1)], table[S]


def sentence_keys(seed: int, indices: Int[np.ndarray, " B"]) -> Key[Array, " B"]:
    """Returns a random key for each sentence, from its index in the whole input and not from its place in a batch."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(indices))


def repeat_rows(state: Any, times: int) -> Any:
    """Returns the state with each row `times` times: row b becomes rows b · times, ..., (b + 1) · times - 1."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), state)


def outputs_of(step: Step, params: Any, state: Any, end_id: int) -> tuple[DTypeLike, Any]:
    """Returns the dtype to add log-probabilities in, float32 at least, and attention's shape and dtype, or None."""
    N = len(jax.tree.leaves(state)[0])
    _, log_probs, attention = jax.eval_shape(step, params, state, jax.ShapeDtypeStruct((N,), jnp.int32))
    if not 0 <= end_id < log_probs.shape[1]:
        raise ValueError(f"end_id {end_id} is not one of the {log_probs.shape[1]} symbols")
    return jnp.promote_types(log_probs.dtype, jnp.float32), attention


def ensemble(steps: Sequence[Step]) -> Step:
    """Returns the step of several models together: the mean of their probabilities, and of their attention.

    log p(y) = log (1/M) Σ_m p_m(y), computed as log-mean-exp.

    Args:
      steps: of the models; all over one vocabulary. Parameters and states of the result are tuples, one item a model.
        Models without attention are left out of its mean.
    """
    if not steps:
        raise ValueError("an ensemble needs at least one step")

    def together(params: Any, states: Any, tokens: Any) -> tuple[Any, Any, Any]:
        results = [step(p, s, tokens) for step, p, s in zip(steps, params, states, strict=True)]
        log_probs = jax.nn.logsumexp(jnp.stack([r[1] for r in results]), axis=0) - math.log(len(steps))
        attentions = [r[2] for r in results if r[2] is not None]
        attention = jnp.mean(jnp.stack(attentions), axis=0) if attentions else None
        return tuple(r[0] for r in results), log_probs, attention

    return together
