"""The driver and the processes of its trials: killed, refused, stopped at every moment, and still each ends once."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from drive import count, drive, fake_sweep

from lstm_research.common.errors import UserError
from lstm_research.sweeps import driver, study
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.local import ProcessLauncher, gpus, worker_environments
from lstm_research.sweeps.process import TrialProcess, is_alive
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import Trial

pytestmark = pytest.mark.usefixtures("collected_alone")


def told(folder: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    storage = optuna.storages.journal.JournalStorage(backend)
    return optuna.load_study(study_name="sweep", storage=storage).get_trials()


def outcomes(folder: Path) -> list[tuple[Any, ...]]:
    return [(t.number, t.overrides, t.state, t.value) for t in read_sweep(folder).trials]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_undisturbed_sweep_ends_every_trial_once(tmp_path: Path) -> None:
    assert drive(fake_sweep(tmp_path / "sweep", num_trials=4)) == 0
    sweep = read_sweep(tmp_path / "sweep")
    assert [trial.state for trial in sweep.trials] == ["finished"] * 4
    assert [trial.value for trial in sweep.trials] == [trial.overrides["x"] + 1 / 5 for trial in sweep.trials]
    assert [trial.value for trial in told(tmp_path / "sweep")] == [trial.value for trial in sweep.trials]
    assert count(tmp_path / "sweep", "starts.txt") == [1] * 4
    assert sweep.best == min(sweep.trials, key=lambda trial: trial.value or 0)
    assert drive(fake_sweep(tmp_path / "sweep", num_trials=4)) == 0  # nothing is left to do
    assert count(tmp_path / "sweep", "starts.txt") == [1] * 4


class Death(BaseException):
    """The driver's end at one moment; what the system would release, `with` does."""


