"""The classifier: equal to PyTorch's, nothing from padding, whatever the cell; empty texts; number formats; noise."""

import functools
import importlib
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.classifier import Classifier
from lstm_research.models.interop import from_pytorch
from lstm_research.models.layers import DropoutRates, RecurrentStack, functional

V, C, E, H, T, B = 11, 3, 4, 6, 7, 4
LENGTHS = np.array([T, 2, 0, 5])
TOKENS = np.random.default_rng(0).integers(0, V, (T, B)).astype("int32")
EVERY_WAY = ("last", "max", "mean", "attention")
SAMPLE = ("gru", "lstm", "mogrifier_lstm", "rnn")
every_cell = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.whole]) for name in CELLS]
)


@functools.cache
def make_model(cell=LSTM(H), **options):  # noqa: B008  (a frozen dataclass)
    options = {"embedding_size": E, "pooling": EVERY_WAY} | options
    apply, params = functional(Classifier(V, C, cell=cell, rngs=nnx.Rngs(0), **options))
    params["output"]["bias"] = jnp.linspace(-1, 2, C)
    return jax.jit(apply), params


@functools.cache
def differentiated(**options):
    """The gradient of a loss in which every logit has a weight of its own, and the logits."""
    apply, _ = make_model(**options)

    def loss(params, tokens, lengths, key):
        logits, _ = apply(params, tokens, lengths, key=key)
        return (jnp.square(logits) * jnp.arange(1.0, 1 + C)).sum(), logits

    return jax.jit(jax.grad(loss, has_aux=True))


@every_cell
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_padding_and_the_order_of_the_batch_change_nothing(name, bidirectional):
    apply, params = make_model(CELLS[name](hidden_size=H), bidirectional=bidirectional)
    logits, weights = apply(params, TOKENS, LENGTHS)
    longer = np.concatenate([np.where(np.arange(T)[:, None] < LENGTHS, TOKENS, 3), np.full((3, B), 5, "int32")])
    order = np.array([2, 0, 3, 1])
    again, more_weights = apply(params, longer[:, order], LENGTHS[order])
    np.testing.assert_allclose(again, logits[order], atol=2e-6)
    np.testing.assert_allclose(more_weights[:T], weights[:, order], atol=2e-6)
    assert not more_weights[T:].any()
    assert np.abs(logits[0] - logits[3]).max() > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_an_empty_text_is_told_from_the_bias_and_its_gradient_is_finite(bidirectional):
    apply, params = make_model(bidirectional=bidirectional)
    logits, weights = apply(params, TOKENS, LENGTHS)
    np.testing.assert_array_equal(logits[2], params["output"]["bias"])
    assert not weights[:, 2].any()
    differentiate = differentiated(bidirectional=bidirectional)
    gradient, logits = differentiate(params, TOKENS, np.zeros(B, int), None)
    np.testing.assert_array_equal(logits, np.tile(params["output"]["bias"], (B, 1)))
    assert gradient["output"].pop("bias").all()
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))  # and so none is NaN


