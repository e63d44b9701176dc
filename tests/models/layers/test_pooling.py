"""Pooling: against loops in NumPy over one sequence at a time, gradients, and nothing from padding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from lstm_research.common.errors import UserError
from lstm_research.models.layers import functional
from lstm_research.models.layers.pooling import POOLINGS, Pooling

T, H = 5, 4
LENGTHS = (T, 1, 0, 3)
B = len(LENGTHS)
BACKWARD = (False, False, True, True)
EVERY = tuple(sorted(POOLINGS))


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def make(names=EVERY, backward=BACKWARD, dtype="float32"):
    apply, params = functional(Pooling(names, H, backward=backward, rngs=nnx.Rngs(0)))
    params = {name: jnp.asarray(random(index, *leaf.shape), dtype) for index, (name, leaf) in enumerate(params.items())}
    return jax.jit(apply), params


def pooled_alone(name, params, ys):
    """The equations of the docstring for one sequence [L, H], without an empty one; and the weights."""
    if name == "last":
        return np.where(BACKWARD, ys[0], ys[-1])
    if name == "attention":
        scores = np.tanh(ys @ params["kernel"] + params["bias"]) @ params["query_kernel"]
        weights = np.exp(scores - scores.max())
        return weights / weights.sum() @ ys
    return getattr(np, name)(ys, axis=0)


@pytest.mark.parametrize(
    "names", [(name,) for name in EVERY] + list(itertools.permutations(("last", "max", "mean"))) + [EVERY]
)
def test_equals_the_equations_sequence_by_sequence(names, x64):
    apply, params = make(names, dtype="float64")
    ys = random(9, T, B, H)
    pooled, _ = apply(params, ys, jnp.array(LENGTHS))
    assert pooled.shape == (B, H * len(names))
    for row, length in enumerate(LENGTHS):
        if length:
            expected = np.concatenate([pooled_alone(name, params, ys[:length, row]) for name in names])
            np.testing.assert_allclose(pooled[row], expected, rtol=1e-12, atol=1e-12)
        else:
            assert not pooled[row].any()


def test_the_weights_of_attention_are_a_distribution_over_what_is_there():
    apply, params = make()
    _, weights = apply(params, jnp.asarray(random(9, T, B, H), "float32"), jnp.array(LENGTHS))
    valid = np.arange(T)[:, None] < np.array(LENGTHS)
    assert weights.shape == (T, B)
    np.testing.assert_array_equal(weights > 0, valid)
    np.testing.assert_allclose(weights.sum(axis=0), np.array(LENGTHS) > 0, atol=1e-6)
    assert np.ptp(weights[:, 0]) > 0.1
    assert make(("max", "last", "mean"))[0]({}, jnp.ones((T, B, H)), jnp.array(LENGTHS))[1] is None


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30, -1e30])
def test_padding_has_no_part_in_results_or_gradients(padding):
    apply, params = make()
    ys = random(9, T, B, H).astype("float32")
    valid = (np.arange(T)[:, None] < np.array(LENGTHS))[..., None]

    def loss(params, ys):
        pooled, weights = apply(params, ys, jnp.array(LENGTHS))
        return (pooled * np.cos(np.arange(pooled.size)).reshape(pooled.shape)).sum(), (pooled, weights)

    differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    clean = differentiate(params, jnp.where(valid, ys, 0))
    dirty = differentiate(params, jnp.where(valid, ys, padding))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dirty))
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert not np.where(valid, 0, dirty[1][1]).any()


def test_more_padding_and_another_order_of_the_batch_change_nothing(x64):
    apply, params = make(dtype="float64")
    ys, order = random(9, T, B, H), np.array([2, 0, 3, 1])
    pooled, weights = apply(params, ys, jnp.array(LENGTHS))
    longer = np.concatenate([ys, random(10, 3, B, H)])
    again, more_weights = apply(params, longer[:, order], jnp.array(LENGTHS)[order])
    np.testing.assert_allclose(again, pooled[order], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(more_weights[:T], weights[:, order], rtol=1e-13, atol=1e-13)


def test_gradients_equal_differences(x64):
    apply, params = make(dtype="float64")

    def loss(params, ys):
        pooled = apply(params, ys, jnp.array(LENGTHS))[0]
        return (pooled * np.cos(np.arange(pooled.size)).reshape(pooled.shape)).sum()

    check_grads(loss, (params, random(9, T, B, H)), order=1, modes=("fwd", "rev"))


def test_a_length_of_zero_everywhere_and_no_step_at_all():
    apply, params = make()
    for steps in (T, 0):
        pooled, weights = apply(params, jnp.ones((steps, B, H)), jnp.zeros(B, jnp.int32))
        assert not pooled.any()
        assert not weights.any()


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "at least one"), (("max", "max"), "none twice"), (("max", "maen"), "did you mean 'mean'")],
)
def test_refuses_ways_that_are_none(names, message):
    with pytest.raises(UserError, match=message) as caught:
        make(names)
    assert str(caught.value).startswith(("model.pooling", "unknown model.pooling"))
    assert "\n" not in str(caught.value)
