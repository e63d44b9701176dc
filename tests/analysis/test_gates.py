"""Statistics of gates and memory, against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.analysis.gates import gate_statistics, half_lives
from lstm_research.analysis.gradient_flow import watch
from lstm_research.analysis.layer_charts import layer_section
from lstm_research.models.cells import CELLS, LSTM, RNN, LSTMCarry
from lstm_research.models.recurrence import RecurrentMasks, unroll
from lstm_research.models.recurrence.observe import Observed


def observed(gates, retention, valid=None):
    zeros = jnp.zeros_like(retention)
    last = LSTMCarry(zeros[0], zeros[0])
    return Observed(LSTM(2), {}, LSTMCarry(zeros, zeros), gates, retention, last, valid, None, reverse=False)


def test_saturation_counts_valid_steps():
    gate = jnp.array([[[0.05, 0.5]], [[0.95, 0.5]], [[0.2, 0.99]], [[0.0, 0.0]]])
    valid = jnp.array([[True], [True], [True], [False]])
    found = gate_statistics(observed({"input gate": gate, "candidate": 2 * gate - 1}, gate, valid))
    np.testing.assert_allclose(found["input gate"].closed, [1 / 3, 0])
    np.testing.assert_allclose(found["input gate"].opened, [1 / 3, 1 / 3])
    assert found["input gate"].mean == pytest.approx((0.05 + 0.5 + 0.95 + 0.5 + 0.2 + 0.99) / 6)
    np.testing.assert_allclose(found["candidate"].closed, [0, 0])  # -0.9 itself is not below it
    np.testing.assert_allclose(found["candidate"].opened, [0, 1 / 3])


def test_half_life():
    retention = jnp.array([[[0.5, 1.0, 0.0, 0.25]], [[0.5, 1.0, 0.9, 1.0]]])
    np.testing.assert_allclose(half_lives(observed({}, retention)), [1, np.inf, 0, 1], rtol=1e-6)


def test_a_page_says_what_is_kept_for_good():
    retention = jnp.array([[[0.5, 0.25, 1.0, 0.0]], [[0.5, 0.25, 1.0, 0.9]]])
    text = layer_section("one", observed({}, retention))
    assert "4 units; 1 keep nothing but by their weights; 1 lose nothing; the half-lives of 2 are up to" in text
    assert "up to 0.5 steps in 10 %, 0.5 in half and 1 in 90 % of them" in text
    assert "half-life of the memory" in text
    assert "padding counts" in text
    assert "padding counts" not in layer_section("one", observed({}, retention, jnp.ones((2, 1), bool)))


@pytest.mark.parametrize(("name", "words"), [("original_lstm", "3 lose nothing"), ("rnn", "3 keep nothing")])
def test_a_page_of_a_cell_without_half_lives(name, words):
    cell = CELLS[name](3)
    params = cell.init(jax.random.key(0), 2)
    (layer,) = watch(lambda: unroll(cell, params, jnp.ones((5, 2, 2))))()
    text = layer_section("one", layer)
    assert f"Memory: 3 units; {words}" in text
    assert "half-li" not in text


def test_the_name_of_a_cell_is_text():
    cell = RNN(3, input_initializer=jax.nn.initializers.ones)
    params = cell.init(jax.random.key(0), 2)
    (layer,) = watch(lambda: unroll(cell, params, jnp.ones((5, 2, 2))))()
    assert "RNN(hidden_size=3, input_initializer=&lt;function ones" in layer_section("one", layer)


def test_half_life_with_zoneout():
    cell = LSTM(3, forget_bias=2.0)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 2)) | {
        "bias": cell.init(jax.random.key(0), 2)["bias"]
    }
    masks = RecurrentMasks(zoneout_c=jnp.full((5, 1, 1), 0.9))
    (layer,) = watch(lambda: unroll(cell, params, jnp.ones((5, 2, 2)), masks=masks))()
    expected = np.log(2) / -np.log(0.9 + 0.1 / (1 + np.exp(-2.0)))
    np.testing.assert_allclose(half_lives(layer), expected, rtol=1e-4)


def test_half_life_of_a_forget_gate_bias():
    # With no input and no weights the forget gate is σ(b), whatever happens.
    cell = LSTM(3, forget_bias=2.0)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 2)) | {
        "bias": cell.init(jax.random.key(0), 2)["bias"]
    }
    (layer,) = watch(lambda: unroll(cell, params, jnp.ones((5, 2, 2))))()
    expected = np.log(2) / -np.log(1 / (1 + np.exp(-2.0)))
    np.testing.assert_allclose(half_lives(layer), expected, rtol=1e-5)


def test_a_cell_that_keeps_nothing():
    cell = RNN(3)
    params = cell.init(jax.random.key(0), 2)
    (layer,) = watch(lambda: unroll(cell, params, jnp.ones((5, 2, 2))))()
    assert gate_statistics(layer) == {}
    np.testing.assert_array_equal(half_lives(layer), 0)
