"""`lstm-research predict` and `evaluate` for recognisers: sound files in, transcripts with times out."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import soundfile
from knobs import files
from knobs.speech_recognition import BASE

from lstm_research.cli import predict_speech, run_flags
from lstm_research.common.errors import UserError
from lstm_research.decoding import DECODERS, Greedy, Sample
from lstm_research.decoding.transcripts import Transcript
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.trained_run import TrainedRun

LANGUAGE_MODEL = {
    "seed": 0,
    "dataset": {"name": "text_files", "train": "lines.txt", "valid": "lines.txt", "test": "lines.txt"},
    "vocabulary": {"name": "characters"},
    "task": {"name": "language_modelling", "batch_size": 2, "unroll_length": 4, "eval_batch_size": 2},
    "model": {"name": "language_model", "embedding_size": 4, "cell": {"name": "lstm", "hidden_size": 4}},
    "optimizer": BASE["optimizer"],
    "training": BASE["training"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recogniser, one that reads streams, and language models."""
    folder = tmp_path_factory.mktemp("speech")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        files.write_files()
        (folder / "lines.txt").write_text("To be.\nor not\nto be!\na\n" * 4)
        config = json.loads(json.dumps(BASE))
        config["task"] |= {"lower_case": True, "punctuation": False}
        for split in ("valid", "test"):
            config["dataset"][split] = "train_speech.csv"
        config["task"]["features"]["normalize"] = "global"
        config["optimizer"] = {"name": "adam", "learning_rate": 0.03, "schedule": {"name": "constant"}}
        config["training"] |= {"num_steps": 30, "log_every": 30, "eval_every": 30}
        assert run(Experiment.from_config(config), folder / "speech") == 0
        (folder / "lines.txt").write_text("to be\nor not\nto be\na\n" * 4)
        assert run(Experiment.from_config(LANGUAGE_MODEL), folder / "lm") == 0
        (folder / "lines.txt").write_text("abc\n" * 8)
        assert run(Experiment.from_config(LANGUAGE_MODEL), folder / "other_lm") == 0
        (folder / "sounds").mkdir()
        soundfile.write(folder / "long.wav", np.zeros(4000), 2000)
        for number in (1, 2, 3):
            shutil.copy(folder / f"{number}.wav", folder / "sounds")
    return folder


@pytest.fixture(autouse=True)
def in_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


def read(result: Any) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_files_and_folders(command: Any) -> None:
    lines = read(command("predict", "--workdir=speech", "--audio=sounds,4.wav"))
    assert [line["path"] for line in lines] == [*(f"sounds/{n}.wav" for n in (1, 2, 3)), "4.wav"]
    trained = TrainedRun.load("speech")
    signals = [soundfile.read(line["path"], dtype="int16")[0] for line in lines]
    expected = trained.task.transcribe(trained.params, signals)
    assert [line["text"] for line in lines] == [best.text for best, *_ in expected]
    for line, (best, *_) in zip(lines, expected, strict=True):
        assert [word["word"] for word in line["words"]] == best.text.split()
        assert line["unit"] == "seconds"


def test_what_is_done_to_recordings_and_which_files_are_left_out_is_said(
    command: Any, caplog: pytest.LogCaptureFixture
) -> None:
    samples, rate = soundfile.read("4.wav")
    Path("mixed").mkdir()
    soundfile.write("mixed/a.flac", np.repeat(samples, 4), 4 * rate)
    soundfile.write("mixed/b.AIFF", np.stack([samples, samples], axis=1), rate)
    Path("mixed/notes.txt").touch()
    lines = read(command("predict", "--workdir=speech", "--audio=mixed"))
    assert [line["path"] for line in lines] == ["mixed/a.flac", "mixed/b.AIFF"]
    assert lines[0]["unit"] == "seconds"
    assert "1 of 2 recordings have several channels and were mixed to one" in caplog.text
    assert "dataset.sample_rate=2000 and were resampled (from 8,000 Hz)" in caplog.text
    assert "the folder mixed are left out (1 .txt)" in caplog.text