def drive_until_death(sweep: SweepDefinition, workers: int = 2) -> None:
    """Drives a sweep until somebody raises `Death`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a driver that dies leaves its children behind
        try:
            drive(sweep, workers)
        except Death:
            gc.collect()
        else:
            pytest.fail("the driver survived")


MOMENTS = {
    "before anything is asked": (optuna.study.Study, "ask", 0, "before"),
    "asked, no value yet": (study, "choose", 1, "before"),
    "one of two values": (study, "_draw", 1, "before"),
    "both values, no record": (Trial, "write", 0, "before"),
    "recorded, not running": (Trial, "write", 0, "after"),
    "running, no process": (TrialProcess, "start", 0, "before"),
    "a process, and nobody wrote so": (TrialProcess, "start", 1, "after"),
    "its place is recorded": (driver.Driver, "_start_more", 0, "after"),
    "the process has ended": (driver, "end_trial", 0, "before"),
    "the result is not recorded": (Study, "tell", 1, "before"),
    "the result is recorded": (optuna.study.Study, "tell", 1, "before"),
    "Optuna knows": (optuna.study.Study, "tell", 0, "after"),
    "the last one is told": (Study, "tell", 2, "after"),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_dies_at_any_moment_loses_and_doubles_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    sweep = fake_sweep(tmp_path / "sweep")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        drive_until_death(sweep)
    assert drive(sweep) == 0
    undisturbed = fake_sweep(tmp_path / "undisturbed")
    with Study(undisturbed) as asked:
        points = [(trial.number, trial.overrides) for trial in iter(asked.ask, None)]
    found = outcomes(tmp_path / "sweep")
    assert [(number, point) for number, point, _, _ in found] == points
    assert [(state, value) for _, _, state, value in found] == [("finished", p["x"] + 1 / 5) for _, p in points]
    assert [(t.state.name, t.value) for t in told(tmp_path / "sweep")] == [("COMPLETE", f[3]) for f in found]
    # No process died, so none was started twice: those that ran on were found again.
    assert count(tmp_path / "sweep", "starts.txt") == [1] * 3


@pytest.fixture
def driver_process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts drivers of fake trials; none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).with_name("drive.py")), str(folder), json.dumps(options)]
        with open(tmp_path / "driver.log", "ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def kill_a_worker(folder: Path, chance: random.Random) -> bool:
    """Kills the process of a running trial; returns whether there was one."""
    running = [trial for trial in (folder / "trials").glob("*") if is_alive(trial)]
    if not running:
        return False
    words = (chance.choice(running) / ".process").read_text().split()
    try:
        os.kill(int(words[0]), signal.SIGKILL)
    except (ProcessLookupError, IndexError):
        return False
    return True


def test_thirty_trials_survive_five_kills_of_the_driver_and_of_workers(
    driver_process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder, chance = tmp_path / "sweep", random.Random(1)
    options = {"num_trials": 30, "overrides": ["--config.delay=0.05"]}
    kills = {"driver": 5, "worker": 5}
    process = driver_process(folder, **options)
    while any(kills.values()):
        wait_until(lambda: any(map(is_alive, (folder / "trials").glob("*"))))
        time.sleep(chance.uniform(0.05, 0.5))
        assert process.poll() is None  # or the sweep was over before all kills: make it longer
        victim = chance.choice([name for name, left in kills.items() if left])
        if victim == "driver":
            process.kill()
            process.wait()
            process = driver_process(folder, **options)
        elif not kill_a_worker(folder, chance):
            continue
        kills[victim] -= 1
    assert process.wait(timeout=120) == 0
    sweep = read_sweep(folder)
    undisturbed = fake_sweep(tmp_path / "undisturbed", num_trials=30)
    with Study(undisturbed) as asked:
        points = [trial.overrides for trial in iter(asked.ask, None)]
    assert [trial.overrides for trial in sweep.trials] == points
    assert [(t.state, t.value) for t in sweep.trials] == [("finished", p["x"] + 1 / 5) for p in points]
    assert [(t.state.name, t.value) for t in told(folder)] == [("COMPLETE", trial.value) for trial in sweep.trials]
    assert len((folder / "sweep.csv").read_text().splitlines()) == 31
    assert count(folder, "ends.txt") == [1] * 30
    assert sum(count(folder, "starts.txt")) <= 35  # as many more as workers were killed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_driver_stops_its_trials_and_the_same_command_goes_on(
    number: int, code: int, driver_process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder, options = tmp_path / "sweep", {"num_trials": 2, "overrides": ["--config.steps=100", "--config.delay=0.02"]}
    process = driver_process(folder, **options)
    wait_until(lambda: len(list(folder.glob("trials/*/status.json"))) == 2)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert [is_alive(trial) for trial in (folder / "trials").iterdir()] == [False, False]
    trials = read_sweep(folder).trials
    assert [trial.state for trial in trials] == ["waiting"] * 2
    steps = [trial.step for trial in trials]
    assert all(0 < step < 100 for step in steps)
    assert drive(fake_sweep(folder, **options)) == 0
    trials = read_sweep(folder).trials
    assert [(trial.state, trial.restarts) for trial in trials] == [("finished", 0)] * 2
    assert [trial.restarted_from for trial in trials] == steps


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep")
    with Study(sweep), pytest.raises(UserError, match=r"another process drives the sweep in .*--storage"):
        drive(sweep)


def test_several_drivers_share_a_database_and_double_nothing(tmp_path: Path) -> None:
    sweep, url = fake_sweep(tmp_path / "sweep", num_trials=6), f"sqlite:///{tmp_path / 'study.db'}"
    with Study(sweep, url) as one, Study(sweep, url) as other:
        asked = [study.ask() for study in (one, other, one, other, one, other, one, other)]
        assert [trial and trial.number for trial in asked] == [0, 1, 2, 3, 4, 5, None, None]
        assert one.unfinished() == other.unfinished() == []
    with Study(sweep, url) as heir:  # both are gone
        assert [trial.number for trial in heir.unfinished()] == [0, 1, 2, 3, 4, 5]
        assert heir.unfinished() == []


@pytest.mark.whole
def test_a_driver_of_two_is_killed_and_the_other_ends_the_sweep(
    driver_process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder, url = tmp_path / "sweep", f"sqlite:///{tmp_path / 'study.db'}"
    options = {"num_trials": 12, "overrides": ["--config.delay=0.1"], "storage": url}
    first = driver_process(folder, **options)
    wait_until(lambda: (folder / "trials").exists())
    second = driver_process(folder, **options)
    wait_until(lambda: len(list(folder.glob("trials/*/trial.json"))) > 5)
    first.kill()
    assert second.wait(timeout=60) == 0
    assert [trial.state for trial in read_sweep(folder).trials] == ["finished"] * 12
    assert count(folder, "starts.txt") == [1] * 12


def test_a_driver_takes_over_what_another_one_left_while_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, url = fake_sweep(tmp_path / "sweep"), f"sqlite:///{tmp_path / 'study.db'}"
    other = Study(sweep, url)
    other.__enter__()
    assert other.ask() is not None
    real, left = ProcessLauncher.start, []

    def start(self: ProcessLauncher, trials: Any) -> Any:
        if not left:
            left.append(other.__exit__(None, None, None))
        return real(self, trials)

    monkeypatch.setattr(ProcessLauncher, "start", start)
    monkeypatch.setattr(driver, "LOOK_AROUND_SECONDS", 0.05)
    with Study(sweep, url) as study:
        assert driver.Driver(sweep, study, ProcessLauncher(sweep, [{}]), poll_seconds=0.01).run() == 0
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["finished"] * 3
    assert count(tmp_path / "sweep", "starts.txt") == [1] * 3


def test_trials_end_as_their_commands_do(tmp_path: Path) -> None:
    modes = ["train", "diverge", "crash", "crash once", "die", "refuse"]
    sweep = fake_sweep(tmp_path / "sweep", points=[{"x": 0.0, "mode": mode} for mode in modes])
    assert drive(sweep, workers=1, max_restarts=2) == 0
    trials = read_sweep(tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == ["finished", "diverged", "failed", "finished", "failed", "failed"]
    assert [trial.reason for trial in trials] == [
        "",
        "diverged at step 3: loss is nan",
        "RuntimeError: out of memory",
        "",
        "it died 3 times without getting any further",
        "no such data",
    ]
    # A diverged trial counts with the best it had; one that failed teaches the sampler nothing.
    assert [(t.state.name, t.value) for t in told(tmp_path / "sweep")] == [
        ("COMPLETE", 1 / 5),
        ("COMPLETE", 1 / 2),
        ("FAIL", None),
        ("COMPLETE", 1 / 5),
        ("FAIL", None),
        ("FAIL", None),
    ]
    # A fault of the machine goes away when the run goes on; one of the trial's own comes again.
    assert count(tmp_path / "sweep", "starts.txt") == [1, 1, 2, 2, 3, 1]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("refuse", "no such data"),
        ("break", "ImportError: no jaxlib"),
        ("die", "it died once without getting any further"),
    ],
)
def test_a_mistake_of_all_first_trials_stops_the_sweep_and_costs_none(mode: str, reason: str, tmp_path: Path) -> None:
    mistaken = fake_sweep(tmp_path / "sweep", num_trials=4, overrides=[f"--config.mode={mode}"])
    with pytest.raises(UserError, match=rf"first trials all fail before their first step: {reason} \(see .*trial.log"):
        drive(mistaken, max_restarts=0)
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["waiting"] * 2
    assert drive(fake_sweep(tmp_path / "sweep", num_trials=4)) == 0
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["finished"] * 4


def test_a_refused_trial_beside_one_that_trains_is_a_failed_one(tmp_path: Path) -> None:
    points = [{"mode": "refuse"}, {"mode": "train", "delay": 0.05}]
    assert drive(fake_sweep(tmp_path / "sweep", points=points)) == 0
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["failed", "finished"]


def test_bad_trials_are_pruned_and_their_runs_saved(tmp_path: Path) -> None:
    points = [{"x": x, "steps": 60} for x in (0.0, 2.0, 3.0)]
    assert drive(fake_sweep(tmp_path / "sweep", points=points, pruner="asha"), workers=1) == 0
    trials = read_sweep(tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == ["finished", "pruned", "pruned"]
    assert [t.state.name for t in told(tmp_path / "sweep")] == ["COMPLETE", "PRUNED", "PRUNED"]
    status = json.loads((trials[1].workdir / "status.json").read_text())
    assert status["state"] == "preempted"
    assert 0 < status["step"] < 60
    assert list(told(tmp_path / "sweep")[0].intermediate_values) == list(range(1, 61))


def test_a_driver_that_dies_while_it_prunes_prunes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = fake_sweep(tmp_path / "sweep", points=[{"x": 0.0}, {"x": 2.0, "steps": 200, "delay": 0.05}], pruner="asha")

    def dying(self: TrialProcess) -> bool:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(TrialProcess, "stop", dying)
        drive_until_death(sweep, workers=1)
    assert read_sweep(tmp_path / "sweep").trials[1].state == "pruning"
    assert drive(sweep, workers=1) == 0
    assert read_sweep(tmp_path / "sweep").trials[1].state == "pruned"
    assert count(tmp_path / "sweep", "starts.txt") == [1, 1]


def test_a_changed_recipe_stops_the_sweep_before_the_next_trial(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep")
    (tmp_path / "recipe.py").write_text("# changed")
    with pytest.raises(UserError, match=r"recipe.py has changed while the sweep in .* was running"):
        drive(sweep)


def test_a_torn_journal_and_a_left_lock_are_repaired(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep")
    with Study(sweep) as asked:
        asked.ask()
    journal = tmp_path / "sweep" / "journal.log"
    with open(journal, "ab") as file:
        file.write(b'{"op_code":')
    os.symlink(journal, f"{journal}.lock")
    start = time.monotonic()
    assert drive(sweep) == 0
    assert time.monotonic() - start < 20  # Optuna alone would wait 30 seconds for the lock
    assert [trial.state.name for trial in told(tmp_path / "sweep")] == ["COMPLETE"] * 3


def test_workers_share_gpus_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def environments(workers: int, per_trial: int | None, devices: list[str], **own: str) -> list[dict[str, str]]:
        return worker_environments(workers, per_trial, devices, own)

    assert environments(2, 2, ["0", "1", "2", "3", "4"]) == [
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        {"CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert environments(2, None, ["5"]) == [{"CUDA_VISIBLE_DEVICES": "5", **shared}] * 2
    assert environments(1, None, []) == [{}]
    monkeypatch.setattr("lstm_research.sweeps.local.cores", lambda: 7)
    assert environments(3, None, []) == [{"NPROC": "2", "OMP_NUM_THREADS": "2"}] * 3
    assert environments(3, None, [], NPROC="7") == [{"OMP_NUM_THREADS": "2"}] * 3
    with pytest.raises(UserError, match="--devices_per_trial=2: there are 1 GPUs here"):
        environments(1, 2, ["0"])


@pytest.mark.parametrize(
    ("platforms", "found"), [(None, ["2", "3"]), ("", ["2", "3"]), ("gpu,cpu", ["2", "3"]), ("cpu", [])]
)
def test_gpus_are_those_that_jax_will_use(
    platforms: str | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms is not None:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert gpus() == found


def test_a_worker_keeps_its_place_when_it_is_found_again(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep", points=[{"delay": 0.2}, {"delay": 0.2, "x": 1.0}, {"x": 2.0}])
    with Study(sweep) as asked:
        first, second, third = (trial for trial in iter(asked.ask, None))
        jobs = ProcessLauncher(sweep, [{}, {}]).start([first, second])
        later = ProcessLauncher(sweep, [{}, {}, {}])
        assert later.adopt(second) is not None
        assert later.adopt(first) is not None
        jobs += later.start([third])
        assert [trial.job for trial in (first, second, third)] == ["0", "1", "2"]
        wait_until(lambda: all(job.has_ended() for job in jobs))
