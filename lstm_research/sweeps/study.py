"""Asking for trials and telling their results: the part of a sweep that knows Optuna, and knows no processes.

Every trial that was asked for ends exactly once, wherever whoever asked is killed:

- asked, but without all values or `trial.json`: Optuna has it running; its values are drawn again, and are the same;
- `trial.json` says waiting, running or pruning: `unfinished` gives it back, whether its process lives or not;
- `trial.json` has the result, but Optuna was not told: it is told, by the same line of its journal.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from lstm_research.common.errors import UserError
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.points import Point
from lstm_research.sweeps.results import read_sweep, write_results
from lstm_research.sweeps.space import Parameter, choose, storable
from lstm_research.sweeps.trial import DIVERGED, FINISHED, PRUNED, Trial

STUDY = "sweep"
"""The study's name in the storage, as optuna-dashboard shows it; one in a database has the folder's name in it."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The trials of a sweep. A context manager, inside of which nobody else may ask or tell for the same folder.

    With a database several processes may, each for the trials that it asked for; they must see the same folder.

    Args:
      sweep: what it is about.
      storage: URL of a database for Optuna; None keeps a journal in the folder.
    """

    def __init__(self, sweep: SweepDefinition, storage: str | None = None):
        self._sweep = sweep
        self._url = storage
        # Of the trials that this process cares for; None where the lock of the folder says so for all.
        self._locks: dict[int, filelock.BaseFileLock | None] = {}
        self._sizes: dict[int, int] = {}  # of the metrics that were read, by trial

    def __enter__(self) -> "Study":
        with contextlib.ExitStack() as stack:
            sweep = self._sweep
            sweep.check_folder()
            sweep.folder.mkdir(parents=True, exist_ok=True)
            if self._url is None:
                stack.callback(_lock(sweep.folder / ".driver.lock", self._driven_elsewhere()).release)
            self._asking = filelock.FileLock(sweep.folder / ".ask.lock", thread_local=False)
            stack.enter_context(self._asking)
            storage = self._open_storage()
            sweep.write()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study = optuna.create_study(
                    storage=storage,
                    study_name=STUDY if self._url is None else f"{STUDY}:{sweep.folder.resolve()}",
                    direction=optuna.study.StudyDirection[sweep.direction.upper()],
                    sampler=_Sampler(sweep),
                    pruner=_make_pruner(sweep),
                    load_if_exists=True,
                )
            self._check_storage()
            write_results(sweep)
            self._asking.release()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        for number in list(self._locks):
            self._release(number)
        self._stack.close()

    def unfinished(self) -> list[Trial]:
        """Returns the trials that were asked for and have not ended, and that no other process cares for.

        A trial whose result was recorded, but not told, is told now.
        """
        found = []
        with self._asking:
            for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if frozen.number in self._locks or not self._claim(frozen.number):
                    continue
                trial = self._suggest(optuna.trial.Trial(self._study, frozen._trial_id))
                if trial.is_over:
                    self.tell(trial)
                else:
                    found.append(trial)
        return found

    def ask(self) -> Trial | None:
        """Returns a new trial, recorded as waiting in its folder; None if all have been asked for."""
        with self._asking:
            if len(self._study.get_trials(deepcopy=False)) >= self._sweep.num_trials:
                return None
            asked = self._study.ask()
            self._claim(asked.number)
            return self._suggest(asked)

    def report(self, trial: Trial) -> bool:
        """Reports the validations that a trial's run has written since; returns whether it should be pruned."""
        metrics = trial.workdir / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        if size == self._sizes.get(trial.number, 0):
            return False
        self._sizes[trial.number] = size
        running = self._running(trial)
        known = self._frozen(trial).intermediate_values
        new = {step: value for step, value in trial.validations(self._sweep.metric).items() if step not in known}
        for step, value in sorted(new.items()):
            running.report(value, step)
        return bool(new) and bool(running.should_prune())

    def tell(self, trial: Trial) -> None:
        """Ends a trial: records its result, tells Optuna, and renews the table of results.

        A diverged trial counts with its best validation, and as failed if it had none: no worst value is defined that
        a sampler could learn from.
        """
        if not trial.is_over:
            raise ValueError(f"trial {trial.number} is {trial.state}, and has no end to tell")
        with self._asking:  # those who share the folder write its results one after another
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        trial.write()
        if trial.state == PRUNED and self._frozen(trial).intermediate_values:
            self._study.tell(trial.number, state=TrialState.PRUNED)
        elif trial.state in (FINISHED, DIVERGED) and trial.value is not None:
            self._study.tell(trial.number, trial.value)
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)
        self._release(trial.number)
        write_results(self._sweep)

    @property
    def num_told(self) -> int:
        """How many trials have ended."""
        return sum(frozen.state.is_finished() for frozen in self._study.get_trials(deepcopy=False))

    def is_complete(self) -> bool:
        """Whether every trial of the sweep has ended."""
        return self.num_told >= self._sweep.num_trials

    def _suggest(self, asked: optuna.trial.Trial) -> Trial:
        """Returns the trial of Optuna's: as its folder has it, or with values, which are then recorded."""
        workdir = self._sweep.trial_folder(asked.number)
        if (workdir / "trial.json").exists():
            return Trial.read(workdir)
        if self._sweep.points is not None:
            point = self._sweep.points[asked.number]
            for key in point:
                _suggest(asked, key, _distribution_of_points(self._sweep.points, key))
        else:
            point = choose(self._sweep.space or (), lambda parameter: _draw(asked, parameter))
        trial = Trial(asked.number, point, workdir)
        trial.write()
        return trial

    def _claim(self, number: int) -> bool:
        """Takes the lock that says who cares for a trial; the system drops it when that process ends."""
        if self._url is None:
            self._locks[number] = None
            return True
        folder = self._sweep.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".driver.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        self._locks[number] = lock
        return True

    def _release(self, number: int) -> None:
        lock = self._locks.pop(number, None)
        if lock is not None:
            lock.release()

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial.number]

    def _running(self, trial: Trial) -> optuna.trial.Trial:
        return optuna.trial.Trial(self._study, self._frozen(trial)._trial_id)

    def _open_storage(self) -> BaseStorage:
        if self._url is None:
            path = self._sweep.folder / "journal.log"
            _repair_journal(path)
            return JournalStorage(JournalFileBackend(str(path)))
        try:
            return optuna.storages.RDBStorage(self._url)
        except Exception as error:  # whatever SQLAlchemy and the driver of the database raise
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"--storage={self._url}: {text}; give a URL like sqlite:///FILE or postgresql://…"
            ) from error

    def _check_storage(self) -> None:
        """Raises a `UserError` if the storage is not the one that the sweep began with: that knows every trial."""
        known = len(self._study.get_trials(deepcopy=False))
        found = len(read_sweep(self._sweep.folder).trials)
        if known < found:
            where = "journal.log" if self._url is None else f"--storage={self._url}"
            raise UserError(
                f"{where} knows {known} of the {found} trials in {self._sweep.folder}: the sweep began with another "
                "--storage (or none), or its folder was moved, which a database knows by its path; put that back, or "
                "give a new --workdir"
            )

    def _driven_elsewhere(self) -> str:
        return (
            f"another process drives the sweep in {self._sweep.folder}; wait for it or stop it (several at once need "
            "--storage=URL of a database)"
        )


