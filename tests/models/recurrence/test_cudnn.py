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
from lstm_research.models.recurrence.mesh import stacked

D, H, T, B = 3, 4, 6, 5
LENGTHS = jnp.array([T, 0, 4, 1, 0])
on_gpu = jax.default_backend() == "gpu"


def reference(operands, lengths):
    """JAX's own reference of the kernel, and the layout of its weights."""
    xs, h, c, weights = operands
    D, H = xs.shape[-1], h.shape[-1]
    sizes = (D, H, 1, 0.0, False)
    split = rnn.unpack_lstm_weights(weights, D, H, 1, False)
    ys, h, c = rnn.lstm_ref(xs, h[None], c[None], *split, lengths, *sizes)
    return cudnn.Results(ys, h[0], c[0])


@jax.custom_batching.sequential_vmap
def reference_forward(operands, lengths):
    """Opaque to differentiation and to `jax.vmap`, as the vendor's kernel is."""
    assert lengths.dtype == jnp.int32
    shapes = jax.eval_shape(reference, operands, lengths)
    return jax.pure_callback(jax.jit(reference), shapes, operands, lengths), jnp.arange(7.0)


@jax.custom_batching.sequential_vmap
def reference_backward(residuals, cotangents):
    operands, lengths, ys, kept = residuals
    assert ys.shape == (B, T, H)
    assert kept.shape == (7,)

    @jax.jit
    def transpose(operands, lengths, cotangents):
        return jax.vjp(lambda operands: reference(operands, lengths), operands)[1](cotangents)[0]

    shapes = jax.eval_shape(lambda operands: operands, operands)
    return jax.pure_callback(transpose, shapes, operands, lengths, cotangents)


@pytest.fixture
def kernel(monkeypatch):
    """Runs the engine on this machine: with the vendor's kernel on a GPU, with the reference elsewhere."""
    if not on_gpu:
        monkeypatch.setattr(cudnn, "_kernel_forward", reference_forward)
        monkeypatch.setattr(cudnn, "_kernel_backward", reference_backward)


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


def scalar(engine, params, xs, carry):
    results = run(engine, LSTM(H), params, xs, carry, LENGTHS, False)
    return sum((leaf * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape))).sum() for leaf in jax.tree.leaves(results))


def forward_mode(loss, inputs, direction):
    return jax.jvp(loss, inputs, direction)


def forward_over_reverse(loss, inputs, direction):
    return jax.jvp(jax.grad(loss, argnums=(0, 1, 2)), inputs, direction)


def reverse_over_reverse(loss, inputs, direction):
    def slope(*inputs):
        gradients = jax.grad(loss, argnums=(0, 1, 2))(*inputs)
        return sum(map(jnp.vdot, jax.tree.leaves(gradients), jax.tree.leaves(direction)))

    return jax.grad(slope, argnums=(0, 1, 2))(*inputs)


def over_weights(loss, inputs, direction):
    """As for an ensemble: weights of each member, the inputs shared."""
    weights = jax.tree.map(lambda a, b: jnp.stack([a, a + b]), inputs[0], direction[0])
    return jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None))(weights, *inputs[1:])


def over_inputs(loss, inputs, direction):
    return jax.vmap(jax.grad(loss), in_axes=(None, 0, None))(inputs[0], jnp.stack([inputs[1], direction[1]]), inputs[2])


TRANSFORMATIONS = [forward_mode, forward_over_reverse, reverse_over_reverse, over_weights, over_inputs]


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_every_transformation(kernel, transformation):
    """Those that the kernel has not, too."""
    inputs = make_inputs(LSTM(H))
    direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype="float32")).reshape(leaf.shape), inputs)

    def transform(engine):
        return jax.jit(functools.partial(transformation, functools.partial(scalar, engine)))(inputs, direction)

    tolerance = 1e-3 if on_gpu else 1e-5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance),
        transform("cudnn"),
        transform("scan"),
    )


def test_a_program_for_another_platform_does_without_the_kernel(kernel, monkeypatch):
    """As "auto" needs it, which can choose before it is known where the program will run."""
    monkeypatch.setitem(
        ENGINES, "portable", ENGINES["cudnn"]._replace(run=functools.partial(cudnn.cudnn, portable=True))
    )
    inputs = jax.device_put(make_inputs(LSTM(H)), jax.devices("cpu")[0])

    def differentiate(engine):
        return jax.jit(jax.value_and_grad(functools.partial(scalar, engine), argnums=(0, 1, 2)))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        differentiate("portable")(*inputs),
        differentiate("scan")(*inputs),
    )
    assert "custom_call" not in differentiate("portable").lower(*inputs).as_text()


REFUSED = {
    "another cell": ({"cell": GRU(H)}, "plain LSTMs only, not GRU"),
    "an option": ({"cell": LSTM(H, peepholes=True)}, "plain LSTMs only, without peepholes=True"),
    "resets": ({"resets": jnp.zeros((T, B), bool)}, "no resets"),
    "zoneout": ({"masks": RecurrentMasks(zoneout_h=jnp.zeros((T, B, H)))}, "no recurrent dropout and no zoneout"),
    "bfloat16": ({"dtype": "bfloat16"}, "float32 only, not bfloat16"),
    "no steps": ({"steps": 0}, "no empty arrays"),
    "no batch": ({"batch": 0}, "no empty arrays"),
    "precision": ({"precision": "bfloat16"}, "no products of precision 'bfloat16'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_it_cannot_do_and_auto_takes_another(case, caplog):
    options, message = REFUSED[case]
    cell = options.get("cell", LSTM(H))
    dtype = options.get("dtype", "float32")
    params = cell.init(jax.random.key(0), D, dtype)
    xs = jnp.ones((options.get("steps", T), options.get("batch", B), D), dtype)
    call = {key: value for key, value in options.items() if key in ("resets", "masks")}
    engines._say_once.cache_clear()
    with jax.default_matmul_precision(options.get("precision")):
        with pytest.raises(UserError, match=message) as caught:
            unroll(cell, params, xs, **call, engine="cudnn")
        with caplog.at_level(logging.DEBUG, "lstm_research"):
            for _ in range(2):
                unroll(cell, params, xs, **call)
    assert "take engine 'fused' or 'auto'" in str(caught.value)
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


@pytest.mark.usefixtures("unchecked_shapes")
def test_auto_takes_another_for_models_that_are_stacked_later(monkeypatch):
    monkeypatch.setitem(engines.ENGINES, "cudnn", engines.Engine(engines.ENGINES["cudnn"].run))
    monkeypatch.setattr(jax, "device_count", lambda: 1)

    def picked(name):
        return engines.pick_engine(name, LSTM(H), {}, None, None)[0]

    assert picked("auto") == "cudnn"
    with stacked():
        assert (picked("auto"), picked("cudnn")) == ("fused", "cudnn")
