"""The dropout family: which entries are dropped, how often, for how long, and what is left when nothing is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.layers import Bidirectional, DropoutRates, Recurrent, RecurrentStack, functional
from lstm_research.models.layers.dropout import dropout, recurrent_masks, split_key, weight_drop
from lstm_research.models.recurrence import unroll

T, B, D, H = 6, 4, 3, 5
KEY = jax.random.key(0)
XS = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, D)), "float32")


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_expectation(rate):
    n = 100_000
    dropped = np.asarray(dropout(KEY, jnp.full((n,), 3.0), rate))
    assert abs((dropped == 0).mean() - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    assert abs(dropped.mean() / 3 - 1) < 5 * (rate / (1 - rate) / n) ** 0.5
    np.testing.assert_allclose(dropped[dropped != 0], 3 / (1 - rate), rtol=1e-6)


def test_without_a_key_or_a_rate_the_array_is_returned_as_it_is():
    assert dropout(None, XS, 0.5) is XS
    assert dropout(KEY, XS, 0.0) is XS


def test_same_key_same_mask_and_other_key_other_mask():
    assert_equal(dropout(KEY, XS, 0.5), dropout(KEY, XS, 0.5))
    assert (dropout(KEY, XS, 0.5) != dropout(jax.random.key(1), XS, 0.5)).any()


def test_gradient_passes_where_nothing_was_dropped():
    gradient = jax.grad(lambda xs: jnp.sum(dropout(KEY, xs, 0.5)))(XS)
    assert_equal(gradient, jnp.where(dropout(KEY, XS, 0.5) == 0, 0.0, 2.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_keeps_the_dtype(dtype):
    assert dropout(KEY, XS.astype(dtype), 0.5).dtype == dtype


@pytest.mark.parametrize("locked", [False, True])
def test_locked_dropout_has_one_mask_for_all_steps_and_another_for_each_row(locked):
    masks = np.asarray(DropoutRates(locked=locked).on_features(KEY, jnp.ones((50, 40, 20)), 0.5)) != 0
    assert (masks == masks[0]).all() == locked
    assert len({masks[0, row].tobytes() for row in range(40)}) == 40
    assert abs(masks[0].mean() - 0.5) < 5 * 0.5 / 800**0.5


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CELLS)
def test_weight_drop_masks_the_recurrent_weights_and_nothing_else(name):
    cell = CELLS[name](hidden_size=30)
    params = jax.jit(cell.init, static_argnums=1)(KEY, D)
    params |= {name: jnp.ones_like(params[name]) for name in cell.recurrent_weights}
    dropped = weight_drop(jax.random.key(1), cell, params, 0.4)
    assert dropped.keys() == params.keys()
    assert all(dropped[key] is params[key] for key in params if key not in cell.recurrent_weights)
    for mask in (np.asarray(dropped[key]) for key in cell.recurrent_weights):
        assert abs((mask == 0).mean() - 0.4) < 5 * (0.24 / mask.size) ** 0.5
        np.testing.assert_allclose(mask[mask != 0], 1 / 0.6, rtol=1e-5)
        if mask.ndim == 2:  # Single weights are dropped, not whole units.
            assert (mask == 0).mean(axis=0).min() > 0
            assert (mask == 0).mean(axis=1).max() < 1
    assert weight_drop(None, cell, params, 0.4) is params
    assert weight_drop(KEY, cell, params, 0.0) is params


@pytest.mark.parametrize("name", ["lstm", "original_gru"])
def test_weight_drop_uses_one_mask_for_all_steps_and_gives_dropped_weights_no_gradient(name):
    cell = CELLS[name](hidden_size=H)
    apply, params = functional(Recurrent(cell, D, rates=DropoutRates(weight_rate=0.5), rngs=nnx.Rngs(0)))
    masked = weight_drop(split_key(KEY, 2)[0], cell, params["params"], 0.5)
    np.testing.assert_allclose(apply(params, XS, key=KEY)[1], unroll(cell, masked, XS)[1], atol=1e-6)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(apply(params, XS, key=KEY)[1]))))(params)["params"]
    dropped = masked["recurrent_kernel"] == 0
    assert 0.2 < dropped.mean() < 0.8
    assert_equal(gradient["recurrent_kernel"] == 0, dropped)


@pytest.mark.parametrize("name", ["lstm", "gru", "original_gru"])
def test_recurrent_dropout_masks_the_state_on_its_way_into_the_weights_with_one_mask(name):
    cell = CELLS[name](hidden_size=H)
    rates = DropoutRates(recurrent_rate=0.5)
    layer = Recurrent(cell, D, rates=rates, rngs=nnx.Rngs(0))
    params = functional(layer)[1]["params"]
    mask = recurrent_masks(split_key(KEY, 2)[1], rates, LSTM(H), (T, B)).dropout
    assert mask.shape == (B, H)
    assert set(np.unique(mask)) == {0.0, 2.0}
    assert len({row.tobytes() for row in np.asarray(mask)}) > 1
    step = jax.jit(cell.step)
    carry, outputs = cell.initial_carry(params, (B,)), []
    for x in XS:
        carry, y = step(params, carry, x, mask)
        outputs.append(y)
    final, ys = layer(XS, key=KEY)
    np.testing.assert_allclose(ys, jnp.stack(outputs), atol=1e-6)
    np.testing.assert_allclose(final.h, carry.h, atol=1e-6)


@pytest.mark.parametrize(("field", "name"), [("zoneout_c", "c"), ("zoneout_h", "h")])
def test_zoneout_masks_have_their_rate_and_are_new_at_every_step(field, name):
    rates = DropoutRates(**{f"{field}_rate": 0.2})
    mask = np.asarray(getattr(recurrent_masks(KEY, rates, LSTM(41), (20, 30)), field))
    assert mask.shape == (20, 30, 41)
    assert mask.dtype == bool
    assert abs(mask.mean() - 0.2) < 5 * (0.16 / mask.size) ** 0.5
    assert (mask[0] != mask[1]).any()
    # Unit by unit, and each independent of all others.
    assert (abs(mask.mean((0, 1)) - 0.2) < 5 * (0.16 / 600) ** 0.5).all()
    correlation = np.corrcoef(mask.reshape(600, 41), rowvar=False) - np.eye(41)
    assert abs(correlation).max() < 5.5 / 600**0.5
    other = {"zoneout_c", "zoneout_h", "dropout"} - {field}
    assert all(getattr(recurrent_masks(KEY, rates, LSTM(4), (2, 3)), f) is None for f in other)


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_zoneout_at_an_extreme_rate_is_still_a_draw(rate):
    mask = recurrent_masks(KEY, DropoutRates(zoneout_h_rate=rate), LSTM(1000), (100, 10)).zoneout_h
    assert 0 < (mask if rate < 0.5 else ~mask).sum() < 60  # 15 are expected, at the nearest multiple of 2^-16


def test_zoneout_keeps_units_in_training_and_mixes_by_the_rate_in_evaluation():
    rates = DropoutRates(zoneout_c_rate=0.3, zoneout_h_rate=0.6)
    layer = Recurrent(LSTM(H), D, rates=rates, rngs=nnx.Rngs(0))
    apply, params = functional(layer)
    old = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape), layer.initial_carry(B))
    new, _ = LSTM(H).step(params["params"], old, XS[0])

    expected = {"c": 0.3 * old.c + 0.7 * new.c, "h": 0.6 * old.h + 0.4 * new.h}
    evaluated, ys = apply(params, XS[:1], old)
    np.testing.assert_allclose(evaluated.c, expected["c"], atol=1e-6)
    np.testing.assert_allclose(evaluated.h, expected["h"], atol=1e-6)
    np.testing.assert_array_equal(ys[0], evaluated.h)

    n = 4000
    trained, ys = jax.jit(jax.vmap(lambda key: apply(params, XS[:1], old, key=key)))(jax.random.split(KEY, n))
    np.testing.assert_array_equal(ys[:, 0], trained.h)
    for name, rate in {"c": 0.3, "h": 0.6}.items():
        draws, was, becomes = getattr(trained, name), getattr(old, name), getattr(new, name)
        kept = np.isclose(draws, was, atol=1e-6)
        assert (kept | np.isclose(draws, becomes, atol=1e-6)).all()
        spread = np.abs(was - becomes) * (rate * (1 - rate) / n) ** 0.5
        assert (np.abs(draws.mean(axis=0) - expected[name]) < 5 * spread + 1e-6).all()


def test_zoneout_of_h_alone_in_a_cell_without_memory():
    layer = Recurrent(GRU(H), D, rates=DropoutRates(zoneout_h_rate=0.5), rngs=nnx.Rngs(0))
    ys = np.asarray(layer(XS, key=KEY)[1])
    kept = ys[1:] == ys[:-1]
    assert 0.3 < kept.mean() < 0.7


def test_directions_draw_masks_of_their_own():
    layer = Bidirectional(LSTM(H), D, rates=DropoutRates(weight_rate=0.5), rngs=nnx.Rngs(0))
    apply, params = functional(layer)
    params["backward"] = params["forward"]
    constant = jnp.broadcast_to(XS[:1], XS.shape)  # reads the same in both directions
    without, with_noise = apply(params, constant)[1], apply(params, constant, key=KEY)[1]
    np.testing.assert_allclose(without[..., :H], without[::-1, :, H:], atol=1e-6)
    assert jnp.abs(with_noise[..., :H] - with_noise[::-1, :, H:]).max() > 1e-3


@pytest.mark.parametrize(
    ("rate", "place", "locked"),
    [("input_rate", "bottom", False), ("layer_rate", "between", True), ("output_rate", "top", False)],
)
def test_stack_drops_features_where_the_rate_says(rate, place, locked):
    rates = DropoutRates(**{rate: 0.5}, locked=locked)
    apply, params = functional(RecurrentStack(LSTM(H), D, num_layers=2, rates=rates, rngs=nnx.Rngs(0)))
    plain = functional(RecurrentStack(LSTM(H), D, num_layers=2, rngs=nnx.Rngs(0)))[0]
    input_key, output_key, _, _, between_key, _ = split_key(KEY, 6)
    carry, ys = apply(params, XS, key=KEY)
    if place == "bottom":
        expected = plain(params, rates.on_features(input_key, XS, 0.5))[1]
    elif place == "top":
        expected = rates.on_features(output_key, plain(params, XS)[1], 0.5)
    else:
        below = unroll(LSTM(H), params["layer_0"]["params"], XS)[1]
        expected = unroll(LSTM(H), params["layer_1"]["params"], rates.on_features(between_key, below, 0.5))[1]
    np.testing.assert_allclose(ys, expected, atol=1e-6)
    assert jnp.abs(ys - plain(params, XS)[1]).max() > 1e-3
    if place == "top":  # and what is passed on is not dropped
        assert_equal(carry, plain(params, XS)[0])


def test_split_key_gives_distinct_keys_or_nones():
    assert split_key(None, 3) == [None, None, None]
    data = [jax.random.key_data(key).tolist() for key in split_key(KEY, 3)]
    assert len(set(map(tuple, data))) == 3
