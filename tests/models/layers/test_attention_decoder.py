"""The attention decoder: all steps at once equal one by one, for every cell, choice and kind of noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, LSTM
from lstm_research.models.layers import DropoutRates, RecurrentStack, functional
from lstm_research.models.layers.attention import (
    AdditiveAttention,
    DotAttention,
    GeneralAttention,
    MultiHeadAttention,
    NoAttention,
)
from lstm_research.models.layers.attention_decoder import AttentionDecoder

T, B, S, E, M, H, A = 4, 3, 5, 3, 6, 4, 5
LENGTHS = jnp.array([5, 2, 0])
SAMPLE = ("gru", "lstm", "mogrifier_lstm", "original_gru")
"""Cells that always run; the others run with `--whole`."""
every_cell = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.whole]) for name in CELLS]
)
ATTENTIONS = {
    "additive": AdditiveAttention(),
    "general": GeneralAttention(),
    "multi_head": MultiHeadAttention(num_heads=2),
    "none": NoAttention(),
}
WAYS = {
    "one layer": {"num_layers": 1},
    "residual": {"residual": True},
    "bottom": {"attend_from": "bottom"},
    "bottom and residual": {"attend_from": "bottom", "residual": True, "num_layers": 3},
    "copy": {"copy": True},
}
RATES = [field.name for field in dataclasses.fields(DropoutRates) if field.name not in ("locked", "embedding_rate")]


def draw(seed, *shape, dtype="float32"):
    return jnp.asarray(0.5 * np.random.default_rng(seed).normal(size=shape), dtype)


def build(cell, **options):
    options = {"attention": GeneralAttention(), "num_layers": 2, "rngs": nnx.Rngs(0)} | options
    return AttentionDecoder(cell, E, M, A, **options)


@functools.cache
def make(cell, dtype="float32", **options):
    """Returns `(params, xs, memory [S, B, M], method, ...) -> (state, output)`, and random parameters."""
    decoder = build(cell, param_dtype=dtype, **options)
    apply, params = functional(decoder)
    params = jax.tree.map(lambda p: draw(p.size, *p.shape, dtype=dtype), params)
    attention = functional(decoder.attention)[0]

    def start(params, memory):
        memory = attention(params.get("attention", {"params": {}}), memory, LENGTHS, method="remember")
        carry = jax.tree.map(
            lambda leaf: draw(leaf.size, *leaf.shape, dtype=dtype),
            tuple(layer.initial_carry(B) for layer in decoder.layers),
        )
        return memory, decoder.initial_state(carry, memory)

    @functools.partial(jax.jit, static_argnames=("method", "feed_back"))
    def run(params, xs, memory, key=None, method="__call__", feed_back=None):
        return apply(params, xs, *start(params, memory), key=key, method=method, feed_back=feed_back)

    @jax.jit
    def steps(params, xs, memory):
        """One call of `step` after another, as decoding does it."""
        memory, state = start(params, memory)
        outputs = []
        for x in xs:
            state, output = apply(params, x, memory, state, method="step")
            outputs.append(output)
        return state, jax.tree.map(lambda *each: jnp.stack(each), *outputs)

    return run, steps, params


def inputs(dtype="float32"):
    return draw(1, T, B, E, dtype=dtype), draw(2, S, B, M, dtype=dtype)


def assert_close(actual, expected, tolerance=2e-6):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


@every_cell
def test_all_steps_at_once_equal_steps_one_by_one_for_every_cell(name):
    run, steps, params = make(CELLS[name](hidden_size=H), num_layers=1)
    expected = run(params, *inputs())
    assert_close(run(params, *inputs(), method="scan"), expected)
    assert_close(steps(params, *inputs()), expected)
    fed, fed_steps, params = make(CELLS[name](hidden_size=H), num_layers=1, input_feeding=True)
    assert_close(fed_steps(params, *inputs()), fed(params, *inputs()))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("attention", "way"),
    [
        (attention, way)
        for attention in ATTENTIONS
        for way in WAYS
        if attention != "none" or way in ("one layer", "residual")
    ],
)
def test_all_steps_at_once_equal_steps_one_by_one_for_every_choice(attention, way):
    run, steps, params = make(LSTM(H), attention=ATTENTIONS[attention], **WAYS[way])
    expected = run(params, *inputs())
    assert_close(run(params, *inputs(), method="scan"), expected)
    assert_close(steps(params, *inputs()), expected)
    assert (expected[1].copy_logits is not None) == (way == "copy")


def gradient_of(run, params, key=None, method="__call__", dtype="float32"):
    def loss(params, xs, memory):
        output = run(params, xs, memory, key, method)[1]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(output))

    return loss, jax.grad(loss, argnums=(0, 1, 2))(params, *inputs(dtype))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("rate", "locked"), [*((rate, False) for rate in RATES), *((rate, True) for rate in RATES if "input" in rate)]
)
def test_both_ways_have_the_same_noise(rate, locked):
    run, _, params = make(LSTM(H), num_layers=2, rates=DropoutRates(**{rate: 0.5}, locked=locked))
    plain, _, _ = make(LSTM(H), num_layers=2)
    key = jax.random.key(1)
    expected = run(params, *inputs(), key)
    assert_close(run(params, *inputs(), key, method="scan"), expected)
    assert jnp.abs(expected[1].features - plain(params, *inputs())[1].features).max() > 1e-3
    assert jnp.abs(expected[1].features - run(params, *inputs(), jax.random.key(2))[1].features).max() > 1e-3
    assert_close(*(gradient_of(run, params, key, method)[1] for method in ("__call__", "scan")), tolerance=1e-5)
    if not rate.startswith("zoneout"):  # whose expectation is another model
        assert_close(run(params, *inputs()), plain(params, *inputs()), 0)


def test_locked_masks_are_those_of_all_steps():
    rates = {"input_rate": 0.5, "output_rate": 0.5}
    cell = LSTM(H)
    locked, _, params = make(cell, num_layers=1, rates=DropoutRates(**rates, locked=True))
    unlocked, _, _ = make(cell, num_layers=1, rates=DropoutRates(**rates))
    dropped = [run(params, *inputs(), jax.random.key(0))[1].features == 0 for run in (locked, unlocked)]
    assert (dropped[0] == dropped[0][:1]).all()
    assert not (dropped[1] == dropped[1][:1]).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options",
    [
        {"attention": GeneralAttention()},
        {"attention": AdditiveAttention(coverage=True), "copy": True},
        {"attention": MultiHeadAttention(num_heads=2), "input_feeding": True, "attend_from": "bottom"},
    ],
    ids=["general", "coverage and copy", "input feeding from the bottom"],
)
def test_gradients_in_float64(options):
    run, _, params = make(LSTM(H), dtype="float64", **options)
    loss, gradient = gradient_of(run, params, dtype="float64")
    arguments = (params, *inputs("float64"))
    direction = jax.tree.map(lambda leaf: draw(leaf.size + 1, *leaf.shape, dtype="float64"), arguments)
    ahead, back = (jax.tree.map(lambda a, d, s=s: a + s * d, arguments, direction) for s in (1e-5, -1e-5))
    expected = (loss(*ahead) - loss(*back)) / 2e-5
    found = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert found.dtype == "float64"
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_equations_of_luong_et_al():
    run, _, params = make(LSTM(H), num_layers=2)
    xs, memory = inputs()
    output = run(params, xs, memory)[1]
    stack = functional(RecurrentStack(LSTM(H), E, num_layers=2, rngs=nnx.Rngs(0)))[0]
    state = tuple(LSTM(H).initial_carry({}, (B,)) for _ in range(2))
    state = jax.tree.map(lambda leaf: draw(leaf.size, *leaf.shape), state)
    hidden = np.asarray(stack({name: params[name] for name in ("layer_0", "layer_1")}, xs, state)[1])
    keys = np.asarray(memory) @ np.asarray(params["attention"]["params"]["memory_kernel"])
    for b, n in enumerate(LENGTHS.tolist()):
        scores = hidden[:, b] @ keys[:n, b].T
        weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        context = weights @ np.asarray(memory)[:n, b]
        expected = np.tanh(np.concatenate([context, hidden[:, b]], axis=-1) @ np.asarray(params["features_kernel"]))
        np.testing.assert_allclose(output.features[:, b], expected, atol=1e-5)
        np.testing.assert_allclose(output.weights[:, b, :n], weights, atol=1e-6)


def test_coverage_is_the_sum_of_the_attention_so_far():
    attention = AdditiveAttention(coverage=True)
    run, steps, params = make(LSTM(H), attention=attention, num_layers=1)
    state, output = run(params, *inputs())
    assert_close(steps(params, *inputs()), (state, output))
    np.testing.assert_allclose(state.coverage, output.weights.sum(axis=0), atol=1e-6)
    without = jax.tree.map(lambda p: p, params)
    without["attention"]["params"]["coverage_kernel"] = jnp.zeros((1, H))
    changed = jnp.abs(run(without, *inputs())[1].weights - output.weights).max(axis=(1, 2))
    assert changed[0] == 0
    assert (changed[1:] > 1e-4).all()


def test_input_feeding_reads_the_features_of_the_step_before():
    run, _, params = make(LSTM(H), num_layers=1, input_feeding=True)
    features = run(params, *inputs())[1].features
    before = jnp.concatenate([jnp.zeros((1, B, A)), features[:-1]])
    plain = AttentionDecoder(LSTM(H), E + A, M, A, attention=GeneralAttention(), rngs=nnx.Rngs(0))
    memory = functional(plain.attention)[0](params["attention"], inputs()[1], LENGTHS, method="remember")
    carry = jax.tree.map(lambda leaf: draw(leaf.size, *leaf.shape), (plain.layers[0].initial_carry(B),))
    xs = jnp.concatenate([inputs()[0], before], axis=-1)
    found = functional(plain)[0](params, xs, memory, plain.initial_state(carry, memory))[1].features
    np.testing.assert_allclose(found, features, atol=1e-6)


def test_the_context_from_the_bottom_reaches_every_layer_above():
    run, _, params = make(LSTM(H), num_layers=3, attend_from="bottom")
    for layer, size in [("layer_0", E), ("layer_1", H + M), ("layer_2", H + M)]:
        assert params[layer]["params"]["input_kernel"].shape[0] == size
    xs, memory = inputs()
    output = run(params, xs, memory)[1]
    above = {**params, "layer_2": jax.tree.map(lambda p: p + 1, params["layer_2"])}
    np.testing.assert_array_equal(run(above, xs, memory)[1].weights, output.weights)  # the lowest layer asks
    blind = {**params, "layer_2": {"params": {**params["layer_2"]["params"]}}}
    kernel = blind["layer_2"]["params"]["input_kernel"]
    blind["layer_2"]["params"]["input_kernel"] = kernel.at[H:].set(0)
    assert jnp.abs(run(blind, xs, memory)[1].features - output.features)[:, 0].max() > 1e-3


def feed_negative(output, x, t):
    return jnp.where(t == 2, -output.features[:, :E], x)


def test_feed_back_takes_the_place_of_an_input():
    run, _, params = make(LSTM(H), num_layers=1)
    xs, memory = inputs()
    found = run(params, xs, memory, feed_back=feed_negative)[1].features
    expected = run(params, xs, memory)[1].features
    np.testing.assert_allclose(found[:2], expected[:2], atol=1e-6)
    again = run(params, xs.at[2].set(-expected[1, :, :E]), memory)[1].features
    np.testing.assert_allclose(found, again, atol=1e-6)


def test_rows_do_not_see_each_other_nor_the_future():
    run, _, params = make(LSTM(H), input_feeding=True)
    xs, memory = inputs()
    before = run(params, xs, memory)[1].features
    after = run(params, xs.at[2, 0].add(1), memory.at[:, 1].add(1))[1].features
    np.testing.assert_array_equal(before[:, 2], after[:, 2])
    np.testing.assert_array_equal(before[:2, 0], after[:2, 0])
    assert (before[2:, 0] != after[2:, 0]).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_layers": 0}, "num_layers"),
        ({"num_layers": 1, "residual": True}, "model.residual"),
        ({"num_layers": 1, "attend_from": "bottom"}, "attend_from"),
        ({"attention": NoAttention(), "attend_from": "bottom"}, "attend_from"),
        ({"attention": NoAttention(), "copy": True}, "model.copy"),
        ({"attention": DotAttention()}, "merge"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(options, named):
    with pytest.raises(UserError, match=named) as caught:
        build(LSTM(H), **options)
    assert "\n" not in str(caught.value)
