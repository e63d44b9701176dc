"""The loss of every single step, of any task whose loss is a sum over steps."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from lstm_research.common.arrays import Array, Params


def step_losses(task: Any, params: Params, batch: Mapping[str, np.ndarray]) -> Float[Array, "B ..."]:
    """Returns the loss of each step that a batch has a weight for, in evaluation and from the initial state.

    The loss of such a task is L = Σ_i w_i L_i, so that L_i = ∂L/∂w_i: of a symbol of a text, of an answer, of a value
    of the horizon. Where w_i = 0, L_i counts nowhere and means nothing.

    Args:
      task: of the run.
      params: of the model.
      batch: of its `eval_batches`.

    Raises:
      ValueError: a task that has one loss for a whole sequence.
    """
    if batch["weights"].ndim < 2:
        raise ValueError("a sequence has one loss in this task, not one for every step")

    def loss(weights: Array) -> Array:
        return task.loss(params, {**batch, "weights": weights}, task.initial_carry(params, len(weights)), None)[0]

    return jax.jit(jax.grad(loss))(np.asarray(batch["weights"], np.float32))
