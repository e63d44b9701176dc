"""The networks without gates equal other libraries' cells, in states and gradients, and start as their papers say.

PyTorch's RNN is compared in `tests/models/recurrence/test_pytorch.py`.
"""

import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from libraries import B, D, H, T, check_equals, library

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, RNN, IndRNN
from lstm_research.models.cells.initializers import INITIALIZERS
from lstm_research.models.recurrence import unroll


def recurrent_matrix(params):
    """The weights between all units; an IndRNN has those on the diagonal only."""
    U = params["recurrent_kernel"]
    return jnp.diag(U) if U.ndim == 1 else U


# Each makes, from the name of an activation, a step `(our parameters, x, h) -> h'` of the library's cell.


def flax_cell(activation):
    module = flax.linen.SimpleCell(H, activation_fn=getattr(jax.nn, activation))

    def step(params, x, h):
        weights = {"i": {"kernel": params["input_kernel"], "bias": params["bias"]}}
        return module.apply({"params": weights | {"h": {"kernel": recurrent_matrix(params)}}}, h, x)[0]

    return step


def keras_cell(activation):
    # Keras's own tanh computes in float32, whatever it is given.
    function = jnp.tanh if activation == "tanh" else activation
    layer = library("keras").layers.SimpleRNNCell(H, activation=function, dtype="float64")
    layer.build((None, D))

    def step(params, x, h):
        weights = [params["input_kernel"], recurrent_matrix(params), params["bias"]]
        return layer.stateless_call(weights, [v.value for v in layer.non_trainable_variables], x, h)[0][1]

    return step


def haiku_cell(activation):
    assert activation == "relu"  # Haiku has no other
    haiku = library("haiku")
    transformed = haiku.transform(lambda x, h: haiku.VanillaRNN(H, double_bias=False)(x, h)[1])
    apply = haiku.without_apply_rng(transformed).apply

    def step(params, x, h):
        weights = {
            "vanilla_rnn/linear": {"w": params["input_kernel"], "b": params["bias"]},
            "vanilla_rnn/linear_1": {"w": recurrent_matrix(params)},
        }
        return apply(weights, x, h)

    return step


COMPARISONS = {
    "rnn-flax": (RNN(H), functools.partial(flax_cell, "tanh")),
    "rnn-keras": (RNN(H), functools.partial(keras_cell, "tanh")),
    "irnn-flax": (CELLS["irnn"](H), functools.partial(flax_cell, "relu")),
    "irnn-haiku": (CELLS["irnn"](H), functools.partial(haiku_cell, "relu")),
    "irnn-keras": (CELLS["irnn"](H), functools.partial(keras_cell, "relu")),
    "indrnn-flax": (IndRNN(H), functools.partial(flax_cell, "relu")),
    "indrnn-keras-tanh": (IndRNN(H, activation="tanh"), functools.partial(keras_cell, "tanh")),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", COMPARISONS)
def test_equals_another_library(name):
    cell, make_step = COMPARISONS[name]
    check_equals(cell, make_step())


def test_an_irnn_starts_by_adding_up_its_inputs():
    cell = CELLS["irnn"](H)
    params = cell.init(jax.random.key(0), D)
    xs = jnp.abs(jax.random.normal(jax.random.key(1), (100, B, D)))
    params["input_kernel"] = jnp.abs(params["input_kernel"])
    carry, ys = unroll(cell, params, xs)
    np.testing.assert_allclose(carry.h, xs.sum(0) @ params["input_kernel"], rtol=1e-5)
    # Nothing of it is lost, and its gradient neither.
    gradient = jax.grad(lambda xs: unroll(cell, params, xs)[0].h.sum())(xs)
    np.testing.assert_allclose(gradient, jnp.broadcast_to(params["input_kernel"].sum(1), xs.shape), rtol=1e-6)
    np.testing.assert_array_equal(ys[-1], carry.h)


@pytest.mark.parametrize("name", ["rnn", "irnn", "indrnn"])
def test_recurrent_factor_scales_the_initial_recurrent_weights_alone(name):
    plain, scaled = (CELLS[name](H, recurrent_factor=f).init(jax.random.key(0), D) for f in (1.0, 0.25))
    jax.tree.map(np.testing.assert_array_equal, scaled, plain | {"recurrent_kernel": plain["recurrent_kernel"] * 0.25})
    if name == "irnn":
        np.testing.assert_array_equal(scaled["recurrent_kernel"], 0.25 * np.eye(H))


@pytest.mark.parametrize("initializer", sorted(INITIALIZERS))
def test_the_recurrent_weights_of_an_indrnn_are_drawn_for_every_unit_or_refused(initializer):
    if initializer in ("identity", "orthogonal"):
        with pytest.raises(UserError, match=f"^recurrent_initializer='{initializer}' draws a matrix.*uniform_unit"):
            IndRNN(H, recurrent_initializer=initializer)
    else:
        cell = IndRNN(H, recurrent_initializer=initializer)
        assert cell.init(jax.random.key(0), D)["recurrent_kernel"].all()


def test_an_indrnn_that_is_an_irnn_without_weights_between_units():
    params = IndRNN(H, recurrent_initializer=jax.nn.initializers.ones).init(jax.random.key(0), D)
    np.testing.assert_array_equal(recurrent_matrix(params), np.eye(H))


def test_an_indrnn_starts_with_weights_spread_evenly_up_to_the_bound():
    bound = 2 ** (1 / 50)
    u = np.asarray(IndRNN(1000, recurrent_factor=bound).init(jax.random.key(0), 1)["recurrent_kernel"])
    assert u.min() >= 0
    assert u.max() <= bound
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(u, share) == pytest.approx(share * bound, abs=0.06)
    assert (u**50).max() <= 2 * (1 + 1e-5)


def test_units_of_an_indrnn_do_not_see_each_other():
    cell = IndRNN(H, activation="tanh")
    params = cell.init(jax.random.key(0), D)
    xs, carry = jnp.ones((T, B, D)), cell.carry_type(h=jnp.full((B, H), 0.5))
    before = unroll(cell, params, xs, carry)[1]
    after = unroll(cell, params, xs, carry._replace(h=carry.h.at[:, 1].add(1.0)))[1]
    changed = np.asarray(before != after).any((0, 1))
    np.testing.assert_array_equal(changed, np.arange(H) == 1)
