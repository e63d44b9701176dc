"""The recurrent stack: equal to PyTorch's layers, to its own steps one by one, and to documents read alone."""

import functools
import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.layers import DropoutRates, Highway, Recurrent, RecurrentStack, functional
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.recurrence import unroll

T, B, D, H = 6, 3, 4, 5
MERGES = ("concat", "sum", "mean")
FORMS = {"forward": {}} | {merge: {"bidirectional": True, "merge": merge} for merge in MERGES}
SAMPLE = ("gru", "lstm", "mogrifier_lstm", "original_gru")
"""Cells that always run; the others run with `--whole`."""


def row(name, *values):
    return pytest.param(name, *values, marks=[] if name in SAMPLE else [pytest.mark.whole])


every_cell = pytest.mark.parametrize("name", [row(name) for name in CELLS])
# Every cell with both directions, and every form with one cell.
CELLS_AND_FORMS = [(name, "concat") for name in CELLS] + [("lstm", form) for form in FORMS if form != "concat"]
every_cell_and_form = pytest.mark.parametrize(("name", "form"), [row(*pair) for pair in CELLS_AND_FORMS])
# Ways past and around the layers.
WAYS = {
    "residual": {"residual": True},
    "highway": {"highway": True},
    "skip": {"skip": True},
    "skip_output": {"skip_output": True},
    "residual and skips": {"residual": True, "skip": True, "skip_output": True},
    "highway and skips": {"highway": True, "skip": True, "skip_output": True},
}


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


@functools.cache
def make_stack(cell, **options):
    """Returns the compiled stack, random parameters (biases too) and its initial carry."""
    stack = RecurrentStack(cell, D, rngs=nnx.Rngs(0), **options)
    apply, params = functional(stack)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), "float32"), params)
    return jax.jit(apply), params, stack.initial_carry(B)


@functools.cache
def make_step(cell, **options):
    """Returns the compiled `step` of the stack."""
    apply, _ = functional(RecurrentStack(cell, D, rngs=nnx.Rngs(0), **options))
    return jax.jit(functools.partial(apply, method="step"))


def make_inputs(seed=1, steps=T):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(steps, B, D)), "float32")


def random_carry(carry, seed=2):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), carry)


def assert_close(actual, expected, tolerance=2e-6):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def cell_params(module, suffix):
    """Our parameters from those of a PyTorch module."""
    w = {name: jnp.asarray(p.detach().numpy()) for name, p in module.named_parameters() if name.endswith(suffix)}
    b_ih, b_hh = w[f"bias_ih_{suffix}"], w[f"bias_hh_{suffix}"]
    params = {"input_kernel": w[f"weight_ih_{suffix}"].T, "recurrent_kernel": w[f"weight_hh_{suffix}"].T}
    if len(b_ih) == 3 * H:  # the reset gate of a GRU stands between the candidate's two biases
        return params | {"bias": b_ih.at[: 2 * H].add(b_hh[: 2 * H]), "recurrent_bias": b_hh[2 * H :]}
    return params | {"bias": b_ih + b_hh}


def layer_params(module, index, bidirectional):
    if not bidirectional:
        return {"params": cell_params(module, f"l{index}")}
    return {
        "forward": {"params": cell_params(module, f"l{index}")},
        "backward": {"params": cell_params(module, f"l{index}_reverse")},
    }


def hidden_states(carry):
    """Stacks every h of the carries in the order of PyTorch: layer by layer, forward before backward."""
    nodes = jax.tree.leaves(carry, is_leaf=lambda node: hasattr(node, "_fields"))
    return jnp.stack([node.h for node in nodes])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_equals_pytorchs_stack(torch, kind, bidirectional):
    cell = {"LSTM": LSTM, "GRU": GRU}[kind](H)
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(D, H, num_layers=2, bidirectional=bidirectional)
    apply, _, _ = make_stack(cell, num_layers=2, bidirectional=bidirectional)
    params = {f"layer_{i}": layer_params(module, i, bidirectional) for i in range(2)}
    xs = make_inputs()
    carry, ys = apply(params, xs)
    expected, final = module(torch.tensor(np.asarray(xs)))
    assert_close(ys, expected.detach().numpy(), 1e-6)
    assert_close(hidden_states(carry), (final[0] if kind == "LSTM" else final).detach().numpy(), 1e-6)


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_merge_and_residual_equal_pytorchs_layers_combined_by_hand(torch, kind, form, residual):
    options = FORMS[form]
    bidirectional = bool(options)
    apply, _, _ = make_stack({"LSTM": LSTM, "GRU": GRU}[kind](H), num_layers=3, residual=residual, **options)
    torch.manual_seed(1)
    xs = make_inputs()
    params, expected = {}, torch.tensor(np.asarray(xs))
    for index in range(3):
        module = getattr(torch.nn, kind)(expected.shape[-1], H, bidirectional=bidirectional)
        params[f"layer_{index}"] = layer_params(module, 0, bidirectional)
        ys = module(expected)[0]
        if form in ("sum", "mean"):
            ys = (ys[..., :H] + ys[..., H:]) / (2 if form == "mean" else 1)
        expected = expected + ys if residual and index > 0 else ys
    assert_close(apply(params, xs)[1], expected.detach().numpy(), 2e-6)


