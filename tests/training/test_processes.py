"""Two processes that train one run: they do what one does, and are killed, stopped and started again together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_kill import arrays_of_newest, digest_of_newest, wait_for

from lstm_research.common.errors import UserError
from lstm_research.training import processes
from lstm_research.training.metrics import read_metrics
from lstm_research.training.workdir import Workdir

_PROGRAM = Path(__file__).with_name("fake_task.py")
# Two processes that begin, and of which the second then cannot, or does something else.
_BEGINNING = """
import sys
from lstm_research.common.errors import UserError
from lstm_research.training.processes import joined, on_all

def fail():
    raise OSError("no such disk") if number else KeyError("never seen")

number = int(sys.argv[2])
with joined(sys.argv[1], 2, number):
    print(on_all(lambda: 7 + number, lambda result: {"config": "é" * 99}), flush=True)
    try:
        on_all(lambda: 7, lambda result: {"config": "same", "data": str(number), "parallel": str(-number)})
    except UserError as error:
        print(error, flush=True)
    on_all(fail if number else int, lambda result: {})
"""


class Processes:
    """Processes of the same program, which are told an address and which of them they are."""

    def __init__(self, *programs: Sequence[str]):
        address = f"localhost:{free_port()}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
        self.processes = []
        for process_id, program in enumerate(programs):
            command = [sys.executable, *program, address, str(process_id)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(command, env=environment, **pipes))  # type: ignore[call-overload]

    def finish(self) -> tuple[list[int], list[str]]:
        """Returns the exit codes, and what each wrote to stderr."""
        try:
            self.outputs, errors = zip(*(process.communicate(timeout=60) for process in self.processes), strict=True)
        finally:
            for process in self.processes:
                process.kill()  # which does nothing to one that has ended
        return [process.returncode for process in self.processes], list(errors)


class Pair(Processes):
    """Two processes, each of which sees the workdir as another folder unless it is the first."""

    def __init__(self, folder: Path, name: str, **options: Any):
        workdirs = (folder / name, folder / "of_the_second")
        super().__init__(*([str(_PROGRAM), str(workdir), json.dumps(options)] for workdir in workdirs))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def lines(workdir: Path) -> list[dict[str, Any]]:
    found = read_metrics(Workdir(workdir).metrics)
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


OPTIONS: dict[str, Any] = {"num_steps": 60}
SLOW: dict[str, Any] = {**OPTIONS, "delay": 0.05}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happens to."""
    folder = tmp_path_factory.mktemp("pair")
    assert Pair(folder, "whole", **OPTIONS).finish()[0] == [0, 0]
    return folder / "whole"


def test_two_processes_do_what_one_does(whole: Path) -> None:
    command = [sys.executable, str(_PROGRAM), str(whole.parent / "alone"), json.dumps(OPTIONS)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    alone, pair = lines(whole.parent / "alone"), lines(whole)
    assert [(line["step"], line["split"]) for line in pair] == [(line["step"], line["split"]) for line in alone]
    np.testing.assert_allclose(*([line["loss"] for line in each] for each in (pair, alone)), rtol=1e-5)
    assert not (whole.parent / "of_the_second").exists()  # only the first process writes


def test_killed_and_stopped_pairs_go_on_as_if_nothing_had_happened(whole: Path, request: pytest.FixtureRequest) -> None:
    folder = whole.parent
    is_killed(folder, 0, at=13)
    is_killed(folder, 1, at=26)
    is_stopped(folder, 1, at=39)
    if request.config.getoption("--whole"):
        is_stopped(folder, 0, at=52)
    assert Pair(folder, "disturbed", **OPTIONS).finish()[0] == [0, 0]
    workdir = folder / "disturbed"
    assert lines(workdir) == lines(whole)
    assert digest_of_newest(workdir) == digest_of_newest(whole)
    assert arrays_of_newest(workdir) == arrays_of_newest(whole)
    assert Workdir(workdir).best_weights.read_bytes() == Workdir(whole).best_weights.read_bytes()


def is_killed(folder: Path, victim: int, *, at: int) -> None:
    pair = Pair(folder, "disturbed", **SLOW)
    assert wait_for(pair.processes[0], f"saving {at}") is not None
    pair.processes[victim].kill()
    end = time.monotonic()
    codes, errors = pair.finish()
    assert time.monotonic() - end < 15
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1
    (line,) = [line for line in errors[1 - victim].splitlines() if line.startswith("lstm-research: error: ")]
    assert f"process {1 - victim} of 2 lost the others" in line
    assert "start all of them again" in line


def is_stopped(folder: Path, receiver: int, *, at: int) -> None:
    pair = Pair(folder, "disturbed", **SLOW)
    assert wait_for(pair.processes[0], f"saving {at}") is not None
    pair.processes[receiver].send_signal(signal.SIGTERM)
    assert pair.finish()[0] == [143, 143]
    status = Workdir(folder / "disturbed").read_status()
    assert status["state"] == "preempted"
    assert at < status["step"] <= at + 2 * 4 + 2


def test_what_the_first_process_cannot_do_ends_both(whole: Path) -> None:
    codes, errors = Pair(whole.parent, "whole", num_steps=61).finish()
    assert codes == [2, 2]
    assert all("was made by another config (training.num_steps: 60 -> 61)" in error for error in errors)


def test_all_begin_or_none_does() -> None:
    pair = Processes(["-c", _BEGINNING], ["-c", _BEGINNING])
    codes, errors = pair.finish()
    assert codes == [2, 2]
    differ = "process 1 was started with another data and another parallel than process 0; start all with the same"
    for number, output in enumerate(pair.outputs):
        result, refusal = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
        assert result == str(7 + number)
        assert refusal.startswith(differ)
    assert "lstm-research: error: process 1: no such disk\n" in errors[0]
    assert "lstm-research: error: no such disk\n" in errors[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost", "must be HOST:PORT"),
        ("localhost:70000", "must be HOST:PORT"),
        ("localhost:1", "localhost:1: no process 0 there within 0 seconds"),
    ],
)
def test_nobody_to_join(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    with pytest.raises(UserError, match=message), processes.joined(address, 2, 1):
        pass


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address}: process 0 cannot use this port"):
            processes.joined(address, 2, 0).__enter__()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such\nkey"), 2, "lstm-research: error: no such key\n"),
        (
            PermissionError(13, "Permission denied", "run"),
            2,
            "lstm-research: error: [Errno 13] Permission denied: 'run'\n",
        ),
        (processes.LostProcessError("gone"), 1, "lstm-research: error: gone\n"),
        (KeyError("fault"), 1, "KeyError: 'fault'\n"),
        (KeyboardInterrupt(), 130, ""),  # the usual way would wait until all others have ended
    ],
)
def test_what_ends_one_of_several_processes_ends_it_at_once(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match=f"^{code}$"), processes.joined(f"localhost:{free_port()}", 2, 0):
        raise error
    assert capsys.readouterr().err.endswith(line)


def test_others_that_do_not_come() -> None:
    program = "import sys; from lstm_research.training import processes; processes._WAIT_SECONDS = 1.0; "
    program += "processes.joined(sys.argv[1], 2, int(sys.argv[2])).__enter__()"
    codes, (error,) = Processes(["-c", program]).finish()
    assert codes == [2]
    assert "lstm-research: error: not all processes came within 1 seconds" in error


def test_a_cluster_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.config, "update", lambda *_: None)

    def initialize(*_: Any, **__: Any) -> None:  # the real one may not be called once a device was touched
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match="--distributed: nothing in the environment"), processes.joined():
        pass
