"""The encoder-decoder: padding, steps against whole sequences, copying, scheduled sampling, and every rate."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, LSTM
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.attention import AdditiveAttention, GeneralAttention, NoAttention
from lstm_research.models.seq2seq import Seq2Seq

V, E, H, S, T, B = 11, 4, 4, 5, 6, 3
END = 1
CELL = LSTM(H)
LENGTHS = jnp.array([5, 2, 0])
SOURCE = jnp.asarray(np.random.default_rng(0).integers(2, V, (S, B)), "int32")
TARGETS = jnp.asarray(np.random.default_rng(1).integers(2, V, (T, B)), "int32")
INPUTS = jnp.concatenate([jnp.full((1, B), END, "int32"), TARGETS[:-1]])
RATES = [field.name for field in dataclasses.fields(DropoutRates) if field.name != "locked"]
SAMPLE = ("gru", "lstm", "mogrifier_lstm", "original_gru")
"""Cells that always run; the others run with `--whole`."""
CHOICES = {
    "plain": {},
    "no attention": {"attention": NoAttention()},
    "tied": {"tied": True, "share_embeddings": True},
    "GNMT": {"num_layers": 3, "bidirectional_layers": 1, "residual": True, "attend_from": "bottom"},
    "one way": {"bidirectional_layers": 0, "decoder_layers": 2},
    "sum": {"merge": "sum", "num_layers": 2, "decoder_layers": 1},
    "input feeding": {"input_feeding": True},
    "coverage and copy": {"attention": AdditiveAttention(coverage=True), "copy": True},
    "copy, tied": {"copy": True, "tied": True, "share_embeddings": True},
}
every_choice = pytest.mark.parametrize("choice", CHOICES)


@functools.cache
def make(cell=CELL, joint=True, **options):
    """Returns the compiled model, and random parameters (biases too)."""
    options = {"attention": GeneralAttention(), "embedding_size": E} | options
    apply, params = functional(Seq2Seq(V, V, joint=joint, cell=cell, rngs=nnx.Rngs(0), **options))
    params = jax.tree.map(
        lambda p: jnp.asarray(0.7 * np.random.default_rng(p.size).normal(size=p.shape), p.dtype), params
    )
    return jax.jit(apply, static_argnames=("method", "sampling_rate")), params


def assert_close(actual, expected, tolerance=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), actual, expected)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.whole]) for name in CELLS]
)
def test_what_a_logit_depends_on_for_every_cell(name):
    apply, params = make(CELLS[name](hidden_size=H))
    before = apply(params, SOURCE, LENGTHS, INPUTS)[0]
    after = apply(params, SOURCE, LENGTHS, INPUTS.at[3, 0].set(0))[0]
    np.testing.assert_array_equal(after[:3], before[:3])
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    assert (after[3:, 0] != before[3:, 0]).any(axis=-1).all()
    after = apply(params, SOURCE.at[4, 0].set(0), LENGTHS, INPUTS)[0]
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    assert (after[:, 0] != before[:, 0]).any(axis=-1).all()


@every_choice
def test_step_by_step_equals_the_whole_target(choice):
    apply, params = make(**CHOICES[choice])
    logits, weights = apply(params, SOURCE, LENGTHS, INPUTS)
    state = apply(params, SOURCE, LENGTHS, method="encode")
    for t in range(T):
        before = state
        state, log_probs, attention = apply(params, state, INPUTS[t], method="step")
        assert_close(log_probs, jax.nn.log_softmax(logits[t]))
        np.testing.assert_allclose(jnp.exp(log_probs).sum(axis=-1), 1, atol=1e-5)
        assert (attention is None) == (choice == "no attention")
        if attention is not None:
            assert_close(attention, weights[t])
        jax.tree.map(np.testing.assert_array_equal, state[:2], before[:2])
    assert all(leaf.shape[0] == B for leaf in jax.tree.leaves(state))


@every_choice
def test_padding_and_the_order_of_the_batch_change_nothing(choice):
    apply, params = make(**CHOICES[choice])
    logits, weights = apply(params, SOURCE, LENGTHS, INPUTS)
    padding = jnp.arange(S)[:, None] >= LENGTHS
    other = jnp.where(padding, 7, SOURCE)
    assert (other != SOURCE).any()
    jax.tree.map(np.testing.assert_array_equal, apply(params, other, LENGTHS, INPUTS), (logits, weights))
    longer = jnp.concatenate([SOURCE, jnp.full((3, B), 5, "int32")])
    found = apply(params, longer, LENGTHS, INPUTS)
    assert_close((found[0], found[1][..., :S]), (logits, weights))
    assert not found[1][..., S:].any()
    order = jnp.array([2, 0, 1])
    assert_close(apply(params, SOURCE[:, order], LENGTHS[order], INPUTS[:, order])[0], logits[:, order])
    alone = [apply(params, SOURCE[:, b : b + 1], LENGTHS[b : b + 1], INPUTS[:, b : b + 1])[0][:, 0] for b in range(B)]
    assert_close(jnp.stack(alone, axis=1), logits)


def test_the_source_matters_with_and_without_attention():
    for choice in ("plain", "no attention"):
        apply, params = make(**CHOICES[choice])
        logits, weights = apply(params, SOURCE, LENGTHS, INPUTS)
        changed = apply(params, SOURCE.at[0, 0].set(0), LENGTHS, INPUTS)[0]
        assert (jnp.abs(changed - logits)[:, 0] > 0).all()
        np.testing.assert_allclose(weights.sum(axis=-1)[0], [0, 0, 0] if choice != "plain" else [1, 1, 0], atol=1e-6)


def test_copying_adds_the_attention_on_equal_symbols():
    apply, params = make(copy=True)
    params = {**params, "decoder": {**params["decoder"], "copy_bias": jnp.array([0.3])}}
    source = SOURCE.at[3, 0].set(SOURCE[0, 0])
    found, weights = apply(params, source, LENGTHS, INPUTS)

    def only(bias):
        decoder = {**params["decoder"], "copy_bias": jnp.array([bias]), "copy_kernel": jnp.zeros((2 * H + H + E, 1))}
        return jnp.exp(apply({**params, "decoder": decoder}, source, LENGTHS, INPUTS)[0])

    generated, copied = only(-50.0), only(50.0)
    assert_close(copied[:, 0, SOURCE[0, 0]], weights[:, 0, 0] + weights[:, 0, 3])
    np.testing.assert_allclose(copied[:, :2].sum(axis=-1), 1, atol=1e-5)
    assert_close(copied[:, 2], generated[:, 2])  # nothing to copy: all is generated
    absent = [w for w in range(V) if w not in source[:2, 1].tolist()]
    # What can only be generated keeps its digits, and a gradient, where nearly all is copied.
    np.testing.assert_allclose(
        copied[:, 1, jnp.array(absent)], generated[:, 1, jnp.array(absent)] * math.exp(-50), rtol=1e-4
    )
    gradient = jax.jacobian(lambda bias: jnp.log(only(bias)[:, 1, absent[0]]))(20.0)
    np.testing.assert_allclose(gradient, -1, rtol=1e-5)
    share = ((jnp.exp(found) - generated) / (copied - generated))[:, :2]
    np.testing.assert_allclose(share, jnp.broadcast_to(share[..., :1], share.shape), rtol=2e-2)
    assert ((share > 0) & (share < 1)).all()


def test_copying_has_finite_gradients_where_a_symbol_cannot_be_copied():
    apply, params = make(copy=True)
    decoder = {**params["decoder"], "copy_bias": jnp.array([200.0])}  # nothing is generated
    gradient = jax.grad(lambda p: apply(p, SOURCE, LENGTHS, INPUTS)[0].sum())({**params, "decoder": decoder})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_sampling_replaces_inputs_at_its_rate_and_never_the_first():
    apply, params = make()
    key = jax.random.key(0)
    given = apply(params, SOURCE, LENGTHS, INPUTS)[0]
    assert_close(apply(params, SOURCE, LENGTHS, INPUTS, key=key, sampling_rate=0.0)[0], given, 0)
    assert_close(apply(params, SOURCE, LENGTHS, INPUTS, sampling_rate=0.9)[0], given, 0)  # evaluation
    count, repeats = 0, 60
    for seed in range(repeats):
        sampled = apply(params, SOURCE, LENGTHS, INPUTS, key=jax.random.key(seed), sampling_rate=0.3)[0]
        assert_close(sampled[0], given[0])
        count += int((jnp.abs(sampled[1] - given[1]).max(axis=-1) > 1e-5).sum())
    # The second input is replaced in 0.3 of all cases; by another symbol in those where the model draws one.
    other = 1 - jax.nn.softmax(given[0])[jnp.arange(B), INPUTS[1]]
    expected = 0.3 * float(other.sum()) * repeats
    assert abs(count - expected) < 4 * expected**0.5


def test_what_is_sampled_comes_from_the_model():
    apply, params = make()
    output = {**params["output"], "bias": params["output"]["bias"].at[9].add(1000.0)}  # always draws 9
    params = {**params, "output": output}
    sampled = apply(params, SOURCE, LENGTHS, INPUTS, key=jax.random.key(0), sampling_rate=1 - 1e-7)[0]
    nines = jnp.concatenate([INPUTS[:1], jnp.full((T - 1, B), 9, "int32")])
    assert_close(sampled, apply(params, SOURCE, LENGTHS, nines)[0], 1e-4)


@functools.cache
def differentiated(dropout, **options):
    apply, _ = make(dropout=dropout, **options)

    def loss(params, key):
        logits = apply(params, SOURCE, LENGTHS, INPUTS, key=key)[0]
        return jnp.square(logits).sum(), logits

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rate", RATES)
def test_every_rate_changes_training_and_lets_the_gradient_through(rate):
    options = {"num_layers": 2, "bidirectional_layers": 1}
    noisy = differentiated(DropoutRates(**{rate: 0.5}), **options)
    plain, params = make(**options)
    gradient, logits = noisy(params, jax.random.key(1))
    assert jnp.abs(logits - plain(params, SOURCE, LENGTHS, INPUTS)[0]).max() > 1e-3
    assert jnp.abs(logits - noisy(params, jax.random.key(2))[1]).max() > 1e-3
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))


def test_a_key_without_rates_changes_nothing():
    apply, params = make()
    found = apply(params, SOURCE, LENGTHS, INPUTS, key=jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, found, apply(params, SOURCE, LENGTHS, INPUTS))


def test_the_decoder_starts_from_the_encoders_last_states():
    apply, params = make(num_layers=2, decoder_layers=3)
    assert params["bridge"]["layer_0_h_kernel"].shape == (2 * H, H)
    assert set(params["bridge"]) == {f"layer_{i}_{f}_{p}" for i in range(3) for f in "ch" for p in ("kernel", "bias")}
    state = apply(params, SOURCE, LENGTHS, method="encode").decoder.carry
    assert len(state) == 3
    # A sentence without symbols leaves the encoder's states at zero.
    for index, carry in enumerate(state):
        np.testing.assert_allclose(carry.c[2], jnp.tanh(params["bridge"][f"layer_{index}_c_bias"]), atol=1e-6)
    # The two lowest layers read from the encoder's first, the highest from its last.
    kernels = params["bridge"]["layer_0_h_kernel"], params["bridge"]["layer_0_h_bias"]
    bridge = {**params["bridge"], "layer_1_h_kernel": kernels[0], "layer_1_h_bias": kernels[1]}
    bridge |= {"layer_2_h_kernel": kernels[0], "layer_2_h_bias": kernels[1]}
    state = apply({**params, "bridge": bridge}, SOURCE, LENGTHS, method="encode").decoder.carry
    np.testing.assert_array_equal(state[0].h, state[1].h)
    assert (state[2].h[:2] != state[0].h[:2]).all()


def test_a_learned_initial_state_of_the_decoder_is_used():
    apply, params = make(LSTM(H, learned_initial_state=True))
    layer = params["decoder"]["layer_0"]["params"]
    before = apply(params, SOURCE, LENGTHS, INPUTS)[0]
    layer = {**layer, "initial_c": layer["initial_c"] + 1}
    decoder = {**params["decoder"], "layer_0": {"params": layer}}
    assert (apply({**params, "decoder": decoder}, SOURCE, LENGTHS, INPUTS)[0] != before).all()


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_computes_in_half_precision_and_answers_in_float32(tied):
    options = {"tied": tied, "input_feeding": tied, "num_layers": 2}
    (half, params), (full, _) = make(dtype="bfloat16", **options), make(**options)
    logits, weights = half(params, SOURCE, LENGTHS, INPUTS)
    assert logits.dtype == weights.dtype == "float32"
    expected = full(params, SOURCE, LENGTHS, INPUTS)[0]
    np.testing.assert_allclose(logits, expected, atol=0.15)
    assert (logits != expected).any()
    state = half(params, SOURCE, LENGTHS, method="encode")
    for t in range(T):
        state, log_probs, _ = half(params, state, INPUTS[t], method="step")
        np.testing.assert_allclose(log_probs, jax.nn.log_softmax(logits[t]), atol=0.02)
    small, small_params = make(param_dtype="bfloat16", **options)
    assert all(leaf.dtype == "bfloat16" for leaf in jax.tree.leaves(small_params))
    assert small(small_params, SOURCE, LENGTHS, INPUTS)[0].dtype == "float32"


def test_the_tables_and_the_output_layer():
    names = {choice: set(make(**options)[1]) for choice, options in CHOICES.items()}
    own = {"encoder", "bridge", "decoder"}
    assert names["plain"] == own | {"source_embedding", "target_embedding", "output"}
    assert names["tied"] == own | {"embedding", "output_bias"}
    assert names["GNMT"] == names["plain"] | {"encoder_top"}
    assert names["one way"] == (names["plain"] | {"encoder_top"}) - {"encoder"}
    _, params = make(**CHOICES["GNMT"])
    assert set(params["encoder"]) == {"layer_0"}
    assert set(params["encoder"]["layer_0"]) == {"forward", "backward"}
    assert set(params["encoder_top"]) == {"layer_0", "layer_1"}
    assert all(f"`{name}" in Seq2Seq.__doc__ for name in set().union(*names.values()))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"joint": False, "copy": True}, "task.joint_vocabulary"),
        ({"joint": False, "share_embeddings": True}, "task.joint_vocabulary"),
        ({"embedding_size": 0}, "model.embedding_size"),
        ({"num_layers": 0}, "model.num_layers"),
        ({"bidirectional_layers": 2}, "model.bidirectional_layers"),
        ({"residual": True}, "model.residual"),
        ({"decoder_layers": 0}, "model.decoder_layers"),
        ({"decoder_layers": 1, "num_layers": 3, "attend_from": "bottom"}, "set model.decoder_layers above 1"),
        ({"bidirectional_layers": 0, "merge": "sum"}, "model.merge joins two directions"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(options, named):
    with pytest.raises(UserError, match=named) as caught:
        make(**options)
    assert "\n" not in str(caught.value)
