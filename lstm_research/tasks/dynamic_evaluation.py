"""Dynamic evaluation: a language model that goes on learning while it is evaluated."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Params
from lstm_research.common.build import check_keywords
from lstm_research.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class DynamicEvaluation:
    """Takes a step of gradient descent after each segment of the text, once that segment has been predicted.

        sgd:  θ ← θ - η g + λ (θ₀ - θ)
        rms:  θ ← θ - η g / (r + ε) + min(1, λ r / mean(r)) * (θ₀ - θ)

    where θ₀ are the trained weights, g is the gradient of a segment's mean loss, and r the root of the mean square of
    the gradients of training batches; mean(r) is over all weights. Krause, Kahembwe, Murray and Renals, "Dynamic
    Evaluation of Neural Sequence Models", 2018. The text is read as one row from its beginning to its end, so no target
    is predicted by weights that have seen it. The weights go on from document to document; the recurrent state does
    not.

    Attributes:
      learning_rate: η.
      decay: λ.
      rule: "sgd" or "rms".
      unroll_length: symbols of a segment.
      clip_norm: gradients are scaled down to this global norm; None leaves them.
      eps: ε.
      statistics_batches: how many training batches r is taken of.

    Raises:
      UserError: numbers out of range.
    """

    learning_rate: float
    decay: float = 0.0
    rule: Literal["sgd", "rms"] = "rms"
    unroll_length: int = 5
    clip_norm: float | None = None
    eps: float = 2e-5
    statistics_batches: int = 100

    def __post_init__(self) -> None:
        for name in ("unroll_length", "statistics_batches"):
            if getattr(self, name) < 1:
                raise UserError(f"task.dynamic_evaluation.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "eps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"task.dynamic_evaluation.{name} must be above 0 and finite, got {value}")
        if not 0 <= self.decay <= 1:
            raise UserError(f"task.dynamic_evaluation.decay must be between 0 and 1, got {self.decay}")

    @classmethod
    def from_config(cls, section: Mapping[str, Any] | None) -> "DynamicEvaluation | None":
        """Builds what the config's `task.dynamic_evaluation` describes."""
        if section is None:
            return None
        check_keywords(cls, section, where="task.dynamic_evaluation", what="the section")
        return cls(**section)

    def loss(self, task: Any, params: Params, split: str, should_stop: Callable[[], bool]) -> float | None:
        """Returns the cross-entropy over a split in nats, or None if `should_stop` said so."""
        # The updates are far smaller than the weights: in bfloat16 most would be lost.
        trained = jax.tree.map(lambda p: jnp.asarray(p, jnp.promote_types(p.dtype, jnp.float32)), params)
        gradient = _make_gradient(task, jax.tree.map(lambda p: p.dtype, params))
        rms = None
        if self.rule == "rms":
            rms = self._root_mean_square(task, trained, gradient, should_stop)
            if rms is None:
                return None

        def step(params: Params, trained: Params, rms: Params | None, batch: Any, carry: Any) -> tuple[Any, Any, Array]:
            gradients, total, carry = gradient(params, batch, carry)
            return self.update(params, trained, rms, gradients), carry, total

        compiled = jax.jit(step, donate_argnums=0)
        batches = task.eval_batches(split, batch_size=1, unroll_length=self.unroll_length)
        params, carry = jax.tree.map(jnp.copy, trained), task.initial_carry(trained, 1)
        sums: list[Any] = []
        for index in range(len(batches)):
            if should_stop():
                return None
            params, carry, total = compiled(params, trained, rms, batches[index], carry)
            sums.append(total)
            if index % 64 == 63:  # so that a stop is heard soon
                jax.block_until_ready(total)
        return math.fsum(map(float, jax.device_get(sums))) / batches.num_targets

    def update(self, params: Params, trained: Params, rms: Params | None, gradients: Params) -> Params:
        """Returns the weights after a segment.

        Args:
          params: θ.
          trained: θ₀.
          rms: r; None with the rule "sgd".
          gradients: g.
        """
        if self.clip_norm is not None:
            scale = jnp.minimum(1.0, self.clip_norm / jnp.maximum(optax.tree.norm(gradients), 1e-30))
            gradients = jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients)
        if rms is None:
            return jax.tree.map(
                lambda p, p0, g: p - self.learning_rate * g + self.decay * (p0 - p), params, trained, gradients
            )
        leaves = jax.tree.leaves(rms)
        mean = sum(jnp.sum(leaf) for leaf in leaves) / sum(leaf.size for leaf in leaves)
        return jax.tree.map(
            lambda p, p0, r, g: (
                p - self.learning_rate * g / (r + self.eps) + jnp.minimum(1.0, self.decay * r / mean) * (p0 - p)
            ),
            params,
            trained,
            rms,
            gradients,
        )

    def _root_mean_square(
        self, task: Any, params: Params, gradient: Callable[..., Any], should_stop: Callable[[], bool]
    ) -> Params | None:
        """Returns r, from the first training batches; None if `should_stop` said so."""

        @jax.jit
        def add(squares: Params, params: Params, batch: Any, carry: Any) -> tuple[Params, Any]:
            gradients, _, carry = gradient(params, batch, carry)
            return jax.tree.map(lambda s, g: s + jnp.square(g), squares, gradients), carry

        batches = task.train_batches(seed=0)
        squares = jax.tree.map(jnp.zeros_like, params)
        carry = task.initial_carry(params, task.batch_size)
        for index in range(self.statistics_batches):
            if should_stop():
                return None
            squares, carry = add(squares, params, batches[index], carry)
        return jax.tree.map(lambda s: jnp.sqrt(s / self.statistics_batches), squares)


def _make_gradient(task: Any, dtypes: Params) -> Callable[[Params, Any, Any], tuple[Params, Array, Any]]:
    """Makes the function that gives the gradient of a batch's mean loss, its summed loss, and the next carry.

    Args:
      task: what has the loss.
      dtypes: of the parameters that the loss is computed with.
    """

    def mean_loss(params: Params, batch: Any, carry: Any) -> tuple[Array, tuple[Array, Any]]:
        params = jax.tree.map(lambda p, dtype: p.astype(dtype), params, dtypes)
        loss, weight, _, carry = task.loss(params, batch, carry, None)
        return loss / jnp.maximum(weight, 1), (loss, carry)

    def gradient(params: Params, batch: Any, carry: Any) -> tuple[Params, Array, Any]:
        gradients, (loss, carry) = jax.grad(mean_loss, has_aux=True)(params, batch, carry)
        return gradients, loss, carry

    return gradient
