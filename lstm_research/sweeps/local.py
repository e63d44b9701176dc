"""The engine `local`: trials as processes of this machine, some at a time."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from lstm_research.common.errors import UserError, check_flags
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.driver import Driver
from lstm_research.sweeps.launcher import Launcher
from lstm_research.sweeps.process import TrialProcess
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import Trial


class LocalEngine:
    """Runs trials as processes that survive this one.

    Args:
      workers: trials at a time.
      max_restarts: how often a trial that dies is started again without having got any further.
      devices_per_trial: GPUs of each; 1 where there are GPUs and nothing is said.
      storage: URL of a database, which several drivers can share; None keeps a journal in the folder.

    Raises:
      UserError: a number that is too small, or more GPUs than there are.
    """

    trains_here = False

    def __init__(
        self,
        workers: int = 1,
        max_restarts: int = 10,
        devices_per_trial: int | None = None,
        storage: str | None = None,
    ):
        check_flags(1, workers=workers)
        check_flags(0, max_restarts=max_restarts)
        self._environments = worker_environments(workers, devices_per_trial, gpus(), os.environ)
        self._max_restarts = max_restarts
        self._storage = storage

    def run(self, sweep: SweepDefinition) -> int:
        """Runs the sweep; returns the exit code of `Driver.run`."""
        with Study(sweep, self._storage) as study:
            launcher = ProcessLauncher(sweep, self._environments)
            return Driver(sweep, study, launcher, max_restarts=self._max_restarts).run()


class ProcessLauncher(Launcher):
    """Starts processes of this machine.

    Args:
      sweep: whose trials.
      environments: what is set for each worker, see `worker_environments`.
    """

    def __init__(self, sweep: SweepDefinition, environments: Sequence[Mapping[str, str]]):
        self.slots = len(environments)
        self._sweep = sweep
        self._environments = environments
        self._places: dict[int, TrialProcess] = {}

    def start(self, trials: Sequence[Trial]) -> list[TrialProcess]:
        """Starts the commands of trials."""
        return [self._start(trial) for trial in trials]

    def adopt(self, trial: Trial) -> TrialProcess | None:
        """Returns the process of a trial, if it lives; it keeps the place that it was started in."""
        process = TrialProcess.adopt(trial)
        if process is not None and trial.job is not None and trial.job.isdecimal():
            self._places[int(trial.job) % self.slots] = process
        return process

    def _start(self, trial: Trial) -> TrialProcess:
        free = [i for i in range(self.slots) if i not in self._places or self._places[i].has_ended()]
        place = free[0] if free else trial.number % self.slots
        command = self._sweep.train_command(trial.overrides, trial.workdir)
        # The driver starts only what has no process, or one that is just ending.
        process = TrialProcess.start(trial, command, self._environments[place], wait_seconds=10.0)
        if process is None:
            raise UserError(f"a process of trial {trial.number} runs beside this sweep; see {trial.workdir}/.process")
        trial.job = str(place)
        self._places[place] = process
        return process


def worker_environments(
    workers: int, devices_per_trial: int | None, devices: Sequence[str], environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """Returns what is set for each worker beside the environment; what the user has set stays.

    With GPUs each worker sees its own ones; where there are too few, workers share them in turn and take memory as
    they need it. On a CPU the cores are divided: `NPROC` is what XLA goes by, `OMP_NUM_THREADS` NumPy's libraries.

    Args:
      workers: how many.
      devices_per_trial: GPUs of each; None is 1 where there are any.
      devices: names of the GPUs.
      environment: of this process.

    Raises:
      UserError: a trial wants more GPUs than there are.
    """
    if devices_per_trial is not None and not 1 <= devices_per_trial <= len(devices):
        raise UserError(f"--devices_per_trial={devices_per_trial}: there are {len(devices)} GPUs here")
    if devices:
        size = devices_per_trial or 1
        slices = [devices[i : i + size] for i in range(0, len(devices) - size + 1, size)]
        found = [{"CUDA_VISIBLE_DEVICES": ",".join(slices[i % len(slices)])} for i in range(workers)]
        shared = {} if workers <= len(slices) else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    else:
        found = [{} for _ in range(workers)]
        threads = str(max(1, cores() // workers))
        shared = {"NPROC": threads, "OMP_NUM_THREADS": threads} if workers > 1 else {}
    mine = {key: value for key, value in shared.items() if key not in environment}
    return [{**own, **mine} for own in found]


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Returns the GPUs that this process may use, without touching them: `CUDA_VISIBLE_DEVICES`, or all there are."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
