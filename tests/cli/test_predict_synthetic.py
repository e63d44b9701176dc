"""`lstm-research predict` and `data show` for generated problems."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run

CONFIG = {
    "seed": 0,
    "dataset": {"name": "parity", "length": 9, "num_examples": 12},
    "vocabulary": {},
    "task": {"name": "synthetic", "batch_size": 4},
    "model": {"name": "sequence_model", "cell": {"name": "gru", "hidden_size": 4}},
    "optimizer": {"name": "adam", "learning_rate": 0.05, "schedule": {"name": "constant"}},
    "training": {"num_steps": 4, "log_every": 4, "eval_every": 4, "checkpoint_every": 4},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run, not to be changed."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    folder = tmp_path_factory.mktemp("synthetic") / "parity"
    assert run(Experiment.from_config(CONFIG), folder) == 0
    yield folder
    jaxtyping.config.update("jaxtyping_disable", before)


def test_answers_of_test_sequences(command: Any, workdir: Path, tmp_path: Path) -> None:
    result = command("predict", f"--workdir={workdir}", "--count=2")
    assert (result.code, result.err) == (0, "")
    lines = list(csv.DictReader(io.StringIO(result.out)))
    assert list(lines[0]) == ["example", "step", "input_0", "input_1", "target_0", "output_0"]
    assert {line["example"] for line in lines} == {"0", "1"}
    assert [line["target_0"] != "" for line in lines].count(True) == 2
    assert command("predict", f"--workdir={workdir}", "--count=2", f"--output={tmp_path}/answers.csv").out == ""
    assert (tmp_path / "answers.csv").read_text() == result.out
    assert (workdir / "samples" / "answers.csv").read_text().startswith(result.out)


def test_more_answers_than_there_are_sequences_are_refused(command: Any, workdir: Path) -> None:
    assert command("predict", f"--workdir={workdir}", "--count=12").code == 0
    result = command("predict", f"--workdir={workdir}", "--count=13")
    assert (result.code, result.out) == (2, "")
    assert "--count=13: the test split has 12 sequences" in result.err


def test_flags_of_other_tasks_are_refused(command: Any, workdir: Path) -> None:
    result = command("predict", f"--workdir={workdir}", "--text=1011")
    assert result.code == 2
    assert "--text means nothing to the task 'synthetic' of this run" in result.err


def test_evaluate_tells_the_baseline_and_whether_it_is_solved(command: Any, workdir: Path) -> None:
    result = command("evaluate", f"--workdir={workdir}", "--split=valid")
    assert (result.code, result.err) == (0, "")
    printed = dict(line.split() for line in result.out.splitlines()[1:])
    assert printed["baseline"] == "0.693147"
    assert printed["solved"] == "0"
    assert {"loss", "accuracy", "sequence_accuracy"} <= set(printed)


def test_data_show(command: Any) -> None:
    result = command("data", "show", "spike_delays", "--split=test", "--num=2")
    assert (result.code, result.err) == (0, "")
    assert "SpikeDelays(length=200" in result.out
    assert result.out.count("example,step,input_0,target_0") == 2
    listed = command("data", "list").out
    assert "Datasets for synthetic" in listed
    assert "mackey_glass" in listed
