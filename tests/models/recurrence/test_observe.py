"""What is observed of a recurrence is what it does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.cells import CELLS
from lstm_research.models.recurrence import RecurrentMasks, unroll
from lstm_research.models.recurrence.observe import observe

T, B, D, H = 6, 3, 4, 5
LENGTHS = jnp.array([6, 0, 4])


def make(name, **options):
    cell = CELLS[name](hidden_size=H, **options)
    params = cell.init(jax.random.key(1), D)
    # Other values than the zeros that peepholes and biases start from.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    params = tree.unflatten(
        [leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    )
    return cell, params, jax.random.normal(jax.random.key(3), (T, B, D))


# Names that stand for a class with options set are looked at with --whole.
CASES = [
    pytest.param(name, reverse, marks=[pytest.mark.whole] if isinstance(CELLS[name], functools.partial) else [])
    for name in CELLS
    for reverse in (False, True)
]


@pytest.mark.parametrize(("name", "reverse"), CASES)
def test_the_result_is_that_of_the_engine(name, reverse):
    cell, params, xs = make(name)
    carry, ys = unroll(cell, params, xs, lengths=LENGTHS, reverse=reverse, engine="scan")
    with observe() as layers:
        seen_carry, seen_ys = unroll(cell, params, xs, lengths=LENGTHS, reverse=reverse)
    (layer,) = layers
    np.testing.assert_allclose(seen_ys, ys, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), seen_carry, carry)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), layer.last, seen_carry)
    np.testing.assert_array_equal(layer.valid, np.arange(T)[:, None] < LENGTHS)
    valid = np.asarray(layer.valid)
    np.testing.assert_allclose(np.asarray(layer.states.h)[valid], np.asarray(ys)[valid], atol=1e-6)
    assert layer.reverse is reverse
    assert all(values.shape == (T, B, H) for values in layer.gates.values())


def test_nothing_is_observed_outside():
    cell, params, xs = make("lstm")
    with observe() as layers:
        pass
    unroll(cell, params, xs)
    assert layers == []


def states_before(layer, carry):
    """The states before each step, of a layer that reads forwards."""
    return jax.tree.map(lambda first, after: jnp.concatenate([first[None], after[:-1]]), carry, layer.states)


@pytest.mark.parametrize("name", ["lstm", "layer_norm_lstm", "cifg_lstm", "fgr_lstm", "nog_lstm", "mogrifier_lstm"])
def test_gates_of_an_lstm_make_its_memory(name):
    cell, params, xs = make(name)
    with observe() as layers:
        unroll(cell, params, xs)
    (layer,) = layers
    before = states_before(layer, cell.initial_carry(params, (B,)))
    gates = layer.gates
    expected = gates["forget gate"] * before.c + gates["input gate"] * gates["candidate"]
    np.testing.assert_allclose(layer.states.c, expected, atol=1e-6)
    assert ("output gate" in gates) == (name != "nog_lstm")


@pytest.mark.parametrize(
    ("name", "retention"),
    [
        ("lstm", lambda gates: gates["forget gate"]),
        ("layer_norm_lstm", lambda gates: gates["forget gate"]),
        ("capped_lstm", lambda gates: gates["forget gate"]),
        ("original_lstm", lambda gates: jnp.ones_like(gates["input gate"])),
        ("gru", lambda gates: gates["update gate"]),
        ("original_gru", lambda gates: gates["update gate"]),
        ("janet", lambda gates: gates["forget gate"]),
        ("mgu", lambda gates: 1 - gates["forget gate"]),
        ("rnn", None),
    ],
)
def test_retention_is_the_gate_that_keeps(name, retention):
    cell, params, xs = make(name)
    with observe() as layers:
        unroll(cell, params, xs)
    (layer,) = layers
    expected = retention(layer.gates) if retention else jnp.zeros((T, B, H))
    np.testing.assert_allclose(layer.retention, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "gate", "field"), [("lstm", "forget gate", "c"), ("gru", "update gate", "h")])
def test_retention_counts_zoneout(name, gate, field):
    cell, params, xs = make(name)
    share = jnp.full((T, 1, 1), 0.9)
    with observe() as layers:
        unroll(cell, params, xs, masks=RecurrentMasks(**{f"zoneout_{field}": share}))
    (layer,) = layers
    np.testing.assert_allclose(layer.retention, 0.9 + 0.1 * layer.gates[gate], atol=1e-6)


def test_a_reset_is_before_what_is_retained():
    cell, params, xs = make("lstm")
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    with observe() as layers:
        unroll(cell, params, xs, resets=resets)
        unroll(cell, params, xs[3:])
    layer, alone = layers
    np.testing.assert_array_equal(layer.resets, resets)
    np.testing.assert_allclose(layer.retention, layer.gates["forget gate"], atol=1e-6)
    np.testing.assert_allclose(layer.retention[3:], alone.retention, atol=1e-6)


def test_retention_counts_peepholes(x64):
    cell, params, xs = make("peephole_lstm")
    params, xs = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, xs))
    with observe() as layers:
        unroll(cell, params, xs)
    (layer,) = layers
    before = states_before(layer, cell.initial_carry(params, (B,), jnp.float64))
    t, step = 3, 1e-6

    def memory(c):
        carry = before._replace(c=before.c.at[t].set(c))
        carry = jax.tree.map(lambda leaf: leaf[t], carry)
        return cell.update(params, carry, cell.project(params, xs[t]), cell.mix(params, carry))[0].c

    slope = (memory(before.c[t] + step) - memory(before.c[t] - step)) / (2 * step)
    np.testing.assert_allclose(layer.retention[t], slope, rtol=1e-6)
    assert not np.allclose(layer.retention, layer.gates["forget gate"], atol=1e-3)


@pytest.mark.parametrize("name", ["lstm", "gru", "fgr_lstm", "original_gru"])
def test_offsets_move_the_state_before_a_step(name, x64):
    cell, params, xs = make(name)
    params, xs = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, xs))
    first = cell.initial_carry(params, (B,), jnp.float64)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((T, *leaf.shape)), first)

    def loss(ys):
        return jnp.sum(jnp.sin(ys) * jnp.arange(ys.size).reshape(ys.shape))

    def moved(offsets):
        with observe([offsets]):
            return loss(unroll(cell, params, xs)[1])

    found = jax.grad(moved)(zeros)
    t = 2  # the same by cutting the sequence there
    carry, ys = unroll(cell, params, xs[:t])
    expected = jax.grad(lambda carry: loss(jnp.concatenate([ys, unroll(cell, params, xs[t:], carry)[1]])))(carry)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[t], b, rtol=1e-9, atol=1e-12), found, expected)


def test_a_recurrence_inside_of_a_loop_is_run_and_not_kept():
    cell, params, xs = make("gru")
    carry = cell.initial_carry(params, (B,))

    def body(carry, x):
        carry, ys = unroll(cell, params, x[None], carry)
        return carry, ys[0]

    with observe() as layers:
        _, ys = jax.jit(lambda: jax.lax.scan(body, carry, xs))()
    assert layers == []
    np.testing.assert_allclose(ys, unroll(cell, params, xs)[1], atol=1e-6)