@every_cell
def test_residual_is_the_input_of_a_layer_added_to_its_output(name):
    cell = CELLS[name](hidden_size=H)
    apply, params, _ = make_stack(cell, num_layers=2, residual=True)
    xs = make_inputs()
    _, below = unroll(cell, params["layer_0"]["params"], xs)
    _, above = unroll(cell, params["layer_1"]["params"], below)
    ys = apply(params, xs)[1]
    assert_close(ys, below + above)
    assert jnp.abs(ys - above).max() > 0.01


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["forward", "concat"])
def test_ways_past_the_layers_equal_the_layers_combined_by_hand(form, way):
    options = {"residual": False, "highway": False, "skip": False, "skip_output": False} | WAYS[way]
    stack = RecurrentStack(LSTM(H), D, num_layers=3, rngs=nnx.Rngs(0), **FORMS[form], **options)
    for index in (1, 2):
        if options["highway"]:  # gates that differ
            kernel = getattr(stack, f"layer_{index}_highway").kernel
            kernel[...] = 3 * kernel[...]
    xs, outputs, below = make_inputs(), [], None
    for index, layer in enumerate(stack.layers):
        fed = xs if below is None else np.concatenate([below, xs], axis=-1) if options["skip"] else below
        ys = np.asarray(jax.jit(layer.__call__)(fed)[1])
        if below is not None and options["residual"]:
            ys = ys + below
        if below is not None and options["highway"]:
            highway = getattr(stack, f"layer_{index}_highway")
            gate = 1 / (1 + np.exp(-(below @ np.asarray(highway.kernel[...]) + np.asarray(highway.bias[...]))))
            ys = gate * ys + (1 - gate) * below
        outputs.append(ys)
        below = ys
    expected = np.concatenate(outputs, axis=-1) if options["skip_output"] else outputs[-1]
    actual = jax.jit(stack.__call__)(xs)[1]
    assert_close(actual, expected)
    assert stack.output_size == expected.shape[-1]


def test_a_highway_starts_by_passing_most_of_its_input_on():
    highway = Highway(H, rngs=nnx.Rngs(0))
    xs, ys = jnp.zeros((T, B, H)) + 1e-3, jnp.ones((T, B, H))
    np.testing.assert_allclose(highway(xs, ys), 1 / (1 + np.e), atol=0.01)
    assert highway(xs.astype("bfloat16"), ys.astype("bfloat16")).dtype == "bfloat16"


def test_a_highway_has_the_precision_that_is_asked_for():
    highway = Highway(H, dtype="bfloat16", rngs=nnx.Rngs(0))
    xs, ys = make_inputs(1)[..., :1] * jnp.arange(H), make_inputs(2)[..., :1] * jnp.ones(H)
    rounded = xs.astype("bfloat16").astype("float32"), highway.kernel[...].astype("bfloat16").astype("float32")
    gate = 1 / (1 + np.exp(-(np.matmul(*rounded) + np.asarray(highway.bias[...]))))
    actual = highway(xs, ys)
    assert_close(actual, gate * ys + (1 - gate) * xs)
    assert actual.dtype == "float32"
    assert jnp.abs(actual - Highway(H, rngs=nnx.Rngs(0))(xs, ys)).max() > 1e-4
    stack = RecurrentStack(LSTM(H), D, num_layers=2, highway=True, param_dtype="bfloat16", rngs=nnx.Rngs(0))
    assert all(leaf.dtype == "bfloat16" for leaf in jax.tree.leaves(functional(stack)[1]))


def test_input_dropout_is_the_same_for_every_layer_that_reads_the_input():
    rates, options = DropoutRates(input_rate=0.5), {"num_layers": 3, "skip": True}
    noisy, params, _ = make_stack(LSTM(H), rates=rates, **options)
    plain, _, _ = make_stack(LSTM(H), **options)
    key = jax.random.key(4)
    dropped = rates.on_features(split_key(key, 8)[0], make_inputs(), 0.5)
    assert 0.3 < (dropped == 0).mean() < 0.7
    assert_close(noisy(params, make_inputs(), key=key), plain(params, dropped))