class _Sampler(BaseSampler):
    """Draws every value from a generator of its own, made of the sweep's seed, trial and parameter.

    So it does not matter who asks, after how many restarts, and whether some of a trial's values were drawn before.
    """

    def __init__(self, sweep: SweepDefinition):
        self._seed = sweep.seed
        self._points = sweep.points
        self._make: Callable[..., BaseSampler] = {"tpe": _make_tpe}.get(sweep.sampler, RandomSampler)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._points is not None:
            value = self._points[trial.number][param_name]
            return storable(value) if isinstance(param_distribution, CategoricalDistribution) else value
        digest = hashlib.sha256(f"{self._seed}/{trial.number}/{param_name}".encode()).digest()
        sampler = self._make(seed=int.from_bytes(digest[:4], "little"))
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def _make_tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials that run beside this one count as bad, so that it does not land on the same spot.
        return TPESampler(seed=seed, constant_liar=True)


def _make_pruner(sweep: SweepDefinition) -> optuna.pruners.BasePruner:
    """Returns the pruner; its resource is training steps, in units of a validation."""
    training = sweep.config["training"]
    last = training["num_steps"]
    first = min(training.get("eval_every", 1000), last)
    if sweep.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first)
    if sweep.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=last)
    return optuna.pruners.MedianPruner() if sweep.pruner == "median" else optuna.pruners.NopPruner()


def _draw(asked: optuna.trial.Trial, parameter: Parameter) -> Any:
    """Returns Optuna's value of a parameter, as a config has it."""
    if parameter.kind == "categorical":
        stored = [storable(value) for value in parameter.values]
        drawn = _suggest(asked, parameter.name, CategoricalDistribution(stored))
        return parameter.values[[repr(value) for value in stored].index(repr(drawn))]
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.kind == "integer":
        low, high = int(parameter.low), int(parameter.high)
        return _suggest(asked, parameter.name, IntDistribution(low, high, log=parameter.log))
    return _suggest(asked, parameter.name, FloatDistribution(parameter.low, parameter.high, log=parameter.log))


def _suggest(asked: optuna.trial.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return asked.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return asked.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return asked.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _distribution_of_points(points: tuple[Point, ...], key: str) -> BaseDistribution:
    """Returns how Optuna is told of a key's values: as a range where all are numbers, an axis of its plots."""
    values = [point[key] for point in points if key in point]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return IntDistribution(min(values), max(values))
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values))
    stored = {repr(value): storable(value) for value in values}
    return CategoricalDistribution(list(stored.values()))


def _repair_journal(path: Path) -> None:
    """Removes what a process that was killed in the middle of a line left: the torn line, and Optuna's lock.

    The caller holds the lock of the folder, so nobody is writing.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.lock")
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def _lock(path: Path, refusal: str) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(refusal) from None
    return lock
