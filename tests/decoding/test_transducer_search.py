"""Decoding of the transducer against brute force over all alignments with so many symbols at a frame; streams."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_speech import ToyFusion

from lstm_research.common.errors import UserError
from lstm_research.decoding.transducer import (
    TRANSDUCER_DECODERS,
    TransducerBeamSearch,
    TransducerGreedy,
    begin,
    read_symbols,
    write_greedily,
)

V, J, T, M, BLANK = 3, 4, 4, 2, 1
HISTORIES = V ** (T * M + 2)


def predict(params, symbols, state):
    """The prediction network as a table over histories, of which the state is the number."""
    history = jnp.zeros_like(symbols) if state is None else state * V + symbols + 1
    return history, params["table"][history % HISTORIES]


def join(params, encoded, predicted):
    return jax.nn.log_softmax(jnp.tanh(encoded + predicted) @ params["kernel"])


def make_params(seed, bias=0.0):
    rng = np.random.default_rng(seed)
    kernel = 2 * rng.normal(size=(J, V)).astype("f4")
    kernel[:, BLANK] += bias
    return {"table": jnp.asarray(rng.normal(size=(HISTORIES, J)), "f4"), "kernel": jnp.asarray(kernel)}


def frames(seed, B=1):
    return jnp.asarray(np.random.default_rng(100 + seed).normal(size=(T, B, J)), "f4")


def all_alignments(params, encoded, max_symbols):
    """Every labelling with the log-probabilities of its alignments, and when each of these writes its symbols."""
    table, kernel = np.asarray(params["table"], float), np.asarray(params["kernel"], float)

    @functools.cache
    def log_probs(t, history):
        number = 0
        for symbol in history:
            number = number * V + symbol + 1
        logits = np.tanh(encoded[t] + table[number]) @ kernel
        return logits - np.log(np.exp(logits).sum())

    symbols = [v for v in range(V) if v != BLANK]
    at_a_frame = [each for n in range(max_symbols + 1) for each in itertools.product(symbols, repeat=n)]
    result = {}
    for written in itertools.product(at_a_frame, repeat=len(encoded)):
        history, total, times = (), 0.0, []
        for t, some in enumerate(written):
            for symbol in some:
                total += log_probs(t, history)[symbol]
                history = (*history, symbol)
                times.append(t)
            total += log_probs(t, history)[BLANK]
        result.setdefault(history, []).append((total, tuple(times)))
    return result


@functools.cache
def make(decoder):
    return decoder.make(predict, join, blank_id=BLANK)


@pytest.mark.parametrize("fused", [False, True], ids=["alone", "fused"])
@pytest.mark.parametrize("max_symbols", [1, 2])
def test_a_wide_beam_equals_brute_force(fused, max_symbols):
    search = make(TransducerBeamSearch(beam_size=512, num_best=512, max_symbols=max_symbols))
    fusion = ToyFusion(V) if fused else None
    for seed in range(2):
        params, encoded = make_params(seed), frames(seed)[:3]
        (found,) = search(params, encoded, np.array([3]), fusion)
        paths = all_alignments(params, np.asarray(encoded[:, 0], float), max_symbols)
        scores = {
            y: np.logaddexp.reduce([total for total, _ in each]) + (fusion.total(y) if fused else 0)
            for y, each in paths.items()
        }
        assert {each.symbols for each in found} == set(scores)
        np.testing.assert_allclose([each.score for each in found], [scores[each.symbols] for each in found], atol=2e-5)
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        assert [each.frames for each in found] == [max(paths[each.symbols])[1] for each in found]


def test_a_narrow_beam_finds_no_more_than_there_is():
    for seed in range(4):
        params, encoded = make_params(seed, bias=0.3), frames(seed)
        paths = all_alignments(params, np.asarray(encoded[:, 0], float), M)
        sums = {y: np.logaddexp.reduce([total for total, _ in each]) for y, each in paths.items()}
        (best,) = make(TransducerBeamSearch(beam_size=4, max_symbols=M))(params, encoded, np.array([T]))[0]
        (greedy,) = make(TransducerGreedy(max_symbols=M))(params, encoded, np.array([T]))[0]
        assert best.score <= sums[best.symbols] + 1e-5
        assert sums[best.symbols] >= sums[greedy.symbols] - 1e-5
        # The greedy alignment is one of those of its labelling.
        assert min(abs(total - greedy.score) for total, times in paths[greedy.symbols] if times == greedy.frames) < 1e-5


@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.0])
def test_greedy_takes_the_most_likely_at_every_step(bias):
    params, encoded = make_params(7, bias), frames(7, B=4)
    lengths = np.array([4, 2, 0, 3])
    found = make(TransducerGreedy(max_symbols=M))(params, encoded, lengths)
    for row, ((each,), length) in enumerate(zip(found, lengths, strict=True)):
        state, predicted = predict(params, jnp.array([BLANK]), None)
        symbols, times, score = [], [], 0.0
        for t in range(length):
            for count in range(M + 1):
                log_probs = join(params, encoded[t, row], predicted[0])
                symbol = BLANK if count == M else int(jnp.argmax(log_probs))
                score += float(log_probs[symbol])
                if symbol == BLANK:
                    break
                symbols.append(symbol)
                times.append(t)
                state, predicted = predict(params, jnp.array([symbol]), state)
        assert (each.symbols, each.frames) == (tuple(symbols), tuple(times))
        assert each.score == pytest.approx(score, abs=1e-5)
    if bias == -2.0:
        assert max(np.bincount(found[0][0].frames)) == M  # the limit is reached


@pytest.mark.parametrize("name", TRANSDUCER_DECODERS)
def test_an_utterance_does_not_depend_on_its_batch(name):
    decoder = make(TRANSDUCER_DECODERS[name](max_symbols=M))
    params, encoded, lengths = make_params(3), frames(3, B=3), np.array([4, 0, 2])
    found = decoder(params, encoded, lengths)
    assert found[1] == [((), (), 0.0)]
    for row in (0, 2):
        (alone,) = decoder(params, encoded[: lengths[row], row : row + 1], lengths[row : row + 1])
        assert [each[:2] for each in alone] == [each[:2] for each in found[row]]
        np.testing.assert_allclose([each.score for each in alone], [each.score for each in found[row]], atol=1e-5)


def test_a_stream_in_pieces_equals_the_whole():
    params, encoded = make_params(5), frames(5, B=2)
    options = {"blank_id": BLANK, "max_symbols": M}
    write = jax.jit(functools.partial(write_greedily, predict, join, **options))
    start = begin(predict, params, 2, blank_id=BLANK)
    whole, symbols = write(params, start, encoded, jnp.array([4, 3]))
    written, pieces = start, []
    for t in range(T):
        written, piece = write(params, written, encoded[t : t + 1], jnp.array([1, int(t < 3)]))
        pieces.append(piece)
    np.testing.assert_array_equal(jnp.concatenate(pieces), symbols)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), written, whole)
    found = make(TransducerGreedy(max_symbols=M))(params, encoded, np.array([4, 3]))
    for row in range(2):
        assert found[row][0][:2] == read_symbols(np.asarray(symbols)[:, row], BLANK)


def test_impossible_options_are_refused():
    for name, decoder in TRANSDUCER_DECODERS.items():
        with pytest.raises(UserError, match="max_symbols"):
            decoder(max_symbols=0)
        if name == "greedy":
            with pytest.raises(UserError, match="use the decoder beam"):
                make(decoder(max_symbols=M))(make_params(0), frames(0), np.array([T]), ToyFusion(V))
    with pytest.raises(UserError, match="num_best"):
        TransducerBeamSearch(num_best=9)