def test_draws_are_as_the_flags_say(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def transcribe(params: Any, signals: Any, names: Any, *, seed: int) -> list[list[Transcript]]:
        asked.append((task.decoder, seed))
        return [[Transcript("to be", 0.0, (), (), ())]]

    features = SimpleNamespace(sample_rate=2000)
    task = SimpleNamespace(
        features=features, decoder=Greedy(max_length_offset=3), decoders=DECODERS, transcribe=transcribe
    )
    config = SimpleNamespace(task=SimpleNamespace(name="speech_recognition"))
    monkeypatch.setattr(run_flags, "load", lambda argv: SimpleNamespace(task=task, config=config, params=None))
    options = ("--temperature=0.5", "--top_k=3", "--top_p=0.9", "--num_best=2", "--seed=7")
    read(command("predict", "--workdir=speech", "--audio=4.wav", "--decoder=sample", *options))
    assert asked == [(Sample(max_length_offset=3, temperature=0.5, top_k=3, top_p=0.9, num_best=2), 7)]
    task.decoder = Greedy()
    result = command("predict", "--workdir=speech", "--audio=4.wav", "--seed=7")
    assert result.code == 2
    assert "--seed is for draws, and this decoder makes none; leave it out, or use --decoder=sample" in result.err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--output=4.wav/found.jsonl", ["--output", "4.wav is no folder"]),
        ("--output=sounds", ["--output", "sounds is a folder"]),
        ("--alignment_plot=4.wav/plot.png", ["--alignment_plot", "4.wav is no folder"]),
        ("--alignment_plot=plain", ["--alignment_plot", "plain is no folder"]),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_anything_is_read(
    command: Any, flag: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("read")

    Path("plain").touch()
    monkeypatch.setattr(predict_speech, "_signals", fail)
    result = command("predict", "--workdir=speech", "--audio=4.wav", flag)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert all(word in result.err for word in words), result.err


def test_a_stream_gives_the_same(command: Any) -> None:
    whole = read(command("predict", "--workdir=speech", "--audio=sounds", "--decoder=greedy"))
    result = command("predict", "--workdir=speech", "--audio=sounds", "--streaming")
    for line, other in zip(whole, read(result), strict=True):
        assert line.pop("score") == pytest.approx(other.pop("score"), abs=1e-3)
        assert line == other


def test_decoders_and_n_best(command: Any) -> None:
    flags = ("--decoder=beam", "--beam_size=3", "--num_best=3")
    lines = read(command("predict", "--workdir=speech", "--audio=4.wav", *flags))
    assert len(lines) == 3
    scores = [line["score"] for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_a_language_model_shares_in_the_search(command: Any) -> None:
    flags = ("--decoder=beam", "--language_model=lm")
    (plain,) = read(command("predict", "--workdir=speech", "--audio=4.wav", "--decoder=beam"))
    (fused,) = read(command("predict", "--workdir=speech", "--audio=4.wav", *flags, "--lm_weight=0.5"))
    assert fused["score"] < plain["score"]
    result = command("evaluate", "--workdir=speech", "--split=test", *flags, "--lm_weight=2", "--json")
    with_model = json.loads(result.out)
    without = json.loads(command("evaluate", "--workdir=speech", "--split=test", "--decoder=beam", "--json").out)
    assert with_model["loss"] == without["loss"]
    assert with_model.keys() == without.keys() >= {"wer", "cer"}
    # The same table is training and test data; all of a split is recognised, whichever it is.
    of_training = json.loads(
        command("evaluate", "--workdir=speech", "--split=train", *flags, "--lm_weight=2", "--json").out
    )
    assert of_training | {"split": "test"} == with_model


def test_a_recording_without_a_frame_is_heard_and_drawn(command: Any) -> None:
    soundfile.write("short.wav", np.zeros(9), 2000)
    flags = ("--audio=short.wav,4.wav", "--alignment_plot=short.svg")
    lines = read(command("predict", "--workdir=speech", *flags))
    assert (lines[0]["text"], lines[0]["words"]) == ("", [])
    assert lines[1] == read(command("predict", "--workdir=speech", "--audio=4.wav"))[0]
    assert Path("short.svg").exists()


def test_arrays_that_are_no_features_are_refused() -> None:
    task = SimpleNamespace(features=SimpleNamespace(sample_rate=None, num_features=3))
    frames = np.ones((4, 3))
    np.save("frames.npy", frames)
    assert predict_speech._read_features(Path("frames.npy"), task).dtype == np.float32
    Path("empty.npy").touch()
    np.savez("two.npz", frames, frames)
    Path("cut.npz").write_bytes(Path("two.npz").read_bytes()[:99])
    frames[2, 1] = np.nan
    np.save("nan.npy", frames)
    np.save("wide.npy", np.ones((4, 5)))
    for name, words in {
        "empty.npy": "no array",
        "two.npz": "no array",
        "cut.npz": "no array",
        "nan.npy": "finite",
        "wide.npy": "[4, 5]",
    }.items():
        with pytest.raises(UserError) as caught:
            predict_speech._read_features(Path(name), task)
        assert name in str(caught.value)
        assert words in str(caught.value)


def test_a_plot(command: Any) -> None:
    assert command("predict", "--workdir=speech", "--audio=sounds", "--alignment_plot=one.svg").code == 0
    assert Path("one.svg").read_text().count("sounds/") >= 3
    assert command("predict", "--workdir=speech", "--audio=sounds", "--alignment_plot=many").code == 0
    assert sorted(path.name for path in Path("many").iterdir()) == ["1_1.png", "2_2.png", "3_3.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--audio"]),
        (["--audio=none.wav"], ["none.wav"]),
        (["--audio=speech"], ["speech", ".wav"]),
        (["--audio=train_speech.csv"], ["train_speech.csv", "wav"]),
        (["--audio=4.wav", "--language_model=lm"], ["greedy", "beam"]),
        (["--audio=4.wav", "--decoder=beam", "--language_model=other_lm"], ["lacks", "'t'"]),
        (["--audio=4.wav", "--decoder=beam", "--language_model=speech"], ["speech_recognition", "language_modelling"]),
        (["--audio=4.wav", "--lm_weight=1"], ["--lm_weight", "--language_model"]),
        (["--audio=4.wav", "--streaming", "--decoder=beam"], ["--decoder", "--streaming"]),
        (["--audio=4.wav", "--streaming", "--num_best=2"], ["--num_best", "--streaming"]),
        (["--audio=4.wav", "--streaming", "--language_model=lm"], ["--language_model", "--streaming"]),
        (["--audio=4.wav,long.wav"], ["1 of 2", "long.wav", "--streaming"]),
        (["--audio=4.wav", "--alignment_plot=a.gif"], ["a.gif", ".png"]),
        (["--audio=4.wav", "--text=to be"], ["--text", "speech_recognition"]),
        (["--audio=4.wav", "--decoder=sample"], ["sample", "beam"]),
        (["--audio=4.wav", "--seed=1"], ["--seed", "draws", "'ctc'"]),
        (["--audio=4.wav", "--temperature=0.5"], ["--temperature", "draws", "'ctc'"]),
        (["--audio=4.wav", "--streaming", "--seed=1"], ["--seed", "--streaming"]),
        (["--audio=~nobody_of_this_name"], ["--audio", "~nobody_of_this_name"]),
    ],
)
def test_wrong_input_is_one_line(command: Any, flags: list[str], words: list[str]) -> None:
    result = command("predict", "--workdir=speech", *flags, "--output=none.jsonl")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert all(word in result.err for word in words), result.err
    assert not Path("none.jsonl").exists()


def test_other_tasks_refuse_the_flags(command: Any) -> None:
    result = command("evaluate", "--workdir=lm", "--language_model=lm")
    assert result.code == 2
    assert "--language_model" in result.err
