"""The neural cache: a language model that remembers the words of the text it reads."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float, Int, Params
from lstm_research.common.build import check_keywords
from lstm_research.common.errors import UserError


class CacheMemory(NamedTuple):
    """The last W positions of every row; the batch axis is first.

    Attributes:
      hs: outputs of the last layer.
      targets: the symbol that followed each.
      documents: the number of the document that both are from, -1 for positions that hold nothing.
      document: the number of the document that is being read.
    """

    hs: Float[Array, "B W H"]
    targets: Int[Array, "B W"]
    documents: Int[Array, "B W"]
    document: Int[Array, "B"]


@dataclasses.dataclass(frozen=True)
class NeuralCache:
    """Mixes the model's distribution with one over the words that followed similar states.

        p(v) = (1 - λ) p_model(v) + λ p_cache(v)        p_cache(v) ∝ Σ_i 1[x_{i+1} = v] exp(θ h_t · h_i)

    where i are the last `window` positions before t in the same document, and h the outputs of the last layer. At a
    document's first position there is none, and p is p_model. Grave, Joulin and Usunier, "Improving Neural Language
    Models with a Continuous Cache", 2017.

    Attributes:
      window: how many positions are remembered.
      theta: θ; 0 is a count of the words.
      mixing: λ.

    Raises:
      UserError: numbers out of range.
    """

    window: int
    theta: float
    mixing: float

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UserError(f"task.neural_cache.window must be at least 1, got {self.window}")
        if not 0 <= self.theta < math.inf:
            raise UserError(f"task.neural_cache.theta must be at least 0 and finite, got {self.theta}")
        if not 0 <= self.mixing < 1:
            raise UserError(f"task.neural_cache.mixing must be at least 0 and below 1, got {self.mixing}")

    @classmethod
    def from_config(cls, section: Mapping[str, Any] | None) -> "NeuralCache | None":
        """Builds the cache of the config's `task.neural_cache`."""
        if section is None:
            return None
        check_keywords(cls, section, where="task.neural_cache", what="the section")
        return cls(**section)

    def loss(self, task: Any, params: Params, split: str, should_stop: Callable[[], bool]) -> float | None:
        """Returns the cross-entropy over a split in nats; None if `should_stop` said so.

        Rows, documents and targets are those of the plain evaluation.
        """
        batches = task.eval_batches(split)
        carry = task.initial_carry(params, batches.batch_size)
        memory: CacheMemory | None = None

        @jax.jit
        def step(params: Params, batch: Any, carry: Any, memory: Any) -> tuple[Array, Any, CacheMemory]:
            carry, ys, raw = task.encode(params, batch, carry)
            losses = task.target_losses(params, ys, batch["targets"].T)[0].T  # [B, T]
            memory, losses = self.mix(
                self.empty(raw) if memory is None else memory,
                jnp.swapaxes(raw, 0, 1),
                batch["targets"],
                losses,
                resets=batch["resets"],
                valid=batch["weights"] > 0,
            )
            return jnp.sum(losses * batch["weights"]), carry, memory

        sums = []
        for index in range(len(batches)):
            if should_stop():
                return None
            total, carry, memory = step(params, batches[index], carry, memory)
            sums.append(total)
        return math.fsum(map(float, jax.device_get(sums))) / batches.num_targets

    def empty(self, hs: Float[Array, "T B H"]) -> CacheMemory:
        """Returns the memory before the first position, for outputs like these."""
        _, B, H = hs.shape
        none = jnp.zeros((B, self.window), "int32")
        return CacheMemory(jnp.zeros((B, self.window, H), hs.dtype), none, none - 1, jnp.zeros((B,), "int32"))

    def mix(
        self,
        memory: CacheMemory,
        hs: Float[Array, "B T H"],
        targets: Int[Array, "B T"],
        losses: Float[Array, "B T"],
        *,
        resets: Bool[Array, "B T"],
        valid: Bool[Array, "B T"],
    ) -> tuple[CacheMemory, Float[Array, "B T"]]:
        """Reads a window of text: returns the memory after it, and -log p(target) with the cache.

        Args:
          memory: before the window.
          hs: outputs of the last layer.
          targets: the symbol after each position.
          losses: -log p_model(target).
          resets: where a document begins, which knows nothing of those before.
          valid: which targets are of the same document as what precedes them; others are not remembered.
        """
        W, T = self.window, hs.shape[1]
        document = memory.document[:, None] + jnp.cumsum(resets, axis=1, dtype="int32")  # [B, T]
        hs_seen = jnp.concatenate([memory.hs, hs], axis=1)  # [B, W + T, H]
        targets_seen = jnp.concatenate([memory.targets, targets], axis=1)
        documents_seen = jnp.concatenate([memory.documents, jnp.where(valid, document, -1)], axis=1)
        # Position t of the window is W + t of all that was seen, and sees the W before it.
        t, i = jnp.arange(T)[:, None], jnp.arange(W + T)[None, :]
        allowed = (t <= i) & (i < t + W) & (documents_seen[:, None, :] == document[:, :, None])  # [B, T, W + T]
        scores = self.theta * jnp.einsum("bth,bih->bti", hs, hs_seen, preferred_element_type=jnp.float32)
        scores = jnp.where(allowed, scores, -jnp.inf)
        same = targets_seen[:, None, :] == targets[:, :, None]
        log_cache = jax.nn.logsumexp(jnp.where(same, scores, -jnp.inf), -1) - jax.nn.logsumexp(scores, -1)
        mixed = -jnp.logaddexp(jnp.log1p(-self.mixing) - losses, jnp.log(self.mixing) + log_cache)
        kept = CacheMemory(hs_seen[:, T:], targets_seen[:, T:], documents_seen[:, T:], document[:, -1])
        return kept, jnp.where(jnp.any(allowed, axis=-1), mixed, losses)
