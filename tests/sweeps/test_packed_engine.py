"""The engine that trains a sweep's trials in packs: killed at every moment, pruned, refused; each trial ends once."""

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from lstm_research.cli.config_flag import parse_config
from lstm_research.common.errors import UserError
from lstm_research.sweeps.definition import SweepDefinition, define_sweep
from lstm_research.sweeps.engines import make_engine
from lstm_research.sweeps.packed import PackedEngine, _Batch
from lstm_research.sweeps.process import TrialProcess
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.sweep_file import read_sweep_file
from lstm_research.sweeps.trial import Trial
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.loop import finished_step
from lstm_research.training.packed import Packer

RECIPE = """
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({
        "seed": 0,
        "dataset": {"name": "adding", "length": 6},
        "vocabulary": {},
        "task": {"name": "synthetic", "batch_size": 4},
        "model": {
            "name": "sequence_model", "cell": {"name": "lstm", "hidden_size": 4}, "num_layers": 1, "dropout": {},
        },
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "training": {"num_steps": 6, "log_every": 3, "eval_every": 2, "checkpoint_every": 3},
    })
"""
POINTS = """
def get_hyper(hyper):
    return hyper.chainit([
        hyper.sweep("optimizer.learning_rate", [0.001, 0.01, 0.1]), hyper.sweep("model.cell.hidden_size", [3]),
    ])
"""
SPACE = """
NUM_TRIALS = 5


def get_space(space):
    return [space.log_uniform("optimizer.learning_rate", 1e-3, 1e-1)]
"""

pytestmark = [
    pytest.mark.usefixtures("collected_alone", "unchecked_shapes"),
    pytest.mark.filterwarnings("ignore:.*load_module.*:DeprecationWarning"),  # of the flag that reads a recipe
]


@pytest.fixture(scope="module")
def engine() -> PackedEngine:
    """One for all tests: what it has compiled serves the next one."""
    return PackedEngine(pack=2)


def sweep_of(folder: Path, text: str, **options: Any) -> SweepDefinition:
    """Returns a sweep of the recipe."""
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "sweep.py").write_text(text)
    recipe = str(folder / "recipe.py")
    chosen: dict[str, Any] = {"folder": folder / "sweep", "recipe": recipe, "recipe_text": RECIPE, **options}
    return define_sweep(read_sweep_file(folder / "sweep.py"), parse_config, **chosen)


def outcomes(folder: Path) -> list[tuple[Any, ...]]:
    """Returns what came out; values but for their last bits, which may depend on how many are in a pack."""
    return [(t.number, t.overrides, t.state, t.best_step, round(t.value or 0, 5)) for t in read_sweep(folder).trials]


