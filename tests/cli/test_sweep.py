"""`lstm-research sweep`, as a user runs it. Every wrong input: one line, exit code 2, nothing written."""

import csv
import json
import re
from pathlib import Path

import pytest
from cli.conftest import Command

from lstm_research.cli.config_flag import parse_config
from lstm_research.sweeps.definition import define_sweep
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.sweep_file import read_sweep_file
from lstm_research.training.metrics import read_metrics

SWEEP = ("sweep", "--config=recipe.py", "--sweep=sweep.py", "--workdir=sweeps/new")
POINTS = """
def get_hyper(hyper):
    return hyper.product([hyper.sweep("optimizer.learning_rate", [0.01, 0.1]), hyper.fixed("training.num_steps", 4)])
"""
SPACE = """
NUM_TRIALS = 3

def get_space(space):
    return [
        space.categorical("model.cell.name", ["lstm", "gru"]),
        space.log_uniform("optimizer.learning_rate", 1e-3, 1e-1),
        space.conditional("model.cell.name", ["lstm"], [space.categorical("model.cell.peepholes", [True, False])]),
    ]
"""


def of_key(key: str, values: str) -> str:
    return f"def get_hyper(hyper):\n    return hyper.sweep({key!r}, {values})\n"


MISTAKES = {
    "unknown key": (
        of_key("model.cell.hiden_size", "[4]"),
        [],
        ["model.cell.hiden_size=4", "did you mean 'hidden_size'"],
    ),
    "unknown group": (of_key("modle.num_layers", "[1]"), [], ["the trial modle.num_layers=1", "modle"]),
    "invalid value": (of_key("model.num_layers", "[1, 0]"), [], ["the trial model.num_layers=0", "at least 1"]),
    "wrong type": (of_key("task.batch_size", "[2.5]"), [], ["the trial task.batch_size=2.5", "2.5"]),
    "text that reads as a number": (of_key("training.init_from", "['3']"), [], ["a command line gives 3 and not '3'"]),
    "other metrics": (of_key("training.metric", "['loss', 'accuracy']"), [], ["training.metric cannot be swept"]),
    "no such file": (None, [], ["cannot read the sweep file sweep.py", "--sweep"]),
    "an error in the file": (
        "def get_hyper(hyper):\n    return 1 / 0\n",
        [],
        ["sweep.py, line 2", "ZeroDivisionError"],
    ),
    "end of a range": (
        "NUM_TRIALS = 2\ndef get_space(space):\n    return [space.uniform('optimizer.b1', 0.5, 2.0)]\n",
        [],
        ["the trial optimizer.b1=2.0", "b1"],
    ),
    "no budget": (SPACE.replace("NUM_TRIALS = 3", ""), [], ["NUM_TRIALS", "--num_trials"]),
    "no budget at all": (SPACE, ["--num_trials=0"], ["--num_trials"]),
    "budget of points": (POINTS, ["--num_trials=3"], ["--num_trials is for a space"]),
    "sampler of points": (POINTS, ["--sampler=tpe"], ["--sampler is for a space"]),
    "unknown sampler": (SPACE, ["--sampler=cmaes"], ["unknown --sampler 'cmaes'", "tpe"]),
    "unknown pruner": (SPACE, ["--pruner=ash"], ["unknown --pruner 'ash'", "did you mean 'asha'"]),
    "unknown engine": (POINTS, ["--engine=locl"], ["unknown --engine 'locl'", "did you mean 'local'"]),
    "grid of fractions": (SPACE, ["--sampler=grid"], ["--sampler=grid: optimizer.learning_rate"]),
    "no workers": (POINTS, ["--workers=0"], ["--workers must be at least 1"]),
    "negative restarts": (POINTS, ["--max_restarts=-1"], ["--max_restarts must be at least 0"]),
    "GPUs that are not there": (POINTS, ["--devices_per_trial=2"], ["--devices_per_trial=2", "0 GPUs"]),
    "no such database": (POINTS, ["--storage=nowhere"], ["--storage=nowhere", "sqlite:///FILE"]),
    "override without value": (POINTS, ["--noconfig.model.tied"], ["--noconfig.model.tied", "--config.key=value"]),
    "no recipe": (POINTS, ["--config=gone.py"], ["gone.py"]),
    "no flag": (POINTS, ["sweep.py"], ["only flags", "sweep.py"]),
    "folder of a run": (POINTS, ["--workdir=run"], ["run is not the folder of a sweep"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(
    mistake: str, command: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, arguments, words = MISTAKES[mistake]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if text is not None:
        (project / "sweep.py").write_text(text)
    (project / "run").mkdir()
    (project / "run" / "config.json").write_text("{}")
    result = command(*SWEEP, *arguments)
    assert result.code == 2
    assert result.err.startswith("lstm-research: error: ")
    assert result.err.count("\n") == 1
    assert [word for word in words if word not in result.err] == []
    assert not (project / "sweeps" / "new" / "sweep.json").exists()
    assert list((project / "sweeps").rglob("trial.json")) == []


@pytest.mark.parametrize(("flag", "word"), [("--workdir=", "--workdir=FOLDER"), ("--sweep=", "--sweep=FILE.py")])
def test_what_is_missing_is_named(flag: str, word: str, command: Command, project: Path) -> None:
    result = command(*SWEEP, flag)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert word in result.err


def test_status_of_no_sweep(command: Command, project: Path) -> None:
    result = command("sweep", "--workdir=nowhere", "--status")
    assert result.code == 2
    assert "nowhere holds no sweep" in result.err


def test_a_sweep_trains_its_trials_and_its_best_can_be_trained(command: Command, project: Path) -> None:
    (project / "sweep.py").write_text(POINTS)
    arguments = (*SWEEP, "--workers=2", "--config.model.cell.hidden_size=4", "--config.training.num_steps=99")
    result = command(*arguments)
    assert result.code == 0, result.err
    sweep = read_sweep(Path("sweeps/new"))
    assert [trial.state for trial in sweep.trials] == ["finished"] * 2
    for trial in sweep.trials:
        config = json.loads((trial.workdir / "config.json").read_text())
        assert config["model"]["cell"]["hidden_size"] == 4
        assert config["training"]["num_steps"] == 4  # the trial's own override takes the place of the sweep's
        assert config["optimizer"]["learning_rate"] == trial.overrides["optimizer.learning_rate"]
        assert trial.value == trial.validations("loss")[4]
    rows = list(csv.DictReader(Path("sweeps/new/sweep.csv").read_text().splitlines()))
    assert [row["optimizer.learning_rate"] for row in rows] == ["0.01", "0.1"]
    assert [float(row["test_loss"]) for row in rows] == [trial.test["loss"] for trial in sweep.trials]
    assert sweep.best is not None
    assert "python -m lstm_research train --config=recipe.py --workdir=sweeps/new/best/run" in result.out
    again = command("train", "--config=sweeps/new/best/config.py", "--workdir=again")
    assert again.code == 0, again.err
    values = [line["loss"] for line in read_metrics(Path("again/metrics.jsonl")) if line["split"] == "valid"]
    assert values == pytest.approx([sweep.best.value], rel=1e-5)

    status = command("sweep", "--workdir=sweeps/new", "--status")
    assert "2 of 2 trials over" in status.out
    assert command(*arguments).code == 0  # nothing is left to do
    other = command(*arguments, "--config.seed=7")
    assert other.code == 2
    assert "holds another sweep (seed: 0 -> 7)" in other.err
    (project / "sweep.py").write_text(SPACE)
    other = command(*arguments)
    assert "holds another sweep (points, space, sampler: points -> tpe" in other.err


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # how ml_collections loads a recipe
def test_the_sweep_files_of_the_tour_fit_their_recipe(project: Path) -> None:
    root = Path(__file__).parents[2]
    recipe = root / "configs" / "synthetic.py"
    text = (root / "docs" / "sweeps.md").read_text("utf-8")
    numbers = []
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (project / "sweep.py").write_text(block)
        file = read_sweep_file(Path("sweep.py"))
        sweep = define_sweep(
            file, parse_config, folder=Path("new"), recipe=str(recipe), recipe_text=recipe.read_text("utf-8")
        )
        numbers.append(sweep.num_trials)
    assert numbers == [18, 40]
