"""What a sweep shows: a table of the running trials on a terminal, one line for each event elsewhere."""

import io
import json
from pathlib import Path

import pytest
from drive import fake_sweep
from rich.console import Console

from lstm_research.common.errors import UserError
from lstm_research.sweeps.display import Display, show_results
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import Trial


def course(trial: Trial, steps: int) -> None:
    """Writes what a run has logged up to a step."""
    lines = [{"step": step, "split": "train", "seconds": step / 4, "loss": 2.0} for step in range(1, steps + 1)]
    lines.append({"step": steps, "split": "valid", "seconds": steps / 4, "loss": 1.25})
    (trial.workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("terminal", [True, False])
def test_running_trials_and_ends(terminal: bool, tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep", points=[{"x": 0.0}, {"x": 1.0}])
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=400, color_system=None)
    with Study(sweep) as study, Display(sweep, console) as display:
        trial = study.ask()
        assert trial is not None
        display.started(trial)
        course(trial, 12)
        display.update([trial])
        trial.state, trial.value, trial.best_step = "finished", 1.25, 12
        display.ended(trial)
    text = out.getvalue()
    assert "2 trials, minimize validation loss" in text
    assert "trial 0 starts: x=0" in text
    assert "trial 0 finished: loss 1.25 at step 12, best so far  (1/2)" in text
    table = [line for line in text.splitlines() if "x=0" in line and "starts" not in line]
    assert any(line.split()[-5:] == ["waiting", "12", "4.0", "1.25", "x=0"] for line in table) == terminal


def test_the_table_of_results_has_the_best_first_and_tells_why_trials_failed(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep", points=[{"a.x": 0.5}, {"a.x": None}, {"a.x": 0.25, "b.x": 1}])
    with Study(sweep) as study:
        trials = list(iter(study.ask, None))
    for trial, (state, value, reason) in zip(
        trials, [("pruned", 0.1, ""), ("failed", None, "no such data"), ("diverged", 0.2, "")], strict=True
    ):
        trial.state, trial.value, trial.reason = state, value, reason
        trial.write()
    out = io.StringIO()
    show_results(read_sweep(sweep.folder), Console(file=out, width=200))
    assert [line.split() for line in out.getvalue().splitlines()[:4]] == [
        ["trial", "state", "loss", "step", "seconds", "a.x", "b.x"],
        ["0", "pruned", "0.1", "0.5"],
        ["2", "diverged", "0.2", "0.25", "1"],
        ["1", "failed", "None", "no", "such", "data"],
    ]


def test_damaged_records_are_named(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep")
    with Study(sweep) as study:
        trial = study.ask()
    assert trial is not None
    trial.record.write_text("{")
    with pytest.raises(UserError, match=r"0000/trial.json is damaged"):
        read_sweep(sweep.folder)
    (sweep.folder / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"sweep.json is damaged: KeyError: 'points'"):
        read_sweep(sweep.folder)
