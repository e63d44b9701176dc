"""The LSTM family: equal to other libraries' cells, every combination of options, and how they start.

Sequences are compared with PyTorch in `tests/models/recurrence/test_pytorch.py` too, and every row of `CELLS` with its
equations in `tests/models/recurrence/test_equations.py`.
"""

import dataclasses
import functools
import importlib
import itertools
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, LSTM, LSTMCarry, MogrifierLSTM, MultiplicativeLSTM
from lstm_research.models.cells.initializers import init_gates
from lstm_research.models.cells.layer_norm import layer_norm, layer_norm_gates
from lstm_research.models.recurrence import unroll

D, H, P, T, B = 3, 4, 2, 5, 2


def library(name):
    """Imports a library to compare with; in continuous integration a missing one is a failure, not a skip."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def blocks(array):
    return jnp.split(array, array.shape[-1] // H, axis=-1)


def draw_params(cell, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    return {key: jnp.asarray(0.7 * rng.normal(size=shapes[key].shape)) for key in sorted(shapes)}


def assert_close(actual, expected, tolerance=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), actual, expected)


# Other libraries. Each makes, from the cell, a step `(our parameters, x, c, h) -> c', h'` of the library's cell.


def keras_lstm(cell):
    keras = library("keras")
    exact = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}  # Keras' own compute in float32, whatever the layer's dtype.
    names = {"recurrent_activation": cell.gate_activation, "activation": cell.input_activation}
    names = {keyword: exact.get(name, name) for keyword, name in names.items()}
    layer = keras.layers.LSTMCell(H, dtype="float64", **names)
    layer.build((None, D))

    def step(params, x, c, h):
        weights = [params[name] for name in ("input_kernel", "recurrent_kernel", "bias")]
        (_, (h, c)), _ = layer.stateless_call(weights, [v.value for v in layer.non_trainable_variables], x, [h, c])
        return c, h

    return step


def flax_lstm(cell):
    module = flax.linen.OptimizedLSTMCell(H)

    def step(params, x, c, h):
        W, U, b = (dict(zip("ifgo", blocks(params[name]), strict=True)) for name in KERNELS)
        weights = {f"i{gate}": {"kernel": W[gate]} for gate in "ifgo"}
        weights |= {f"h{gate}": {"kernel": U[gate], "bias": b[gate]} for gate in "ifgo"}
        return module.apply({"params": weights}, (c, h), x)[0]

    return step


KERNELS = ("input_kernel", "recurrent_kernel", "bias")
COMPARISONS = {
    "flax": (LSTM(H), flax_lstm),
    "keras": (LSTM(H), keras_lstm),
    "keras-hard": (
        LSTM(H, gate_activation="hard_sigmoid", input_activation="softsign", output_activation="softsign"),
        keras_lstm,
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", COMPARISONS)
def test_equals_another_library(name):
    cell, make_step = COMPARISONS[name]
    theirs = make_step(cell)
    rng = np.random.default_rng(1)
    xs, c, h, weights = (jnp.asarray(rng.normal(size=shape)) for shape in ((T, B, D), (B, H), (B, H), (T, 2, B, H)))

    def loss(step, params, xs, c, h):
        states = []
        for x in xs:
            c, h = step(params, x, c, h)
            states.append(jnp.stack([c, h]))
        return (jnp.stack(states) * weights).sum(), jnp.stack(states)

    def ours(params, x, c, h):
        return tuple(cell.step(params, LSTMCarry(c=c, h=h), x)[0])

    results = [
        jax.jit(jax.grad(functools.partial(loss, step), argnums=(0, 1, 2, 3), has_aux=True))(
            draw_params(cell), xs, c, h
        )
        for step in (ours, theirs)
    ]
    assert all(leaf.dtype == "float64" and leaf.any() for leaf in jax.tree.leaves(results))
    assert_close(*results)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "fused"])
def test_projection_equals_pytorch(engine):
    torch = library("torch")
    torch.manual_seed(0)
    module, rng = torch.nn.LSTM(D, H, proj_size=P).double(), np.random.default_rng(0)
    x, h, c = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((T, B, D), (1, B, P), (1, B, H)))
    ys, (h_final, c_final) = module(x, (h, c))
    loss_weights = [rng.normal(size=tuple(result.shape)) for result in (ys, h_final[0], c_final[0])]
    results = (ys, h_final[0], c_final[0])
    sum((result * torch.tensor(w)).sum() for result, w in zip(results, loss_weights, strict=True)).backward()

    def loss(weights, x, h, c):
        params = {
            "input_kernel": weights["weight_ih_l0"].T,
            "recurrent_kernel": weights["weight_hh_l0"].T,
            "bias": weights["bias_ih_l0"] + weights["bias_hh_l0"],
            "projection_kernel": weights["weight_hr_l0"].T,
        }
        carry, ys = unroll(LSTM(H, projection_size=P), params, x, LSTMCarry(c=c[0], h=h[0]), engine=engine)
        results = (ys, carry.h, carry.c)
        return sum((result * w).sum() for result, w in zip(results, loss_weights, strict=True)), results

    states = (a.detach().numpy() for a in (x, h, c))
    inputs = {name: w.detach().numpy() for name, w in module.named_parameters()}, *states
    gradients, ours = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(*jax.tree.map(jnp.asarray, inputs))
    assert_close(ours, tuple(result.detach().numpy() for result in results))
    theirs = {name: w.grad.numpy() for name, w in module.named_parameters()}, *(a.grad.numpy() for a in (x, h, c))
    assert_close(gradients, theirs)


# Options that must equal other options.


def step_from_random_state(cell, params):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=D))
    carry = cell.carry_type(**{field: jnp.asarray(rng.normal(size=n)) for field, n in cell.carry_sizes.items()})
    return cell.step(params, carry, x)


@pytest.mark.usefixtures("x64")
def test_a_coupled_gate_is_a_forget_gate_with_the_opposite_weights():
    """1 - σ(a) = σ(-a)."""
    coupled = LSTM(H, input_gate="coupled")
    params = draw_params(coupled)
    free = {}
    for name, array in params.items():
        i, g, o = blocks(array)
        free[name] = jnp.concatenate([i, -i, g, o], axis=-1)
    assert_close(step_from_random_state(LSTM(H), free), step_from_random_state(coupled, params))


@pytest.mark.usefixtures("x64")
def test_a_cap_acts_only_where_the_gates_add_up_to_more_than_one():
    capped, free = LSTM(H, input_gate="capped"), LSTM(H)
    params = draw_params(free)
    low, high = (params | {"bias": params["bias"].at[:H].add(shift)} for shift in (-20.0, 20.0))
    assert_close(step_from_random_state(capped, low), step_from_random_state(free, low))
    coupled = LSTM(H, forget_gate=True, input_gate="coupled")
    i_from_f = {}
    for name, array in high.items():
        _, f, g, o = blocks(array)
        i_from_f[name] = jnp.concatenate([-f, g, o], axis=-1)
    assert_close(step_from_random_state(capped, high), step_from_random_state(coupled, i_from_f))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("left_out", ["input_gate", "forget_gate", "output_gate"])
def test_a_gate_that_is_left_out_is_an_open_one(left_out):
    cell = LSTM(H, peepholes=True, **{left_out: "none" if left_out == "input_gate" else False})
    params, gate = draw_params(cell), "ifgo".index(left_out[0])
    row = "ifo".index(left_out[0])
    open_gate = {
        "input_kernel": np.insert(params["input_kernel"], [gate * H] * H, 0.0, axis=-1),
        "recurrent_kernel": np.insert(params["recurrent_kernel"], [gate * H] * H, 0.0, axis=-1),
        "bias": np.insert(params["bias"], [gate * H] * H, 60.0),
        "peephole": np.insert(params["peephole"], row, 0.0, axis=0),
    }
    open_gate = jax.tree.map(jnp.asarray, open_gate)
    assert_close(step_from_random_state(LSTM(H, peepholes=True), open_gate), step_from_random_state(cell, params))


@pytest.mark.usefixtures("x64")
def test_gate_recurrence_without_weights_is_a_peephole_lstm():
    cell = CELLS["fgr_lstm"](H)
    params = draw_params(cell)
    new, _ = step_from_random_state(cell, params | {"gate_kernel": jnp.zeros((3 * H, 3 * H))})
    plain, _ = step_from_random_state(CELLS["peephole_lstm"](H), {k: params[k] for k in (*KERNELS, "peephole")})
    assert_close((new.c, new.h), tuple(plain))
    assert ((new.gates > 0) & (new.gates < 1)).all()


@pytest.mark.usefixtures("x64")
def test_a_mogrifier_without_rounds_is_an_lstm():
    assert_close(
        step_from_random_state(MogrifierLSTM(H, rounds=0, projection_size=P), draw_params(LSTM(H, projection_size=P))),
        step_from_random_state(LSTM(H, projection_size=P), draw_params(LSTM(H, projection_size=P))),
    )


@pytest.mark.usefixtures("x64")
def test_low_rank_rounds_are_rounds_with_a_matrix_of_low_rank():
    cell = MogrifierLSTM(H, rounds=3, rank=2)
    params = draw_params(cell)
    full = {name: params[name] for name in KERNELS}
    for k in (1, 2, 3):
        full[f"mogrifier_{k}_kernel"] = params[f"mogrifier_{k}_left_kernel"] @ params[f"mogrifier_{k}_right_kernel"]
    assert_close(step_from_random_state(MogrifierLSTM(H, rounds=3), full), step_from_random_state(cell, params))


def combinations():
    switches = ("forget_gate", "output_gate", "peepholes", "gate_recurrence", "layer_norm")
    for input_gate, *values in itertools.product(("free", "coupled", "capped", "none"), *[(False, True)] * 5):
        options = dict(zip(switches, values, strict=True)) | {"input_gate": input_gate}
        without_forget = input_gate in ("coupled", "capped") and not options["forget_gate"]
        without_gates = input_gate == "none" and not (options["forget_gate"] or options["output_gate"])
        yield options, without_forget or without_gates


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell_type", [LSTM, MultiplicativeLSTM, MogrifierLSTM])
def test_every_combination_of_options_composes_or_is_refused(cell_type, request):
    """With all of them the parameters matter, the shapes are those announced, and `additive` is right."""
    number, every = 0, 7 if request.config.getoption("--whole") else 42
    for options, is_senseless in combinations():
        if is_senseless:
            with pytest.raises(UserError):
                cell_type(H, **options)
            continue
        for projection_size in (None, P):
            cell = cell_type(H, **options, projection_size=projection_size, learned_initial_state=True)
            params = draw_params(cell)

            def two_steps(params, cell=cell):
                carry = cell.initial_carry(params, (), "float64")
                for x in np.random.default_rng(4).normal(size=(2, D)):
                    carry, y = cell.step(params, carry, jnp.asarray(x))
                return sum(leaf.sum() for leaf in carry), (carry, y)

            if number % every == 3:
                gradients, (carry, y) = jax.grad(two_steps, has_aux=True)(params)
                assert {name for name, gradient in gradients.items() if not gradient.any()} == set()
            else:
                carry, y = jax.eval_shape(two_steps, params)[1]
            assert {field: leaf.shape for field, leaf in carry._asdict().items()} == {
                field: (size,) for field, size in cell.carry_sizes.items()
            }
            assert y.shape == (cell.output_size,) == (projection_size or H,)
            number += 1
    assert number > 100


# Parameters at the start.


def initial_params(size=H, name="lstm", **options):
    return CELLS[name](size, **options).init(jax.random.key(3), D)


def test_the_draws_of_the_plain_lstm_are_those_of_always():
    """Runs are repeatable from their seed across versions: options draw from keys of their own."""
    input_key, recurrent_key = jax.random.split(jax.random.key(3))
    plain = initial_params()
    np.testing.assert_array_equal(plain["input_kernel"], init_gates("lecun_normal", input_key, D, H, 4, "float32"))
    recurrent_kernel = init_gates("orthogonal", recurrent_key, H, H, 4, "float32")
    np.testing.assert_array_equal(plain["recurrent_kernel"], recurrent_kernel)
    others = {"peepholes": True, "gate_recurrence": True, "layer_norm": True, "learned_initial_state": True}
    for name, options in {"lstm": others, "mogrifier_lstm": {}, "multiplicative_lstm": {}}.items():
        params = initial_params(name=name, **options)
        for kernel in KERNELS:
            np.testing.assert_array_equal(params[kernel], plain[kernel])


@pytest.mark.parametrize(
    ("name", "signs"), [("lstm", {1: 1}), ("nig_lstm", {0: 1}), ("cifg_lstm", {0: -1}), ("mogrifier_lstm", {1: 1})]
)
def test_forget_bias(name, signs):
    plain, biased = initial_params(name=name), initial_params(name=name, forget_bias=2.5)
    for block, (before, after) in enumerate(zip(blocks(plain["bias"]), blocks(biased["bias"]), strict=True)):
        np.testing.assert_array_equal(before, signs.get(block, 0))
        np.testing.assert_array_equal(after, 2.5 * signs.get(block, 0))
    jax.tree.map(np.testing.assert_array_equal, plain, biased | {"bias": plain["bias"]})


@pytest.mark.parametrize(
    ("name", "signs"),
    [("lstm", (-1, 1, 0, 0)), ("nig_lstm", (1, 0, 0)), ("cifg_lstm", (-1, 0, 0)), ("capped_lstm", (-1, 1, 0, 0))],
)
def test_chrono_initialisation_spreads_the_memory_evenly_up_to_a_length(name, signs):
    cell = CELLS[name](2000, chrono_max_length=101, recurrent_initializer=jax.nn.initializers.zeros)
    bias = np.asarray(cell.init(jax.random.key(3), D)["bias"], np.float64).reshape(-1, 2000)
    b_f = bias[signs.index(1)] if 1 in signs else -bias[signs.index(-1)]
    steps = np.exp(b_f)
    assert steps.min() >= 1
    assert steps.max() <= 100
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(steps, share) == pytest.approx(1 + 99 * share, abs=5)
    np.testing.assert_array_equal(bias, np.outer(signs, b_f))


def test_blocks_of_the_further_kernels_are_drawn_by_themselves():
    gate_kernel = np.asarray(initial_params(name="fgr_lstm")["gate_kernel"])
    for block in np.split(gate_kernel, 3, axis=-1):
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)
    params = CELLS["lstm"](300, projection_size=200).init(jax.random.key(0), D)
    assert params["projection_kernel"].var() == pytest.approx(1 / 300, rel=0.05)
    for block in np.split(np.asarray(params["recurrent_kernel"]), 4, axis=-1):
        np.testing.assert_allclose(block @ block.T, np.eye(200), atol=1e-4)
    params = MogrifierLSTM(300, rounds=2, rank=200).init(jax.random.key(0), 250)
    shapes = {"1_left": (300, 200), "1_right": (200, 250), "2_left": (250, 200), "2_right": (200, 300)}
    for name, shape in shapes.items():
        assert params[f"mogrifier_{name}_kernel"].shape == shape
        assert params[f"mogrifier_{name}_kernel"].var() == pytest.approx(1 / shape[0], rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_gate": "cuopled"}, "unknown input_gate 'cuopled'; did you mean 'coupled'"),
        ({"gate_activation": "sigmoidd"}, "unknown gate_activation 'sigmoidd'; did you mean 'sigmoid'"),
        ({"input_activation": "tanj"}, "unknown input_activation 'tanj'; did you mean 'tanh'"),
        ({"output_activation": "tanj"}, "unknown output_activation 'tanj'; did you mean 'tanh'"),
        ({"input_gate": "coupled", "forget_gate": False}, 'input_gate="coupled" needs forget_gate=True'),
        ({"input_gate": "capped", "forget_gate": False}, 'input_gate="capped" needs forget_gate=True'),
        ({"input_gate": "none", "forget_gate": False, "output_gate": False}, "an LSTM needs a gate; set one of"),
        ({"forget_gate": False, "forget_bias": 1.0}, "forget_bias needs a forget gate; set forget_gate=True, or leave"),
        ({"forget_gate": False, "chrono_max_length": 9}, "chrono_max_length needs a forget gate"),
        ({"forget_bias": 1.0, "chrono_max_length": 9}, "forget_bias and chrono_max_length both set the same bias"),
        ({"chrono_max_length": 2}, "chrono_max_length must be at least 3, got 2"),
        ({"forget_bias": float("nan")}, "forget_bias must be finite, got nan"),
        ({"projection_size": 0}, "projection_size must be at least 1, or None, got 0"),
    ],
)
@pytest.mark.parametrize("cell_type", [LSTM, MogrifierLSTM])
def test_refuses_options_that_make_no_sense(cell_type, options, message):
    with pytest.raises(UserError) as error:
        cell_type(H, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds must be at least 0, got -1"),
        ({"rank": 0}, "rank must be at least 1, or None, got 0"),
        ({"rank": 2, "rounds": 0}, "rank needs rounds; set rounds, or leave rank out"),
    ],
)
def test_refuses_rounds_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        MogrifierLSTM(H, **options)


def test_cells_with_other_options_differ():
    for field, value in {"layer_norm": True, "projection_size": P, "input_gate": "capped", "rounds": 4}.items():
        cell = MogrifierLSTM(H)
        assert dataclasses.replace(cell, **{field: value}) != cell


# Layer normalisation.


@pytest.mark.usefixtures("x64")
def test_layer_norm_equals_flax():
    x, scale, bias = (np.random.default_rng(k).normal(size=s) for k, s in enumerate(((5, 2, H), (H,), (H,))))
    module = flax.linen.LayerNorm(epsilon=1e-3, dtype="float64")

    def theirs(x, scale, bias):
        return module.apply({"params": {"scale": scale, "bias": bias}}, x)

    def summed(function, x, scale, bias):
        y = function(x, scale, bias)
        return (y * np.cos(np.arange(y.size)).reshape(y.shape)).sum(), y

    results = [
        jax.grad(functools.partial(summed, function), argnums=(0, 1, 2), has_aux=True)(x, scale, bias)
        for function in (functools.partial(layer_norm, epsilon=1e-3), theirs)
    ]
    assert_close(*results)


def test_layer_norm_of_gates_is_that_of_each_gate():
    shapes = (5, 2, 3 * H), (3 * H,), (3 * H,)
    x, scale, bias = (jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate(shapes))
    for shift in (bias, None):
        actual = layer_norm_gates(x, scale, shift, 3)
        for k, gate in enumerate(actual):
            own = slice(k * H, (k + 1) * H)
            assert_close(gate, layer_norm(x[..., own], scale[own], None if shift is None else shift[own]), 1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_layer_norm_keeps_its_precision_far_from_zero(dtype):
    """The mean of squares less the square of the mean would have no digit left here."""
    x = (1000 + 8 * jax.random.normal(jax.random.key(0), (3, 64))).astype(dtype)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    y = layer_norm(x, jnp.ones(64, dtype), jnp.zeros(64, dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, atol=10 * float(jnp.finfo(dtype).eps) + 1e-5)


def test_layer_norm_forgets_scale_and_offset_of_each_gates_products():
    cell = CELLS["layer_norm_lstm"](H)
    params = cell.init(jax.random.key(0), D)
    carry = cell.carry_type(c=jnp.linspace(1, -1, H), h=jnp.linspace(-1, 1, H))
    z, r = cell.project(params, jax.random.normal(jax.random.key(1), (D,))), cell.mix(params, carry)
    offsets, scales = (jnp.repeat(jnp.array(values), H) for values in ([3.0, -1.0, 0.5, 2.0], [2.0, 5.0, 0.7, 3.0]))
    expected = cell.update(params, carry, 1e3 * z, 1e3 * r)
    assert_close(cell.update(params, carry, 1e3 * scales * z + offsets, 1e3 * scales * r), expected, 1e-5)
    assert jnp.abs(cell.update(params, carry, 1e3 * jnp.roll(z, 1), 1e3 * r)[1] - expected[1]).max() > 1e-2


def test_layer_norm_of_the_memory_leaves_the_memory_itself_alone():
    cell, scaled = CELLS["layer_norm_lstm"](H), {"memory_norm_scale": 3 * jnp.ones(H), "memory_norm_bias": jnp.ones(H)}
    params = cell.init(jax.random.key(0), D)
    carry = cell.carry_type(c=jnp.linspace(1, -1, H), h=jnp.linspace(-1, 1, H))
    (new, y), (new_scaled, y_scaled) = (cell.step(p, carry, jnp.ones(D)) for p in (params, params | scaled))
    np.testing.assert_array_equal(new.c, new_scaled.c)
    assert jnp.abs(y - y_scaled).min() > 1e-3
