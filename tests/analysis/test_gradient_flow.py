"""Gradients through time are what automatic differentiation of a divided sequence gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.analysis import gradient_flow
from lstm_research.analysis.gradient_flow import NoLayersError, by_lag, loss_gradients, state_jacobians, watch
from lstm_research.models.cells import CELLS, GRU, LSTM, RNN
from lstm_research.models.layers import RecurrentStack
from lstm_research.models.recurrence import unroll

T, B, D, H = 7, 3, 2, 4
LENGTHS = jnp.array([7, 3, 5])


def make(cell):
    params = cell.init(jax.random.key(0), D)
    return params, jax.random.normal(jax.random.key(1), (T, B, D))


def loss_of(ys):
    return jnp.sum(jnp.cos(ys * jnp.arange(1, 1 + H)))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_gradient_of_the_loss(name, x64):
    cell = CELLS[name](hidden_size=H)
    params, xs = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), make(cell))
    (flow,) = loss_gradients(lambda: loss_of(unroll(cell, params, xs)[1]))()
    assert set(flow.norms) == set(cell.carry_sizes)
    for t in range(T):
        carry = None if t == 0 else unroll(cell, params, xs[:t])[0]
        if carry is None:
            carry = cell.initial_carry(params, (B,), jnp.float64)
        expected = jax.grad(lambda carry, t=t: loss_of(unroll(cell, params, xs[t:], carry)[1]))(carry)
        for field, gradient in expected._asdict().items():
            np.testing.assert_allclose(flow.norms[field][t], jnp.linalg.norm(gradient, axis=-1), rtol=1e-9, atol=1e-15)


def test_padding_has_no_gradient():
    cell = LSTM(H)
    params, xs = make(cell)
    (flow,) = loss_gradients(lambda: loss_of(unroll(cell, params, xs, lengths=LENGTHS)[1]))()
    for norms in flow.norms.values():
        np.testing.assert_array_equal(np.isnan(norms), np.arange(T)[:, None] >= np.asarray(LENGTHS))
    other = jnp.where(jnp.arange(T)[:, None, None] < LENGTHS[:, None], xs, 7.0)
    (again,) = loss_gradients(lambda: loss_of(unroll(cell, params, other, lengths=LENGTHS)[1]))()
    for field, norms in flow.norms.items():
        np.testing.assert_array_equal(norms, again.norms[field])


@pytest.mark.parametrize("reverse", [False, True])
def test_jacobians_of_the_state(reverse, x64, monkeypatch):
    monkeypatch.setattr(gradient_flow, "NUM_PROBES", 4000)  # an estimate: this many are 3 % of it
    cell = LSTM(H)
    params, xs = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), make(cell))
    jacobians = state_jacobians(lambda: unroll(cell, params, xs, lengths=LENGTHS, reverse=reverse))
    (flow,) = jacobians(jax.random.key(3))
    assert flow.reverse is reverse
    for row in range(B):
        sequence = xs[: int(LENGTHS[row]), row : row + 1]
        sequence = sequence[::-1] if reverse else sequence
        for t in range(len(sequence)):
            carry = cell.initial_carry(params, (1,), jnp.float64)
            if t:
                carry, _ = unroll(cell, params, sequence[:t])
            jacobian = jax.jacobian(lambda carry, t=t, s=sequence: unroll(cell, params, s[t:], carry)[0].h)(carry)
            place = len(sequence) - 1 - t if reverse else t
            for field, block in jacobian._asdict().items():
                expected = np.linalg.norm(np.asarray(block).reshape(H, H)) / np.sqrt(H)
                np.testing.assert_allclose(flow.norms[field][place, row], expected, rtol=0.1)


def test_every_layer_of_a_stack_is_seen():
    from flax import nnx

    stack = RecurrentStack(GRU(H), D, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    layers = watch(lambda: stack(xs, lengths=LENGTHS))()
    assert [layer.reverse for layer in layers] == [False, True, False, True]
    flows = loss_gradients(lambda: jnp.sum(stack(xs, lengths=LENGTHS)[1] ** 2))()
    assert [flow.reverse for flow in flows] == [False, True, False, True]
    # The lower layers act through the upper ones, so all gradients are there.
    assert all((norms[~np.isnan(norms)] > 0).all() for flow in flows for norms in flow.norms.values())


def test_lags_count_from_each_sequences_end():
    norms = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, np.nan]])
    np.testing.assert_array_equal(by_lag(norms), [(3 + 20) / 2, (2 + 10) / 2, 1])
    np.testing.assert_array_equal(by_lag(norms, reverse=True), [(1 + 10) / 2, (2 + 20) / 2, 3])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_begins_at_its_last_reset(reverse):
    cell = LSTM(H)
    params, xs = make(cell)
    # Row 0 begins anew at step 2 and, in its padding, at 6; row 1 never; row 2 at its last step (of reading).
    resets = np.zeros((T, B), bool)
    resets[(2, 6, 0 if reverse else T - 1), (0, 0, 2)] = True
    lengths = jnp.array([5, T, T])
    options = {"lengths": lengths, "resets": jnp.asarray(resets), "reverse": reverse}
    flows = [
        *loss_gradients(lambda: loss_of(unroll(cell, params, xs, **options)[1]))(),
        *state_jacobians(lambda: unroll(cell, params, xs, **options))(jax.random.key(0)),
    ]
    step = np.arange(T)
    kept = np.stack([step < 2 if reverse else (step > 2) & (step < 5), step >= 0, step < 0], axis=1)
    for flow in flows:
        for norms in flow.norms.values():
            np.testing.assert_array_equal(~np.isnan(norms), kept)
            assert (norms[kept] > 0).all()


def test_norms_below_the_square_root_of_the_smallest_number():
    cell = RNN(H, recurrent_initializer=lambda key, shape, dtype: 0.1 * jnp.eye(*shape, dtype=dtype))
    params = cell.init(jax.random.key(0), D)
    jacobians = state_jacobians(lambda: unroll(cell, params, jnp.zeros((35, 1, D))))
    (flow,) = jacobians(jax.random.key(0))
    # Without input the state stays 0, where the slope of tanh is 1: a tenth is left at each step.
    np.testing.assert_allclose(by_lag(flow.norms["h"]), 0.1 ** np.arange(1, 36), rtol=1e-4)
    (flow,) = loss_gradients(lambda: jnp.sum(unroll(cell, params, jnp.zeros((35, 1, D)))[0].h))()
    np.testing.assert_allclose(by_lag(flow.norms["h"]), 2 * 0.1 ** np.arange(1, 36), rtol=1e-4)


def test_a_compiled_function_is_looked_into():
    cell = GRU(H)
    params, xs = make(cell)

    @jax.jit
    def loss(params):
        return loss_of(unroll(cell, params, xs)[1])

    loss(params)  # compiled before it is looked at
    assert len(watch(loss)(params)) == 1
    assert len(loss_gradients(loss)(params)) == len(state_jacobians(loss)(jax.random.key(0), params)) == 1


def test_a_function_without_layers_is_refused():
    for look in (watch(jnp.sum), loss_gradients(jnp.sum), lambda x: state_jacobians(jnp.sum)(jax.random.key(0), x)):
        with pytest.raises(NoLayersError, match="no recurrence"):
            look(jnp.ones(3))


def test_a_compiled_function_inside_is_refused():
    cell = GRU(H)
    params, xs = make(cell)
    for look in (watch, loss_gradients, lambda loss: lambda params: state_jacobians(loss)(jax.random.key(0), params)):
        inner = jax.jit(lambda params: loss_of(unroll(cell, params, xs)[1]))
        for _ in range(2):  # the second time nothing of it is traced
            with pytest.raises(ValueError, match=r"cannot be seen|no recurrence"):
                look(lambda params, inner=inner: 2 * inner(params))(params)
