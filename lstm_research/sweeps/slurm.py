"""The engine `slurm`: trials as jobs of SLURM, submitted together as an array, through submitit.

A job that is preempted, or whose time is up, saves its state, and SLURM queues it again. Jobs outlive the driver: the
same command finds them by their numbers, and goes on.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_research.common.errors import UserError, check_flags
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.driver import Driver
from lstm_research.sweeps.launcher import Job, Launcher
from lstm_research.sweeps.process import is_alive
from lstm_research.sweeps.remote import RemoteTrial, stop_file
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import Trial

try:
    import submitit
except ImportError as error:
    raise UserError("--engine=slurm needs the package submitit; pip install 'lstm-research[slurm]'") from error

# A job is queued again as often as it needs; whether it gets on is the driver's to judge.
_MOST_TIMEOUTS = 1000


class SlurmEngine:
    """Runs trials as jobs of SLURM.

    Args:
      slurm_partition: where jobs go; None is the cluster's default.
      slurm_time: minutes until a job has to save and is queued again.
      slurm_gpus: GPUs of each trial.
      slurm_array_parallelism: trials at a time.
      cpus_per_trial: CPUs of each trial.
      max_restarts: how often a trial that dies is started again without having got any further.

    Raises:
      UserError: a number that is too small.
    """

    trains_here = False
    cluster = "slurm"
    poll_seconds = 5.0

    def __init__(
        self,
        slurm_partition: str | None = None,
        slurm_time: int = 60,
        slurm_gpus: int = 0,
        slurm_array_parallelism: int = 16,
        cpus_per_trial: int = 1,
        max_restarts: int = 10,
    ):
        check_flags(1, slurm_time=slurm_time, slurm_array_parallelism=slurm_array_parallelism)
        check_flags(1, cpus_per_trial=cpus_per_trial)
        check_flags(0, slurm_gpus=slurm_gpus, max_restarts=max_restarts)
        self._slots = slurm_array_parallelism
        self._max_restarts = max_restarts
        self._parameters: dict[str, Any] = {
            "timeout_min": slurm_time,
            "gpus_per_node": slurm_gpus,
            "cpus_per_task": cpus_per_trial,
            "slurm_array_parallelism": slurm_array_parallelism,
            # Time to save in before the end; a third of it, where jobs are that short.
            "slurm_signal_delay_s": min(90, math.ceil(slurm_time * 60 / 3)),
        } | ({"slurm_partition": slurm_partition} if slurm_partition else {})

    def run(self, sweep: SweepDefinition) -> int:
        """Runs the sweep; returns the exit code of `Driver.run`."""
        with Study(sweep) as study:
            executor = self._executor(sweep)
            driver = Driver(
                sweep,
                study,
                SlurmLauncher(sweep, executor, self._slots),
                max_restarts=self._max_restarts,
                poll_seconds=self.poll_seconds,
            )
            return driver.run()

    def _executor(self, sweep: SweepDefinition) -> submitit.AutoExecutor:
        try:
            executor = submitit.AutoExecutor(
                sweep.folder / "slurm", cluster=self.cluster, slurm_max_num_timeout=_MOST_TIMEOUTS
            )
        except RuntimeError as error:
            raise UserError("--engine=slurm: there is no sbatch here; run it on a login node of the cluster") from error
        executor.update_parameters(name=f"sweep-{sweep.folder.name}", **self._parameters)
        return executor


class SlurmLauncher(Launcher):
    """Submits trials as jobs.

    Args:
      sweep: whose trials.
      executor: what submits.
      slots: trials at a time.
    """

    def __init__(self, sweep: SweepDefinition, executor: submitit.AutoExecutor, slots: int):
        self.slots = slots
        self._sweep = sweep
        self._executor = executor

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        """Submits trials as one array, and records the numbers of their jobs."""
        jobs = []
        try:
            with self._executor.batch():
                for trial in trials:
                    stop_file(trial.workdir).unlink(missing_ok=True)
                    command = self._sweep.train_command(trial.overrides, trial.workdir)
                    jobs.append(self._executor.submit(SlurmTrial(RemoteTrial(trial.workdir, command, Path.cwd()))))
        except submitit.core.utils.FailedSubmissionError as error:
            text = " ".join(str(error).split())
            raise UserError(f"SLURM did not take the jobs: {text[-300:]}; put that right and start again") from error
        for trial, job in zip(trials, jobs, strict=True):
            trial.job = job.job_id
        return [_SlurmJob(trial, job) for trial, job in zip(trials, jobs, strict=True)]

    def adopt(self, trial: Trial) -> Job | None:
        """Returns the job of a trial by its number; whether it still runs is seen as with any other."""
        if trial.job is None:
            return None
        job = self._executor.job_class(self._sweep.folder / "slurm", trial.job)
        # What another engine has called its process, no job of SLURM was submitted for.
        return _SlurmJob(trial, job) if job.paths.submitted_pickle.exists() else None


class SlurmTrial:
    """A trial as submitit runs it: called, and on preemption asked to save.

    Args:
      remote: the trial.
    """

    def __init__(self, remote: RemoteTrial):
        self._remote = remote

    def __call__(self) -> int:
        """Runs the command; returns its exit code."""
        return self._remote()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Has the command save; returns what is queued again."""
        self._remote.stop()
        return submitit.helpers.DelayedSubmission(SlurmTrial(self._remote.again()))


class _SlurmJob(Job):
    def __init__(self, trial: Trial, job: Any):
        self._trial = trial
        self._job = job
        self._asked = False

    def has_ended(self) -> bool:
        return bool(self._job.done())

    @property
    def code(self) -> int | None:
        try:
            return int(self._job.result())
        except (submitit.core.utils.UncompletedJobError, OSError):  # killed, or its node is gone
            return None

    def stop(self) -> bool:
        if self._asked:
            return True
        self._asked = True
        stop_file(self._trial.workdir).touch()
        if not is_alive(self._trial.workdir):  # it is still in the queue
            self._job.cancel(check=False)
        return True
