"""The model from numbers to numbers: equal to PyTorch's, nothing from padding, whatever the cell."""

import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, LSTM
from lstm_research.models.interop import from_pytorch
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.sequence_model import SequenceModel

D, O, E, H, T, B = 3, 2, 5, 6, 7, 4  # noqa: E741
LENGTHS = np.array([T, 2, 0, 5])
XS = np.random.default_rng(0).normal(size=(T, B, D)).astype("float32")


def make_model(cell=LSTM(H), **options):  # noqa: B008  (a frozen dataclass)
    apply, params = functional(SequenceModel(D, O, cell=cell, rngs=nnx.Rngs(0), **options))
    return jax.jit(apply), params


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "embedding_size": E}], ids=["forward", "both"])
def test_padding_and_the_order_of_the_batch_change_nothing(name, options):
    apply, params = make_model(CELLS[name](hidden_size=H), **options)
    outputs = apply(params, XS, LENGTHS)
    there = np.arange(T)[:, None] < LENGTHS
    longer = np.concatenate([np.where(there[..., None], XS, np.nan), np.full((3, B, D), 9.0, "float32")])
    order = np.array([2, 0, 3, 1])
    again = apply(params, longer[:, order], LENGTHS[order])
    np.testing.assert_allclose(again[:T][there[:, order]], outputs[:, order][there[:, order]], atol=2e-6)
    assert np.isfinite(again).all()
    assert np.abs(np.diff(outputs[:5, 3], axis=0)).min() > 1e-5  # every step has an answer of its own


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("embedding_size", [None, E])
def test_equals_a_model_of_pytorch(torch, bidirectional, embedding_size):
    torch.manual_seed(0)
    embedding = torch.nn.Identity() if embedding_size is None else torch.nn.Linear(D, E)
    rnn = torch.nn.LSTM(embedding_size or D, H, num_layers=2, bidirectional=bidirectional)
    output = torch.nn.Linear(H * (2 if bidirectional else 1), O)
    with torch.no_grad():
        expected = output(rnn(embedding(torch.tensor(XS)))[0]).numpy()
    cell, stack = from_pytorch(rnn.state_dict())
    apply, drawn = make_model(cell, num_layers=2, bidirectional=bidirectional, embedding_size=embedding_size)

    def linear(layer):
        return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}

    params = {"stack": stack, "output": linear(output)}
    if embedding_size is not None:
        params["embedding"] = linear(embedding)
    assert jax.tree.structure(params) == jax.tree.structure(drawn)
    np.testing.assert_allclose(apply(params, XS), expected, atol=2e-6)


def test_number_formats():
    apply, params = make_model(dtype="bfloat16", param_dtype="bfloat16", embedding_size=E)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    outputs = apply(params, XS, LENGTHS)
    assert outputs.dtype == jnp.float32
    exact = make_model(embedding_size=E)[0](jax.tree.map(lambda p: p.astype("float32"), params), XS, LENGTHS)
    np.testing.assert_allclose(outputs, exact, atol=0.03)


def test_noise_is_that_of_the_key():
    apply, params = make_model(dropout=DropoutRates(input_rate=0.5), embedding_size=E)
    keys = jax.random.split(jax.random.key(0), 2)
    one, same, other = (np.asarray(apply(params, XS, LENGTHS, key=key)) for key in (keys[0], keys[0], keys[1]))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - apply(params, XS, LENGTHS)).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_size": 0}, "model.embedding_size must be at least 1, or None"),
        ({"merge": "sum"}, "model.merge joins two directions"),
        ({"dropout": DropoutRates(embedding_rate=0.1)}, "model.dropout.embedding_rate drops words"),
    ],
)
def test_wrong_options_get_one_line(options, message):
    with pytest.raises(UserError) as error:
        make_model(**options)
    assert message in str(error.value)
