"""Evaluation: a task's metrics over one whole split, exactly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from lstm_research.training.metrics import MetricSums
from lstm_research.training.parallel import Parallel
from lstm_research.training.processes import same_on_all, whole

# Batches on their way before the host waits: enough to keep a device busy, few enough to stop soon when asked to.
IN_FLIGHT = 16


EvaluationStep = Callable[[PyTree, PyTree, PyTree], tuple[dict[str, tuple[Any, Any]], PyTree]]


def make_evaluation_step(task: Any) -> EvaluationStep:
    """Makes `step(params, batch, carry) -> (metrics, carry)`."""

    def step(params: PyTree, batch: PyTree, carry: PyTree) -> tuple[dict[str, tuple[Any, Any]], PyTree]:
        loss, weight, extras, carry = task.loss(params, batch, carry, None)
        return {"loss": (loss, weight), **extras}, carry

    return step


class Evaluator:
    """Evaluates parameters; compiles once for all evaluations of a task with batches of one shape.

    Args:
      task: gives `eval_batches`, `initial_carry`, `loss`, `metrics` and `scores`.
      parallel: how batches are divided among devices; None as by default. `scores` runs on one.
    """

    def __init__(self, task: Any, parallel: Parallel | None = None):
        self._task = task
        self._parallel = parallel or Parallel()
        self._step = self._parallel.compile_evaluation(make_evaluation_step(task))

    def evaluate(
        self, params: PyTree, split: str, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Returns the metrics over every target of a split.

        The carry goes from batch to batch. Sums over a batch are the device's, sums over batches are float64, so the
        result does not depend on the batch size beyond the last bits, and padding counts for nothing.

        Args:
          params: what to evaluate.
          split: the split's name.
          should_stop: asked between batches.

        Returns:
          Metrics by name, or None if `should_stop` said so.
        """
        batches = self._task.eval_batches(split)
        params = self._parallel.place_params(params)
        local = self._parallel.on_one_device(whole(params))
        sums = MetricSums()
        pending: list[dict[str, tuple[Any, Any]]] = []
        carry = None
        for index in range(len(batches)):
            if should_stop():
                return None
            batch = batches[index]
            if carry is None:
                carry = self._task.initial_carry(local, num_rows(batch))
                carry = self._parallel.place_batch(carry)
            metrics, carry = self._step(params, self._parallel.place_batch(batch), carry)
            pending.append(metrics)
            if len(pending) == IN_FLIGHT:
                _drain(pending, sums)
        _drain(pending, sums)
        metrics = self._task.metrics(sums.as_dict())
        scores = self._task.scores(local, split, should_stop)
        return None if scores is None else same_on_all(metrics | scores)

    def metric_names(self, params: PyTree, split: str) -> list[str]:
        """Returns the names of the metrics that `evaluate` gives, without computing any."""
        batch = self._task.eval_batches(split)[0]

        def step(params: PyTree) -> Mapping[str, tuple[Any, Any]]:
            return self._step(params, batch, self._task.initial_carry(params, num_rows(batch)))[0]

        # Any sums will do; ones are no division by zero.
        sums = {name: (np.ones(total.shape), 1.0) for name, (total, _) in jax.eval_shape(step, params).items()}
        return sorted({*self._task.metrics(sums), *self._task.score_names(split)})


def _drain(pending: list[dict[str, tuple[Any, Any]]], sums: MetricSums) -> None:
    for metrics in jax.device_get(pending):
        sums.add(metrics)
    pending.clear()


def num_rows(batch: Mapping[str, Any] | Sequence[Any]) -> int:
    """Returns the number of examples in a batch."""
    return int(jax.tree.leaves(batch)[0].shape[0])
