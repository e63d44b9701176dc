"""The user's own recordings, and what a wrong table gets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.speech.recordings import SPEECH_DATASETS, Manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: Callable[..., bytes]) -> Path:
    """Recordings a folder below the tables, which are not in the current folder."""
    sounds = tmp_path / "lists" / "audio"
    sounds.mkdir(parents=True)
    (sounds / "a.wav").write_bytes(sound(300.0, rate=8_000, form="wav"))
    (sounds / "b.ogg").write_bytes(sound(400.0, 400.0, rate=8_000))
    (sounds / "c.flac").write_bytes(sound(500.0, rate=16_000, form="flac"))
    (sounds / "text.wav").write_text("no sound")
    (tmp_path / "lists" / "train.csv").write_text("id,path,transcript\n1,audio/a.wav,a b\n2,audio/b.ogg,\n", "utf-8")
    rows = [{"text": "é c", "audio": "audio/c.flac"}, {"audio": str(sounds / "a.wav"), "text": "a"}]
    (tmp_path / "lists" / "valid.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    (tmp_path / "lists" / "test.csv").write_text("path,transcript\naudio/c.flac,c\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(train: str = "lists/train.csv", **keys: Any) -> Manifest:
    keys = {"sample_rate": 8_000} | keys
    return build(SPEECH_DATASETS, {"name": "manifest", "train": train, **keys}, where="dataset")


def make_and_read(**keys: Any) -> None:
    dataset = make(**keys)
    for split in dataset.splits:
        dataset.examples(split)


def test_recordings_are_read_as_the_tables_name_them(folder: Path) -> None:
    dataset = make(valid="lists/test.csv", test="lists/test.csv")
    first, second = dataset.examples("train")
    assert (first.name, first.transcript, len(first.signal)) == ("audio/a.wav", "a b", 4000)
    assert (second.name, second.transcript) == ("audio/b.ogg", "")  # nobody speaks
    assert dataset.sample_rate == 8_000
    assert dataset.notes == (
        "1 of 4 recordings have several channels and were mixed to one",
        "2 of 4 recordings have another sample rate than dataset.sample_rate=8000 and were resampled (from 16,000 Hz)",
    )
    assert "train lists/train.csv" in dataset.describe()
    (third,) = dataset.examples("test")
    assert len(third.signal) == 4000
    assert np.abs(np.fft.rfft(third.signal)).argmax() == 250  # 500 Hz in half a second


def test_lines_of_json_are_read_as_well(folder: Path) -> None:
    files = dict.fromkeys(("train", "valid", "test"), "lists/valid.jsonl")
    dataset = make(**files, path_column="audio", transcript_column="text")
    assert [(name, text) for name, _, text in dataset.examples("test")] == [
        ("audio/c.flac", "é c"),
        (str(folder / "lists" / "audio" / "a.wav"), "a"),
    ]


def test_the_fingerprint_is_of_sounds_and_transcripts(folder: Path, sound: Callable[..., bytes]) -> None:
    keys = {"valid": "lists/test.csv", "test": "lists/test.csv"}
    before = make(**keys).fingerprint()
    assert make(**keys).fingerprint() == before
    assert make(**keys, sample_rate=16_000).fingerprint() != before
    (folder / "lists" / "audio" / "c.flac").write_bytes(sound(501.0, rate=16_000, form="flac"))
    assert (changed := make(**keys).fingerprint()) != before
    (folder / "lists" / "test.csv").write_text("path,transcript\naudio/c.flac,d\n", "utf-8")
    assert make(**keys).fingerprint() not in (before, changed)


def test_splits_are_cut_by_the_content_of_the_recordings(folder: Path, sound: Callable[..., bytes]) -> None:
    lines = []
    for number in range(60):
        name = f"{number}.wav"
        data = sound(100.0 + number % 30, rate=8_000, form="wav", seconds=0.1)
        (folder / name).write_bytes(data)  # each sound twice, under two names
        lines.append(f"{name},text {number}")
    (folder / "all.csv").write_text("path,transcript\n" + "\n".join(lines), "utf-8")
    dataset = make("all.csv", valid_fraction=0.2)
    splits = {split: dataset.examples(split) for split in dataset.splits}
    assert [len(examples) for examples in splits.values()] == [42, 12, 6]
    sounds = [{each.signal.tobytes() for each in examples} for examples in splits.values()]
    assert sum(map(len, sounds)) == 30
    for number in range(60):
        (folder / f"{number}.wav").rename(folder / f"renamed{number}.wav")
    (folder / "all.csv").write_text("path,transcript\n" + "\n".join(f"renamed{line}" for line in lines), "utf-8")
    again = make("all.csv", valid_fraction=0.2)
    for split, examples in splits.items():
        assert [each.transcript for each in again.examples(split)] == [each.transcript for each in examples]


WRONG = {
    "gone": ("train.csv", "path,transcript\naudio/a.wav,a\naudio/gone.wav,b\n"),
    "damaged": ("train.csv", "path,transcript\naudio/text.wav,a\n"),
    "column": ("train.csv", "path,text\naudio/a.wav,a\n"),
    "json": ("train.jsonl", '{"path": "audio/a.wav", "transcript": "a"}\n{"path"\n'),
    "list": ("train.jsonl", '["audio/a.wav", "a"]\n'),
    "key": ("train.jsonl", '{"path": "audio/a.wav", "text": "a"}\n'),
    "number": ("train.jsonl", '{"path": "audio/a.wav", "transcript": 3}\n'),
    "none": ("train.csv", "path,transcript\n,a\n"),
    "long": ("train.csv", f"path,transcript\n{'said ' * 1000},a\n"),
    "stranger": ("train.csv", "path,transcript\n~nobody_of_this_name/a.wav,a\n"),
    "half": ("train.jsonl", '{"path": "audio/a.wav", "transcript": "a\\ud800b"}\n'),
    "deep": ("train.jsonl", "[" * 200_000 + "\n"),
}
SAID = {
    "gone": "lists/train.csv line 3: there is no sound file 'audio/gone.wav'; paths (dataset.path_column) are relative",
    "damaged": "text.wav cannot be read as sound",
    "column": "columns in dataset.train: lists/train.csv): 'transcript'; valid: path, text",
    "json": "dataset.train: lists/train.jsonl line 2 is not JSON",
    "list": "lists/train.jsonl line 1 is no JSON object",
    "key": "columns in dataset.train: lists/train.jsonl line 1): 'transcript'; valid: path, text",
    "number": "line 1: column 'transcript' holds no text but 3",
    "none": "line 2: there is no sound file ''",
    "long": "train.csv line 2: there is no sound file 'said said said",
    "stranger": "line 2: there is no sound file '~nobody_of_this_name/a.wav'",
    "half": r"dataset.train: lists/train.jsonl line 1: column 'transcript' has '\ud800', which is half a character",
    "deep": "dataset.train: lists/train.jsonl line 1 is not JSON",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_table_gets_one_line(what: str, folder: Path) -> None:
    name, text = WRONG[what]
    (folder / "lists" / name).write_text(text, "utf-8")
    for keys in ({"valid": "lists/test.csv", "test": "lists/test.csv"}, {"valid": "lists/test.csv"}):
        with pytest.raises(UserError) as error:
            make_and_read(train=f"lists/{name}", **keys)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300
        if len(keys) == 2:
            assert SAID[what] in str(error.value)


def test_wrong_keys_get_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match=r"dataset.train: there is no file gone.csv"):
        make("gone.csv")
    with pytest.raises(UserError, match=r"dataset.sample_rate must be at least 1000"):
        make(sample_rate=16)
    with pytest.raises(UserError, match=r"dataset.train: .* has 2 rows, none left for"):
        make_and_read(valid="lists/test.csv")
    with pytest.raises(UserError, match=r"unknown split 'dev'"):
        make(valid="lists/test.csv", test="lists/test.csv").examples("dev")
