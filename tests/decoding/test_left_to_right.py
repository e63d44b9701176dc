"""Greedy decoding and sampling of whole sequences: against plain Python, and each sentence by itself."""

import jax
import numpy as np
import pytest
import toy_models
from toy_models import arguments, decode, make_toy, read

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.decoding import DECODERS, Greedy, Sample
from lstm_research.decoding.hypotheses import sentence_keys

LIMIT = {"max_length_ratio": 0.5, "max_length_offset": 2}


def test_greedy_takes_the_most_likely_symbol_up_to_the_limit():
    ended = 0
    for seed in range(5):
        toy = make_toy(seed, V=4)
        result = decode(Greedy(**LIMIT), toy)
        for b in range(3):
            symbols, limit = (), toy_models.limit_of(toy, b, Greedy(**LIMIT))
            while len(symbols) < limit:
                best = int(np.argmax(toy.log_probs[b, toy_models.code(symbols, 4)]))
                if best == toy.end:
                    ended += 1
                    break
                symbols += (best,)
            ((found, score),) = read(result, b)
            assert found == symbols
            assert (result.tokens[b, 0, len(symbols) :] == toy.end).all()
            np.testing.assert_allclose(score, toy_models.log_prob(toy, b, symbols), rtol=1e-5)
            rows = [toy.attention[b, toy_models.code(symbols[:j], 4)] for j in range(len(symbols) + 1)]
            np.testing.assert_array_equal(result.attention[b, 0, : len(rows)], rows)
            assert not result.attention[b, 0, len(rows) :].any()
    assert 0 < ended < 15


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}])
def test_a_sampler_without_freedom_is_greedy(options):
    toy = make_toy(3, V=5)
    jax.tree.map(np.testing.assert_array_equal, decode(Sample(**options, **LIMIT), toy), decode(Greedy(**LIMIT), toy))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 2}], ids=str)
def test_hypotheses_are_drawn_with_their_probabilities(options):
    toy = make_toy(0, limit=3, lengths=(2,), scale=1.0)
    decoder = Sample(num_best=20_000, **options, **LIMIT)
    result = decode(decoder, toy)
    counts = {}
    for symbols, _ in read(result, 0):
        counts[symbols] = counts.get(symbols, 0) + 1
    assert sum(counts.values()) == 20_000

    def probability(history, v):
        logits = toy.log_probs[0, toy_models.code(history, 3)].astype(float) / decoder.temperature
        kept = np.argsort(-logits)[: decoder.top_k]
        return np.exp(logits[v]) / np.exp(logits[kept]).sum() if v in kept else 0.0

    def expected(symbols):
        whole = symbols if len(symbols) == 3 else (*symbols, toy.end)  # at the limit there is nothing to draw
        return np.prod([probability(whole[:j], v) for j, v in enumerate(whole)])

    everything = toy_models.exhaustive_search(toy, 0, _Any(decoder))
    probabilities = {symbols: expected(symbols) for symbols, _ in everything}
    assert sum(probabilities.values()) == pytest.approx(1)
    assert all(probabilities[symbols] for symbols in counts)
    possible = [symbols for symbols, p in probabilities.items() if p]
    mean = np.array([20_000 * probabilities[symbols] for symbols in possible])
    seen = np.array([counts.get(symbols, 0) for symbols in possible])
    assert ((seen - mean) ** 2 / mean).sum() < 36.12  # the 0.999 quantile for 14 degrees of freedom


class _Any:
    """The options of a search that returns everything."""

    def __init__(self, limit):
        self.max_length_ratio, self.max_length_offset = limit.max_length_ratio, limit.max_length_offset
        self.length_penalty, self.alpha, self.coverage_penalty = "none", None, 0.0
        self.no_repeat_ngram, self.num_best = None, None


def test_scores_are_the_log_probabilities_of_the_model():
    toy = make_toy(1, V=4)
    result = decode(Sample(temperature=2.0, num_best=3, **LIMIT), toy)
    for b in range(3):
        for symbols, score in read(result, b):
            np.testing.assert_allclose(score, toy_models.log_prob(toy, b, symbols), rtol=1e-5)


def test_a_sentence_is_drawn_the_same_in_any_batch():
    toy = make_toy(2, V=6, lengths=(3, 1, 4, 4, 2), scale=0.5)
    search = Sample(num_best=4, **LIMIT).make(toy_models.step, toy.end)
    whole = search(*arguments(toy, seed=7))
    for some in ([4, 2, 0, 1, 3], [3], [1, 1]):
        jax.tree.map(lambda a, b, some=some: np.testing.assert_array_equal(a[np.array(some)], b), whole,
                     search(*arguments(toy, some, seed=7)))  # fmt: skip
    other = search(*arguments(toy, seed=8))
    assert (np.asarray(other.tokens) != np.asarray(whole.tokens)).any()
    fewer = decode(Sample(num_best=2, **LIMIT), toy, seed=7)
    np.testing.assert_array_equal(fewer.tokens, np.asarray(whole.tokens)[:, :2])


def test_equal_sentences_and_samples_are_drawn_by_themselves():
    toy = make_toy(0, V=6, lengths=(4,), scale=0.1, end_bias=-9.0)
    params, state, mask, _ = arguments(toy, [0] * 5)
    result = Sample(num_best=3, **LIMIT).make(toy_models.step, toy.end)(
        params, state, mask, sentence_keys(0, np.arange(5))
    )
    assert len({np.asarray(row).tobytes() for row in result.tokens.reshape(15, -1)}) > 12


def test_options_are_checked_by_name():
    for named, options in {"top_k": {"top_k": 0}, "num_best": {"num_best": 0}, "top_p": {"top_p": 2.0}}.items():
        with pytest.raises(UserError, match=named):
            build(DECODERS, {"name": "sample", **options}, where="task.decoder")
    with pytest.raises(UserError, match=r"task.decoder.beam_size of 'greedy'"):
        build(DECODERS, {"name": "greedy", "beam_size": 3}, where="task.decoder")
