"""The training step, the only compiled function of training, and the state that it changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Float, Int, Params, PRNGKeyArray
from lstm_research.training.average import start_average, update_average
from lstm_research.training.optimizers import Optimizer
from lstm_research.training.parallel import Parallel, cut_rows, join_rows

Sums = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Metrics as pairs (sum, count): merged by adding, exact over padding, shards and micro-batches."""


class TrainState(NamedTuple):
    """What `train_step` takes and returns.

    Attributes:
      step: the number of finished steps.
      params: of the model.
      opt_state: of the optimiser.
      carry: the recurrent state after the last batch, batch axis first.
      key: of the run; step k uses `fold_in(key, k)`, so that the key itself never changes.
      average: the average of the parameters, in float32 at least, or None.
      average_start: the step from which on they are averaged, -1 for not yet; None for an exponential average.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    carry: Any
    key: PRNGKeyArray
    average: Params | None
    average_start: Int[Array, ""] | None = None

    @property
    def evaluated(self) -> Params:
        """What is evaluated and kept as best: the average, if there is one, in the types of the parameters."""
        if self.average is None:
            return self.params
        return jax.tree.map(lambda mean, leaf: mean.astype(leaf.dtype), self.average, self.params)


def init_state(
    task: Any,
    optimizer: Optimizer,
    *,
    seed: int,
    average: bool,
    triggered: bool = False,
    warm_start: Callable[[Params], Params] | None = None,
) -> TrainState:
    """Returns the state before the first step, a function of the seed alone.

    Args:
      task: gives the parameters and the carry.
      optimizer: gives its own state.
      seed: of the run.
      average: whether an average of the parameters is kept.
      triggered: whether it is the mean since a step that the loop sets.
      warm_start: puts other weights in the place of those that were drawn.
    """
    params_key, key = jax.random.split(jax.random.key(seed))
    params = task.init(params_key)
    if warm_start is not None:
        params = warm_start(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        carry=task.initial_carry(params, task.batch_size),
        key=key,
        average=start_average(params) if average else None,
        average_start=jnp.full((), -1, jnp.int32) if triggered else None,
    )


TrainStep = Callable[[TrainState, Any], tuple[TrainState, Sums]]


def make_train_step(task: Any, optimizer: Optimizer, *, parallel: Parallel | None = None, **options: Any) -> TrainStep:
    """Makes the compiled `train_step(state, batch) -> (state, metrics)`; the state that goes in is given up.

    Args:
      task: see `make_plain_step`.
      optimizer: likewise.
      parallel: how a step is divided among devices; None as by default.
      **options: of `make_plain_step`.
    """
    parallel = parallel or Parallel()
    return parallel.compile(make_plain_step(task, optimizer, **options, parallel=parallel))


def make_plain_step(
    task: Any,
    optimizer: Optimizer,
    *,
    accumulation_steps: int = 1,
    average_decay: float | None = None,
    parallel: Parallel | None = None,
) -> TrainStep:
    """Makes `train_step(state, batch) -> (state, metrics)`, to be compiled.

    Args:
      task: its `loss(params, batch, carry, key) -> (summed loss, weight, extras, carry)` and `learning_rate_scale`.
      optimizer: what turns gradients into updates.
      accumulation_steps: the batch is cut in this many parts along its batch axis, one after the other, to save
        memory. The gradient is that of the whole batch.
      average_decay: of the exponential moving average of the parameters; None keeps none.
      parallel: says what of it the step does by itself.
    """
    parallel = parallel or Parallel()

    def gradient(params: Params, batch: Any, carry: Any, key: Array) -> tuple[Params, Sums, Any]:
        """Returns the gradient of the summed loss, the metrics and the next carry."""

        def summed_loss(params: Params) -> tuple[Array, tuple[Sums, Any]]:
            loss, weight, extras, next_carry = task.loss(params, batch, carry, key)
            return loss, ({"loss": (loss, weight), **extras}, next_carry)

        gradients, (sums, next_carry) = jax.grad(summed_loss, has_aux=True)(params)
        return gradients, sums, next_carry

    def accumulated_gradient(params: Params, batch: Any, carry: Any, key: Array) -> tuple[Params, Sums, Any]:
        """Returns the same, part by part: every array is cut along its first axis, the batch."""
        split = cut_rows((batch, carry), accumulation_steps)
        keys = jax.random.split(key, accumulation_steps)

        def body(total: Any, part: Any) -> tuple[Any, Any]:
            (batch, carry), key = part
            gradients, sums, next_carry = gradient(params, batch, carry, key)
            return jax.tree.map(jnp.add, total, (gradients, sums)), next_carry

        shapes = jax.eval_shape(gradient, params, *jax.tree.map(lambda x: x[0], split), keys[0])[:2]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        (gradients, sums), carry = jax.lax.scan(body, zeros, (split, keys))
        return gradients, sums, join_rows(carry)

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Sums]:
        key = parallel.own_key(jax.random.fold_in(state.key, state.step))
        compute = gradient if accumulation_steps == 1 else accumulated_gradient
        gradients, sums, carry = compute(state.params, batch, state.carry, key)
        gradients, sums = parallel.total((gradients, sums))
        weight = jnp.maximum(sums["loss"][1], 1)  # a batch of padding only has weight 0 and gradient 0
        gradients = jax.tree.map(lambda g: g / weight, gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        learning_rate = optimizer.learning_rate(state.step, state.opt_state)
        scale = task.learning_rate_scale(batch)
        if scale is not None:
            scale = parallel.mean(scale)
            updates = jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
            learning_rate = learning_rate * scale
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = update_average(average, params, state.step, decay=average_decay, start=state.average_start)
        metrics = sums | {
            "gradient_norm": (optax.tree.norm(gradients), jnp.float32(1)),
            "learning_rate": (learning_rate, jnp.float32(1)),
        }
        return state._replace(
            step=state.step + 1, params=params, opt_state=opt_state, carry=carry, average=average
        ), metrics

    return train_step
