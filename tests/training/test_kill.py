"""A run that is killed again and again, as a process, against one that never was."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lstm_research.training.metrics import read_metrics
from lstm_research.training.workdir import Workdir

_PROGRAM = Path(__file__).with_name("fake_task.py")
# Slow steps, so that ten lives of random length do not reach the end.
_OPTIONS = {"num_steps": 150, "delay": 0.012}


def start(workdir: Path, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(_PROGRAM), str(workdir), json.dumps({**_OPTIONS, **options})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(process: subprocess.Popen[str], words: str, seconds: float = 120) -> str | None:
    """Returns the first line that holds `words`, or None if the process ends or is silent too long."""
    assert process.stdout is not None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([process.stdout], [], [], 1)[0]:
            line = process.stdout.readline()
            if not line:
                return None
            if words in line:
                return line
    return None


def finish(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=120)
    return process.returncode


def digest_of_newest(workdir: Path) -> tuple[int, str]:
    """Returns step and content digest, as stored in the newest checkpoint."""
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    record = json.loads((workdir / f"checkpoints/{step}/record/metadata").read_text())
    note = json.loads(record["note"])
    note["host"].pop("seconds")
    return step, json.dumps(note)


def arrays_of_newest(workdir: Path) -> dict[str, bytes]:
    from lstm_research.training.checkpoints import _read_verified

    step, _ = digest_of_newest(workdir)
    return {name: array.tobytes() for name, array in _read_verified(workdir / "checkpoints" / str(step))[2].items()}


def test_kills_at_random_moments(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rng = random.Random(20)
    reference = start(tmp_path / "reference", delay=0.0)
    workdir = tmp_path / "killed"
    num_kills = 10 if request.config.getoption("--whole") else 3
    for life in range(num_kills):
        process = start(workdir)
        if life == 0:  # between the making of the workdir and the first checkpoint
            while not workdir.exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.3))
        elif life % 2:  # in the middle of the writing of a checkpoint
            if wait_for(process, "saving") is None:
                break
            time.sleep(rng.uniform(0, 0.03))
        else:
            if wait_for(process, " in ") is None:
                break
            time.sleep(rng.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        assert finish(process) == -signal.SIGKILL, f"life {life} ended before it was killed"
    assert finish(start(workdir, delay=0.0)) == 0
    assert finish(reference) == 0

    def lines(path: Path) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read_metrics(Workdir(path).metrics)
        ]

    assert lines(workdir) == lines(tmp_path / "reference")
    assert digest_of_newest(workdir) == digest_of_newest(tmp_path / "reference")
    assert arrays_of_newest(workdir) == arrays_of_newest(tmp_path / "reference")
    best = [Workdir(path).best_weights.read_bytes() for path in (workdir, tmp_path / "reference")]
    assert best[0] == best[1]
    starts = json.loads(Workdir(workdir).environment.read_text()).get("starts", [])
    assert len(starts) >= num_kills - 1  # the first may have ended before it wrote its own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signalled_process_exits_143(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path / "run", num_steps=100_000)
    assert wait_for(process, "saving") is not None
    process.send_signal(number)
    process.send_signal(number)
    assert finish(process) == 143
    status = Workdir(tmp_path / "run").read_status()
    assert status["state"] == "preempted"
    assert (tmp_path / "run/checkpoints" / str(status["step"])).is_dir()


def test_two_processes_in_one_workdir(tmp_path: Path) -> None:
    first = start(tmp_path / "run", num_steps=100_000)
    assert wait_for(first, "starting") is not None
    second = start(tmp_path / "run", num_steps=100_000)
    try:
        assert finish(second) == 1  # as a bare Python program; the command line makes it one line and exit code 2
    finally:
        first.kill()
        first.communicate()
