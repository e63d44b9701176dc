"""The language model: what a logit may depend on, tied weights, number formats, and every rate of the dropout."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, LSTM
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import DropoutRates, RecurrentStack, functional
from lstm_research.models.layers.softmax import AdaptiveSoftmax, FullSoftmax, MixtureSoftmax, SampledSoftmax

V, E, H, T, B = 11, 4, 6, 8, 3
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (T, B)), "int32")
CELL = LSTM(H)
RATES = [field.name for field in dataclasses.fields(DropoutRates) if field.name != "locked"]


@functools.cache
def make_model(cell=CELL, **options):
    options = {"embedding_size": E, "num_layers": 2} | options
    apply, params = functional(LanguageModel(V, cell=cell, rngs=nnx.Rngs(0), **options))
    return jax.jit(apply), params


def initial_carry(**options):
    return LanguageModel(V, cell=LSTM(H), embedding_size=E, num_layers=2, rngs=nnx.Rngs(0), **options).initial_carry(B)


def flat_names(params):
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return {".".join(part.key for part in path): leaf.shape for path, leaf in paths}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CELLS)
def test_a_symbol_changes_no_logits_before_it_and_none_of_other_rows(name):
    apply, params = make_model(CELLS[name](hidden_size=H))
    before = apply(params, TOKENS)[1]
    for t in range(T):
        after = apply(params, TOKENS.at[t, 1].add(1) % V)[1]
        np.testing.assert_array_equal(after[:t], before[:t])
        np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
        assert (after[t, 1] != before[t, 1]).all()


def test_a_document_after_a_reset_is_read_as_if_alone():
    apply, params = make_model()
    carry = jax.tree.map(jnp.ones_like, initial_carry())
    resets = jnp.zeros((T, B), bool).at[0].set(True).at[2, 0].set(True).at[5, 0].set(True).at[2, 1].set(True)
    logits = apply(params, TOKENS, carry, resets=resets)[1]
    for row, begin, end in [(0, 0, 2), (0, 2, 5), (0, 5, 8), (1, 0, 2), (1, 2, 8), (2, 0, 8)]:
        alone = jnp.broadcast_to(TOKENS[begin:end, row : row + 1], (end - begin, B))
        np.testing.assert_allclose(apply(params, alone)[1][:, 0], logits[begin:end, row], atol=1e-6)


def test_symbol_by_symbol_equals_one_call():
    apply, params = make_model()
    final, logits = apply(params, TOKENS)
    carry = initial_carry()
    for t in range(T):
        carry, step_logits = apply(params, TOKENS[t : t + 1], carry)
        np.testing.assert_allclose(step_logits[0], logits[t], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, final)


def test_lengths_freeze_the_carry():
    apply, params = make_model()
    carry, logits = apply(params, TOKENS, lengths=jnp.array([T, 3, 0]))
    short_carry, short = apply(params, TOKENS[:3])
    np.testing.assert_allclose(logits[:3, 1], short[:, 1], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b[1], atol=1e-6), carry, short_carry)
    assert not any(leaf[2].any() for leaf in jax.tree.leaves(carry))


def test_tied_weights_are_one_parameter_with_both_gradients():
    tied, tied_params = make_model(tied=True, embedding_size=H)
    untied, untied_params = make_model(embedding_size=H)
    count = [sum(leaf.size for leaf in jax.tree.leaves(p)) for p in (tied_params, untied_params)]
    assert count[1] - count[0] == V * H

    bias = jnp.linspace(-1, 1, V)
    tied_params = tied_params | {"output_bias": bias}
    table = tied_params["embedding"]["table"]
    same = {**tied_params, "output": {"kernel": table.T, "bias": bias}}
    del same["output_bias"]

    def loss(apply, params):
        logits = apply(params, TOKENS[:, :1] % 4)[1]  # symbols from 4 on are never read
        return -jax.nn.log_softmax(logits)[..., 7].mean(), logits

    tied_gradient, tied_logits = jax.grad(functools.partial(loss, tied), has_aux=True)(tied_params)
    gradient, logits = jax.grad(functools.partial(loss, untied), has_aux=True)(same)
    np.testing.assert_allclose(tied_logits, logits, atol=1e-6)
    both = gradient["embedding"]["table"] + gradient["output"]["kernel"].T
    np.testing.assert_allclose(tied_gradient["embedding"]["table"], both, atol=1e-6)
    assert not gradient["embedding"]["table"][7].any()
    assert tied_gradient["embedding"]["table"][7].all()
    np.testing.assert_allclose(tied_gradient["output_bias"], gradient["output"]["bias"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tied": True}, f"which reads {H} features"),
        ({"embedding_size": 0}, "model.embedding_size"),
        ({"num_layers": 0}, "num_layers"),
        ({"tied": True, "last_hidden_size": 5}, "which reads 5 features, and model.embedding_size = "),
        ({"tied": True}, "make the two sizes the same"),
        ({"last_hidden_size": 3, "num_layers": 1}, "model.last_hidden_size has no effect on one layer"),
        ({"last_hidden_size": 3, "residual": True}, "model.last_hidden_size makes a last layer that nothing can pass"),
        ({"last_hidden_size": 3, "highway": True}, "model.last_hidden_size"),
        ({"tied": True, "softmax": AdaptiveSoftmax((2,))}, "model.tied needs weights of one size"),
        ({"tied": True, "softmax": MixtureSoftmax(2, latent_size=5)}, "which reads 5 features"),
        ({"softmax": AdaptiveSoftmax((V,))}, "model.softmax.cutoffs"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_model(**options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError) or "num_layers" in options


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_computes_in_half_precision_and_answers_in_float32(tied):
    half, params = make_model(dtype="bfloat16", tied=tied, embedding_size=H)
    full, full_params = make_model(tied=tied, embedding_size=H)
    jax.tree.map(np.testing.assert_array_equal, params, full_params)
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(params))
    carry, logits = half(params, TOKENS)
    start = initial_carry(dtype="bfloat16")
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves((start, carry)))
    assert logits.dtype == "float32"
    expected = full(params, TOKENS)[1]
    np.testing.assert_allclose(logits, expected, atol=0.03)
    assert (logits != expected).any()

    gradient = jax.grad(lambda params: jnp.square(half(params, TOKENS)[1]).sum())(params)
    assert all(leaf.dtype == "float32" and np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    small, small_params = make_model(param_dtype="bfloat16", tied=tied, embedding_size=H)
    assert all(leaf.dtype == "bfloat16" for leaf in jax.tree.leaves(small_params))
    assert small(small_params, TOKENS)[1].dtype == "float32"


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_have_the_names_and_shapes_of_the_docstring(tied):
    _, params = make_model(tied=tied, embedding_size=H)
    names = flat_names(params)
    text = " ".join(LanguageModel.__doc__.split())
    documented = dict(re.findall(r"`([a-z_.]+)` `\[([A-Z, ]+)\]`", text.partition("Parameters: ")[2]))
    absent = {"output.kernel", "output.bias"} if tied else {"output_bias"}
    sizes = {"V": V, "E": H, "H": H}
    expected = {
        name: tuple(sizes[axis] for axis in axes.split(", ")) for name, axes in documented.items() if name not in absent
    }
    assert {name: shape for name, shape in names.items() if not name.startswith("stack.")} == expected
    stack = flat_names(functional(RecurrentStack(LSTM(H), H, num_layers=2, rngs=nnx.Rngs(0)))[1])
    assert {name.removeprefix("stack.") for name in names if name.startswith("stack.")} == set(stack)
    assert "`layer_0.params.*`" in " ".join(RecurrentStack.__doc__.split())
    assert all(re.fullmatch(r"layer_[01]\.params\.\w+", name) for name in stack)


@functools.cache
def differentiated(dropout):
    apply, _ = make_model(dropout=dropout)

    def loss(params, key):
        logits = apply(params, TOKENS, key=key)[1]
        return jnp.square(logits).sum(), logits

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize("rate", RATES)
def test_every_rate_changes_training_and_lets_the_gradient_through(rate):
    noisy = differentiated(DropoutRates(**{rate: 0.5}))
    plain, params = make_model()
    gradient, logits = noisy(params, jax.random.key(1))
    assert jnp.abs(logits - plain(params, TOKENS)[1]).max() > 1e-3
    np.testing.assert_array_equal(logits, noisy(params, jax.random.key(1))[1])
    assert jnp.abs(logits - noisy(params, jax.random.key(2))[1]).max() > 1e-3
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))


def test_without_a_key_dropout_is_absent_and_zoneout_is_its_expectation():
    plain, params = make_model()
    expected = plain(params, TOKENS)[1]
    dropout, _ = make_model(dropout=DropoutRates(**{rate: 0.5 for rate in RATES if not rate.startswith("zoneout")}))
    np.testing.assert_array_equal(dropout(params, TOKENS)[1], expected)
    for rate in ("zoneout_c_rate", "zoneout_h_rate"):
        zoneout, _ = make_model(dropout=DropoutRates(**{rate: 0.5}))
        logits = zoneout(params, TOKENS)[1]
        assert jnp.abs(logits - expected).max() > 1e-4
        np.testing.assert_array_equal(logits, zoneout(params, TOKENS)[1])


def test_locked_changes_training():
    rates = {"input_rate": 0.5, "layer_rate": 0.5, "output_rate": 0.5}
    locked, params = make_model(dropout=DropoutRates(**rates, locked=True))
    unlocked, _ = make_model(dropout=DropoutRates(**rates))
    key = jax.random.key(1)
    assert jnp.abs(locked(params, TOKENS, key=key)[1] - unlocked(params, TOKENS, key=key)[1]).max() > 1e-3
    np.testing.assert_array_equal(locked(params, TOKENS)[1], unlocked(params, TOKENS)[1])


def test_a_key_without_rates_changes_nothing():
    apply, params = make_model()
    np.testing.assert_array_equal(apply(params, TOKENS, key=jax.random.key(1))[1], apply(params, TOKENS)[1])


def test_a_last_layer_of_another_size():
    apply, params = make_model(last_hidden_size=5, tied=True, embedding_size=5)
    names = flat_names(params)
    assert names["stack.layer_0.params.recurrent_kernel"] == (H, 4 * H)
    assert names["stack.layer_1.params.input_kernel"] == (H, 4 * 5)
    assert names["stack.layer_1.params.recurrent_kernel"] == (5, 4 * 5)
    assert "output" not in params
    carry, logits = apply(params, TOKENS)
    assert [leaf.shape for leaf in jax.tree.leaves(carry)] == [(B, H), (B, H), (B, 5), (B, 5)]
    assert logits.shape == (T, B, V)
    jax.tree.map(np.testing.assert_array_equal, make_model(last_hidden_size=H)[1], make_model()[1])


SOFTMAXES = {
    "full": FullSoftmax(),
    "mixture": MixtureSoftmax(2),
    "adaptive": AdaptiveSoftmax((3, 7)),
    "sampled": SampledSoftmax(4),
}


@pytest.mark.parametrize("name", SOFTMAXES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_softmax_reads_the_outputs_of_the_last_layer(name, tied):
    softmax = SOFTMAXES[name]
    if tied and not softmax.can_be_tied:
        return
    apply, params = functional(
        LanguageModel(V, cell=CELL, embedding_size=H, tied=tied, softmax=softmax, rngs=nnx.Rngs(0))
    )
    _, ys, raw = apply(params, TOKENS, method="encode")
    np.testing.assert_array_equal(ys, raw)
    output = dict(params.get("output", {}))
    if tied:
        output |= {"kernel": params["embedding"]["table"].T, "bias": params["output_bias"]}
    np.testing.assert_allclose(apply(params, ys, method="logits"), softmax.logits(output, ys), atol=1e-6)
    np.testing.assert_array_equal(apply(params, TOKENS)[1], apply(params, ys, method="logits"))
    losses = apply(params, ys, TOKENS, method="losses")[0]
    log_p = jax.nn.log_softmax(apply(params, TOKENS)[1])
    expected = -jnp.take_along_axis(log_p, TOKENS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert ("output_bias" in params) == tied
    assert not tied or not {"kernel", "bias"} & params.get("output", {}).keys()


def test_a_tied_mixture_has_experts_of_the_embeddings_size():
    softmax = MixtureSoftmax(3, latent_size=E)
    _, params = make_model(tied=True, softmax=softmax)
    assert flat_names(params)["output.latent_kernel"] == (H, 3 * E)
    assert flat_names(params)["output.prior_kernel"] == (H, 3)


def test_the_raw_outputs_are_those_before_dropout():
    rates = DropoutRates(output_rate=0.5, locked=True)
    apply, params = functional(LanguageModel(V, cell=CELL, embedding_size=E, dropout=rates, rngs=nnx.Rngs(0)))
    _, ys, raw = apply(params, TOKENS, key=jax.random.key(1), method="encode")
    np.testing.assert_allclose(raw, apply(params, TOKENS, method="encode")[2], atol=1e-6)
    kept = np.asarray(ys != 0)
    np.testing.assert_allclose(ys, np.where(kept, 2 * raw, 0), atol=1e-6)
    assert 0.2 < kept.mean() < 0.8
