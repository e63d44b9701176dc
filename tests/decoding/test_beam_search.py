"""Beam search: exact where the beam is wide enough, and otherwise what its definition says, sentence by sentence."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_models
from toy_models import Toy, arguments, decode, exhaustive_search, make_toy, plain_beam_search, read

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.decoding import DECODERS, BeamSearch, Greedy
from lstm_research.decoding.hypotheses import ensemble

LIMIT = {"max_length_ratio": 0.5, "max_length_offset": 2}  # 3, 2 and 4 symbols for the sentences of `make_toy`
WIDE = 3 * 2**4  # as many as there are continuations of all unfinished hypotheses
PENALTIES = {
    "none": {},
    "wu": {"length_penalty": "wu"},
    "wu, strong": {"length_penalty": "wu", "alpha": 2.5},
    "average": {"length_penalty": "average"},
    "average, weak": {"length_penalty": "average", "alpha": 0.3},
    "coverage": {"coverage_penalty": 0.7},
    "all": {"length_penalty": "wu", "alpha": 1.2, "coverage_penalty": 0.3},
    "bigrams": {"no_repeat_ngram": 2},
    "symbols": {"no_repeat_ngram": 1, "length_penalty": "average"},
}
penalties = pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)


def assert_found(result, b, expected):
    found = read(result, b)
    assert [symbols for symbols, _ in found] == [symbols for symbols, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=2e-5)


@penalties
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_what_exhaustive_search_finds(options, seed):
    toy = make_toy(seed, end_bias=-1.0)
    decoder = BeamSearch(beam_size=WIDE, num_best=6, **options, **LIMIT)
    result = decode(decoder, toy)
    for b in range(3):
        expected = exhaustive_search(toy, b, decoder)
        assert_found(result, b, expected)
        for m, (symbols, _) in enumerate(expected):
            np.testing.assert_allclose(result.log_probs[b, m], toy_models.log_prob(toy, b, symbols), rtol=2e-5)


@pytest.mark.one_in(3)
@penalties
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_a_narrow_beam_is_the_plain_search_that_runs_to_the_limit(options, beam_size):
    searched = 0
    for seed in range(4):
        toy = make_toy(seed, V=5, lengths=(3, 1, 4), scale=1.5)
        decoder = BeamSearch(beam_size=beam_size, num_best=min(beam_size, 3), **options, **LIMIT)
        result = decode(decoder, toy)
        for b in range(3):
            expected = plain_beam_search(toy, b, decoder)
            assert_found(result, b, expected)
            searched += expected[0] == exhaustive_search(toy, b, decoder)[0]
    assert beam_size > 1 or searched < 12, "no case in which the beam is too narrow"


def test_the_limit_of_a_sentence_is_its_own():
    toy = make_toy(0, end_bias=-50.0)
    result = decode(BeamSearch(beam_size=2, length_penalty="average", **LIMIT), toy)
    np.testing.assert_array_equal(result.lengths[:, 0], [4, 3, 5])  # limit and end
    assert result.tokens.shape == (3, 1, 5)
    for b, (symbols, _) in enumerate(read(result, b)[0] for b in range(3)):
        np.testing.assert_allclose(result.log_probs[b, 0], toy_models.log_prob(toy, b, symbols), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram": 2}], ids=["plain", "bigrams"])
def test_limits_are_exact_for_every_length(options):
    ratio = 1.1  # 1.1 * 10 is 11.000000000000002, and 11 in float32
    toy = make_toy(0, V=2, limit=13, lengths=range(11), end_bias=-50.0)
    result = decode(BeamSearch(beam_size=1, max_length_ratio=ratio, max_length_offset=1, **options), toy)
    expected = [int(ratio * n) + 2 for n in range(11)]
    if options:  # of one symbol there is one bigram
        expected = [min(n, 3) for n in expected]
    np.testing.assert_array_equal(result.lengths[:, 0], expected)


def test_a_beam_of_one_is_greedy_search():
    for seed in range(10):
        toy = make_toy(seed, V=6, limit=4)
        beam, greedy = decode(BeamSearch(beam_size=1, **LIMIT), toy), decode(Greedy(**LIMIT), toy)
        jax.tree.map(np.testing.assert_array_equal, beam, greedy)


def chain(*rows):
    """A model whose predictions depend on the length alone: row j after j symbols, the last one from then on."""
    V, limit = len(rows[0]), 5
    table = np.zeros((1, V ** (limit + 1), V), np.float32)
    for n in range(limit + 1):
        for history in itertools.product(range(V - 1), repeat=n):
            table[0, toy_models.code(history, V)] = np.log(rows[min(n, len(rows) - 1)])
    return Toy(table, np.ones((1, V ** (limit + 1), 1), np.float32), np.ones((1, 1), bool))


def test_an_early_finished_hypothesis_that_wins_in_the_end_is_not_lost():
    # To end at once has probability 0.3; everything longer has 0.7 * 0.4 at most, and fills the beam at first.
    toy = chain([0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9])
    result = decode(BeamSearch(beam_size=3, num_best=3, **LIMIT), toy)
    assert read(result, 0)[0][0] == ()
    # Finished first, and then better ones are finished; still there as the last of three.
    result = decode(BeamSearch(beam_size=3, num_best=3, length_penalty="average", alpha=0.4, **LIMIT), toy)
    assert [len(symbols) for symbols, _ in read(result, 0)] == [2, 0, 2]


def test_an_early_finished_hypothesis_loses_to_a_later_one():
    toy = chain([0.4, 0.2, 0.4], [0.95, 0.04, 0.01], [0.01, 0.01, 0.98])
    for options in ({"length_penalty": "wu"}, {"length_penalty": "average"}):
        decoder = BeamSearch(beam_size=3, **options, **LIMIT)
        assert read(decode(decoder, toy), 0)[0][0] == (0, 0)
    assert read(decode(BeamSearch(beam_size=3, **LIMIT), toy), 0)[0][0] == ()


def test_a_continuation_by_the_end_symbol_counts_among_the_first_of_the_beam_only():
    # To end at once has the best score of all, but it is the third of the first continuations.
    toy = chain([0.4, 0.35, 0.25], [0.5, 0.49, 0.01], [0.1, 0.1, 0.8])
    assert read(decode(BeamSearch(beam_size=2, **LIMIT), toy), 0)[0][0] != ()
    assert read(decode(BeamSearch(beam_size=3, **LIMIT), toy), 0)[0][0] == ()


@pytest.mark.parametrize("probability", [0.5, 0.4])
@pytest.mark.parametrize(("options", "expected"), [({}, 1), ({"length_penalty": "average", "alpha": 1.0}, 4)])
def test_the_search_ends_as_soon_as_nothing_better_can_come(options, expected, probability):
    """Counts the steps. To end at once has probability 0.5, or the 0.4 of another symbol, and nothing has more."""
    counted = []

    def step(params, state, tokens):
        jax.debug.callback(lambda t: counted.append(int(t)), state["t"][0])
        toy_state = {name: state[name] for name in ("sentence", "history")}
        toy_state, *rest = toy_models.step(params, toy_state, tokens)
        return ({**toy_state, "t": state["t"] + 1}, *rest)

    toy = chain([0.4, 0.6 - probability, probability], [0.6, 0.3, 0.1])
    params, state, mask, keys = arguments(toy)
    decoder = BeamSearch(beam_size=3, max_length_ratio=0.0, max_length_offset=3, **options)
    jax.block_until_ready(decoder.make(step, toy.end)(params, {**state, "t": jnp.zeros(1, jnp.int32)}, mask, keys))
    jax.effects_barrier()
    assert len(counted) == expected


@pytest.mark.parametrize("options", [PENALTIES[name] for name in ("none", "all", "bigrams")])
def test_neither_order_nor_company_in_the_batch_counts(options):
    toy = make_toy(1, V=4, limit=6, lengths=(3, 1, 4, 4, 2, 0))
    decoder = BeamSearch(beam_size=4, num_best=3, **options, max_length_ratio=0.5, max_length_offset=4)
    search = decoder.make(toy_models.step, toy.end)
    whole = search(*arguments(toy))
    for some in ([5, 2, 0, 4, 1, 3], [2], [0], [5], [1, 1, 3]):
        jax.tree.map(lambda a, b, some=some: np.testing.assert_array_equal(a[np.array(some)], b), whole,
                     search(*arguments(toy, some)))  # fmt: skip


def test_padding_of_the_source_changes_nothing():
    toy = make_toy(2, lengths=(3, 1, 2))
    nan = np.full((3, toy.attention.shape[1], 2), np.nan, np.float32)
    wider = Toy(toy.log_probs, np.concatenate([toy.attention, nan], 2), np.pad(toy.mask, ((0, 0), (0, 2))))
    decoder = BeamSearch(beam_size=3, num_best=2, coverage_penalty=0.4, length_penalty="wu", **LIMIT)
    short, long = decode(decoder, toy), decode(decoder, wider)
    T, S = short.tokens.shape[2], toy.mask.shape[1]
    np.testing.assert_array_equal(long.tokens[:, :, :T], short.tokens)
    np.testing.assert_array_equal(long.scores, short.scores)
    np.testing.assert_array_equal(long.attention[:, :, :T, :S], short.attention)
    assert not long.attention[:, :, T:].any()
    assert not long.attention[..., S:].any()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_blocked_ngrams_against_brute_force(n):
    for seed in range(3):
        toy = make_toy(seed, V=3, limit=7, lengths=(3, 1, 4), end_bias=-3.0)
        options = {"length_penalty": "average", "max_length_ratio": 0.5, "max_length_offset": 5}
        blocked = BeamSearch(beam_size=4, num_best=4, no_repeat_ngram=n, **options)
        result = decode(blocked, toy)
        for b in range(3):
            assert not any(toy_models.repeats(symbols, n) for symbols, _ in read(result, b))
            assert_found(result, b, plain_beam_search(toy, b, blocked))
    free = decode(BeamSearch(beam_size=4, num_best=4, **options), toy)
    assert n > 3 or any(toy_models.repeats(symbols, n) for b in range(3) for symbols, _ in read(free, b))


def test_hypotheses_are_distinct_and_sorted_and_their_number_changes_none_of_them():
    toy = make_toy(3, V=5)
    options = {"beam_size": 6, "length_penalty": "wu", **LIMIT}
    all_six = decode(BeamSearch(num_best=6, **options), toy)
    for b in range(3):
        assert (np.diff(all_six.scores[b]) <= 0).all()
        assert len({symbols for symbols, _ in read(all_six, b)}) == 6
    for num_best in (1, 2, 4):
        fewer = decode(BeamSearch(num_best=num_best, **options), toy)
        jax.tree.map(lambda a, b, n=num_best: np.testing.assert_array_equal(a, b[:, :n]), fewer, all_six)


def test_fewer_hypotheses_than_asked_for():
    toy = make_toy(0, V=3, lengths=(1,))
    decoder = BeamSearch(beam_size=8, num_best=8, max_length_ratio=1.0, max_length_offset=0)
    result = decode(decoder, toy)
    assert len(read(result, 0)) == 3  # nothing, 0, 1
    np.testing.assert_array_equal(result.lengths[0, 3:], 0)
    np.testing.assert_array_equal(result.scores[0, 3:], -np.inf)
    np.testing.assert_array_equal(result.tokens[0, 3:], toy.end)
    assert_found(result, 0, exhaustive_search(toy, 0, decoder))


def test_equal_scores_are_ordered_by_time_and_symbol():
    toy = chain([0.25] * 4)
    result = decode(BeamSearch(beam_size=4, num_best=4, max_length_ratio=0.0, max_length_offset=1), toy)
    assert [symbols for symbols, _ in read(result, 0)] == [(), (0,), (1,), (2,)]


def test_attention_is_that_of_the_hypothesis():
    toy = make_toy(4, V=4, end_bias=-1.0)
    decoder = BeamSearch(beam_size=5, num_best=4, length_penalty="average", **LIMIT)
    result = decode(decoder, toy)
    for b in range(3):
        for m, (symbols, _) in enumerate(read(result, b)):
            rows = [toy.attention[b, toy_models.code(symbols[:j], 4)] for j in range(len(symbols) + 1)]
            np.testing.assert_array_equal(result.attention[b, m, : len(rows)], rows)
            assert not result.attention[b, m, len(rows) :].any()
    assert decode(decoder, toy, step=toy_models.step_without_attention).attention is None


def test_positions_without_attention_cost_a_finite_penalty():
    toy = make_toy(0)
    nothing = toy._replace(attention=np.zeros_like(toy.attention))
    decoder = BeamSearch(coverage_penalty=0.5, **LIMIT)
    result = decode(decoder, nothing)
    for b in range(3):
        assert_found(result, b, plain_beam_search(nothing, b, decoder))
        np.testing.assert_allclose(
            result.scores[b, 0] - result.log_probs[b, 0], 0.5 * toy.mask[b].sum() * np.log(1e-30), rtol=1e-5
        )


def test_coverage_needs_attention():
    search = BeamSearch(coverage_penalty=0.1).make(toy_models.step_without_attention, 2)
    with pytest.raises(UserError, match="coverage_penalty"):
        search(*arguments(make_toy(0)))


def test_an_ensemble_is_the_mean_of_probabilities():
    first, second, third = (make_toy(seed, V=4) for seed in (5, 6, 7))
    mean = Toy(
        np.log(sum(np.exp(toy.log_probs.astype(float)) for toy in (first, second, third)) / 3).astype(np.float32),
        (first.attention + third.attention) / 2,
        first.mask,
    )
    decoder = BeamSearch(beam_size=4, num_best=4, length_penalty="wu", coverage_penalty=0.2, **LIMIT)
    params, states = zip(*(arguments(toy)[:2] for toy in (first, second, third)), strict=True)
    together = ensemble([toy_models.step, toy_models.step_without_attention, toy_models.step])
    result = decoder.make(together, first.end)(params, states, *arguments(first)[2:])
    expected = decode(decoder, mean)
    np.testing.assert_array_equal(result.tokens, expected.tokens)
    for name in ("scores", "log_probs", "attention"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-4, atol=1e-6)
    assert any(read(expected, b)[0] != read(decode(decoder, first), b)[0] for b in range(3))
    with pytest.raises(ValueError, match="at least one"):
        ensemble([])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_scores_are_added_in_float32_at_least(dtype, x64):
    toy = make_toy(0, V=4, dtype=np.float64)
    params, *rest = arguments(toy)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    decoder = BeamSearch(beam_size=4, num_best=2, coverage_penalty=0.2, **LIMIT)
    result = decoder.make(toy_models.step, toy.end)(params, *rest)
    expected = "float64" if dtype == "float64" else "float32"
    assert result.scores.dtype == result.log_probs.dtype == expected
    assert result.tokens.dtype == np.int32
    rounded = Toy(np.asarray(params[0].astype("float64")), np.asarray(params[1].astype("float64")), toy.mask)
    for b in range(3):
        exact = plain_beam_search(rounded, b, decoder)
        np.testing.assert_allclose([s for _, s in read(result, b)], [s for _, s in exact],
                                   rtol=1e-12 if dtype == "float64" else 1e-5)  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
def test_one_compilation_for_each_shape(name):
    traces = []

    def step(params, state, tokens):
        traces.append(tokens.shape)
        return toy_models.step(params, state, tokens)

    toy = make_toy(0, lengths=(3, 1, 4, 2))
    search = DECODERS[name](**LIMIT).make(step, toy.end)
    search(*arguments(toy, [0, 1, 2]))
    first = len(traces)
    for seed, sentences in enumerate(([2, 1, 0], [3, 3, 3], [1, 2, 3])):
        search(*arguments(make_toy(seed, lengths=(3, 1, 4, 2)), sentences, seed))
    assert search._cache_size() == 1
    assert len(traces) == first
    search(*arguments(toy, [0]))
    assert search._cache_size() == 2


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(name, platform):
    toy = make_toy(0)
    options = {} if name != "beam" else {"coverage_penalty": 0.1, "length_penalty": "wu", "no_repeat_ngram": 2}
    search = DECODERS[name](**options, **LIMIT).make(toy_models.step, toy.end)
    jax.export.export(search, platforms=[platform])(*arguments(toy))


def test_what_the_step_hands_on_is_not_reordered():
    """A gather of the encoder's outputs at every step would cost more than a small step."""
    toy = make_toy(0)
    params, state, mask, keys = arguments(toy)
    state = {**state, "memory": jnp.zeros((3, 1234))}

    def step(params, state, tokens):
        rest = {name: state[name] for name in ("sentence", "history")}
        rest, *predicted = toy_models.step(params, rest, tokens)
        return ({**rest, "memory": state["memory"]}, *predicted)

    text = BeamSearch(**LIMIT).make(step, toy.end).lower(params, state, mask, keys).as_text()
    assert not [line for line in text.splitlines() if "gather" in line and "1234" in line]
    assert "1234" in text


