"""Error rates against a plain edit distance, over a whole corpus; empty transcripts."""

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.tasks.speech_metrics import ERROR_RATES, error_rates


def distance(reference, hypothesis):
    """The least number of edits (Levenshtein)."""
    row = list(range(len(hypothesis) + 1))
    for i, symbol in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (symbol != other))
    return row[-1]


def test_rates_are_all_edits_over_all_symbols():
    rng = np.random.default_rng(0)
    references, hypotheses = (
        [" ".join(rng.choice([*"abc", "dd"], rng.integers(0, 7))) for _ in range(40)] for _ in "rh"
    )
    found = error_rates(hypotheses, references)
    words = sum(distance(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True))
    characters = sum(map(distance, references, hypotheses))
    total = sum(len(r.split()) for r in references)
    assert tuple(found) == ERROR_RATES
    assert found["wer"] == pytest.approx(words / total)
    assert found["cer"] == pytest.approx(characters / sum(map(len, references)))
    assert found["substitutions"] + found["deletions"] + found["insertions"] == pytest.approx(found["wer"])
    lengths = sum(len(h.split()) for h in hypotheses)
    assert found["insertions"] - found["deletions"] == pytest.approx((lengths - total) / total)


def test_edits_are_counted_by_kind():
    found = error_rates(["one four three", "five five", ""], ["one two three", "five", "six six"])
    assert [found[name] for name in ERROR_RATES if name != "cer"] == pytest.approx([4 / 6, 1 / 6, 2 / 6, 1 / 6])


def test_white_space_alone_is_normalised():
    assert not any(error_rates(["  one\ttwo \n"], ["one two"]).values())
    assert error_rates(["One two."], ["one two"])["substitutions"] == 1


def test_what_is_recognised_in_silence_is_all_insertions():
    found = error_rates(["uh oh", "one"], [" ", "one"])
    assert found == {"wer": 2, "cer": pytest.approx(5 / 3), "substitutions": 0, "deletions": 0, "insertions": 2}


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(UserError, match="all 2 transcripts are empty"):
        error_rates(["", "one"], ["", " "])