def test_every_symbol_that_is_there_counts():
    apply, params = make_model(bidirectional=True)
    before, _ = apply(params, TOKENS, LENGTHS)
    for row, length in enumerate(LENGTHS):
        for t in range(T):
            tokens = TOKENS.copy()
            tokens[t, row] = (tokens[t, row] + 1) % V
            after, _ = apply(params, tokens, LENGTHS)
            assert (np.abs(after - before).max(axis=1) > 1e-5).tolist() == [r == row and t < length for r in range(B)]


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_equals_a_model_of_pytorch(torch, kind, bidirectional):
    """Packed sequences, two layers; the last states, the largest and the mean outputs under one linear layer."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(V, E)
    rnn = getattr(torch.nn, kind)(E, H, num_layers=2, bidirectional=bidirectional)
    output = torch.nn.Linear(3 * H * (2 if bidirectional else 1), C)
    rows = LENGTHS > 0  # PyTorch packs no empty sequence
    tokens, lengths = torch.tensor(TOKENS[:, rows]), torch.tensor(LENGTHS[rows])
    with torch.no_grad():
        packed = torch.nn.utils.rnn.pack_padded_sequence(embedding(tokens), lengths, enforce_sorted=False)
        ys, state = rnn(packed)
        final = state[0] if kind == "LSTM" else state
        last = torch.cat([final[-2], final[-1]], dim=-1) if bidirectional else final[-1]
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=T)
        there = (torch.arange(T)[:, None] < lengths)[..., None]
        largest = torch.where(there, ys, -torch.inf).amax(dim=0)
        mean = torch.where(there, ys, 0).sum(dim=0) / lengths[:, None]
        expected = output(torch.cat([last, largest, mean], dim=-1)).numpy()

    cell, stack = from_pytorch(rnn.state_dict())
    params = {
        "embedding": {"table": embedding.weight.detach().numpy()},
        "stack": stack,
        "output": {"kernel": output.weight.detach().numpy().T, "bias": output.bias.detach().numpy()},
    }
    assert cell == {"LSTM": LSTM, "GRU": GRU}[kind](H)
    apply, drawn = make_model(cell, num_layers=2, bidirectional=bidirectional, pooling=("last", "max", "mean"))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, drawn)
    logits, weights = apply(params, TOKENS, LENGTHS)
    np.testing.assert_allclose(logits[rows], expected, atol=2e-6)
    assert weights is None


WAYS = {
    "residual": {"residual": True},
    "highway": {"highway": True},
    "skip": {"skip": True},
    "skip_output": {"skip_output": True},
    "sum": {"bidirectional": True, "merge": "sum"},
    "mean": {"bidirectional": True, "merge": "mean"},
    "bidirectional skip_output": {"bidirectional": True, "skip_output": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_options_of_the_stack(way):
    pooling = ("max", "mean", "attention") if "merge" in WAYS[way] else EVERY_WAY
    options = WAYS[way] | {"num_layers": 2, "pooling": pooling}
    apply, params = make_model(**options)
    logits, _ = apply(params, TOKENS, LENGTHS)
    plain = {key: value for key, value in options.items() if key in ("num_layers", "pooling", "bidirectional")}
    assert np.abs(logits - make_model(**plain)[0](make_model(**plain)[1], TOKENS, LENGTHS)[0])[[0, 1, 3]].max() > 1e-3
    alone, _ = apply(params, np.tile(TOKENS[:5, 3:], (1, B)), np.full(B, 5))
    np.testing.assert_allclose(alone, np.tile(logits[3], (B, 1)), atol=2e-6)


def test_the_last_states_of_all_layers_and_directions():
    """With `skip_output` the features alternate between the directions layer by layer."""
    cell = LSTM(H)
    _, params = make_model(num_layers=2, bidirectional=True, skip_output=True, pooling=("last",))
    stack, _ = functional(RecurrentStack(cell, E, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0)))
    carry, _ = jax.jit(stack)(params["stack"], params["embedding"]["table"][TOKENS], lengths=LENGTHS)
    states = [direction.h for layer in carry for direction in layer]
    expected = jnp.concatenate(states, axis=-1) @ params["output"]["kernel"] + params["output"]["bias"]
    apply, _ = make_model(num_layers=2, bidirectional=True, skip_output=True, pooling=("last",))
    np.testing.assert_allclose(apply(params, TOKENS, LENGTHS)[0], expected, atol=2e-6)


@pytest.mark.parametrize("rate", ["input_rate", "output_rate", "embedding_rate", "recurrent_rate", "weight_rate", None])
def test_every_rate_changes_training_alone_and_lets_the_gradient_through(rate):
    options = {"pooled_rate": 0.5} if rate is None else {"dropout": DropoutRates(**{rate: 0.5})}
    plain, params = make_model()
    noisy = differentiated(**options)
    gradient, logits = noisy(params, TOKENS, LENGTHS, jax.random.key(1))
    expected = plain(params, TOKENS, LENGTHS)[0]
    assert np.abs(logits - expected).max() > 1e-3
    assert np.abs(logits - noisy(params, TOKENS, LENGTHS, jax.random.key(2))[1]).max() > 1e-3
    np.testing.assert_array_equal(logits[2], params["output"]["bias"])
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(make_model(**options)[0](params, TOKENS, LENGTHS)[0], expected)


def test_bfloat16_computes_in_half_precision_and_answers_in_float32():
    half, params = make_model(dtype="bfloat16")
    logits, weights = half(params, TOKENS, LENGTHS)
    assert logits.dtype == weights.dtype == "float32"
    expected = make_model()[0](params, TOKENS, LENGTHS)[0]
    np.testing.assert_allclose(logits, expected, atol=0.03)
    assert (logits != expected).any()
    small, small_params = make_model(param_dtype="bfloat16")
    assert all(leaf.dtype == "bfloat16" for name, leaf in flat(small_params).items() if name != "output.bias")
    assert small(small_params, TOKENS, LENGTHS)[0].dtype == "float32"


def flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def test_parameters_have_the_names_and_shapes_of_the_docstring():
    _, params = make_model(pooling=("max", "attention"))
    documented = dict(re.findall(r"`([a-z_.]+)` `\[([A-Z, ]+)\]`", " ".join(Classifier.__doc__.split())))
    sizes = {"V": V, "E": E, "P": 2 * H, "C": C}
    expected = {name: tuple(sizes[axis] for axis in axes.split(", ")) for name, axes in documented.items()}
    shapes = {name: leaf.shape for name, leaf in flat(params).items() if not name.startswith(("stack.", "pooling."))}
    assert shapes == expected
    assert {name.split(".")[0] for name in flat(params)} == {"embedding", "stack", "pooling", "output"}
    assert "pooling" not in make_model(pooling=("max", "mean", "last"))[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "model.embedding_size"),
        ({"pooled_rate": 1.0}, "model.pooled_rate"),
        ({"pooling": ("sum",)}, "model.pooling"),
        ({"merge": "sum"}, "set model.bidirectional to True"),
        ({"merge": "sum", "bidirectional": True}, "model.pooling 'last'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        make_model(**options)
    assert "\n" not in str(caught.value)
