"""Modules as pure functions: the same results, plain parameters, and no state that is left behind in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.cells import LSTM
from lstm_research.models.layers import Embedding, RecurrentStack, functional


def test_equals_the_module():
    stack = RecurrentStack(LSTM(3), 2, num_layers=2, rngs=nnx.Rngs(0))
    apply, params = functional(stack)
    xs = jnp.ones((4, 1, 2))
    for ours, theirs in zip(jax.tree.leaves(apply(params, xs)), jax.tree.leaves(stack(xs)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parameters_are_nested_dicts_of_arrays_named_like_the_attributes():
    _, params = functional(RecurrentStack(LSTM(3), 2, rngs=nnx.Rngs(0)))
    assert type(params) is dict
    assert type(params["layer_0"]["params"]) is dict
    assert set(params["layer_0"]["params"]) == {"input_kernel", "recurrent_kernel", "bias"}
    assert all(type(leaf) is type(jnp.zeros(1)) for leaf in jax.tree.leaves(params))


def test_other_parameters_give_other_results_and_leave_the_module_alone():
    module = Embedding(5, 3, rngs=nnx.Rngs(0))
    apply, params = functional(module)
    before = np.asarray(module.table[...])
    tokens = jnp.array([1, 4])
    np.testing.assert_array_equal(apply({"table": params["table"] + 1}, tokens), before[[1, 4]] + 1)
    np.testing.assert_array_equal(module.table[...], before)
    np.testing.assert_array_equal(apply(params, tokens), before[[1, 4]])


def test_other_methods_by_name():
    apply, params = functional(Embedding(5, 3, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(apply(params, jnp.eye(3), method="attend"), params["table"].T)


def test_jit_grad_and_vmap_over_the_parameters():
    apply, params = functional(Embedding(5, 3, rngs=nnx.Rngs(0)))
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(apply(params, jnp.array([1, 1, 4])))))(params)
    np.testing.assert_array_equal(gradient["table"], np.array([0, 2, 0, 0, 1.0])[:, None] * np.ones((5, 3)))
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    both = jax.vmap(apply, (0, None))(many, jnp.array([3]))
    np.testing.assert_allclose(both[1], 2 * both[0])


def test_a_module_without_arrays_gives_the_function_of_one_with_arrays():
    def make():
        return RecurrentStack(LSTM(3), 2, rngs=nnx.Rngs(0))

    apply, params = functional(make())
    apply_abstract, shapes = functional(nnx.eval_shape(make))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    xs = jnp.ones((4, 1, 2))
    np.testing.assert_array_equal(apply_abstract(params, xs)[1], apply(params, xs)[1])


def test_a_module_with_state_that_is_no_parameter_is_refused():
    with pytest.raises(ValueError, match="filter"):
        functional(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