def test_output_dropout_acts_on_the_outputs_of_all_layers():
    options = {"num_layers": 3, "skip_output": True}
    noisy, params, _ = make_stack(LSTM(H), rates=DropoutRates(output_rate=0.5), **options)
    expected = make_stack(LSTM(H), **options)[0](params, make_inputs())[1]
    ratio = np.asarray(noisy(params, make_inputs(), key=jax.random.key(4))[1] / expected)
    assert ((np.abs(ratio) < 1e-5) | (np.abs(ratio - 2) < 1e-5)).all()
    for layer in np.split(ratio, 3, axis=-1):
        assert 0.3 < (layer == 0).mean() < 0.7


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "way"), [row(name, "highway and skips") for name in CELLS] + [row("lstm", way) for way in list(WAYS)[:-1]]
)
def test_a_stream_read_by_step_equals_the_sequence(name, way):
    """With all noise set: zoneout is there by its expectation, and dropout is not."""
    cell = CELLS[name](hidden_size=H)
    zoneout = {"zoneout_h_rate": 0.3} | ({"zoneout_c_rate": 0.2} if "c" in cell.carry_sizes else {})
    rates = DropoutRates(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, **zoneout)
    apply, params, carry = make_stack(cell, num_layers=3, rates=rates, **WAYS[way])
    params, carry, xs = jax.tree.map(lambda a: a.astype("float64"), (params, random_carry(carry), make_inputs()))
    final, ys = apply(params, xs, carry)
    step = functools.partial(make_step(cell, num_layers=3, rates=rates, **WAYS[way]), params)
    for x, expected in zip(xs, ys, strict=True):
        carry, y = step(x, carry)
        assert_close(y, expected, 1e-12)
    assert_close(carry, final, 1e-12)
    assert y.dtype == "float64"
    without = make_stack(cell, num_layers=3, **WAYS[way])[0](params, xs)[1]
    assert jnp.abs(ys - without).max() > 1e-3
    assert_close(step(xs[0])[1], apply(params, xs)[1][0], 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CELLS)
def test_a_stream_read_by_one_layer_equals_the_sequence(name):
    cell = CELLS[name](hidden_size=H)
    layer = Recurrent(cell, D, rates=DropoutRates(zoneout_h_rate=0.3), rngs=nnx.Rngs(0))
    apply, params = functional(layer)
    xs, carry = make_inputs().astype("float64"), random_carry(layer.initial_carry(B, "float64"))
    final, ys = jax.jit(apply)(params, xs, carry)
    step = jax.jit(functools.partial(apply, method="step"))
    for x, expected in zip(xs, ys, strict=True):
        carry, y = step(params, x, carry)
        assert_close(y, expected, 1e-12)
    assert_close(carry, final, 1e-12)


@every_cell
def test_steps_one_by_one_equal_one_call(name):
    apply, params, carry = make_stack(CELLS[name](hidden_size=H), num_layers=2, residual=True)
    carry, xs = random_carry(carry), make_inputs()
    resets = jnp.zeros((T, B), bool).at[3, 1].set(True)
    final, ys = apply(params, xs, carry, resets=resets)
    outputs = []
    for t in range(T):
        carry, y = apply(params, xs[t : t + 1], carry, resets=resets[t : t + 1])
        outputs.append(y)
    assert_close((carry, jnp.concatenate(outputs)), (final, ys))


