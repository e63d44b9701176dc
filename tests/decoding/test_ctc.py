"""Decoding of CTC against brute force: every labelling by the sum over all alignments, fused or not."""

import itertools
import time

import numpy as np
import pytest
from toy_speech import ToyFusion, alignments, draw

from lstm_research.common.errors import UserError
from lstm_research.decoding.ctc import CTC_DECODERS, CTCBeamSearch, CTCGreedy, ctc_align


@pytest.mark.parametrize("blank_id", [0, 1, 2])
@pytest.mark.parametrize("fused", [False, True], ids=["alone", "fused"])
def test_a_wide_beam_equals_brute_force(blank_id, fused):
    fusion = ToyFusion(3) if fused else None
    for seed in range(4):
        log_probs = draw(seed, 6, 3)
        scores = {
            labelling: np.logaddexp.reduce([total for total, _ in paths]) + (fusion.total(labelling) if fused else 0)
            for labelling, paths in alignments(log_probs, blank_id).items()
        }
        expected = sorted(scores, key=lambda labelling: -scores[labelling])
        found = CTCBeamSearch(beam_size=200, num_best=200)(log_probs, blank_id=blank_id, fusion=fusion)
        assert [each.symbols for each in found] == expected
        np.testing.assert_allclose([each.score for each in found], [scores[each] for each in expected], rtol=1e-12)


def test_a_narrow_beam_finds_no_more_than_there_is():
    log_probs = draw(5, 9, 3, scale=0.7)
    sums = {y: np.logaddexp.reduce([p for p, _ in paths]) for y, paths in alignments(log_probs, 2).items()}
    best = [CTCBeamSearch(beam_size=size)(log_probs, blank_id=2)[0] for size in (1, 2, 4, 300)]
    assert all(each.score <= sums[each.symbols] + 1e-12 for each in best)
    assert best[-1].score == pytest.approx(max(sums.values()))
    assert best[0].score < best[-1].score


def test_the_labelling_of_the_best_path_is_not_always_the_best():
    log_probs = np.log([[0.4, 0.6], [0.4, 0.6]])
    assert CTCGreedy()(log_probs, blank_id=1)[0] == ((), (), pytest.approx(np.log(0.36)))
    assert CTCBeamSearch()(log_probs, blank_id=1)[0] == ((0,), (0,), pytest.approx(np.log(0.64)))


def test_symbols_below_the_limit_are_not_begun():
    log_probs = draw(0, 6, 4)
    everything = CTCBeamSearch(beam_size=500)(log_probs, blank_id=3)
    assert CTCBeamSearch(beam_size=500, min_log_prob=-1e3)(log_probs, blank_id=3) == everything
    # With symbol 0 below the limit everywhere, its paths are all that is left out.
    log_probs[:, 0] -= 10
    paths = alignments(log_probs, 3)
    scores = {y: np.logaddexp.reduce([p for p, _ in each]) for y, each in paths.items() if 0 not in y}
    limit = (log_probs[:, 0].max() + log_probs[:, 1:].min()) / 2
    found = CTCBeamSearch(beam_size=900, num_best=900, min_log_prob=limit)(log_probs, blank_id=3)
    assert {each.symbols for each in found} == set(scores)
    np.testing.assert_allclose([each.score for each in found], [scores[each.symbols] for each in found], rtol=1e-12)


def test_greedy_merges_repetitions_and_names_the_spikes():
    path = [2, 0, 0, 2, 0, 1, 1, 1, 2, 2]
    sharpness = [9, 2, 3, 9, 5, 4, 6, 5, 9, 9]
    logits = np.zeros((len(path), 3))
    logits[np.arange(len(path)), path] = sharpness
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    (found,) = CTCGreedy()(log_probs, blank_id=2)
    assert found.symbols == (0, 0, 1)
    assert found.frames == (2, 4, 6)
    assert found.score == pytest.approx(log_probs.max(axis=1).sum())
    assert CTCBeamSearch()(log_probs, blank_id=2)[0][:2] == found[:2]


@pytest.mark.parametrize("name", CTC_DECODERS)
def test_no_frames_have_no_symbols(name):
    (found,) = CTC_DECODERS[name]()(np.zeros((0, 3)), blank_id=0)
    assert found == ((), (), 0)


@pytest.mark.parametrize("labelling", [(), (0,), (1, 0), (0, 0), (1, 1, 0), (0, 1, 0)])
def test_alignment_is_the_most_likely_of_all(labelling):
    for seed in range(5):
        log_probs = draw(seed, 6, 3)
        _, path = max(alignments(log_probs, 2)[labelling])
        expected, t = [], 0
        for symbol, run in itertools.groupby(path):
            length = len(list(run))
            if symbol != 2:
                expected.append([t, t + length])
            t += length
        ranges = ctc_align(log_probs, labelling, blank_id=2)
        np.testing.assert_array_equal(ranges, np.array(expected, int).reshape(-1, 2))


def test_beam_search_names_the_spikes_of_the_alignment():
    for seed in range(5):
        log_probs = draw(seed, 8, 4)
        (found,) = CTCBeamSearch()(log_probs, blank_id=0)
        ranges = ctc_align(log_probs, found.symbols, blank_id=0)
        for symbol, frame, (start, end) in zip(found.symbols, found.frames, ranges, strict=True):
            assert start <= frame < end
            assert log_probs[frame, symbol] == log_probs[start:end, symbol].max()


def test_too_few_frames_for_an_alignment():
    assert ctc_align(draw(0, 3, 3), [0, 0], blank_id=2).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="2 symbols have no alignment with 2 frames"):
        ctc_align(draw(0, 2, 3), [0, 0], blank_id=2)


def test_three_seconds_of_speech_take_less_than_one():
    log_probs = draw(0, 300, 40, scale=4.0)
    begin = time.process_time()
    (found,) = CTCBeamSearch(beam_size=16)(log_probs, blank_id=0)
    assert time.process_time() - begin < 1
    assert len(found.symbols) > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"num_best": 17}, r"num_best.*\(16\)"),
        ({"min_log_prob": 0.0}, "min_log_prob"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CTCBeamSearch(**options)


def test_greedy_decoding_refuses_a_language_model():
    with pytest.raises(UserError, match="use the decoder beam"):
        CTCGreedy()(draw(0, 3, 3), blank_id=0, fusion=ToyFusion(3))
