"""Attention: equal to PyTorch's and to the papers' equations in NumPy; padding and empty sentences."""

import functools
import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.layers import functional
from lstm_research.models.layers.attention import (
    ATTENTIONS,
    AdditiveAttention,
    AttentionLayer,
    DotAttention,
    GeneralAttention,
    MultiHeadAttention,
    NoAttention,
    masked_softmax,
)

T, B, S, Q, M, A, N = 3, 4, 5, 4, 4, 8, 2
LENGTHS = jnp.array([5, 3, 0, 1])
KINDS = {
    "additive": AdditiveAttention(attention_size=A),
    "additive with coverage": AdditiveAttention(attention_size=A, coverage=True),
    "dot": DotAttention(),
    "general": GeneralAttention(),
    "multi_head": MultiHeadAttention(num_heads=N, attention_size=A),
    "additive heads": MultiHeadAttention(num_heads=N, attention_size=A, additive=True),
}
every_kind = pytest.mark.parametrize("attention", KINDS.values(), ids=KINDS.keys())


def draw(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def make(attention, query_size=Q, memory_size=M, dtype="float32"):
    """Returns `(params, queries, memory, lengths, coverage) -> (contexts, weights)`, and random parameters."""
    layer = AttentionLayer(attention, query_size, memory_size, param_dtype=dtype, rngs=nnx.Rngs(0))
    apply, params = functional(layer)
    params = jax.tree.map(lambda p: draw(p.size, *p.shape, dtype=dtype), params)

    @jax.jit
    def attend(params, queries, memory, lengths, coverage=None):
        return apply(params, queries, apply(params, memory, lengths, method="remember"), coverage)

    return attend, params


def inputs(attention, dtype="float32"):
    coverage = jnp.abs(draw(3, T, B, S, dtype=dtype)) if attention.coverage else None
    return draw(1, T, B, Q, dtype=dtype), draw(2, S, B, M, dtype=dtype), LENGTHS, coverage


def equations(attention, params, query, memory, coverage):
    """The context and the (mean) weights of one query over the valid positions [S, M] of one sentence, in NumPy."""
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()} if params else {}
    query, memory = np.asarray(query, np.float64), np.asarray(memory, np.float64)

    def softmax(scores):
        return np.exp(scores) / np.exp(scores).sum()

    if isinstance(attention, MultiHeadAttention):
        K, contexts, weights = A // N, [], []
        for head in range(N):
            at = slice(head * K, (head + 1) * K)
            q, k, v = query @ p["query_kernel"][:, at], memory @ p["memory_kernel"][:, at], memory @ p["value_kernel"]
            if attention.additive:
                scores = np.array([p["score_kernel"][at, 0] @ np.tanh(q + each) for each in k])
            else:
                scores = k @ q / np.sqrt(K)
            weights.append(softmax(scores))
            contexts.append(weights[-1] @ v[:, at])
        return np.concatenate(contexts) @ p["output_kernel"], np.mean(weights, axis=0)
    if isinstance(attention, AdditiveAttention):
        seen = coverage[:, None] * p["coverage_kernel"] if attention.coverage else 0
        hidden = np.tanh(query @ p["query_kernel"] + memory @ p["memory_kernel"] + p["bias"] + seen)
        weights = softmax(hidden @ p["score_kernel"][:, 0])
    elif isinstance(attention, GeneralAttention):
        weights = softmax(memory @ p["memory_kernel"] @ query)
    else:
        weights = softmax(memory @ query)
    return weights @ memory, weights


@every_kind
def test_the_equations_of_the_papers(attention):
    attend, params = make(attention)
    queries, memory, lengths, coverage = inputs(attention)
    contexts, weights = attend(params, queries, memory, lengths, coverage)
    for b, n in enumerate(LENGTHS.tolist()):
        for t in range(T):
            if n == 0:
                assert not contexts[t, b].any()
                assert not weights[t, b].any()
                continue
            seen = None if coverage is None else np.asarray(coverage[t, b, :n])
            expected = equations(attention, params, queries[t, b], memory[:n, b], seen)
            np.testing.assert_allclose(contexts[t, b], expected[0], atol=1e-5)
            np.testing.assert_allclose(weights[t, b, :n], expected[1], atol=1e-6)
            assert not weights[t, b, n:].any()