def test_not_all_continuations_are_sorted():
    """XLA's partial sort, without which a step over a large vocabulary takes a hundred times as long on a CPU."""
    toy = make_toy(0, V=50, limit=1, lengths=(3,))
    text = BeamSearch(beam_size=4).make(toy_models.step, toy.end).lower(*arguments(toy)).compile().as_text()
    assert "TopK" in text
    assert not [line for line in text.splitlines() if " sort(" in line and f"[1,{4 * 50}]" in line]


WRONG = {
    "beam_size": {"beam_size": 0},
    "num_best": {"beam_size": 3, "num_best": 4},
    "alpha must": {"length_penalty": "wu", "alpha": -0.1},
    "alpha changes nothing": {"alpha": 0.5},
    "coverage_penalty": {"coverage_penalty": -1.0},
    "no_repeat_ngram": {"no_repeat_ngram": 0},
    "max_length_ratio": {"max_length_ratio": -1.0},
    "max_length_offset": {"max_length_offset": -1},
    "length_penalty": {"length_penalty": "Wu"},
    "beamsize": {"beamsize": 3},
}


@pytest.mark.parametrize("named", WRONG)
def test_wrong_options_are_refused_by_name(named, unchecked_shapes):
    with pytest.raises(UserError, match=named):
        build(DECODERS, {"name": "beam", **WRONG[named]}, where="task.decoder")


def test_every_option_changes_the_result():
    toy = make_toy(1, V=5, limit=5, lengths=(3, 2, 4), scale=1.0, end_bias=-2.0)
    base = BeamSearch(beam_size=2, num_best=1, length_penalty="wu", alpha=1.0, **LIMIT)
    other = {
        "beam_size": 4,
        "num_best": 2,
        "length_penalty": "average",
        "alpha": 3.0,
        "coverage_penalty": 1.0,
        "no_repeat_ngram": 1,
        "max_length_ratio": 1.0,
        "max_length_offset": 1,
    }
    assert set(other) == {field.name for field in dataclasses.fields(base)}
    seen = functools.partial(decode, toy=toy)
    before = seen(base)
    for name, value in other.items():
        after = seen(dataclasses.replace(base, **{name: value}))
        same = after.scores.shape == before.scores.shape and (after.scores == before.scores).all()
        assert not same, name
