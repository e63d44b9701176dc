"""Sampling: which symbols can be drawn, how often they are, and that a text depends only on what it should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.decoding.sampling import Sampler, generate
from lstm_research.models.cells import LSTM
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import functional

KEY = jax.random.key(0)
RANDOM_LOGITS = jnp.asarray(2 * np.random.default_rng(0).normal(size=(20, 9)), "float32")
V, H = 9, 8


def allowed(sampler, logits):
    logits = jnp.asarray(logits, "float32")
    restricted = np.asarray(sampler.restrict(logits))
    kept = np.isfinite(restricted)
    np.testing.assert_array_equal(restricted[kept], np.asarray(logits)[kept])
    return kept


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def draws(sampler, logits, n, seed=0):
    rows = jnp.broadcast_to(jnp.asarray(logits, "float32"), (n, len(logits)))
    return np.asarray(jax.jit(sampler)(jax.random.key(seed), rows))


@pytest.mark.parametrize(
    "sampler", [Sampler(0.0), Sampler(1.0, top_k=1), Sampler(1.0, top_p=1e-6), Sampler(1e-30), Sampler(1e-39, top_k=2)]
)
def test_no_freedom_gives_the_most_likely_symbol(sampler):
    logits = 100 * RANDOM_LOGITS
    tokens = sampler(KEY, logits)
    np.testing.assert_array_equal(tokens, jnp.argmax(logits, axis=-1))
    assert jnp.issubdtype(tokens.dtype, jnp.integer)


@pytest.mark.parametrize("k", [1, 3, 9, 50])
def test_top_k_leaves_exactly_the_k_most_likely(k):
    kept = allowed(Sampler(top_k=k), RANDOM_LOGITS)
    assert (kept.sum(axis=-1) == min(k, V)).all()
    ranks = np.argsort(np.argsort(-np.asarray(RANDOM_LOGITS), axis=-1), axis=-1)
    np.testing.assert_array_equal(kept, ranks < k)


def test_top_k_draws_all_k_and_only_those():
    logits = [0.0, 1.0, 0.5, -2.0, 0.8]
    assert set(draws(Sampler(top_k=3), logits, 500)) == {1, 2, 4}


def test_ties_are_cut_to_exactly_k_lower_numbers_first():
    np.testing.assert_array_equal(allowed(Sampler(top_k=2), [1.0, 3.0, 1.0, 1.0]), [True, True, False, False])


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_top_p_leaves_the_smallest_set_that_reaches_p(p):
    kept = allowed(Sampler(top_p=p), RANDOM_LOGITS)
    for row, probabilities in zip(kept, softmax(RANDOM_LOGITS), strict=True):
        inside = probabilities[row]
        assert inside.sum() >= p - 1e-6
        assert inside.sum() - inside.min() < p + 1e-6, "the least likely symbol of the set was not needed"
        assert row.all() or inside.min() >= probabilities[~row].max()


def test_top_p_with_ties_takes_no_more_symbols_than_needed():
    np.testing.assert_array_equal(allowed(Sampler(top_p=0.5), np.zeros(4)), [True, True, False, False])
    np.testing.assert_array_equal(allowed(Sampler(top_p=0.6), np.zeros(4)), [True, True, True, False])


def test_top_p_of_one_leaves_everything_even_what_rounds_to_nothing():
    logits = np.array([50.0, 0.0, -50.0])
    assert allowed(Sampler(top_p=1.0), logits).all()


def test_a_nucleus_of_one_symbol():
    np.testing.assert_array_equal(allowed(Sampler(top_p=0.9), [0.0, 9.0, 0.0]), [False, True, False])


def test_the_nucleus_is_taken_at_the_temperature():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    assert set(draws(Sampler(1.0, top_p=0.75), logits, 500)) == {0, 1}
    assert set(draws(Sampler(0.3, top_p=0.75), logits, 500)) == {0}  # p becomes 0.81, 0.15, 0.04
    assert set(draws(Sampler(5.0, top_p=0.75), logits, 500)) == {0, 1, 2}


def test_top_k_comes_before_top_p():
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    # Of the two that top_k leaves, the first has 4/7 of the probability.
    np.testing.assert_array_equal(allowed(Sampler(top_k=2, top_p=0.55), logits), [True, False, False, False])
    np.testing.assert_array_equal(allowed(Sampler(top_k=2, top_p=0.60), logits), [True, True, False, False])


@pytest.mark.parametrize(
    ("sampler", "temperature"),
    [(Sampler(), 1.0), (Sampler(0.7), 0.7), (Sampler(2.0, top_k=4), 2.0), (Sampler(1.0, top_p=0.95), 1.0)],
)
def test_symbols_are_drawn_with_their_probabilities(sampler, temperature):
    n = 20_000
    logits = np.array([1.0, -0.5, 0.3, 2.0, -3.0])
    kept = allowed(sampler, logits / temperature)
    probabilities = softmax(np.where(kept, logits / temperature, -np.inf))
    counts = np.bincount(draws(sampler, logits, n), minlength=5)
    assert not counts[~kept].any()
    chi_square = ((counts - n * probabilities)[kept] ** 2 / (n * probabilities[kept])).sum()
    assert chi_square < 18.47  # the 0.999 quantile for 4 degrees of freedom


def test_rows_and_leading_axes_are_drawn_by_themselves():
    tokens = draws(Sampler(), np.zeros(4), 1000).reshape(2, 500)
    assert (tokens[0] != tokens[1]).any()
    assert Sampler()(KEY, jnp.zeros((2, 3, 4))).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ],
)
def test_wrong_values_are_refused_by_name(options, named):
    with pytest.raises(UserError, match=named):
        Sampler(**options)


@functools.cache
def make_model():
    """A model with weights so large that its text is varied."""
    model = LanguageModel(V, cell=LSTM(H), embedding_size=4, rngs=nnx.Rngs(0))
    apply, params = functional(model)
    params = jax.tree.map(
        lambda p: 3 * jax.random.normal(jax.random.key(p.size), p.shape) if p.ndim > 1 else jnp.zeros_like(p), params
    )

    @jax.jit
    def predict(params, carry, tokens):
        return apply(params, tokens, carry)

    return predict, params, model.initial_carry


def write(prompt, length, sampler=Sampler(), key=KEY, **options):  # noqa: B008
    predict, params, initial_carry = make_model()
    prompt = np.asarray(prompt, np.int32)
    carry = initial_carry(len(prompt))
    return list(generate(predict, params, carry, prompt, sampler=sampler, key=key, length=length, **options))


def text(*args, **options):
    return np.concatenate(write(*args, **options), axis=1)


@pytest.mark.parametrize("prompt", [[[1]], [[1, 2, 3], [7, 7, 0]]], ids=["one symbol", "two rows"])
def test_greedy_text_is_what_the_model_predicts_from_prompt_and_text(prompt):
    predict, params, _ = make_model()
    written = text(prompt, 20, Sampler(0.0))
    whole = np.concatenate([prompt, written], axis=1)
    logits = predict(params, None, jnp.asarray(whole.T))[1]
    predictions = np.asarray(jnp.argmax(logits, axis=-1)).T
    np.testing.assert_array_equal(predictions[:, len(prompt[0]) - 1 : -1], written)
    assert len(np.unique(written)) > 2


def test_the_carry_before_the_prompt_counts():
    predict, params, _ = make_model()
    carry, _ = predict(params, None, jnp.array([[5], [6], [2]]))
    continued = generate(predict, params, carry, np.array([[1, 2]], np.int32), sampler=Sampler(0.0), key=KEY, length=20)
    np.testing.assert_array_equal(np.concatenate(list(continued), axis=1), text([[5, 6, 2, 1, 2]], 20, Sampler(0.0)))


@pytest.mark.parametrize("chunk_length", [1, 3, 11, 12])
def test_text_does_not_depend_on_the_chunk_length(chunk_length):
    pieces = write([[1, 2], [3, 4]], 11, chunk_length=chunk_length)
    full, rest = divmod(11, chunk_length)
    assert [piece.shape for piece in pieces] == [(2, chunk_length)] * full + [(2, rest)] * bool(rest)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), text([[1, 2], [3, 4]], 11))


def test_a_shorter_text_is_the_beginning_of_a_longer_one():
    np.testing.assert_array_equal(text([[1, 2]], 5), text([[1, 2]], 20)[:, :5])


def test_same_key_same_text_other_key_other_text():
    sampler = Sampler(2.0)
    np.testing.assert_array_equal(text([[1, 2]], 20, sampler), text([[1, 2]], 20, sampler))
    assert (text([[1, 2]], 20, sampler) != text([[1, 2]], 20, sampler, jax.random.key(1))).any()


def test_rows_with_one_prompt_are_different_texts():
    rows = text([[1, 2]] * 4, 20, Sampler(2.0))
    assert len({row.tobytes() for row in rows}) == 4


def test_nothing_is_written_for_length_zero():
    assert write([[1, 2]], 0) == []
