"""Embeddings: look-up, the inner products of tied weights, and dropout of whole words."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lstm_research.models.layers import Embedding, functional

V, E = 7, 4


def make(vocabulary_size=V, embedding_size=E):
    return functional(Embedding(vocabulary_size, embedding_size, rngs=nnx.Rngs(0)))


def test_looks_up_rows():
    apply, params = make()
    tokens = jnp.array([[0, 6], [3, 3], [1, 0]])
    np.testing.assert_array_equal(apply(params, tokens), np.asarray(params["table"])[tokens])


def test_gradient_counts_how_often_a_row_was_used():
    apply, params = make()
    gradient = jax.grad(lambda params: jnp.sum(apply(params, jnp.array([2, 5, 2]))))(params)["table"]
    np.testing.assert_array_equal(gradient[:, 0], [0, 0, 2, 0, 0, 1, 0])


def test_attend_gives_inner_products_in_the_dtype_of_the_inputs():
    apply, params = make()
    ys = jax.random.normal(jax.random.key(0), (3, 2, E))
    expected = np.einsum("tbe,ve->tbv", ys, params["table"])
    np.testing.assert_allclose(apply(params, ys, method="attend"), expected, atol=1e-6)
    assert apply(params, ys.astype("bfloat16"), method="attend").dtype == "bfloat16"


def test_initial_vectors_have_length_one_on_average():
    _, params = make(500, 64)
    squares = np.square(params["table"]).sum(axis=1)
    assert abs(squares.mean() - 1) < 0.05


def test_dropout_takes_whole_words_everywhere_in_a_batch_or_nowhere():
    apply, params = make()
    tokens = jax.random.randint(jax.random.key(1), (40, 6), 0, V)
    kept_words = set()
    for seed in range(20):
        xs = apply(params, tokens, rate=0.4, key=jax.random.key(seed))
        for word in range(V):
            vectors = np.asarray(xs[tokens == word])
            kept = bool(vectors[0].any())
            kept_words.add((word, kept))
            expected = np.asarray(params["table"])[word] / 0.6 if kept else np.zeros(E)
            np.testing.assert_allclose(vectors, np.broadcast_to(expected, vectors.shape), rtol=1e-6)
    assert len(kept_words) == 2 * V  # over twenty masks every word was dropped and was kept


def test_dropout_has_its_rate_and_leaves_the_expectation():
    apply, params = make(4000, 2)
    ratio = apply(params, jnp.arange(4000), rate=0.3, key=jax.random.key(0)) / params["table"]
    assert abs(float((ratio == 0).mean()) - 0.3) < 5 * (0.3 * 0.7 / 4000) ** 0.5
    assert abs(float(ratio.mean()) - 1) < 5 * (0.3 / 0.7 / 4000) ** 0.5


def test_without_a_key_or_a_rate_nothing_is_dropped():
    apply, params = make()
    tokens = jnp.arange(V)
    np.testing.assert_array_equal(apply(params, tokens, rate=0.9), params["table"])
    np.testing.assert_array_equal(apply(params, tokens, rate=0.0, key=jax.random.key(0)), params["table"])
