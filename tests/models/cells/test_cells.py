"""What holds for every cell before any time passes: initialisation, comparison, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM, RNN, GatedCell
from lstm_research.models.cells.activations import sigmoid
from lstm_research.models.cells.initializers import INITIALIZERS, init_gates

D, H = 5, 4

every_cell = pytest.mark.parametrize("name", CELLS)


def kernels(gates):
    return {"input_kernel": (D, gates * H), "recurrent_kernel": (H, gates * H), "bias": (gates * H,)}


MEMORY_NORM = {"memory_norm_scale": (H,), "memory_norm_bias": (H,)}
ROUNDS = {f"mogrifier_{k}_kernel": (H, D) if k % 2 else (D, H) for k in range(1, 6)}
MULTIPLICATIVE = {"multiplicative_input_kernel": (D, H), "multiplicative_recurrent_kernel": (H, H)}
LAYOUTS = {
    "capped_lstm": kernels(4),
    "cifg_lstm": kernels(3) | {"peephole": (2, H)},
    "fgr_lstm": kernels(4) | {"peephole": (3, H), "gate_kernel": (3 * H, 3 * H)},
    "gru": kernels(3) | {"recurrent_bias": (H,)},
    "indrnn": kernels(1) | {"recurrent_kernel": (H,)},
    "irnn": kernels(1),
    "janet": kernels(2),
    "layer_norm_gru": kernels(3)
    | {"recurrent_bias": (H,), "input_norm_scale": (3 * H,), "recurrent_norm_scale": (3 * H,)},
    "layer_norm_lstm": kernels(4) | {"norm_scale": (4 * H,)} | MEMORY_NORM,
    "lstm": kernels(4),
    "mgu": kernels(2),
    "mogrifier_lstm": kernels(4) | ROUNDS,
    "multiplicative_lstm": kernels(4) | MULTIPLICATIVE,
    "nfg_lstm": kernels(3) | {"peephole": (2, H)},
    "niaf_lstm": kernels(4) | {"peephole": (3, H)},
    "nig_lstm": kernels(3) | {"peephole": (2, H)},
    "noaf_lstm": kernels(4) | {"peephole": (3, H)},
    "nog_lstm": kernels(3) | {"peephole": (2, H)},
    "original_gru": kernels(3),
    "original_lstm": kernels(3),
    "peephole_lstm": kernels(4) | {"peephole": (3, H)},
    "rnn": kernels(1),
}
BIASES = {
    "capped_lstm": (0, 1, 0, 0),
    "cifg_lstm": (-1, 0, 0),
    "fgr_lstm": (0, 1, 0, 0),
    "janet": (1, 0),
    "layer_norm_lstm": (0, 1, 0, 0),
    "lstm": (0, 1, 0, 0),
    "mogrifier_lstm": (0, 1, 0, 0),
    "multiplicative_lstm": (0, 1, 0, 0),
    "niaf_lstm": (0, 1, 0, 0),
    "nig_lstm": (1, 0, 0),
    "noaf_lstm": (0, 1, 0, 0),
    "nog_lstm": (0, 1, 0),
    "peephole_lstm": (0, 1, 0, 0),
}
"""What the bias of each gate starts at; that of other cells starts at 0."""
NOT_ORTHOGONAL = {"indrnn"}
"""Cells whose recurrent weights start otherwise; their own files test how."""


def in_three_parts(cell):
    """Whether `project`, `mix` and `update` are the whole step: some LSTMs have products before `mix`."""
    return isinstance(cell, GatedCell) and type(cell).advance in (GatedCell.advance, LSTM.advance)


three_part_cell = pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if in_three_parts(cell(H))])


@pytest.mark.parametrize("name", sorted(set(CELLS) - NOT_ORTHOGONAL))
def test_recurrent_blocks_are_orthogonal_gate_by_gate(name):
    cell = CELLS[name](H)
    params = cell.init(jax.random.key(0), D)
    blocks = [
        block
        for weight in cell.recurrent_weights
        for block in np.split(np.asarray(params[weight]), params[weight].shape[-1] // H, axis=-1)
    ]
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)
    assert len({block.tobytes() for block in blocks}) == len(blocks)


@every_cell
def test_input_blocks_are_scaled_gate_by_gate(name):
    """The variance of lecun_normal is 1 / D, and 1 / (D + H) · 2 of glorot_normal, however many gates there are."""
    for initializer, variance in {"lecun_normal": 1 / 300, "glorot_normal": 2 / 500}.items():
        cell = CELLS[name](200, input_initializer=initializer)
        kernel = np.asarray(cell.init(jax.random.key(0), 300)["input_kernel"])
        for block in np.split(kernel, kernel.shape[-1] // 200, axis=-1):
            assert block.var() == pytest.approx(variance, rel=0.05)


@every_cell
def test_other_parameters_start_at_zero_but_some_biases_and_scales_at_one(name):
    params = CELLS[name](H).init(jax.random.key(0), D)
    assert not any(leaf.any() for leaf in map(np.asarray, CELLS[name](H).initial_carry(params, (2,))))
    for key, value in params.items():
        if key == "bias":
            expected = np.repeat(BIASES.get(name, np.zeros(len(value) // H)), H)
            np.testing.assert_array_equal(value, expected)
        elif not key.endswith("kernel"):
            np.testing.assert_array_equal(value, np.float32(key.endswith("scale")))


@every_cell
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.usefixtures("x64")
def test_dtype_of_params_and_carry(name, dtype):
    cell = CELLS[name](H)
    params = cell.init(jax.random.key(0), D, dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, cell.initial_carry(params, (2, 3), dtype)))} == {
        jnp.dtype(dtype)
    }


@every_cell
def test_layout_is_stable(name):
    """Checkpoints rely on these names and shapes."""
    shapes = {key: value.shape for key, value in CELLS[name](H).init(jax.random.key(0), D).items()}
    if name not in LAYOUTS:
        pytest.fail(f"write the layout of {name} in LAYOUTS")
    assert shapes == LAYOUTS[name]
    assert set(CELLS[name](H).recurrent_weights) <= set(shapes)


@every_cell
def test_equal_descriptions_are_equal_and_hash_equally(name):
    cell, twin, other = CELLS[name](H), CELLS[name](H), CELLS[name](H + 1)
    assert cell == twin
    assert hash(cell) == hash(twin)
    assert cell != other
    assert cell.output_size == H
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.hidden_size = 3


def test_a_cell_is_named_by_what_was_chosen():
    assert str(LSTM(H, peepholes=True)) == f"LSTM(hidden_size={H}, peepholes=True)"


def test_cells_of_different_kinds_differ():
    assert len({constructor(H) for constructor in CELLS.values()}) == len(CELLS)


@three_part_cell
def test_the_three_parts_make_the_step(name):
    """The input side knows no carry, the state side no input, and both work for any leading axes."""
    cell = CELLS[name](H)
    params = jax.tree.map(lambda a: a + 0.1, cell.init(jax.random.key(0), D))
    xs = jax.random.normal(jax.random.key(1), (3, 2, D))
    carry = jax.tree.map(lambda a: a + 0.3, cell.initial_carry(params, (3, 2)))
    for index in np.ndindex(3, 2):
        one = jax.tree.map(lambda a: a[index], carry)  # noqa: B023
        expected = cell.step(params, one, xs[index])
        parts = cell.update(params, one, cell.project(params, xs)[index], cell.mix(params, carry)[index])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts, expected)
    np.testing.assert_allclose(
        cell.mix(params, jax.tree.map(lambda a: 2 * a, carry)), 2 * cell.mix(params, carry), atol=1e-6
    )


@three_part_cell
@pytest.mark.usefixtures("x64")
def test_additive_says_whether_update_reads_the_sum_alone(name):
    """A wrong True would give wrong gradients, a wrong False keep twice the memory."""
    cell = CELLS[name](H)
    params = jax.tree.map(lambda a: a + 0.1, cell.init(jax.random.key(0), D, "float64"))
    carry = jax.tree.map(lambda a: a + 0.3, cell.initial_carry(params, (3,), "float64"))
    z = cell.project(params, jax.random.normal(jax.random.key(1), (3, D), "float64"))
    r = cell.mix(params, carry)
    (_, y), (_, y_of_sum) = cell.update(params, carry, z, r), cell.update(params, carry, z + r, jnp.zeros_like(r))
    assert np.allclose(y, y_of_sum, rtol=0, atol=1e-14) == cell.additive


@every_cell
def test_init_depends_on_the_key_alone(name):
    cell = CELLS[name](H)
    first, again, other = (cell.init(jax.random.key(seed), D) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for kernel in ("input_kernel", "recurrent_kernel"):
        drawn = kernel == "input_kernel" or cell.recurrent_initializer != "identity"
        assert np.array_equal(first[kernel], other[kernel]) != drawn


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_draws_every_gate(name):
    weights = init_gates(name, jax.random.key(0), D, H, 3, "float32")
    assert weights.shape == (D, 3 * H)
    assert np.isfinite(weights).all()
    assert weights.std() > 0.05


def test_uniform_hidden_is_bounded_by_the_root_of_the_hidden_size():
    weights = init_gates("uniform_hidden", jax.random.key(0), 300, 16, 4, "float32")
    assert 0.249 < np.abs(weights).max() <= 0.25


def test_initializer_may_be_a_function():
    cell = GRU(H, recurrent_initializer=jax.nn.initializers.ones)
    np.testing.assert_array_equal(cell.init(jax.random.key(0), D)["recurrent_kernel"], 1.0)


@every_cell
def test_built_from_config(name):
    assert build(CELLS, {"name": name, "hidden_size": H}, where="model.cell") == CELLS[name](H)


@every_cell
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"hidden_size": H, "recurrent_initializer": "ortogonal"}, "did you mean 'orthogonal'"),
        ({"hidden_size": H, "input_initializer": "lecun"}, "valid: glorot_normal"),
        ({"hidden_size": "4"}, "model.cell.hidden_size must be int, got str '4'"),
        ({"hiden_size": H}, "did you mean 'hidden_size'"),
        ({}, "model.cell.hidden_size is missing"),
    ],
)
def test_refuses_what_makes_no_sense(name, keywords, message):
    if set(keywords) & set(getattr(CELLS[name], "keywords", ())):
        message = "unknown config key"  # a choice that makes the cell what it is
    with pytest.raises(UserError, match=message) as error:
        build(CELLS, {"name": name} | keywords, where="model.cell")
    assert "\n" not in str(error.value)


@every_cell
def test_refuses_numbers_that_are_not_finite(name):
    cell = CELLS[name](H)
    keywords = [field.name for field in dataclasses.fields(cell) if "float" in str(field.type)]
    assert set(keywords) <= {"beta", "forget_bias", "recurrent_factor", "update_bias"}
    assert keywords
    for keyword in keywords:
        for value in (float("nan"), float("inf"), -float("inf"), np.float64("nan")):
            with pytest.raises(UserError, match=f"^{keyword} must be finite, got "):
                CELLS[name](H, **{keyword: value})


@every_cell
def test_a_cell_may_have_no_input(name):
    cell = CELLS[name](H)
    params = cell.init(jax.random.key(0), 0)
    _, y = cell.step(params, cell.initial_carry(params, (2,)), jnp.ones((2, 0)))
    assert y.shape == (2, cell.output_size)


@pytest.mark.usefixtures("unchecked_shapes")
def test_refuses_an_unknown_activation():
    with pytest.raises(UserError, match="unknown activation 'tanj'; did you mean 'tanh'"):
        RNN(H, activation="tanj")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_sigmoid_never_closes_a_gate_for_good(dtype):
    x = jnp.arange(-12, 12.5, 0.5, dtype=dtype)
    exact = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    relative, absolute = 4 * float(jnp.finfo(dtype).eps), 1.2e-7 if dtype == "float32" else 0
    np.testing.assert_allclose(np.asarray(sigmoid(x), np.float64), exact, rtol=relative, atol=absolute)
    slopes = np.asarray(jax.vmap(jax.grad(sigmoid))(x), np.float64)
    assert (slopes > 0).all()
    np.testing.assert_allclose(slopes, exact * (1 - exact), rtol=0.1, atol=absolute)
