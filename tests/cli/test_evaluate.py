"""`lstm-research evaluate`, and what all commands say that are given no usable run."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lstm_research.training.metrics import read_metrics
from lstm_research.training.trained_run import TrainedRun

COMMANDS = ("evaluate", "predict", "export")
Refused = Callable[..., str]


def test_json_is_the_test_line(command: Any, characters: str) -> None:
    result = command("evaluate", f"--workdir={characters}", "--json")
    assert result.code == 0, result.err
    assert result.err == ""
    found = json.loads(result.out)
    line = read_metrics(Path(characters) / "metrics.jsonl")[-1]
    assert line["split"] == "test"
    del line["seconds"]
    assert found == line


def test_json_has_null_for_what_is_undefined(command: Any, characters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainedRun, "evaluate", lambda self, split: {"loss": 1.5, "nd": math.nan})
    found = json.loads(command("evaluate", f"--workdir={characters}", "--json").out, parse_constant=pytest.fail)
    assert (found["loss"], found["nd"]) == (1.5, None)


def test_table(command: Any, characters: str) -> None:
    result = command("evaluate", f"--workdir={characters}", "--split=valid")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "runs/characters: valid split, weights of step 8"
    best = json.loads((Path(characters) / "status.json").read_text())["best"]
    assert {line.split()[0] for line in lines[1:]} == {"loss", "accuracy", "perplexity", "bits_per_character"}
    assert f"loss                {best['value']:.6g}" in result.out


def test_other_checkpoints(command: Any, characters: str) -> None:
    lines = read_metrics(Path(characters) / "metrics.jsonl")
    logged = {line["step"]: line["loss"] for line in lines if line["split"] == "valid"}
    for checkpoint, step in (("4", 4), ("8", 8), ("latest", 8)):
        arguments = (f"--workdir={characters}", f"--checkpoint={checkpoint}", "--split=valid", "--json")
        found = json.loads(command("evaluate", *arguments).out)
        assert found["step"] == step
        assert found["loss"] == logged[step]


def test_words(command: Any, words: str) -> None:
    found = json.loads(command("evaluate", f"--workdir={words}", "--json").out)
    assert "bits_per_character" not in found
    assert found["perplexity"] > 1


def test_refuses_changed_data(refused: Refused, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs", project / "runs")
    (project / "test.txt").write_text("that is to be\n" * 4)
    line = refused("evaluate", "--workdir=runs/characters")
    assert "test test.txt" in line
    assert "has changed" in line
    (project / "test.txt").unlink()
    assert "there is no file test.txt" in refused("evaluate", "--workdir=runs/characters")


def test_refuses_flags(command: Any, characters: str) -> None:
    for argument, part in {
        "--split=dev": "unknown split 'dev'; valid: train, valid, test",
        "--checkpoint=5": "valid: best, latest, 4, 8",
        "--checkpoint=bset": "valid: best, latest, 4, 8",
        "--jsno": "json",
        "runs": "takes only flags, got runs",
    }.items():
        result = command("evaluate", f"--workdir={characters}", argument)
        assert result.code == 2
        assert result.out == ""
        assert result.err.count("\n") == 1
        assert part in result.err


@pytest.mark.parametrize("name", COMMANDS)
def test_refuses_what_is_no_run(name: str, refused: Refused, trained: Path, project: Path) -> None:
    assert "--workdir=FOLDER" in refused(name)
    assert "no workdir at runs/none" in refused(name, "--workdir=runs/none")
    (project / "empty").mkdir()
    assert "not a workdir made by train" in refused(name, "--workdir=empty")
    copy = project / "runs"
    shutil.copytree(trained / "runs" / "characters", copy)
    shutil.rmtree(copy / "best")
    assert "try --checkpoint=latest" in refused(name, "--workdir=runs")
    shutil.rmtree(copy / "checkpoints")
    assert "holds no checkpoint yet" in refused(name, "--workdir=runs")


def test_refuses_a_damaged_run(refused: Refused, trained: Path, project: Path) -> None:
    copy = project / "runs"
    shutil.copytree(trained / "runs" / "characters", copy)
    for file, data in {
        "config.json": b"{",
        "vocabulary.json": b"[]",
        "dataset.json": b"{}",
        "best/model.safetensors": (copy / "best" / "model.safetensors").read_bytes()[:-1],
    }.items():
        whole = (copy / file).read_bytes()
        (copy / file).write_bytes(data)
        assert file in refused("evaluate", "--workdir=runs")
        (copy / file).write_bytes(whole)
    (copy / "vocabulary.json").unlink()
    assert "vocabulary.json is missing" in refused("evaluate", "--workdir=runs")
    config = json.loads((copy / "config.json").read_text())
    config["task"]["name"] = "of_the_future"
    (copy / "config.json").write_text(json.dumps(config))
    assert "unknown task.name 'of_the_future'" in refused("evaluate", "--workdir=runs")


def test_neural_cache_and_dynamic_evaluation(command: Any, words: str) -> None:
    arguments = ("evaluate", f"--workdir={words}", "--split=valid", "--json")
    plain = json.loads(command(*arguments).out)
    flags = ("--neural_cache=10,0.5,0.1", "--dynamic_evaluation=0.01,0.05")
    found = json.loads(command(*arguments, *flags).out)
    assert found.keys() - plain.keys() == {"perplexity_cache", "perplexity_dynamic"}
    assert {name: found[name] for name in plain} == plain
    assert len({found["perplexity"], found["perplexity_cache"], found["perplexity_dynamic"]}) == 3
    other = json.loads(command(*arguments, "--neural_cache=2,0,0.5").out)
    assert other.keys() - plain.keys() == {"perplexity_cache"}
    assert other["perplexity_cache"] != found["perplexity_cache"]
    none = command(*arguments, "--neural_cache=none")
    assert json.loads(none.out) == plain


def test_refuses_impossible_adaptations(command: Any, words: str) -> None:
    for argument, part in {
        "--neural_cache=10": "--neural_cache=10: give WINDOW,THETA,MIXING as numbers, or none",
        "--neural_cache=a,b,c": "give WINDOW,THETA,MIXING",
        "--neural_cache=1.5,0.1,0.1": "give WINDOW,THETA,MIXING",
        "--neural_cache=10,0.5,2": "mixing must be at least 0 and below 1",
        "--dynamic_evaluation=0.1": "give LEARNING_RATE,DECAY",
        "--dynamic_evaluation=-1,0": "learning_rate must be above 0",
    }.items():
        result = command("evaluate", f"--workdir={words}", argument)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert part in result.err


TRANSLATION = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({
        "seed": 0,
        "dataset": {"name": "parallel_files"}
        | {f"{split}_{side}": f"lines.{side}" for split in ("train", "valid", "test") for side in ("source", "target")},
        "vocabulary": {"name": "words"},
        "task": {
            "name": "translation", "batch_size": 4, "max_length": 8,
            "decoder": {"name": "beam", "beam_size": 2, "max_length_offset": 1},
        },
        "model": {
            "name": "seq2seq", "embedding_size": 4, "cell": {"name": "gru", "hidden_size": 4},
            "attention": {"name": "general"},
        },
        "optimizer": {"name": "adam", "learning_rate": 0.05},
        "training": {"num_steps": 8, "log_every": 8, "eval_every": 8, "checkpoint_every": 8},
    })
"""


