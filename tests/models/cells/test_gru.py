"""The GRU family equals other libraries' cells, in states and gradients, and starts with the memory that is asked for.

PyTorch's GRU is compared in `tests/models/recurrence/test_pytorch.py`.
"""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from libraries import D, H, check_equals, library

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, JANET, MGU, OriginalGRU


def blocks(array):
    return jnp.split(array, array.shape[-1] // H, axis=-1)


# Those of Keras compute in float32, whatever they are given.
EXACT = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}

# Each makes, from the cell, a step `(our parameters, x, h) -> h'` of the library's cell.


def flax_gru(cell):
    module = flax.linen.GRUCell(
        H, gate_fn=jax.nn.hard_sigmoid if cell.gate_activation == "hard_sigmoid" else flax.linen.sigmoid
    )

    def step(params, x, h):
        W, U, b = (blocks(params[name]) for name in ("input_kernel", "recurrent_kernel", "bias"))
        names = ("r", "z", "n")
        weights = {f"i{gate}": {"kernel": W[k], "bias": b[k]} for k, gate in enumerate(names)}
        weights |= {f"h{gate}": {"kernel": U[k]} for k, gate in enumerate(names)}
        weights["hn"]["bias"] = params["recurrent_bias"]
        return module.apply({"params": weights}, h, x)[0]

    return step


def flax_mgu(cell):
    """Flax's MGU without its reset is a JANET with β = 0."""
    module = flax.linen.MGUCell(H, reset_gate=False)

    def step(params, x, h):
        W, U, b = (blocks(params[name]) for name in ("input_kernel", "recurrent_kernel", "bias"))
        weights = {f"i{gate}": {"kernel": W[k], "bias": b[k]} for k, gate in enumerate("fn")}
        weights |= {f"h{gate}": {"kernel": U[k]} for k, gate in enumerate("fn")}
        return module.apply({"params": weights}, h, x)[0]

    return step


def keras_gru(cell):
    """Keras has the order u, r, n, and two biases if the reset comes after the product."""
    keras, reset_after = library("keras"), isinstance(cell, GRU)
    functions = {
        "recurrent_activation": EXACT.get(cell.gate_activation, cell.gate_activation),
        "activation": EXACT.get(cell.activation, cell.activation),
    }
    layer = keras.layers.GRUCell(H, reset_after=reset_after, dtype="float64", **functions)
    layer.build((None, D))

    def step(params, x, h):
        W, U, b = (
            jnp.concatenate([block[1], block[0], block[2]], axis=-1)
            for block in (blocks(params[name]) for name in ("input_kernel", "recurrent_kernel", "bias"))
        )
        if reset_after:
            b = jnp.stack([b, jnp.concatenate([jnp.zeros(2 * H), params["recurrent_bias"]])])
        (new, _), _ = layer.stateless_call([W, U, b], [v.value for v in layer.non_trainable_variables], x, h)
        return new

    return step


def keras_tied_gru(cell):
    """An MGU is a GRU with the reset before the product, r = f and u = 1 - f = σ(-s), where f = σ(s)."""
    step_of_gru = keras_gru(OriginalGRU(H, gate_activation=cell.gate_activation))

    def step(params, x, h):
        f_and_n = {name: blocks(array) for name, array in params.items()}
        return step_of_gru({name: jnp.concatenate([f, -f, n], axis=-1) for name, (f, n) in f_and_n.items()}, x, h)

    return step


def haiku_gru(cell):
    """Haiku has the reset before the product, the order u, r, n, and u and 1 - u the other way round."""
    haiku = library("haiku")
    apply = haiku.without_apply_rng(haiku.transform(lambda x, h: haiku.GRU(H)(x, h)[1])).apply

    def step(params, x, h):
        r_u_n = {name: blocks(array) for name, array in params.items()}
        u_r_n = {name: jnp.concatenate([-u, r, n], axis=-1) for name, (r, u, n) in r_u_n.items()}
        names = {"input_kernel": "w_i", "recurrent_kernel": "w_h", "bias": "b"}
        return apply({"gru": {names[name]: array for name, array in u_r_n.items()}}, x, h)

    return step


def equinox_gru(cell):
    equinox = library("equinox")
    module = equinox.nn.GRUCell(D, H, key=jax.random.key(0))

    def step(params, x, h):
        ours = params["input_kernel"].T, params["recurrent_kernel"].T, params["bias"], params["recurrent_bias"]
        theirs = equinox.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias, m.bias_n), module, ours)
        return jax.vmap(theirs)(x, h)

    return step


COMPARISONS = {
    "gru-flax": (GRU(H), flax_gru),
    "gru-flax-hard": (GRU(H, gate_activation="hard_sigmoid"), flax_gru),
    "gru-keras": (GRU(H), keras_gru),
    "gru-keras-hard": (GRU(H, gate_activation="hard_sigmoid", activation="relu"), keras_gru),
    "gru-equinox": (GRU(H), equinox_gru),
    "original_gru-keras": (OriginalGRU(H), keras_gru),
    "original_gru-keras-hard": (OriginalGRU(H, gate_activation="hard_sigmoid", activation="softsign"), keras_gru),
    "original_gru-haiku": (OriginalGRU(H), haiku_gru),
    "mgu-keras": (MGU(H), keras_tied_gru),
    "mgu-keras-hard": (MGU(H, gate_activation="hard_sigmoid"), keras_tied_gru),
    "janet-flax": (JANET(H, beta=0.0), flax_mgu),
}


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", COMPARISONS)
def test_equals_another_library(name):
    cell, make_step = COMPARISONS[name]
    check_equals(cell, make_step(cell))