@pytest.fixture(scope="module")
def undisturbed(engine: PackedEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that ran through."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert engine.run(sweep_of(folder, POINTS)) == 0
    return folder / "sweep"


def test_the_trials_are_those_of_the_command(undisturbed: Path) -> None:
    sweep = read_sweep(undisturbed)
    assert [trial.state for trial in sweep.trials] == ["finished"] * 4
    assert (undisturbed / "sweep.csv").read_text().count("finished") == 4
    assert (undisturbed / "best" / "command.txt").exists()
    for trial in sweep.trials:
        command = sweep.definition.train_command(trial.overrides, trial.workdir)
        arguments = [argument for argument in command if argument.startswith("--config")]
        assert finished_step(parse_config(arguments), trial.workdir) == 6
        assert (trial.workdir / "argv.txt").read_text().split() == command


class Death(BaseException):
    """The end of the process at one moment; what the system would release, `with` does."""


MOMENTS = {
    "before anything is asked": (Study, "ask", 0, "before"),
    "asked, not all": (Study, "ask", 1, "after"),
    "recorded as running, some of them": (Trial, "write", 5, "before"),
    "nothing is trained": (Packer, "train", 0, "before"),
    "the first checkpoint": (Checkpoints, "save", 0, "before"),
    "one of two has its checkpoint": (Checkpoints, "save", 0, "after"),
    "one of two is finished": (_Batch, "_end", 0, "before"),
    "its result is recorded": (optuna.study.Study, "tell", 0, "before"),
    "it is told": (Study, "tell", 0, "after"),
    "all but one are told": (Study, "tell", 2, "after"),
}


SAMPLE = ("recorded as running, some of them", "one of two has its checkpoint", "its result is recorded")


@pytest.mark.parametrize("moment", [pytest.param(m, marks=[] if m in SAMPLE else pytest.mark.whole) for m in MOMENTS])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_killed_at_any_moment_the_same_command_goes_on(
    moment: str, engine: PackedEngine, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, before, when = MOMENTS[moment]
    real, calls = getattr(owner, name), []

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if when == "before" and len(calls) == before + 1:
            raise Death
        result = real(*args, **kwargs)
        if when == "after" and len(calls) == before + 1:
            raise Death
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Death):
            engine.run(sweep_of(tmp_path, POINTS))
    gc.collect()
    assert engine.run(sweep_of(tmp_path, POINTS)) == 0
    assert outcomes(tmp_path / "sweep") == outcomes(undisturbed)


def test_a_signal_saves_all_and_the_same_command_goes_on(
    engine: PackedEngine, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: _Batch, index: int) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(_Batch, "_is_enough", stop)
        assert engine.run(sweep_of(tmp_path, POINTS)) == 143
    assert {trial.state for trial in read_sweep(tmp_path / "sweep").trials} == {"waiting"}
    assert engine.run(sweep_of(tmp_path, POINTS)) == 0
    assert outcomes(tmp_path / "sweep") == outcomes(undisturbed)


def test_tpe_is_asked_for_a_pack_at_a_time(
    engine: PackedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    train = _Batch.train

    def counting(self: _Batch, *rest: Any) -> Any:
        sizes.append(len(self._trials))
        return train(self, *rest)

    monkeypatch.setattr(_Batch, "train", counting)
    assert engine.run(sweep_of(tmp_path, SPACE)) == 0
    assert sizes == [2, 2, 1]
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["finished"] * 5


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_trial_is_pruned_alone_and_stays_so(
    engine: PackedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 at once; trial 2 when its sweep goes on, which was killed while it saved."""
    end = _Batch._end

    def dying(self: _Batch, index: int, outcome: Any) -> None:
        if index == 2:
            raise Death
        end(self, index, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "report", lambda self, trial: trial.number in (1, 2))
        patch.setattr(_Batch, "_end", dying)
        with pytest.raises(Death):
            engine.run(sweep_of(tmp_path, POINTS))
    gc.collect()
    assert engine.run(sweep_of(tmp_path, POINTS)) == 0
    trials = read_sweep(tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == ["finished", "pruned", "pruned", "finished"]
    assert [trial.step < 6 for trial in trials] == [False, True, True, False]


def test_what_all_first_trials_are_refused_for_stops_the_sweep(engine: PackedEngine, tmp_path: Path) -> None:
    refused = sweep_of(tmp_path, POINTS.replace("[3]", "[4]"), overrides=["--config.training.init_from=nowhere"])
    with pytest.raises(
        UserError, match=r"the first trials are all refused: training\.init_from: no workdir at nowhere"
    ):
        engine.run(refused)
    assert {trial.state for trial in read_sweep(tmp_path / "sweep").trials} == {"waiting"}


def test_a_trial_that_still_runs_elsewhere_is_left_alone(engine: PackedEngine, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, POINTS)
    with Study(sweep) as study:
        trial = study.ask()
        assert trial is not None
        trial.state = "running"
        trial.write()
    process = TrialProcess.start(trial, [sys.executable, "-c", "import time; time.sleep(60)"])
    assert process is not None
    try:
        with pytest.raises(UserError, match="trial 0 still runs as another engine started it"):
            engine.run(sweep)
    finally:
        process.stop()
        while not process.has_ended():
            time.sleep(0.01)


def test_the_engine_has_its_own_options() -> None:
    assert isinstance(make_engine("packed", {"pack": 4, "workers": None}), PackedEngine)
    with pytest.raises(UserError, match="--workers is not for --engine=packed, which takes --pack"):
        make_engine("packed", {"workers": 2})
    with pytest.raises(UserError, match="--pack must be at least 1, got 0"):
        make_engine("packed", {"pack": 0})
