"""A trial on another machine that sees the same folder: run to its end there, told to stop by a file."""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lstm_research.sweeps.process import TrialProcess
from lstm_research.sweeps.trial import Trial

PREEMPTED = 128 + signal.SIGTERM
POLL_SECONDS = 0.5


class RemoteTrial:
    """Runs a trial's command where it is called.

    Args:
      workdir: of the trial.
      command: the program and its arguments.
      cwd: where the sweep was started, since paths may be relative to it.
      environment: variables beside those of the machine.
    """

    def __init__(self, workdir: Path, command: Sequence[str], cwd: Path, environment: Mapping[str, str] | None = None):
        self.workdir = workdir
        self.command = tuple(command)
        self.cwd = cwd
        self.environment = dict(environment or {})
        self._process: TrialProcess | None = None

    def __call__(self) -> int:
        """Runs the command, once no older process of the trial lives; returns its exit code."""
        trial = Trial.read(self.cwd / self.workdir)
        # A run on a machine that is cut off, or whose worker has just died, saves and ends by itself.
        command = [sys.executable, "-m", "lstm_research.sweeps.until_parent_ends", str(os.getpid()), *self.command]
        while not self.is_to_stop():
            self._process = TrialProcess.start(trial, command, self.environment, cwd=self.cwd)
            if self._process is not None:
                break
            time.sleep(POLL_SECONDS)
        if self._process is None:
            return PREEMPTED
        while not self._process.has_ended():
            if self.is_to_stop():
                self._process.stop()
            time.sleep(POLL_SECONDS)
        assert self._process.code is not None
        return self._process.code

    def stop(self) -> None:
        """Has the command save and end, and waits for that; called where it runs."""
        if self._process is not None:
            self._process.stop()
            while not self._process.has_ended():
                time.sleep(0.1)

    def again(self) -> "RemoteTrial":
        """Returns the same trial, to be run elsewhere."""
        return RemoteTrial(self.workdir, self.command, self.cwd, self.environment)

    def is_to_stop(self) -> bool:
        """Whether the driver has asked for the end."""
        return stop_file(self.cwd / self.workdir).exists()


def stop_file(workdir: Path) -> Path:
    """Returns the file whose presence asks the process of a trial to stop."""
    return workdir / ".stop"
