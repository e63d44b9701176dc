"""A prepared dataset: written by the library, read back whole and in order, without TensorFlow."""

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import prepared
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset


class Example(NamedTuple):
    text: str
    label: int
    score: float


EXAMPLES = {
    "train": [Example(f"text {number} é\n", number % 2, number / 4) for number in range(3000)],
    "valid": [Example("", 0, -0.5)],
    "test": [Example("日本語", 1, 1e6), Example("a", 0, 0.0)],
}
PACKAGE = Package("tiny", "tiny", "1", "tiny.whl", "0" * 64, 1)
CALLS: list[str] = []


def extract(part: str, file: Path) -> dict[str, list[Example]]:
    CALLS.append(part)
    assert file == Path("tiny.whl")
    return EXAMPLES


TINY = PreparedDataset(
    name="tiny",
    version="1.0.0",
    package=PACKAGE,
    parts=("one", "two"),
    example=Example,
    features=lambda features: {
        "text": features.Text(),
        "label": features.ClassLabel(names=["no", "yes"]),
        "score": features.Scalar(np.float32),
    },
    extract=extract,
    license="none",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(prepared, "fetch", lambda package: Path(package.filename))
    prepared._read_once.cache_clear()
    CALLS.clear()
    return tmp_path


def test_examples_come_back_in_order_and_are_prepared_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for split in EXAMPLES:
        assert TINY.load("one", split) == EXAMPLES[split]
    assert CALLS == ["one"]
    assert {type(value) for value in TINY.load("one", "train")[5]} == {str, int, float}
    assert TINY.path("one").is_dir()
    assert not TINY.path("two").exists()
    assert not list(folder.rglob("*making*"))
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


def test_a_caller_may_change_its_list(folder: Path) -> None:
    TINY.load("one", "test").clear()
    assert TINY.load("one", "test") == EXAMPLES["test"]


def test_another_version_is_prepared_anew(folder: Path) -> None:
    TINY.prepare("one")
    newer = dataclasses.replace(TINY, version="1.0.1")
    assert not newer.path("one").exists()
    newer.prepare("one")
    assert CALLS == ["one", "one"]


def test_what_does_not_read_back_as_written_is_not_kept(folder: Path) -> None:
    broken = dataclasses.replace(TINY, extract=lambda part, file: {"train": [Example("", 0, 0.1)]})  # no float32
    with pytest.raises(AssertionError, match="does not read back"):
        broken.prepare("one")
    assert not TINY.path("one").exists()


class Signal(NamedTuple):
    wave: np.ndarray
    frames: np.ndarray


def test_arrays_come_back_as_they_were_and_cannot_be_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waves = [np.arange(-3, n, dtype=np.int16) for n in (4, 0, 300)]
    written = [Signal(wave, np.resize(wave, (len(wave), 2)).astype(np.float32) / 3) for wave in [*waves, waves[0][:0]]]
    written[2].frames[5] = np.nan
    signals = dataclasses.replace(
        TINY,
        example=Signal,
        features=lambda features: {
            "wave": features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
            "frames": features.Tensor(shape=(None, 2), dtype=np.float32, encoding="bytes"),
        },
        extract=lambda part, file: {"train": written},
    )
    for one, other in zip(signals.load("one", "train"), written, strict=True):
        for got, expected in zip(one, other, strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
            assert not got.flags.writeable
    assert "tensorflow" not in sys.modules
    newer = dataclasses.replace(signals, version="1.0.1")
    for other in (waves[0] + np.int16(1), waves[0].astype(np.int32), waves[0][None]):
        read = [written[0]._replace(wave=other), *written[1:]]
        monkeypatch.setattr(PreparedDataset, "_read", lambda self, path, split, read=read: read)
        with pytest.raises(AssertionError, match="does not read back"):
            newer.prepare("one")


def test_wrong_names_and_damaged_files_get_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match=r"part of dataset 'tiny' 'tree'.* valid: one, two"):
        TINY.load("tree", "train")
    with pytest.raises(UserError, match="unknown split 'dev'"):
        TINY.load("one", "dev")
    for file in TINY.path("one").glob("*.array_record*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"prepared data cannot be read .*; delete .* to prepare it again") as error:
        TINY.load("one", "train")
    assert "\n" not in str(error.value)