def test_translation_is_decoded_as_flags_say(
    command: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = str(Path(words).absolute())
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(TRANSLATION)
    Path("lines.source").write_text("a b c\nb a\nc c a b\nb c\n" * 3)
    Path("lines.target").write_text("C B A\nA B\nB A C C\nC B\n" * 3)
    assert command("train", "--config=recipe.py", "--workdir=run").code == 0

    def evaluated(*arguments: str) -> dict[str, float]:
        result = command("evaluate", "--workdir=run", "--json", *arguments)
        assert (result.code, result.err) == (0, ""), result
        return json.loads(result.out)

    plain = evaluated()
    assert evaluated("--decoder=beam") == plain
    assert evaluated("--decoder=greedy") == evaluated("--beam_size=1")
    longer = [evaluated("--length_penalty=average", f"--alpha={alpha}")["chrf"] for alpha in (0, 2)]
    assert longer[0] != longer[1]
    result = command("evaluate", "--workdir=run", "--decoder=greedy", "--beam_size=3")
    assert (result.code, result.out) == (2, "")
    assert "--beam_size is no option of the decoder 'greedy'" in result.err
    # A split that is asked for is translated as a whole; during training, with task.num_scored=0, nothing is.
    assert {"bleu", "chrf"} <= set(evaluated("--split=valid", "--beam_size=3"))
    assert not any("bleu" in line for line in read_metrics(Path("run/metrics.jsonl")) if line["split"] == "valid")
    assert "unknown split 'dev'" in command("evaluate", "--workdir=run", "--split=dev", "--beam_size=3").err
    for subcommand in ("evaluate", "predict"):
        result = command(subcommand, f"--workdir={words}", "--beam_size=3")
        assert (result.code, result.out) == (2, "")
        assert "--beam_size" in result.err
        assert "leave it out" in result.err
