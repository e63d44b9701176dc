"""Asking and telling without any process, as an engine that trains many trials at once does."""

import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from drive import fake_sweep
from rich.console import Console

from lstm_research.common.errors import UserError
from lstm_research.sweeps.display import show_results
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.space import Parameter
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import FINISHED, PRUNED, Trial


def train(trial: Trial, value: float, steps: int = 4) -> None:
    """Writes what a finished run has written, whose validations fall to a value."""
    lines: list[dict[str, Any]] = [
        {"step": step, "split": "valid", "seconds": 1.0, "loss": value + (steps - step)} for step in range(1, steps + 1)
    ]
    (trial.workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = {"metric": "loss", "step": steps, "value": value}
    (trial.workdir / "status.json").write_text(json.dumps({"state": "finished", "step": steps, "best": best}))
    (trial.workdir / "config.json").write_text('{"seed": 0}')
    (trial.workdir / "best").mkdir()
    (trial.workdir / "best" / "model.safetensors").write_text("")


def test_tpe_learns_from_what_it_is_told_and_random_does_not(tmp_path: Path) -> None:
    means = {}
    for sampler in ("tpe", "random"):
        with Study(fake_sweep(tmp_path / sampler, num_trials=30, sampler=sampler)) as study:
            for trial in iter(study.ask, None):
                train(trial, trial.overrides["x"])
                trial.end(FINISHED)
                study.tell(trial)
        xs = [trial.overrides["x"] for trial in read_sweep(tmp_path / sampler).trials]
        means[sampler] = sum(xs[15:]) / 15
    assert means["tpe"] < 0.5 * means["random"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_a_trial_draws_does_not_depend_on_restarts(sampler: str, tmp_path: Path) -> None:
    found = []
    for restarts in (False, True):
        sweep = fake_sweep(tmp_path / str(restarts), num_trials=14, sampler=sampler, seed=3)
        study = Study(sweep)
        study.__enter__()
        for number in range(14):
            if restarts:
                study.__exit__()
                study = Study(sweep)
                study.__enter__()
            trial = study.ask()
            assert trial is not None
            assert trial.number == number
            train(trial, trial.overrides["x"])
            trial.end(FINISHED)
            study.tell(trial)
        study.__exit__()
        found.append([trial.overrides for trial in read_sweep(tmp_path / str(restarts)).trials])
    assert found[0] == found[1]
    other = fake_sweep(tmp_path / "other", num_trials=14, sampler=sampler, seed=4)
    with Study(other) as study:
        trial = study.ask()
    assert trial is not None
    assert trial.overrides != found[0][0]


def test_many_trials_may_be_asked_for_at_once(tmp_path: Path) -> None:
    with Study(fake_sweep(tmp_path / "sweep", num_trials=4)) as study:
        trials = list(iter(study.ask, None))
        for trial in reversed(trials):
            train(trial, 1.0 - trial.number)
            trial.end(FINISHED)
            study.tell(trial)
        assert study.is_complete()
    sweep = read_sweep(tmp_path / "sweep")
    assert [trial.number for trial in sweep.trials] == [0, 1, 2, 3]
    assert sweep.best is not None
    assert sweep.best.number == 3
    assert "Trial 3 of a sweep" in (tmp_path / "sweep" / "best" / "config.py").read_text()


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_pruners_stop_what_is_worse_than_others_at_the_same_step(pruner: str, tmp_path: Path) -> None:
    verdicts = []
    with Study(fake_sweep(tmp_path / "sweep", num_trials=12, pruner=pruner)) as study:
        for trial in iter(study.ask, None):
            train(trial, float(trial.number))
            verdicts.append(study.report(trial))
            trial.end(PRUNED if verdicts[-1] else FINISHED)
            study.tell(trial)
            assert not study.report(trial)  # nothing new, so nothing is told twice
    assert verdicts[0] is False
    assert sum(verdicts) >= 3
    states = [trial.state for trial in read_sweep(tmp_path / "sweep").trials]
    assert states == [PRUNED if pruned else FINISHED for pruned in verdicts]


def test_more_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep", num_trials=3, sampler="tpe")
    object.__setattr__(sweep, "direction", "maximize")
    with Study(sweep) as study:
        for trial in iter(study.ask, None):
            train(trial, float(trial.number))
            trial.end(FINISHED)
            study.tell(trial)
    best = read_sweep(tmp_path / "sweep").best
    assert best is not None
    assert best.number == 2


def test_a_larger_budget_goes_on_and_another_sweep_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    with Study(fake_sweep(folder, num_trials=2)) as study:
        assert len(list(iter(study.ask, None))) == 2
    with Study(fake_sweep(folder, num_trials=3)) as study:
        assert len(study.unfinished()) == 2
        assert len(list(iter(study.ask, None))) == 1
    others = {
        "num_trials: 3 -> 2": {"num_trials": 2},
        "sampler: random -> tpe": {"num_trials": 3, "sampler": "tpe"},
        "pruner: none -> asha": {"num_trials": 3, "pruner": "asha"},
        "seed: 0 -> 1": {"num_trials": 3, "seed": 1},
        r"\(space\)": {"num_trials": 3, "space": (Parameter("x", "float", 0.0, 2.0),)},
    }
    for message, options in others.items():
        with pytest.raises(UserError, match=f"holds another sweep .*{message}"), Study(fake_sweep(folder, **options)):
            pass


def test_more_trials_are_asked_for_than_a_process_may_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with Study(fake_sweep(tmp_path / "sweep", num_trials=50)) as study:
            assert len(list(iter(study.ask, None))) == 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="run is not the folder of a sweep"), Study(fake_sweep(tmp_path / "run")):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_another_storage_than_the_first_is_refused(tmp_path: Path) -> None:
    sweep, url = fake_sweep(tmp_path / "sweep"), f"sqlite:///{tmp_path / 'study.db'}"
    with Study(sweep) as study:
        study.ask()
    with pytest.raises(UserError, match=r"--storage=sqlite.* knows 0 of the 1 trials"), Study(sweep, url):
        pass


def test_the_best_is_named_before_its_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study(fake_sweep(tmp_path / "sweep", num_trials=1)) as study:
        trial = study.ask()
        assert trial is not None
        train(trial, 1.0)
        trial.end(FINISHED)
        monkeypatch.setattr("lstm_research.sweeps.study.write_results", lambda sweep: None)  # killed before that
        study.tell(trial)
    out = io.StringIO()
    show_results(read_sweep(tmp_path / "sweep"), Console(file=out, width=1000))
    assert "the best, trial 0: python" in out.getvalue()


def test_a_trial_without_an_end_cannot_be_told(tmp_path: Path) -> None:
    with Study(fake_sweep(tmp_path / "sweep")) as study:
        trial = study.ask()
        assert trial is not None
        with pytest.raises(ValueError, match="trial 0 is waiting, and has no end to tell"):
            study.tell(trial)


def test_a_run_without_validation_has_no_value(tmp_path: Path) -> None:
    with Study(fake_sweep(tmp_path / "sweep", num_trials=1)) as study:
        trial = study.ask()
        assert trial is not None
        (trial.workdir / "status.json").write_text('{"state": "finished", "step": 4, "best": null}')
        trial.end(FINISHED)
        study.tell(trial)
    sweep = read_sweep(tmp_path / "sweep")
    assert (sweep.trials[0].state, sweep.trials[0].value, sweep.best) == (FINISHED, None, None)
