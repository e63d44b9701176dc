"""The engine `ray`: trials on the machines of a Ray cluster that share the sweep's folder.

Plain tasks, and not Ray Tune: a trial is the command `train`, which saves and resumes by itself, and what to try next
is `Study`'s to say, for all engines alike. Tune would bring a second store of trials, results and checkpoints, to be
kept in step with that. Ray finds the machine and tells when it dies; the driver then has the command go on elsewhere.
"""

from collections.abc import Mapping, Sequence
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
    import ray
except ImportError as error:
    raise UserError("--engine=ray needs the package ray; pip install 'lstm-research[ray]'") from error


class RayEngine:
    """Runs trials as tasks of a Ray cluster.

    Args:
      address: of the cluster, as `ray start` says it, or "auto"; None starts one on this machine.
      workers: trials at a time; None is as many as the cluster has room for.
      cpus_per_trial: CPUs that Ray reserves for each.
      devices_per_trial: GPUs of each.
      max_restarts: how often a trial that dies is started again without having got any further.

    Raises:
      UserError: a number that is too small, or no cluster at the address.
    """

    trains_here = False

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_trial: int = 1,
        devices_per_trial: int = 0,
        max_restarts: int = 10,
    ):
        check_flags(1, workers=workers, cpus_per_trial=cpus_per_trial)
        check_flags(0, devices_per_trial=devices_per_trial, max_restarts=max_restarts)
        self._address = address
        self._workers = workers
        self._resources = {"CPU": cpus_per_trial, "GPU": devices_per_trial}
        self._max_restarts = max_restarts

    def run(self, sweep: SweepDefinition) -> int:
        """Runs the sweep; returns the exit code of `Driver.run`."""
        with Study(sweep) as study:
            try:
                ray.init(address=self._address, log_to_driver=False, configure_logging=False)
            except (ConnectionError, ValueError) as error:
                text = str(error).splitlines()[0]
                raise UserError(f"--address={self._address}: {text}; start a cluster with ray start --head") from error
            try:
                launcher = RayLauncher(sweep, self._workers, self._resources)
                return Driver(sweep, study, launcher, max_restarts=self._max_restarts).run()
            finally:
                ray.shutdown()


class RayLauncher(Launcher):
    """Starts tasks in a cluster that this process is connected to.

    Args:
      sweep: whose trials.
      workers: trials at a time; None is as many as the cluster has room for.
      resources: what each needs, by Ray's names.

    Raises:
      UserError: no machine has that much.
    """

    def __init__(self, sweep: SweepDefinition, workers: int | None, resources: Mapping[str, int]):
        self._sweep = sweep
        self._workers = workers
        self._resources = resources
        if self._room() == 0:
            need = " and ".join(f"{count} {name}" for name, count in resources.items() if count)
            raise UserError(
                f"no machine of the Ray cluster has {need} for a trial; change --cpus_per_trial or its GPUs"
            )

    @property
    def slots(self) -> int:  # type: ignore[override]
        """How many trials at a time; changes as machines come and go."""
        # With no machine left, one waits for the next.
        return self._workers or max(1, self._room())

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        """Starts a task for each trial."""
        return [self._start(trial) for trial in trials]

    def adopt(self, trial: Trial) -> Job | None:
        """Returns None: a task ends with the driver that started it, and its trial with the task."""
        return None

    def _start(self, trial: Trial) -> Job:
        stop_file(trial.workdir).unlink(missing_ok=True)
        command = self._sweep.train_command(trial.overrides, trial.workdir)
        cpus, gpus = self._resources["CPU"], self._resources["GPU"]
        # Ray sets OMP_NUM_THREADS and CUDA_VISIBLE_DEVICES; NPROC is what XLA goes by on a CPU.
        environment = {} if gpus else {"NPROC": str(cpus)}
        remote = RemoteTrial(trial.workdir, command, Path.cwd(), environment)
        # Started again by the driver, which knows whether the trial got any further.
        task = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        return _RayJob(trial, task.remote(remote))

    def _room(self) -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needed = {name: count for name, count in self._resources.items() if count}
        return sum(min(int(node.get(name, 0) // count) for name, count in needed.items()) for node in nodes)


def _run(remote: RemoteTrial) -> int:
    return remote()


class _RayJob(Job):
    def __init__(self, trial: Trial, task: Any):
        self._trial = trial
        self._task = task
        self._asked = False

    def has_ended(self) -> bool:
        return bool(ray.wait([self._task], timeout=0)[0])

    @property
    def code(self) -> int | None:
        try:
            return int(ray.get(self._task))
        except ray.exceptions.RayError:  # its machine or worker is gone
            return None

    def stop(self) -> bool:
        if self._asked:
            return True
        self._asked = True
        stop_file(self._trial.workdir).touch()
        if not is_alive(self._trial.workdir):  # it may be waiting for a place, for as long as there is none
            ray.cancel(self._task)
        return True