def test_multi_head_attention_is_that_of_pytorch():
    if not os.environ.get("CI"):  # in continuous integration a missing PyTorch is a failure, not a skip
        pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")
    torch = importlib.import_module("torch")
    memory_size = 7
    reference = torch.nn.MultiheadAttention(Q, N, bias=False, kdim=memory_size, vdim=memory_size)
    attend, _ = make(MultiHeadAttention(num_heads=N), memory_size=memory_size)
    params = {
        "query_kernel": reference.q_proj_weight,
        "memory_kernel": reference.k_proj_weight,
        "value_kernel": reference.v_proj_weight,
        "output_kernel": reference.out_proj.weight,
    }
    params = {"params": {name: jnp.asarray(weight.detach().numpy().T) for name, weight in params.items()}}
    queries, memory, lengths = draw(1, T, B, Q), draw(2, S, B, memory_size), jnp.array([5, 3, 2, 1])
    contexts, weights = attend(params, queries, memory, lengths)
    to_torch = [torch.from_numpy(np.array(each)) for each in (queries, memory)]
    padding = torch.arange(S)[None] >= torch.from_numpy(np.array(lengths))[:, None]
    expected = reference(to_torch[0], to_torch[1], to_torch[1], key_padding_mask=padding)
    np.testing.assert_allclose(contexts, expected[0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(jnp.swapaxes(weights, 0, 1), expected[1].detach().numpy(), atol=1e-6)


@every_kind
def test_padding_changes_nothing_not_even_a_gradient(attention):
    attend, params = make(attention)
    queries, memory, lengths, coverage = inputs(attention)
    padding = jnp.arange(S)[:, None, None] >= lengths[:, None]

    def loss(params, queries, memory):
        return jnp.square(attend(params, queries, memory, lengths, coverage)[0]).sum()

    for filling in (jnp.nan, 1e30, -3.0):
        other = jnp.where(padding, filling, memory)
        jax.tree.map(
            np.testing.assert_array_equal,
            attend(params, queries, memory, lengths, coverage),
            attend(params, queries, other, lengths, coverage),
        )
        gradients = [jax.grad(loss, argnums=(0, 1, 2))(params, queries, each) for each in (memory, other)]
        jax.tree.map(np.testing.assert_array_equal, *gradients)
        assert not gradients[1][2][jnp.broadcast_to(padding, memory.shape)].any()
    longer = jnp.concatenate([memory, jnp.ones((2, B, M))])
    seen = None if coverage is None else jnp.concatenate([coverage, jnp.ones((T, B, 2))], axis=-1)
    contexts, weights = attend(params, queries, longer, lengths, seen)
    expected = attend(params, queries, memory, lengths, coverage)
    np.testing.assert_allclose(contexts, expected[0], atol=1e-6)
    np.testing.assert_allclose(weights[..., :S], expected[1], atol=1e-6)


@every_kind
def test_neither_queries_nor_sentences_see_each_other(attention):
    attend, params = make(attention)
    queries, memory, lengths, coverage = inputs(attention)
    before = attend(params, queries, memory, lengths, coverage)
    after = attend(params, queries.at[1, 0].add(1), memory.at[:, 3].add(1), lengths, coverage)
    same = np.ones((T, B), bool)
    same[1, 0] = same[:, 3] = False
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.asarray(old)[same], np.asarray(new)[same])
    assert (before[0][1, 0] != after[0][1, 0]).any()
    assert (before[0][0, 3] != after[0][0, 3]).any()


@pytest.mark.usefixtures("x64")
@every_kind
def test_gradients_in_float64(attention):
    attend, params = make(attention, dtype="float64")
    queries, memory, lengths, coverage = inputs(attention, dtype="float64")

    def loss(params, queries, memory):
        contexts, weights = attend(params, queries, memory, lengths, coverage)
        return jnp.sum(jnp.sin(contexts)) + jnp.sum(weights**3)

    arguments = params, queries, memory
    assert loss(*arguments).dtype == "float64"
    gradient = jax.grad(loss, argnums=(0, 1, 2))(*arguments)
    direction = jax.tree.map(lambda leaf: draw(leaf.size + 1, *leaf.shape, dtype="float64"), arguments)
    step = 1e-5
    ahead, back = (jax.tree.map(lambda a, d, s=s: a + s * d, arguments, direction) for s in (step, -step))
    expected = (loss(*ahead) - loss(*back)) / (2 * step)
    found = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_weights_are_a_softmax_in_float32_at_least():
    scores = draw(0, 3, S).astype("bfloat16") * 20
    weights = masked_softmax(scores, jnp.ones((1, S), bool))
    assert weights.dtype == "float32"
    np.testing.assert_allclose(weights, jax.nn.softmax(scores.astype("float32")), rtol=1e-5)
    huge = masked_softmax(jnp.array([[3e38, -3e38, 3e38]]), jnp.ones((1, 3), bool))
    np.testing.assert_allclose(huge, [[0.5, 0, 0.5]])


def test_half_precision_has_contexts_in_float32():
    layer = functools.partial(AttentionLayer, AdditiveAttention(), Q, M, rngs=nnx.Rngs(0))
    (half, params), (full, _) = functional(layer(dtype="bfloat16")), functional(layer())
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(params))
    queries, memory, lengths, _ = inputs(AdditiveAttention())
    found, expected = (f(params, queries, f(params, memory, lengths, method="remember")) for f in (half, full))
    assert found[0].dtype == found[1].dtype == "float32"
    np.testing.assert_allclose(found[0], expected[0], atol=0.05)
    assert (found[0] != expected[0]).any()


def test_no_attention_has_an_empty_context():
    attend, params = make(NoAttention())
    contexts, weights = attend(params, *inputs(NoAttention())[:3])
    assert params == {"params": {}} or not jax.tree.leaves(params)
    assert contexts.shape == (T, B, 0)
    assert weights.shape == (T, B, S)
    assert not weights.any()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_layer_has_the_parameters_of_the_docstring(name):
    attention = ATTENTIONS[name]()
    layer = AttentionLayer(attention, Q, M, rngs=nnx.Rngs(0))
    params = functional(layer)[1].get("params", {})
    documented = type(attention).__doc__.partition("Parameters: ")[2].split("Attributes:")[0]
    assert all(f"`{param}`" in documented for param in params)
    assert all(param.endswith(("kernel", "bias")) for param in params)
    queries, memory, lengths, _ = inputs(attention)
    assert layer(queries, layer.remember(memory, lengths))[0].shape == (T, B, layer.context_size)


@pytest.mark.parametrize(
    ("make_layer", "named"),
    [
        (lambda: AttentionLayer(DotAttention(), Q, M + 1, rngs=nnx.Rngs(0)), 'model.merge="sum"'),
        (lambda: AttentionLayer(MultiHeadAttention(num_heads=3), Q, M, rngs=nnx.Rngs(0)), "num_heads = 3"),
        (lambda: MultiHeadAttention(num_heads=0), "num_heads"),
        (lambda: AdditiveAttention(attention_size=0), "attention_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make_layer, named):
    with pytest.raises(UserError, match=named) as caught:
        make_layer()
    assert "\n" not in str(caught.value)
