"""One recurrent layer: it is `unroll` with its parameters, in one direction or both, in the dtype of its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.layers import Bidirectional, Recurrent, functional
from lstm_research.models.recurrence import unroll

T, B, D, H = 5, 3, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, D)), "float32")
LENGTHS = jnp.array([5, 2, 0])


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_is_unroll_with_the_layers_parameters(name, reverse):
    cell = CELLS[name](hidden_size=H)
    layer = Recurrent(cell, D, rngs=nnx.Rngs(0))
    params = functional(layer)[1]["params"]
    assert_equal(
        layer(XS, lengths=LENGTHS, reverse=reverse), unroll(cell, params, XS, lengths=LENGTHS, reverse=reverse)
    )
    assert layer.output_size == H


@pytest.mark.parametrize("merge", ["concat", "sum", "mean"])
def test_both_directions_are_two_layers_and_a_merge(merge):
    layer = Bidirectional(LSTM(H), D, merge=merge, rngs=nnx.Rngs(0))
    ends = jnp.zeros((T, B), bool).at[1, 0].set(True)
    starts = jnp.zeros((T, B), bool).at[2, 0].set(True)
    forward_carry, forward = layer.forward(XS, lengths=LENGTHS, resets=starts)
    backward_carry, backward = layer.backward(XS, lengths=LENGTHS, resets=ends, reverse=True)
    merged = {
        "concat": np.concatenate([forward, backward], axis=-1),
        "sum": np.asarray(forward) + np.asarray(backward),
        "mean": (np.asarray(forward) + np.asarray(backward)) / 2,
    }[merge]
    carry, ys = layer(XS, lengths=LENGTHS, resets=starts)
    assert_equal(carry, (forward_carry, backward_carry))
    assert_equal(ys, merged)
    assert layer.output_size == merged.shape[-1]


def test_the_two_directions_have_weights_of_their_own():
    params = functional(Bidirectional(GRU(H), D, rngs=nnx.Rngs(0)))[1]
    assert (params["forward"]["params"]["input_kernel"] != params["backward"]["params"]["input_kernel"]).all()


def test_with_equal_weights_backward_is_forward_on_the_reversed_sequence():
    apply, params = functional(Bidirectional(LSTM(H), D, rngs=nnx.Rngs(0)))
    params["backward"] = params["forward"]
    ys = apply(params, XS)[1]
    np.testing.assert_allclose(ys[..., H:], apply(params, XS[::-1])[1][::-1, :, :H], atol=1e-6)


@pytest.mark.parametrize("make", [Recurrent, Bidirectional])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_products_are_in_the_dtype_asked_for_and_states_in_float32(make, dtype):
    expected = make(LSTM(H), D, rngs=nnx.Rngs(0))(XS)
    by_input = make(LSTM(H), D, rngs=nnx.Rngs(0))(XS.astype(dtype))
    by_option = make(LSTM(H), D, dtype=dtype, rngs=nnx.Rngs(0))
    for results in (by_input, by_option(XS)):
        assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(results))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), results, expected)
        assert (dtype == "float32") == bool((results[1] == expected[1]).all())
    products = [e for e in jax.make_jaxpr(by_option.__call__)(XS).jaxpr.eqns if e.primitive.name == "dot_general"]
    assert all(operand.aval.dtype == dtype for product in products for operand in product.invars)


@pytest.mark.parametrize("make", [Recurrent, Bidirectional])
def test_parameters_are_in_the_dtype_asked_for(make):
    layer = make(LSTM(H), D, param_dtype="bfloat16", rngs=nnx.Rngs(0))
    assert all(leaf.dtype == "bfloat16" for leaf in jax.tree.leaves(functional(layer)[1]))
    assert layer(XS)[1].dtype == "float32"


@pytest.mark.parametrize("make", [Recurrent, Bidirectional])
def test_the_initial_carry_is_the_carry_that_none_stands_for(make):
    layer = make(LSTM(H), D, rngs=nnx.Rngs(0))
    carry = layer.initial_carry(B)
    assert all(leaf.shape == (B, H) for leaf in jax.tree.leaves(carry))
    assert_equal(layer(XS, carry), layer(XS))


def test_the_layer_passes_the_carry_on():
    layer = Recurrent(LSTM(H), D, rngs=nnx.Rngs(0))
    middle, first = layer(XS[:2])
    final, second = layer(XS[2:], middle)
    carry, ys = layer(XS)
    np.testing.assert_allclose(jnp.concatenate([first, second]), ys, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), final, carry)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_counts_and_flags_are_read_as_numbers(dtype):
    layer = Recurrent(LSTM(H), D, rngs=nnx.Rngs(0))
    counts = (XS > 0).astype(dtype)
    assert_equal(layer(counts), layer(counts.astype("float32")))