# The initial memory: which block of the bias is set, and the sign with which its gate keeps the state.
KEEPING = {
    "gru": ("update_bias", 1, 0.0, 1),
    "layer_norm_gru": ("update_bias", 1, 0.0, 1),
    "original_gru": ("update_bias", 1, 0.0, 1),
    "mgu": ("forget_bias", 0, 0.0, -1),
    "janet": ("forget_bias", 0, 1.0, 1),
}


def initial_params(name, size=H, **options):
    return CELLS[name](size, **options).init(jax.random.key(3), D)


@pytest.mark.parametrize("name", KEEPING)
def test_one_initial_bias_is_as_asked_for_and_nothing_else_moves(name):
    keyword, block, default, _ = KEEPING[name]
    plain, biased = initial_params(name), initial_params(name, **{keyword: -2.5})
    chrono = initial_params(name, chrono_max_length=9)
    np.testing.assert_array_equal(blocks(plain["bias"])[block], default)
    np.testing.assert_array_equal(blocks(biased["bias"])[block], -2.5)
    for params in (biased, chrono):
        bias = params["bias"].at[block * H : (block + 1) * H].set(default)
        jax.tree.map(np.testing.assert_array_equal, params | {"bias": bias}, plain)


@pytest.mark.parametrize("name", KEEPING)
def test_chrono_initialisation_spreads_the_memory_evenly_up_to_a_length(name):
    _, block, _, sign = KEEPING[name]
    weights = {"input_initializer": "uniform_hidden", "recurrent_initializer": "identity"}  # quickly drawn
    bias = initial_params(name, size=2000, chrono_max_length=101, **weights)["bias"].reshape(-1, 2000)[block]
    steps = np.exp(sign * np.asarray(bias, np.float64))
    assert steps.min() >= 1
    assert steps.max() <= 100
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(steps, share) == pytest.approx(1 + 99 * share, abs=5)


@pytest.mark.parametrize("name", KEEPING)
def test_the_sign_is_that_of_keeping_the_state(name):
    """With the weights at 0, a large bias in the direction of the chrono initialisation keeps the state for good."""
    keyword, _, _, sign = KEEPING[name]
    params = initial_params(name, **{keyword: 40.0 * sign})
    params = {key: array * ("kernel" not in key) for key, array in params.items()}
    cell, h = CELLS[name](H), jnp.linspace(-0.9, 0.9, H)
    after, _ = cell.step(params, cell.carry_type(h=h), jnp.ones(D))
    np.testing.assert_allclose(after.h, h, atol=1e-6)


@pytest.mark.parametrize("name", KEEPING)
def test_refuses_a_bias_given_twice_and_too_short_a_memory(name):
    keyword = KEEPING[name][0]
    with pytest.raises(UserError, match=f"^{keyword} and chrono_max_length both set the same bias"):
        CELLS[name](H, chrono_max_length=10, **{keyword: 1.0})
    with pytest.raises(UserError, match=r"^chrono_max_length must be at least 3, got 2"):
        CELLS[name](H, chrono_max_length=2)


@pytest.mark.parametrize("keyword", ["gate_activation", "activation"])
@pytest.mark.parametrize("name", KEEPING)
def test_refuses_an_unknown_activation(name, keyword):
    with pytest.raises(UserError, match=f"^unknown {keyword} 'sigmoidd'; did you mean 'sigmoid'"):
        CELLS[name](H, **{keyword: "sigmoidd"})


def test_layer_norm_forgets_scale_and_offset_of_each_gates_products():
    cell = CELLS["layer_norm_gru"](H)
    params = cell.init(jax.random.key(0), D)
    carry, xs = cell.carry_type(h=jnp.linspace(-1, 1, H)), jax.random.normal(jax.random.key(1), (D,))
    z, r = cell.project(params, xs), cell.mix(params, carry)
    offsets, scales = (jnp.repeat(jnp.array(values), H) for values in ([3.0, -1.0, 0.5], [2.0, 5.0, 0.7]))
    expected = cell.update(params, carry, 1e3 * z, 1e3 * r)
    actual = cell.update(params, carry, 1e3 * scales * z + offsets, 1e3 * scales * r - offsets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), actual, expected)
    shuffled = cell.update(params, carry, 1e3 * jnp.roll(z, 1), 1e3 * r)
    assert jnp.abs(shuffled[1] - expected[1]).max() > 1e-2


def test_janet_takes_in_more_than_it_forgets_by_beta():
    cell = JANET(H, beta=2.0)
    s, g, h = jnp.array([-1.0, 0.0, 1.0, 2.0]), jnp.array([0.3, -0.2, 0.1, 0.9]), jnp.array([1.0, -1.0, 2.0, 0.0])
    after, y = cell.update({}, cell.carry_type(h=h), jnp.concatenate([s, g]), jnp.zeros(2 * H))
    expected = h / (1 + np.exp(-s)) + np.tanh(g) / (1 + np.exp(s - 2.0))
    np.testing.assert_allclose(after.h, expected, atol=1e-6)
    np.testing.assert_array_equal(y, after.h)
