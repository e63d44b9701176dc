"""What surrounds the vendor's kernel, with JAX's reference of that kernel in its place; and what the engine refuses."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.recurrence import ENGINES, RecurrentMasks, cudnn, engines, unroll

D, H, T, B = 3, 4, 6, 5
LENGTHS = jnp.array([T, 0, 4, 1, 0])
on_gpu = jax.default_backend() == "gpu"


def reference_kernel(xs, h, c, weights, lengths, input_size, hidden_size):
    assert lengths.dtype == jnp.int32
    W_ih, W_hh, b_ih, b_hh = rnn.unpack_lstm_weights(weights, input_size, hidden_size, 1, False)
    sizes = (input_size, hidden_size, 1, 0.0, False)
    ys, h, c = rnn.lstm_ref(xs, h[None], c[None], W_ih, W_hh, b_ih, b_hh, lengths, *sizes)
    return ys, h[0], c[0]


@pytest.fixture
def kernel(monkeypatch):
    """Runs the engine on this machine: with the vendor's kernel on a GPU, with the reference elsewhere."""
    if not on_gpu:
        monkeypatch.setattr(cudnn, "_call_cudnn", reference_kernel)


def make_inputs(cell):
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape), "float32")

    params = jax.tree.map(draw, cell.init(jax.random.key(0), D))
    return params, draw(np.zeros((T, B, D))), jax.tree.map(draw, cell.initial_carry(params, (B,)))


def run(engine, cell, params, xs, carry, lengths, reverse):
    valid = None if lengths is None else jnp.arange(T)[:, None] < lengths
    if valid is not None:
        xs = jnp.where(valid[:, :, None], xs, 0)
    run = ENGINES[engine].run
    return run(cell, params, xs, carry, valid=valid, resets=None, reverse=reverse, masks=RecurrentMasks())


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_equals_the_reference_engine(kernel, lengths, reverse):
    """Sequences of length 0 among them: results and gradients."""
    cell = LSTM(H)
    inputs = make_inputs(cell)

    def loss(engine, *inputs):
        results = run(engine, cell, *inputs, lengths, reverse)
        leaves = jax.tree.leaves(results)
        return sum((leaf * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape))).sum() for leaf in leaves), results

    def differentiate(engine):
        return jax.jit(jax.grad(functools.partial(loss, engine), argnums=(0, 1, 2), has_aux=True))(*inputs)

    tolerance = 1e-4 if on_gpu else 2e-6
    expected = differentiate("scan")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), differentiate("cudnn"), expected)


REFUSED = {
    "another cell": ({"cell": GRU(H)}, "plain LSTMs only, not GRU"),
    "an option": ({"cell": LSTM(H, peepholes=True)}, "plain LSTMs only, without peepholes=True"),
    "resets": ({"resets": jnp.zeros((T, B), bool)}, "no resets"),
    "zoneout": ({"masks": RecurrentMasks(zoneout_h=jnp.zeros((T, B, H)))}, "no recurrent dropout and no zoneout"),
    "bfloat16": ({"dtype": "bfloat16"}, "float32 only, not bfloat16"),
    "no steps": ({"steps": 0}, "no empty arrays"),
    "no batch": ({"batch": 0}, "no empty arrays"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_it_cannot_do_and_auto_takes_another(case, caplog):
    options, message = REFUSED[case]
    cell = options.get("cell", LSTM(H))
    dtype = options.get("dtype", "float32")
    params = cell.init(jax.random.key(0), D, dtype)
    xs = jnp.ones((options.get("steps", T), options.get("batch", B), D), dtype)
    call = {key: value for key, value in options.items() if key in ("resets", "masks")}
    with pytest.raises(UserError, match=message) as caught:
        unroll(cell, params, xs, **call, engine="cudnn")
    assert "take engine 'fused' or 'auto'" in str(caught.value)
    engines._say_once.cache_clear()
    with caplog.at_level(logging.DEBUG, "lstm_research"):
        for _ in range(2):
            unroll(cell, params, xs, **call)
    (record,) = [record for record in caplog.records if record.name == "lstm_research"]
    assert "engine 'auto' takes 'fused'" in record.getMessage()
    assert message in record.getMessage()


@pytest.mark.skipif(on_gpu, reason="there is a GPU")
def test_refuses_a_machine_without_a_gpu():
    params = LSTM(H).init(jax.random.key(0), D)
    with pytest.raises(UserError, match="it needs an NVIDIA GPU, and the device is cpu"):
        unroll(LSTM(H), params, jnp.ones((T, B, D)), engine="cudnn")


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if type(cell(H)) is LSTM])
def test_plain_is_what_computes_the_same_as_the_default(name):
    assert (cudnn._options(CELLS[name](H)) == []) == (name == "lstm")
    assert cudnn._options(CELLS[name](H, learned_initial_state=True)) == cudnn._options(CELLS[name](H))


def test_how_parameters_start_is_no_option():
    for start in ({"forget_bias": 2.0}, {"chrono_max_length": 20}, {"input_initializer": "glorot_normal"}):
        assert cudnn._options(LSTM(H, **start)) == []
