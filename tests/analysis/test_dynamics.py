"""What is observed of a run: which sequences, which layers, and where their weights are."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.analysis.dynamics import MAX_SEQUENCES, Dynamics, batch_of, first_jacobian, layer_names
from lstm_research.analysis.gradient_flow import watch
from lstm_research.data.buckets import EvaluationBuckets
from lstm_research.models.cells import GRU, LSTM
from lstm_research.models.layers import RecurrentStack, functional

D, H = 3, 4


def collate(indices: np.ndarray, valid: np.ndarray, length: int) -> dict[str, np.ndarray]:
    return {"index": indices, "weights": valid.astype(np.float32)}


def task_of(batches: Any) -> Any:
    return SimpleNamespace(eval_batches=lambda split: {"valid": batches}[split])


@pytest.mark.parametrize(("count", "batch_size"), [(3, 8), (40, 50), (51, 50), (101, 50), (100, 8)])
def test_sequences_are_of_middling_length(count: int, batch_size: int) -> None:
    batches = EvaluationBuckets(np.arange(count), collate, batch_size=batch_size, boundaries=(200,))
    batch = batch_of(task_of(batches))
    assert (batch["weights"] == 1).all()
    assert len(set(batch["index"])) == len(batch["index"]) == min(MAX_SEQUENCES, batch_size, count)
    if count > MAX_SEQUENCES:
        assert abs(np.median(batch["index"]) - count / 2) <= MAX_SEQUENCES


def test_first_sequences_where_batches_are_in_order() -> None:
    weights = np.ones((20, 5), np.float32)
    weights[[0, 2]] = 0  # these fill the batch
    weights[1, 1:] = 0
    batch = batch_of(task_of([{"index": np.arange(20), "weights": weights}]))
    np.testing.assert_array_equal(batch["index"], [1, *range(3, 18)])


def test_a_second_run_with_the_same_weights_is_no_layer() -> None:
    apply, params = functional(RecurrentStack(LSTM(H), D, num_layers=2, rngs=nnx.Rngs(0)))

    def loss(params: Any, batch: Any, carry: Any, key: Any) -> Any:
        _, ys = apply(params, jnp.asarray(batch["xs"]))
        _, again = apply(params, jnp.asarray(batch["xs"][:3]))
        return jnp.sum(ys**2) + 0 * jnp.sum(again), None, {}, carry

    task = SimpleNamespace(loss=loss, initial_carry=lambda params, size: ())
    batch = {"xs": np.ones((6, 2, D), np.float32), "weights": np.ones(2, np.float32)}
    dynamics = Dynamics(task, batch, params)
    assert list(dynamics.layers) == ["layer_0", "layer_1"]
    assert [len(layer.states.h) for layer in dynamics.layers.values()] == [6, 6]
    flows = dynamics.flows(jax.tree.map(lambda leaf: 2 * leaf, params))
    assert list(flows) == ["layer_0", "layer_1"]
    for flow in flows.values():
        assert set(flow.loss_gradient) == set(flow.jacobian) == {"c", "h"}
        assert all(len(norms) == 6 for norms in (*flow.loss_gradient.values(), *flow.jacobian.values()))
    found = first_jacobian(task, batch, params)
    expected = dynamics.flows(params)["layer_0"].jacobian
    np.testing.assert_allclose(found["c"], expected["c"], rtol=1e-6)


def test_no_layers() -> None:
    task = SimpleNamespace(
        loss=lambda params, batch, carry, key: (jnp.sum(params["x"]),), initial_carry=lambda params, size: ()
    )
    batch, params = {"weights": np.ones(2, np.float32)}, {"x": jnp.ones(2)}
    dynamics = Dynamics(task, batch, params)
    assert dynamics.layers == dynamics.flows(params) == first_jacobian(task, batch, params) == {}


def test_names_are_where_the_weights_are() -> None:
    stack = RecurrentStack(GRU(H), D, num_layers=11, bidirectional=True, rngs=nnx.Rngs(0))
    apply, params = functional(stack)
    xs = jnp.ones((3, 2, D))
    layers = watch(functools.partial(apply, xs=xs))(params)
    expected = [f"stack.layer_{n}.{way}" for n in range(11) for way in ("forward", "backward")]
    assert layer_names({"stack": params}, layers) == expected
    same = jax.tree.map(jnp.zeros_like, params)  # nothing tells these apart but their shapes
    assert len(set(layer_names({"stack": same}, watch(functools.partial(apply, xs=xs))(same)))) == 22
    assert layer_names({"other": {"params": {}}}, layers[:2]) == ["layer 0", "layer 1"]
    assert layer_names({"stack": params}, layers[:1] * 2) == ["stack.layer_0.forward", None]
