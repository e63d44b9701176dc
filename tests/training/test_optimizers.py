"""One table of all optimisers, and every property that all of them must have."""

import dataclasses
import importlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_research.common.errors import UserError
from lstm_research.training.optimizers import OPTIMIZERS, build_optimizer, is_matrix, set_learning_rate_scale

STEPS = 10
RATE = 0.1
SHAPES = {"embedding": {"table": (5, 3)}, "stack": {"recurrent_kernel": (3, 4), "bias": (4,), "peephole": (3, 4)}}
COSINE = {"name": "cosine", "warmup_steps": 3, "final_fraction": 0.1}


@dataclasses.dataclass(frozen=True)
class Row:
    """Our config, and the PyTorch optimiser it equals."""

    config: Mapping[str, Any]
    torch_name: str
    torch_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


TABLE = {
    "sgd": Row({"name": "sgd"}, "SGD"),
    "momentum": Row({"name": "momentum", "momentum": 0.8}, "SGD", {"momentum": 0.8}),
    "nesterov": Row(
        {"name": "momentum", "momentum": 0.8, "nesterov": True}, "SGD", {"momentum": 0.8, "nesterov": True}
    ),
    "adam": Row({"name": "adam"}, "Adam"),
    "adam with its keywords": Row(
        {"name": "adam", "b1": 0.5, "b2": 0.9, "eps": 1e-3}, "Adam", {"betas": (0.5, 0.9), "eps": 1e-3}
    ),
    "adamw": Row({"name": "adamw", "b1": 0.8}, "AdamW", {"betas": (0.8, 0.999), "weight_decay": 0}),
    "rmsprop": Row({"name": "rmsprop", "eps": 1e-8}, "RMSprop", {"alpha": 0.9, "eps": 1e-8}),
    "rmsprop with momentum": Row(
        {"name": "rmsprop", "rms_decay": 0.7, "momentum": 0.5, "eps": 1e-3},
        "RMSprop",
        {"alpha": 0.7, "momentum": 0.5, "eps": 1e-3},
    ),
}


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


def random_tree(seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), dtype), SHAPES, is_leaf=lambda s: isinstance(s, tuple)
    )


def make(config, **options):
    return build_optimizer({"learning_rate": RATE} | dict(config) | options, STEPS)


def run(optimizer, params, gradients):
    """Returns the parameters after every step."""
    update = jax.jit(optimizer.update)
    state, course = optimizer.init(params), []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        course.append(params)
    return course