@pytest.mark.parametrize("name", ["lstm", "original_gru"])
def test_two_halves_equal_the_whole(name):
    apply, params, carry = make_stack(CELLS[name](hidden_size=H), num_layers=2)
    carry, xs = random_carry(carry), make_inputs()
    middle, first = apply(params, xs[: T // 2], carry)
    final, second = apply(params, xs[T // 2 :], middle)
    assert_close((final, jnp.concatenate([first, second])), apply(params, xs, carry))
    # The carry matters: without it the second half is another.
    assert jnp.abs(apply(params, xs[T // 2 :])[1] - second).max() > 1e-3


@every_cell_and_form
def test_a_document_after_a_reset_is_read_as_if_alone(name, form):
    apply, params, _ = make_stack(CELLS[name](hidden_size=H), num_layers=2, **FORMS[form])
    xs = make_inputs()
    starts = [(0, 3), (0,), (0, 3)]
    resets = np.zeros((T, B), bool)
    for row, positions in enumerate(starts):
        resets[list(positions[1:]), row] = True  # a document at position 0 starts anew without being told
    ys = apply(params, xs, resets=jnp.asarray(resets))[1]
    for row, positions in enumerate(starts):
        for begin, end in zip(positions, (*positions[1:], T), strict=True):
            # All rows of this call read the same document: calls of few shapes compile few times.
            alone = jnp.broadcast_to(xs[begin:end, row : row + 1], (end - begin, B, D))
            assert_close(apply(params, alone)[1][:, 0], ys[begin:end, row])
    whole = apply(params, xs)[1]
    assert jnp.abs(whole - ys).max() > 1e-3
    assert_close(whole[:, 1], ys[:, 1])


@pytest.mark.parametrize("form", ["forward", "concat"])
def test_gradients_do_not_cross_a_reset(form):
    apply, params, _ = make_stack(LSTM(H), num_layers=2, **FORMS[form])
    resets = jnp.zeros((T, B), bool).at[2].set(True)

    @jax.jit
    @jax.grad
    def second_document_gradient(xs):
        return jnp.sum(jnp.sin(apply(params, xs, resets=resets)[1][2:]))

    gradient = second_document_gradient(make_inputs())
    assert not gradient[:2].any()
    assert gradient[2:].all()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("name", "form", "way"),
    [row(*pair, "residual") for pair in CELLS_AND_FORMS] + [row("lstm", form, "highway and skips") for form in FORMS],
)
def test_lengths_with_nan_padding_equal_short_sequences(name, form, way):
    apply, params, carry = make_stack(CELLS[name](hidden_size=H), num_layers=2, **WAYS[way], **FORMS[form])
    lengths = (4, T, 0)
    xs = make_inputs()
    padded = jnp.where((jnp.arange(T)[:, None] < jnp.array(lengths))[:, :, None], xs, jnp.nan)
    carry = random_carry(carry)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def differentiate(params, xs):
        final, ys = apply(params, xs, carry, lengths=jnp.array(lengths))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, ys))), (final, ys)

    gradients, (final, ys) = differentiate(params, padded)
    with_zeros, results = differentiate(params, jnp.nan_to_num(padded))
    assert_close((gradients, final, ys), (with_zeros, *results), 0)
    for row, length in enumerate(lengths):
        assert not ys[length:, row].any()
        if length == T:
            continue  # what a whole sequence gives is the other tests' matter
        if length:
            short_final, short = apply(params, xs[:length], carry)
            assert_close(short[:, row], ys[:length, row])
        else:
            short_final = carry
        assert_close(
            [leaf[row] for leaf in jax.tree.leaves(short_final)], [leaf[row] for leaf in jax.tree.leaves(final)]
        )


def test_resets_on_padding_change_nothing_in_either_direction():
    apply, params, carry = make_stack(LSTM(H), num_layers=2, bidirectional=True, merge="concat")
    carry, lengths = random_carry(carry), jnp.array([T, 4, 2])
    resets = jnp.zeros((T, B), bool).at[4, 1].set(True).at[5, 2].set(True)
    assert_close(
        apply(params, make_inputs(), carry, lengths=lengths, resets=resets),
        apply(params, make_inputs(), carry, lengths=lengths),
    )


@pytest.mark.parametrize("way", ["residual", "highway and skips"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_every_noise_on_sequences_of_length_zero_and_nan_padding_stays_finite(bidirectional, way):
    rates, options = DropoutRates(*[0.3] * 8, locked=False), {"num_layers": 2, **WAYS[way]}
    stack = RecurrentStack(LSTM(H), D, bidirectional=bidirectional, rates=rates, rngs=nnx.Rngs(0), **options)
    apply, params = functional(stack)
    xs = make_inputs().at[2:].set(jnp.nan).at[:, 1].set(jnp.nan)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(apply(params, xs, lengths=jnp.array([2, 0, 1]), key=jax.random.key(0))[1] ** 2)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RecurrentStack(LSTM(H), D, num_layers=0, rngs=nnx.Rngs(0)), "num_layers"),
        (lambda: RecurrentStack(LSTM(H), D, residual=True, highway=True, rngs=nnx.Rngs(0)), "model.highway"),
        (
            lambda: RecurrentStack(LSTM(H), D, bidirectional=True, rngs=nnx.Rngs(0)).step(jnp.zeros((B, D))),
            "bidirectional=False",
        ),
        (lambda: RecurrentStack(LSTM(H), D, bidirectional=True, merge="concta", rngs=nnx.Rngs(0)), "'concat'"),
        (lambda: RecurrentStack(LSTM(H), D, engine="scam", rngs=nnx.Rngs(0)), "'scan'"),
        (lambda: RecurrentStack(GRU(H), D, rates=DropoutRates(zoneout_c_rate=0.1), rngs=nnx.Rngs(0)), "zoneout_c_rate"),
        (lambda: DropoutRates(layer_rate=1.0), "layer_rate"),
        (lambda: DropoutRates(weight_rate=-0.1), "weight_rate"),
        (lambda: DropoutRates(zoneout_h_rate=float("nan")), "zoneout_h_rate"),
    ],
    ids=[
        "num_layers",
        "highway",
        "step",
        "merge",
        "engine",
        "zoneout_c",
        "rate 1",
        "rate below 0",
        "rate nan",
    ],
)
def test_refusals_are_one_line_that_names_the_cause(unchecked_shapes, make, named):
    with pytest.raises(ValueError, match=named) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError) or named == "num_layers"


@pytest.mark.parametrize("way", ["residual", "highway", "skip", "skip_output"])
def test_a_way_past_the_layers_needs_two_of_them(way):
    with pytest.raises(UserError, match=rf"^model\.{way} has no effect on one layer; leave it out, or"):
        RecurrentStack(LSTM(H), D, **{way: True}, rngs=nnx.Rngs(0))
    assert RecurrentStack(LSTM(H), D, num_layers=2, **{way: True}, rngs=nnx.Rngs(0)).num_layers == 2


def test_output_size_and_names_of_parameters():
    for form, size in {"forward": H, "concat": 2 * H, "sum": H, "mean": H}.items():
        stack = RecurrentStack(LSTM(H), D, num_layers=2, rngs=nnx.Rngs(0), **FORMS[form])
        _, params = functional(stack)
        assert stack.output_size == size
        assert set(params) == {"layer_0", "layer_1"}
        assert set(params["layer_1"]) == ({"params"} if form == "forward" else {"forward", "backward"})
        leaves = jax.tree.leaves(params)
        assert len({leaf.tobytes() for leaf in map(np.asarray, leaves) if leaf.ndim > 1}) == sum(
            leaf.ndim > 1 for leaf in leaves
        ), "two layers or directions start from equal weights"


def test_names_and_sizes_of_the_ways_past_the_layers():
    stack = RecurrentStack(LSTM(H), D, num_layers=3, rngs=nnx.Rngs(0), **WAYS["highway and skips"])
    _, params = functional(stack)
    assert set(params) == {"layer_0", "layer_1", "layer_2", "layer_1_highway", "layer_2_highway"}
    assert {k: v.shape for k, v in params["layer_2_highway"].items()} == {"kernel": (H, H), "bias": (H,)}
    sizes = [params[f"layer_{index}"]["params"]["input_kernel"].shape[0] for index in range(3)]
    assert sizes == [D, H + D, H + D]


def test_a_last_layer_of_another_size_is_the_same_cell_in_that_size():
    options = {"num_layers": 3, "skip": True, "skip_output": True}
    cell = CELLS["gru"](hidden_size=4)
    stack = RecurrentStack(cell, 2, **options, last_hidden_size=3, rngs=nnx.Rngs(0))
    assert [layer.cell for layer in stack.layers] == [cell, cell, CELLS["gru"](hidden_size=3)]
    assert stack.output_size == 4 + 4 + 3
    xs = jax.random.normal(jax.random.key(0), (5, 2, 2))
    carry, ys = stack(xs)
    assert ys.shape == (5, 2, 11)
    h = xs
    for index, layer in enumerate(stack.layers):
        h = layer(jnp.concatenate([h, xs], axis=-1) if index else h)[1]
    np.testing.assert_allclose(ys[..., 8:], h, atol=1e-6)
    assert [leaf.shape for leaf in jax.tree.leaves(carry)] == [(2, 4), (2, 4), (2, 3)]


def test_outputs_are_given_after_and_before_dropout():
    rates = DropoutRates(output_rate=0.5)
    stack = RecurrentStack(CELLS["gru"](hidden_size=4), 2, num_layers=2, rates=rates, rngs=nnx.Rngs(0))
    xs = jax.random.normal(jax.random.key(0), (5, 2, 2))
    key = jax.random.key(1)
    _, ys, raw = stack.outputs(xs, key=key)
    np.testing.assert_array_equal(stack(xs, key=key)[1], ys)
    np.testing.assert_array_equal(raw, stack(xs)[1])
    assert set(np.unique(np.asarray(ys / raw).round(3))) == {0, 2}
