"""The process of a trial, which lives on when whoever started it dies, and is found again.

A lock file is open in the process itself from its first moment to its last, so that the lock says whether it lives,
whatever happened to the parent: no number is written too late, and none is mistaken for another process's.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lstm_research.sweeps.launcher import Job
from lstm_research.sweeps.trial import START_MARK, Trial

UNKNOWN = None
"""Exit code of a process that is not a child of this one."""

# The process writes who it is before it becomes the command.
_START = 'echo "$$ $0" > "$1"; shift; exec "$@"'


class TrialProcess(Job):
    """A running process of a trial.

    Args:
      trial: whose command it runs.
      child: the process, where this one started it.
    """

    def __init__(self, trial: Trial, child: subprocess.Popen[bytes] | None = None):
        self._trial = trial
        self._child = child
        self._asked = False

    @classmethod
    def start(
        cls,
        trial: Trial,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        wait_seconds: float = 0.0,
    ) -> "TrialProcess | None":
        """Starts a command in a session of its own; it and its output go to the trial's log.

        Args:
          trial: whose command it is.
          command: the program and its arguments.
          environment: variables beside those of this process.
          cwd: where it runs; None is here.
          wait_seconds: how long to wait for an older process of the trial.

        Returns:
          The process, or None if an older one of the trial still lives.
        """
        trial.workdir.mkdir(parents=True, exist_ok=True)
        descriptor = _try_lock(trial.workdir)
        end = time.monotonic() + wait_seconds
        while descriptor is None:
            if time.monotonic() >= end:
                return None
            time.sleep(0.2)
            descriptor = _try_lock(trial.workdir)
        try:
            identity = _identity(trial.workdir)
            identity.unlink(missing_ok=True)
            with open(trial.log, "ab") as log:
                log.write(f"{START_MARK}{shlex.join(command)}\n".encode())
                log.flush()
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _START, socket.gethostname(), str(identity.absolute()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in this terminal passes it by
                    pass_fds=(descriptor,),
                    env={**os.environ, **(environment or {})},
                    cwd=cwd,
                )
        finally:
            os.close(descriptor)  # the child has the lock through its own copy
        return cls(trial, child)

    @classmethod
    def adopt(cls, trial: Trial) -> "TrialProcess | None":
        """Returns the process that runs a trial, whoever started it; None if there is none."""
        return cls(trial) if is_alive(trial.workdir) else None

    def has_ended(self) -> bool:
        """Whether it is over."""
        if self._child is not None:
            return self._child.poll() is not None
        return not is_alive(self._trial.workdir)

    @property
    def code(self) -> int | None:
        """Exit code of a process that is over; `UNKNOWN` if another process started it."""
        return self._child.returncode if self._child is not None else UNKNOWN

    def stop(self) -> bool:
        """Asks it to save and to end, once; returns whether it could be asked: not if it is on another host."""
        if self._asked:
            return True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._asked = True
            return True
        while not self.has_ended():
            words = _identity(self._trial.workdir).read_text().split() if self._has_identity() else []
            if len(words) == 2:
                if words[1] != socket.gethostname():
                    return False
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(words[0]), signal.SIGTERM)
                break
            time.sleep(0.01)  # it has only just been started
        self._asked = True
        return True

    def _has_identity(self) -> bool:
        return _identity(self._trial.workdir).exists()


def is_alive(workdir: Path) -> bool:
    """Whether a process runs the trial of a workdir."""
    if not (workdir / ".process.lock").exists():
        return False
    descriptor = _try_lock(workdir)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _try_lock(workdir: Path) -> int | None:
    """Returns an open file that holds the lock, or None if another process holds it."""
    descriptor = os.open(workdir / ".process.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _identity(workdir: Path) -> Path:
    return workdir / ".process"