def assert_close(actual, expected, tolerance=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def one_update(config, gradient, params=None):
    optimizer = make(config)
    params = random_tree(0) if params is None else params
    return optimizer.update(gradient, optimizer.init(params), params)[0]


@pytest.mark.parametrize("schedule", [None, COSINE], ids=["constant", "cosine"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("row", TABLE)
def test_equals_pytorch(torch, x64, row, weight_decay, schedule):
    row = TABLE[row]
    options = {"weight_decay": weight_decay, "decay": "all"} if weight_decay else {}
    optimizer = make(row.config, schedule=schedule, **options)
    params = random_tree(0, "float64")
    gradients = [random_tree(1 + k, "float64") for k in range(STEPS)]

    tensors = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in jax.tree.leaves(params)]
    theirs = getattr(torch.optim, row.torch_name)(
        tensors, **{"lr": RATE, **row.torch_options, "weight_decay": weight_decay}
    )
    for k, ours in enumerate(run(optimizer, params, gradients)):
        theirs.param_groups[0]["lr"] = float(optimizer.learning_rate(jnp.asarray(k), None))
        for tensor, gradient in zip(tensors, jax.tree.leaves(gradients[k]), strict=True):
            tensor.grad = torch.tensor(np.asarray(gradient))
        theirs.step()
        assert_close(jax.tree.leaves(ours), [tensor.detach().numpy() for tensor in tensors])


def test_the_table_has_every_optimizer():
    assert {row.config["name"] for row in TABLE.values()} == set(OPTIMIZERS)


def test_rmsprop_has_its_eps_outside_the_root(x64):
    gradient = random_tree(1, "float64")
    updates = one_update({"name": "rmsprop", "rms_decay": 0.9, "eps": 0.1}, gradient, random_tree(0, "float64"))
    assert_close(updates, jax.tree.map(lambda g: -RATE * g / (np.sqrt(0.1 * g**2) + 0.1), gradient), 1e-7)


@pytest.mark.parametrize("row", TABLE)
def test_decay_of_matrices_spares_vectors_and_peepholes_and_decay_of_all_does_not(row):
    config, params, gradient = TABLE[row].config, random_tree(0), random_tree(1)
    without = one_update(config, gradient)
    matrices = one_update({**config, "weight_decay": 0.3}, gradient)
    everything = one_update({**config, "weight_decay": 0.3, "decay": "all"}, gradient)
    names = {"table": True, "recurrent_kernel": True, "bias": False, "peephole": False}
    assert is_matrix(params) == {
        "embedding": {"table": True},
        "stack": {"recurrent_kernel": True, "bias": False, "peephole": False},
    }
    for section, arrays in params.items():
        for name in arrays:
            plain, some, every = (updates[section][name] for updates in (without, matrices, everything))
            assert (some != plain).any() == names[name]
            np.testing.assert_array_equal(some, every if names[name] else plain)
            assert (every != plain).any()


@pytest.mark.parametrize("row", TABLE)
def test_first_step_with_decay_is_as_the_module_docstring_says(row):
    config, params, gradient = TABLE[row].config, random_tree(0), random_tree(1)
    updates = one_update({**config, "weight_decay": 0.3, "decay": "all"}, gradient)
    if config["name"] == "adamw":
        expected = jax.tree.map(lambda u, p: u - RATE * 0.3 * p, one_update(config, gradient), params)
    else:
        expected = one_update(config, jax.tree.map(lambda g, p: g + 0.3 * p, gradient, params))
    assert_close(updates, expected)


def test_decoupled_decay_follows_the_schedule():
    zero = jax.tree.map(jnp.zeros_like, random_tree(0))
    optimizer = make({"name": "adamw"}, weight_decay=0.3, decay="all", schedule=COSINE)
    params = random_tree(0)
    rates = [float(optimizer.learning_rate(jnp.asarray(k), None)) for k in range(STEPS)]
    assert max(rates) / min(rates) > 3
    for rate, after in zip(rates, run(optimizer, params, [zero] * STEPS), strict=True):
        params = jax.tree.map(lambda p, rate=rate: p * (1 - 0.3 * rate), params)
        assert_close(after, params)


@pytest.mark.parametrize("row", TABLE)
def test_clipping_sees_the_raw_gradient_value_by_value_and_then_the_norm(row):
    config, gradient = TABLE[row].config, random_tree(1)
    by_value = jax.tree.map(lambda g: jnp.clip(g, -0.5, 0.5), gradient)
    assert_close(one_update({**config, "clip_value": 0.5}, gradient), one_update(config, by_value))

    def scaled(tree, largest):
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
        assert norm > largest
        return jax.tree.map(lambda g: g * (largest / norm), tree)

    assert_close(one_update({**config, "clip_norm": 0.2}, gradient), one_update(config, scaled(gradient, 0.2)), 1e-5)
    both = one_update({**config, "clip_norm": 0.2, "clip_value": 0.5, "weight_decay": 0.1}, gradient)
    assert_close(both, one_update({**config, "weight_decay": 0.1}, scaled(by_value, 0.2)), 1e-5)


@pytest.mark.parametrize("row", TABLE)
def test_clipping_leaves_small_gradients_alone(row):
    config, gradient = TABLE[row].config, random_tree(1)
    loose = one_update({**config, "clip_norm": 1e3, "clip_value": 1e3}, gradient)
    jax.tree.map(np.testing.assert_array_equal, loose, one_update(config, gradient))


def test_a_gradient_of_zero_is_clipped_to_zero():
    zero = jax.tree.map(jnp.zeros_like, random_tree(0))
    updates = one_update({"name": "sgd", "clip_norm": 1.0}, zero)
    assert not any(leaf.any() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("row", TABLE)
def test_the_learning_rate_scales_every_update(row):
    params, gradients = random_tree(0), [random_tree(k) for k in range(3)]
    config = {**TABLE[row].config, "schedule": COSINE}
    updates = []
    for rate in (RATE, 2 * RATE):
        optimizer = make(config, learning_rate=rate)
        state, course = optimizer.init(params), []
        for gradient in gradients:
            update, state = optimizer.update(gradient, state, params)
            course.append(update)
        updates.append(course)
    assert_close(updates[1], jax.tree.map(lambda u: 2 * u, updates[0]))


@pytest.mark.parametrize("row", TABLE)
def test_the_plateau_scales_updates_and_the_reported_rate_from_outside(row):
    params, gradient = random_tree(0), random_tree(1)
    optimizer = make(TABLE[row].config, schedule={"name": "plateau", "warmup_steps": 2})
    assert optimizer.plateau is not None
    state = optimizer.init(params)
    full, _ = optimizer.update(gradient, state, params)
    assert_close(full, one_update({**TABLE[row].config, "schedule": {"name": "constant", "warmup_steps": 2}}, gradient))
    lower = set_learning_rate_scale(state, 0.25)
    quarter, after = optimizer.update(gradient, lower, params)
    assert_close(quarter, jax.tree.map(lambda u: u / 4, full))
    assert float(optimizer.learning_rate(0, state)) == pytest.approx(RATE / 2)
    assert float(optimizer.learning_rate(1, after)) == pytest.approx(RATE / 4)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), lower) == (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    ), "another dtype would compile the step again"


@pytest.mark.parametrize("row", TABLE)
def test_state_and_updates_keep_the_parameters_dtype(row):
    for dtype in ("bfloat16", "float32"):
        params = random_tree(0, dtype)
        optimizer = make(TABLE[row].config, schedule=COSINE, clip_norm=1.0, weight_decay=0.1)
        updates, _ = optimizer.update(random_tree(1, dtype), optimizer.init(params), params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {dtype}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"name": "adma"}, "'adam'"),
        ({}, "optimizer.name"),
        ({"name": "sgd", "learning_rate": 0.0}, "learning_rate"),
        ({"name": "sgd", "learning_rate": float("nan")}, "learning_rate"),
        ({"name": "sgd", "learning_rate": "fast"}, "learning_rate"),
        ({"name": "sgd", "clip_norm": 0.0}, "clip_norm"),
        ({"name": "sgd", "clip_value": -1.0}, "clip_value"),
        ({"name": "sgd", "weight_decay": -0.1}, "weight_decay"),
        ({"name": "sgd", "weight_decay": float("nan")}, "weight_decay"),
        ({"name": "sgd", "decay": "biases"}, "decay"),
        ({"name": "sgd", "momentum": 0.9}, "momentum"),
        ({"name": "momentum", "momentm": 0.9}, "'momentum'"),
        ({"name": "momentum", "momentum": 1.5}, "momentum"),
        ({"name": "momentum", "nesterov": 1}, "nesterov"),
        ({"name": "adam", "b1": 1.0}, "b1"),
        ({"name": "adam", "b2": -0.5}, "b2"),
        ({"name": "adamw", "eps": -1e-8}, "eps"),
        ({"name": "rmsprop", "rms_decay": 1.0}, "rms_decay"),
        ({"name": "sgd", "num_steps": 7}, "num_steps"),
        ({"name": "sgd", "schedule": {"name": "cosin"}}, "'cosine'"),
        ({"name": "sgd", "schedule": {"name": "cosine", "warmup": 3}}, "warmup_steps"),
    ],
)
def test_wrong_values_are_refused_by_name(config, named):
    with pytest.raises(UserError, match=named) as caught:
        build_optimizer({"learning_rate": RATE} | config, STEPS)
    assert "\n" not in str(caught.value)
