"""Acoustic models: lengths and pyramids, padding, streams, losses against their definitions, both heads, every rate."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.acoustic import ACOUSTIC_MODELS, AcousticEncoder
from lstm_research.models.cells import CELLS, LSTM
from lstm_research.models.layers import DropoutRates, RecurrentStack, functional
from lstm_research.models.layers.attention import AdditiveAttention, GeneralAttention, NoAttention
from lstm_research.models.layers.ctc_loss import ctc_loss
from lstm_research.models.layers.transducer import transducer_loss

D, V, H, T, B, U, BLANK = 3, 5, 4, 9, 4, 3, 1
CELL = LSTM(H)
LENGTHS = jnp.array([9, 5, 0, 8])
LABELS = jnp.array([[0, 2, 3], [4, 4, 0], [0, 0, 0], [3, 2, 0]]).T
LABEL_LENGTHS = jnp.array([3, 2, 0, 1])
FRAMES = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, D)), "f4")
RATES = [field.name for field in dataclasses.fields(DropoutRates) if field.name != "locked"]
loss_of_ctc = jax.jit(ctc_loss, static_argnames="blank_id")
NEEDED = {
    "ctc": {},
    "listen_attend_spell": {"attention": GeneralAttention(), "embedding_size": 3},
    "transducer": {"embedding_size": 3, "joint_size": 6},
}
PYRAMID = {"num_layers": 3, "reductions": (1, 2, 1)}
SAMPLE = {("ctc", "gru"), ("listen_attend_spell", "lstm"), ("transducer", "mogrifier_lstm")}
"""Models and cells that always run; the others run with `--whole`."""
every_model = pytest.mark.parametrize("name", NEEDED)


def every_cell(*models):
    pairs = [(name, cell) for name in models for cell in CELLS]
    marked = [pytest.param(*pair, marks=[] if pair in SAMPLE else [pytest.mark.whole]) for pair in pairs]
    return pytest.mark.parametrize(("name", "cell"), marked)


def randomized(params):
    return jax.tree.map(
        lambda p: jnp.asarray(0.7 * np.random.default_rng(p.size).normal(size=p.shape), p.dtype), params
    )


@functools.cache
def make(name, cell=CELL, **options):
    """Returns a compiled model, and random parameters (biases too)."""
    options = NEEDED[name] | options
    model = ACOUSTIC_MODELS[name](D, V, blank_id=BLANK, cell=cell, rngs=nnx.Rngs(0), **options)
    apply, params = functional(model)
    return jax.jit(apply, static_argnames=("method", "batch_size")), randomized(params)


@functools.cache
def make_encoder(**options):
    apply, params = functional(AcousticEncoder(CELL, D, rngs=nnx.Rngs(0), **options))
    return jax.jit(apply, static_argnames=("method", "batch_size")), randomized(params)


def losses(name, *arguments, key=None, **options):
    apply, params = make(name, **options)
    return apply(params, *arguments, method="losses", key=key)


def assert_close(actual, expected, tolerance=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), actual, expected)


@pytest.mark.parametrize(("reductions", "bidirectional"), [((1, 1, 9), False), ((2, 1, 3), True)])
def test_lengths_follow_the_pyramid_and_padding_changes_nothing(reductions, bidirectional):
    apply, params = make_encoder(num_layers=3, reductions=reductions, bidirectional=bidirectional)
    _, ys, lengths = apply(params, FRAMES, LENGTHS)
    factor = int(np.prod(reductions))
    np.testing.assert_array_equal(lengths, -(-LENGTHS // factor))
    assert ys.shape == (-(-T // factor), B, H * (2 if bidirectional else 1))
    valid = np.arange(len(ys))[:, None] < lengths
    assert (np.abs(ys).max(axis=-1) > 0).tolist() == valid.tolist()
    longer = jnp.where(
        jnp.arange(T + 5)[:, None, None] < LENGTHS[:, None], jnp.pad(FRAMES, ((0, 5), (0, 0), (0, 0))), jnp.nan
    )
    order = np.array([2, 0, 3, 1])
    _, again, _ = apply(params, longer[:, order], LENGTHS[order])
    assert_close(again[: len(ys)], ys[:, order])
    assert not again[len(ys) :].any()


def test_a_pyramid_is_layers_over_joined_steps():
    """Chan et al., 2016, equation 3: h_i of a layer reads [h_2i, h_2i+1] of the one below."""
    apply, params = make_encoder(num_layers=3, reductions=(1, 2, 3), bidirectional=True)
    found = apply(params, FRAMES, LENGTHS)[1]
    b, n = 1, 5
    ys = FRAMES[:n, b : b + 1]
    for index, factor in enumerate((1, 2, 3)):
        ys = jnp.pad(ys, ((0, -len(ys) % factor), (0, 0), (0, 0)))
        steps = range(0, len(ys), factor)
        joined = jnp.stack([jnp.concatenate([ys[t + i] for i in range(factor)], axis=-1) for t in steps])
        stack = RecurrentStack(CELL, joined.shape[-1], bidirectional=True, rngs=nnx.Rngs(0))
        _, ys = functional(stack)[0](params[f"stack_{index}"], joined)
    assert ys.shape[0] == 1
    assert_close(found[:1, b], ys[:, 0])


@pytest.mark.parametrize("options", [{"num_layers": 3}, {"num_layers": 3, "reductions": (2, 1, 1)}])
def test_residual_connections_pass_all_layers_that_keep_their_size(options):
    apply, params = make_encoder(residual=True, **options)
    without = jax.tree.map(jnp.zeros_like, params["stack_0"]["layer_2"])
    silent = params | {"stack_0": params["stack_0"] | {"layer_1": without, "layer_2": without}}
    _, ys, lengths = apply(silent, FRAMES, LENGTHS)  # layers of zeros write zeros
    lowest, _ = make_encoder(reductions=options.get("reductions", (1,))[:1])
    expected = lowest({"stack_0": {"layer_0": params["stack_0"]["layer_0"]}}, FRAMES, LENGTHS)
    assert_close((ys, lengths), expected[1:])


@every_cell(*NEEDED)
def test_padding_and_the_order_of_the_batch_change_no_loss(name, cell):
    options = {"cell": CELLS[cell](hidden_size=H), "bidirectional": True, "num_layers": 2, "reductions": (1, 2)}
    before = losses(name, FRAMES, LENGTHS, LABELS, LABEL_LENGTHS, **options)
    frames = jnp.where((jnp.arange(T)[:, None] < LENGTHS)[..., None], FRAMES, jnp.nan)
    labels = jnp.where(jnp.arange(U)[:, None] < LABEL_LENGTHS, LABELS, 2)
    order = jnp.array([2, 0, 3, 1])
    after = losses(name, frames[:, order], LENGTHS[order], labels[:, order], LABEL_LENGTHS[order], **options)
    np.testing.assert_allclose(after, before[order], rtol=2e-5)
    assert np.isfinite(before).all()
    assert (np.asarray(before)[[0, 1, 3]] > 0.1).all()


@every_model
def test_gradients_are_finite_and_reach_every_parameter_but_not_the_padding(name):
    options = {"bidirectional": True, "num_layers": 2, "reductions": (1, 2), "dropout": DropoutRates(layer_rate=0.2)}
    options |= {"ctc_weight": 0.3} if name == "listen_attend_spell" else {}
    apply, params = make(name, **options)

    @jax.jit
    def gradient(params, frames):
        def total(params, frames):
            return apply(params, frames, LENGTHS, LABELS, LABEL_LENGTHS, method="losses", key=jax.random.key(0)).sum()

        return jax.grad(total, argnums=(0, 1))(params, frames)

    of_params, of_frames = gradient(params, FRAMES)
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(of_params))
    np.testing.assert_array_equal(np.abs(of_frames).max(axis=-1) > 0, np.arange(T)[:, None] < LENGTHS)
    nowhere = jnp.where(jnp.arange(T)[:, None, None] < LENGTHS[:, None], FRAMES, jnp.nan)
    assert_close(gradient(params, nowhere)[0], of_params, 1e-5)


def check_stream(apply, params, frames, lengths, whole, pieces, tolerance):
    state, outputs, start = apply(params, batch_size=B, method="initial_state"), [], 0
    for number, size in enumerate(pieces):
        last = number == len(pieces) - 1
        some = jnp.minimum(lengths - start, size) if last else None
        state, ys = apply(params, state, frames[start : start + size], some, method="step")
        outputs.append(ys)
        start += size
    assert_close(jnp.concatenate(outputs), whole, tolerance)
    assert all(leaf.shape[0] == B for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["ctc", "transducer"])
def test_a_stream_equals_the_whole(name):
    apply, params = make(name, **PYRAMID)
    lengths = jnp.array([9, 9, 8, 9])  # streams end together, but for what the last step says
    whole, _ = apply(params, FRAMES, lengths, method="encode" if name == "transducer" else "__call__")
    check_stream(apply, params, FRAMES, lengths, whole, (4, 4, 1), 1e-6)


@pytest.mark.usefixtures("x64", "unchecked_shapes")
@every_cell("ctc")
def test_a_stream_equals_the_whole_in_double_precision(name, cell):
    apply, params = make(name, CELLS[cell](hidden_size=H), dtype="float64", param_dtype="float64")
    frames, lengths = FRAMES.astype("float64"), jnp.full(B, T)
    whole, _ = apply(params, frames, lengths)
    assert whole.dtype == "float64"
    check_stream(apply, params, frames, lengths, whole, (1,) * T, 1e-12)


@every_model
def test_bidirectional_models_read_no_stream(name):
    if name == "listen_attend_spell":
        assert not hasattr(ACOUSTIC_MODELS[name], "initial_state")  # attention waits for the end
        return
    apply, params = make(name, bidirectional=True)
    with pytest.raises(UserError, match=r"model\.bidirectional=False"):
        apply(params, apply(params, batch_size=B, method="initial_state"), FRAMES, method="step")


def test_a_stream_is_read_in_whole_outputs_until_it_ends():
    apply, params = make("ctc", **PYRAMID)
    with pytest.raises(ValueError, match=r"multiple of 2 frames.* got 3"):
        apply(params, apply(params, batch_size=B, method="initial_state"), FRAMES[:3], method="step")


def test_the_loss_of_ctc():
    apply, params = make("ctc", **PYRAMID)
    logits, lengths = apply(params, FRAMES, LENGTHS)
    expected = loss_of_ctc(logits, lengths, LABELS, LABEL_LENGTHS, blank_id=BLANK)
    assert_close(losses("ctc", FRAMES, LENGTHS, LABELS, LABEL_LENGTHS, **PYRAMID), expected)
    # Three frames of the third utterance give two outputs, which are too few for three symbols.
    few = losses("ctc", FRAMES, jnp.array([9, 5, 3, 8]), LABELS, jnp.array([3, 2, 3, 1]), **PYRAMID)
    assert np.isfinite(few).tolist() == [True, True, False, True]


def test_the_loss_of_the_transducer_is_that_of_its_steps():
    """Symbol by symbol through what decoding uses, at all frames."""
    apply, params = make("transducer", prediction_layers=2)
    encoded, lengths = apply(params, FRAMES, LENGTHS, method="encode")
    state, predicted = apply(params, jnp.full(B, BLANK), method="predict")
    of_labels, of_blanks = [], []
    for u in range(U + 1):
        log_probs = apply(params, encoded, predicted, method="log_probs")  # [T, B, V]
        np.testing.assert_allclose(jnp.exp(log_probs).sum(axis=-1), 1, atol=1e-5)
        of_blanks.append(log_probs[..., BLANK])
        if u < U:
            of_labels.append(jnp.take_along_axis(log_probs, LABELS[u][None, :, None], axis=-1)[..., 0])
            state, predicted = apply(params, LABELS[u], state, method="predict")
    expected = transducer_loss(jnp.stack(of_labels, -1), jnp.stack(of_blanks, -1), lengths, LABEL_LENGTHS)
    found = losses("transducer", FRAMES, LENGTHS, LABELS, LABEL_LENGTHS, prediction_layers=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "options"), [(0.0, {}), (0.3, {"attention": AdditiveAttention(coverage=True), "input_feeding": True})]
)
def test_the_loss_of_both_heads(weight, options):
    """The decoder's symbol by symbol, as it is decoded; and CTC's."""
    options = options | PYRAMID | {"ctc_weight": weight}
    apply, params = make("listen_attend_spell", **options)
    state, lengths = apply(params, FRAMES, LENGTHS, method="encode")
    expected, before = np.zeros(B), jnp.full(B, BLANK)
    for u in range(U + 1):
        state, log_probs, weights = apply(params, state, before, method="step")
        np.testing.assert_allclose(weights.sum(axis=-1), LENGTHS > 0, atol=1e-5)
        assert (np.asarray(weights)[np.arange(weights.shape[1]) >= lengths[:, None]] == 0).all()
        before = jnp.where(u < LABEL_LENGTHS, LABELS[min(u, U - 1)], BLANK)
        expected -= np.where(u <= LABEL_LENGTHS, log_probs[jnp.arange(B), before], 0)
    if weight:
        heads = apply(params, FRAMES, LENGTHS, LABELS)
        np.testing.assert_array_equal(heads.lengths, lengths)
        ctc = loss_of_ctc(heads.ctc_logits, lengths, LABELS, LABEL_LENGTHS, blank_id=BLANK)
        expected = (1 - weight) * expected + weight * ctc
    else:
        assert jax.eval_shape(apply, params, FRAMES, LENGTHS, LABELS).ctc_logits is None
    found = losses("listen_attend_spell", FRAMES, LENGTHS, LABELS, LABEL_LENGTHS, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_scheduled_sampling_acts_in_training_alone():
    arguments, key = ("listen_attend_spell", FRAMES, LENGTHS, LABELS, LABEL_LENGTHS), jax.random.key(0)
    plain = losses(*arguments)
    np.testing.assert_array_equal(losses(*arguments, sampling_rate=0.9), plain)
    sampled = losses(*arguments, key=key, sampling_rate=0.9)
    changed = np.abs(sampled - plain) > 1e-4
    assert changed[0]
    assert not changed[2]  # nothing is before the first symbol


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param(name, rate, marks=[] if rate == "embedding_rate" else [pytest.mark.whole])
        for name in NEEDED
        for rate in RATES
        if (name, rate) != ("ctc", "embedding_rate")  # it embeds nothing
    ],
)
def test_every_rate_changes_training(name, rate):
    options = {"num_layers": 2, "reductions": (1, 2), "dropout": DropoutRates(**{rate: 0.4})}
    arguments = (name, FRAMES, LENGTHS, LABELS, LABEL_LENGTHS)
    first, again, other = (losses(*arguments, key=jax.random.key(seed), **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.isfinite(first).all()
    assert np.abs(first - other)[np.array([0, 1, 3])].max() > 1e-4


@pytest.mark.parametrize("name", ["listen_attend_spell", "transducer"])
def test_half_precision_is_in_the_products_alone(name):
    arguments = (name, FRAMES, LENGTHS, LABELS, LABEL_LENGTHS)
    half, expected = losses(*arguments, dtype="bfloat16"), losses(*arguments)
    assert half.dtype == "float32"
    np.testing.assert_allclose(half, expected, rtol=0.05)
    assert (half != expected).any()
    _, params = make(name, param_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} <= {"bfloat16", "float32"}
    assert all(leaf.dtype == "bfloat16" for path, leaf in flat(params).items() if path.endswith(("kernel", "table")))


def flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@every_model
def test_parameters_have_the_names_of_the_docstring(name):
    options = {"ctc_weight": 0.1} if name == "listen_attend_spell" else {}
    documented = re.findall(r"`([a-z_]+)\.", ACOUSTIC_MODELS[name].__doc__.partition("Parameters:")[2])
    assert set(make(name, **options)[1]) == set(documented)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ctc", {"num_layers": 0}, "model.num_layers"),
        ("ctc", {"num_layers": 2, "reductions": (2,)}, r"model.reductions.*each of the 2 layers.*\(2,\)"),
        ("ctc", {"reductions": (0,)}, "model.reductions"),
        ("ctc", {"merge": "sum"}, "set model.bidirectional to True"),
        ("ctc", {"num_layers": 2, "reductions": (1, 2), "residual": True}, "model.residual"),
        ("transducer", {"joint_size": 0}, "model.joint_size"),
        ("transducer", {"prediction_layers": 0}, "model.prediction_layers"),
        ("listen_attend_spell", {"attention": NoAttention()}, "model.attention"),
        ("listen_attend_spell", {"embedding_size": 0}, "model.embedding_size"),
        ("listen_attend_spell", {"decoder_layers": 0}, "model.decoder_layers"),
        ("listen_attend_spell", {"ctc_weight": 1.0}, "model.ctc_weight"),
        ("listen_attend_spell", {"sampling_rate": -0.1}, "model.sampling_rate"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)
