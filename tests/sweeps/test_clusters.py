"""The engines `ray` and `slurm`, on this machine: trials whose machine dies or that are preempted go on elsewhere."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from drive import count, fake_sweep

from lstm_research.common.errors import UserError
from lstm_research.sweeps.engines import make_engine
from lstm_research.sweeps.process import TrialProcess
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.slurm import SlurmEngine, SlurmLauncher
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.until_parent_ends import main as until_parent_ends


def on_ray(folder: Path, nodes: int, **options: Any) -> str:
    """Drives a sweep on a cluster of its own, in a process of its own; returns what it printed."""
    program = Path(__file__).with_name("ray_sweep.py")
    command = [sys.executable, str(program), str(folder), json.dumps(options), str(nodes)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_trials_run_on_a_ray_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    on_ray(folder, 1, num_trials=2)
    assert [(trial.state, trial.restarts) for trial in read_sweep(folder).trials] == [("finished", 0)] * 2
    assert count(folder, "starts.txt") == [1, 1]


@pytest.mark.whole
def test_trials_of_a_machine_that_dies_go_on_on_another(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    out = on_ray(folder, 2, num_trials=5, overrides=["--config.steps=60", "--config.delay=0.05"])
    assert "killing a node" in out
    assert "died at step" in out
    assert [trial.state for trial in read_sweep(folder).trials] == ["finished"] * 5
    assert count(folder, "ends.txt") == [1] * 5
    assert sum(count(folder, "starts.txt")) == 6
    assert count(folder, "metrics.jsonl") == [61] * 5  # without gap or double


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs as processes of this machine, which submitit can preempt."""
    monkeypatch.setattr(SlurmEngine, "cluster", "local")
    monkeypatch.setattr(SlurmEngine, "poll_seconds", 0.05)


@pytest.mark.usefixtures("slurm")
def test_a_preempted_job_of_an_array_saves_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, batches = tmp_path / "sweep", []
    real = SlurmLauncher.start

    def start(self: SlurmLauncher, trials: Any) -> Any:
        jobs = real(self, trials)
        batches.append(jobs)
        return jobs

    def preempt() -> None:
        while not (folder / "trials" / "0000" / "status.json").exists():
            time.sleep(0.02)
        trial = (folder / "trials" / "0000" / ".process").read_text().split()[0]
        job = subprocess.run(["ps", "-o", "ppid=", "-p", trial], capture_output=True, check=True)
        os.kill(int(job.stdout), signal.SIGUSR2)  # as SLURM does

    monkeypatch.setattr(SlurmLauncher, "start", start)
    threading.Thread(target=preempt, daemon=True).start()
    sweep = fake_sweep(folder, num_trials=4, overrides=["--config.steps=80", "--config.delay=0.02"])
    assert SlurmEngine(slurm_array_parallelism=4).run(sweep) == 0
    assert [len(jobs) for jobs in batches] == [4]
    # The driver need not know of it: the same job was queued again.
    assert [(trial.state, trial.restarts) for trial in read_sweep(folder).trials] == [("finished", 0)] * 4
    assert count(folder, "starts.txt") == [2, 1, 1, 1]
    assert count(folder, "ends.txt") == [1] * 4
    assert count(folder, "metrics.jsonl") == [81] * 4


@pytest.mark.usefixtures("slurm")
def test_a_pruned_job_is_told_by_a_file(tmp_path: Path) -> None:
    points = [{"x": 0.0, "steps": 5}, {"x": 3.0, "steps": 500}]
    sweep = fake_sweep(tmp_path / "sweep", points=points, pruner="asha")
    assert SlurmEngine(slurm_array_parallelism=1).run(sweep) == 0
    assert [trial.state for trial in read_sweep(tmp_path / "sweep").trials] == ["finished", "pruned"]


@pytest.mark.usefixtures("slurm")
def test_what_another_engine_called_its_process_is_no_job(tmp_path: Path) -> None:
    sweep = fake_sweep(tmp_path / "sweep")
    with Study(sweep) as study:
        trial = study.ask()
    assert trial is not None
    trial.job = "0"  # a place of the engine local
    launcher = SlurmLauncher(sweep, SlurmEngine()._executor(sweep), 1)
    assert launcher.adopt(trial) is None


def test_a_command_ends_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', "
        f"'lstm_research.sweeps.until_parent_ends', str({'{}'}), *sys.argv[1:]])"
    ).format("__import__('os').getpid()")
    with Study(fake_sweep(tmp_path / "sweep")) as study:
        trial = study.ask()
    assert trial is not None
    sleeper = "import time; open('ready', 'w').close(); time.sleep(60)"
    wait = "; import time\nwhile not __import__('os').path.exists('ready'): time.sleep(0.01)"
    process = TrialProcess.start(
        trial, [sys.executable, "-c", parent + wait, sys.executable, "-c", sleeper], cwd=tmp_path
    )
    assert process is not None
    end = time.monotonic() + 30
    while not process.has_ended() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.code == 0


def test_a_command_whose_parent_has_ended_before_does_not_begin() -> None:
    until_parent_ends(1, ["/nowhere"])  # would raise FileNotFoundError


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_the_extra(engine: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"ray": "lstm_research.sweeps.ray_cluster", "slurm": "lstm_research.sweeps.slurm"}[engine]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}; pip install 'lstm-research\[{engine}\]'"):
        make_engine(engine, {})


def test_slurm_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sbatch here"):
        SlurmEngine().run(fake_sweep(tmp_path / "sweep"))


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("ray", {"workers": 0}, "--workers must be at least 1, got 0"),
        ("slurm", {"slurm_time": 0}, "--slurm_time must be at least 1, got 0"),
        ("slurm", {"workers": 3}, "--workers is not for --engine=slurm, which takes --slurm_partition"),
        ("local", {"slurm_time": 3}, "--slurm_time is not for --engine=local"),
    ],
)
def test_options_of_engines(engine: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_engine(engine, options)
