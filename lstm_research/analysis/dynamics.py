"""What the recurrent layers of a run do on its own data: gates, memory, gradients through time, over training."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lstm_research.analysis.gradient_flow import (
    Flow,
    NoLayersError,
    by_lag,
    loss_gradients,
    state_jacobians,
    watch,
)
from lstm_research.common.arrays import Float, Params
from lstm_research.data.buckets import EvaluationBuckets
from lstm_research.models.recurrence.observe import Observed

MAX_SEQUENCES = 16
"""Of a batch; more would sharpen averages that are sharp enough, and take longer."""

ByLag = dict[str, Float[np.ndarray, "N"]]
"""For each field of the state means by distance from the end of the sequence, see `by_lag`."""


class LayerFlow(NamedTuple):
    """How far gradients reach back in one recurrent layer, in one direction.

    Attributes:
      loss_gradient: ‖∂L/∂s_t‖.
      jacobian: ‖∂h_T/∂s_t‖ / √P.
    """

    loss_gradient: ByLag
    jacobian: ByLag


class Dynamics:
    """The recurrent layers of a task's model in evaluation, on one batch that begins from the initial state.

    Layers that run step by step inside of a loop of their own are not seen, as in a decoder with input feeding or
    coverage. Nor is a layer's second run with the same weights, as where a forecaster draws paths.

    Attributes:
      layers: by where their weights are, such as "stack.layer_0", what they do.
    """

    def __init__(self, task: Any, batch: Mapping[str, np.ndarray], params: Params):
        """Looks at the layers.

        Args:
          task: of the run.
          batch: of `batch_of`.
          params: the weights with which `layers` is what it is.
        """
        loss = _loss(task, batch)
        try:
            seen = watch(loss)(params)
        except NoLayersError:
            seen = []
        self._names = layer_names(params, seen)
        self.layers = {name: layer for name, layer in zip(self._names, seen, strict=True) if name is not None}
        self._gradients, self._jacobians = loss_gradients(loss), state_jacobians(loss)

    def flows(self, params: Params) -> dict[str, LayerFlow]:
        """Returns how far gradients reach in each layer of `layers` with other weights; compiled once."""
        if not self.layers:
            return {}
        found = zip(self._names, self._gradients(params), self._jacobians(jax.random.key(0), params), strict=True)
        return {
            name: LayerFlow(_lagged(gradient), _lagged(jacobian))
            for name, gradient, jacobian in found
            if name is not None
        }


def first_jacobian(task: Any, batch: Mapping[str, np.ndarray], params: Params) -> ByLag:
    """Returns ‖∂h_T/∂s_t‖ / √P of the layer that runs first; empty if none is seen. See `Dynamics`."""
    try:
        return _lagged(state_jacobians(_loss(task, batch))(jax.random.key(0), params)[0])
    except NoLayersError:
        return {}


def batch_of(task: Any) -> dict[str, np.ndarray]:
    """Returns at most `MAX_SEQUENCES` rows of the validation split, none of which only fills a batch.

    They are the first ones; where batches go by length, those of middling length (windows of series, which have one
    length, from the split's middle).
    """
    batches = task.eval_batches("valid")
    number, row = 0, 0
    if isinstance(batches, EvaluationBuckets):
        number, row = divmod(len(batches.order) // 2, batches.batch_size)
    batch = {name: np.asarray(array) for name, array in batches[number].items()}
    weights = batch["weights"]
    rows = np.flatnonzero(weights.reshape(len(weights), -1).any(axis=1))
    first = max(0, min(row - MAX_SEQUENCES // 2, len(rows) - MAX_SEQUENCES))
    return {name: array[rows[first : first + MAX_SEQUENCES]] for name, array in batch.items()}


def layer_names(params: Params, layers: Sequence[Observed]) -> list[str | None]:
    """Returns where in a model's parameters those of each observed layer are.

    "layer k" stands for a place that is not found, and None for parameters with which a layer before has run.
    """
    places: dict[str, Mapping[str, Any]] = {}
    _collect(params, "", places)
    names: list[str | None] = []
    for number, layer in enumerate(layers):
        found = [name for name, place in places.items() if _are_of(place, layer)]
        free = [name for name in found if name not in names]
        names.append(free[0] if free else None if found else f"layer {number}")
    return names


def random_weights(task: Any, seed: int) -> Params:
    """Returns random weights, which are those that a run with this seed began from.

    Unless it began from others: those of another run (`training.init_from`), or vectors of words (`task.vectors`).
    """
    return task.init(jax.random.split(jax.random.key(seed))[0])


def _loss(task: Any, batch: Mapping[str, np.ndarray]) -> Callable[[Params], Any]:
    def loss(params: Params) -> Any:
        return task.loss(params, batch, task.initial_carry(params, len(batch["weights"])), None)[0]

    return loss


def _lagged(flow: Flow) -> ByLag:
    return {name: by_lag(norms, reverse=flow.reverse) for name, norms in flow.norms.items()}


def _collect(params: Mapping[str, Any], path: str, places: dict[str, Mapping[str, Any]]) -> None:
    """Adds all groups of parameters that are called `params`, in the order in which layers are numbered."""
    for key in sorted(
        params, key=lambda key: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]
    ):
        value = params[key]
        if key == "params":
            places[path] = value
        elif isinstance(value, Mapping):
            _collect(value, f"{path}.{key}".lstrip("."), places)


def _are_of(place: Mapping[str, Any], layer: Observed) -> bool:
    """Whether these are the parameters of a layer, whose kernels may be in another precision."""
    return place.keys() == layer.params.keys() and all(
        value.shape == layer.params[name].shape
        and np.array_equal(np.asarray(value).astype(layer.params[name].dtype), layer.params[name])
        for name, value in place.items()
    )
