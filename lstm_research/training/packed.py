"""Packed trials: trainings that differ only in numbers, as one program, each with the workdir of a run of its own.

What each run writes, and when, is decided by the run itself (`Run.requests`); here their requests are met together. A
trial that has ended, well or not, leaves the others as they are. All is resumable as a single run is: a workdir does
not tell whether its run was part of a pack.
"""

import contextlib
import functools
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree
from rich.console import Console

from lstm_research.common.errors import UserError, check_flags
from lstm_research.training.environment import command_line
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment, check_sections, data_of, files_to_resume_with, same_data
from lstm_research.training.loop import Start, check_metric, finished_step, open_run, room_on_disk
from lstm_research.training.pack import Group, Member, Pack, PackedSlot
from lstm_research.training.packed_function import OutOfMemoryError
from lstm_research.training.packed_program import NotPackableError
from lstm_research.training.parallel import Parallel
from lstm_research.training.run import FINISHED, PREEMPTED, Evaluation
from lstm_research.training.stopping import StopSignals
from lstm_research.training.workdir import check_workdir, flat_config

FAILED, USER_ERROR = 1, 2
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5

Watch = Callable[[Sequence[int], int], None]
"""Told now and then which trials train, by their numbers, and the step they are at."""


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes:
      code: 0 finished, 1 diverged or failed, 2 refused, 143 preempted.
      reason: what went wrong, where something did.
    """

    code: int
    reason: str = ""


@dataclass
class _Trial:
    """One training on its way."""

    index: int
    path: Path
    start: Start
    config: Any
    signals: "_TrialSignals"
    member: Any = None
    group: Any = None
    slot: PackedSlot = field(default_factory=PackedSlot)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    run: Any = None
    requests: Any = None
    request: Evaluation | None = None

    def close(self) -> None:
        """Lets go of all that its training took: the packs that come next need the memory."""
        self.member = self.group = self.run = self.requests = self.request = None
        self.slot = PackedSlot()
        self.stack.close()


class _TrialSignals(StopSignals):
    """Signals to all trials, and the wish to end one of them."""

    def __init__(self, shared: StopSignals):
        super().__init__()
        self._shared = shared

    def poll(self) -> str | None:
        """Returns what asks this trial to stop, or None."""
        self.requested = self.requested or self._shared.poll()
        return self.requested


def _outcome_of(error: Exception) -> Outcome:
    """Returns how a trial ends that something went wrong with; shows where that was if it is no mistake of a user."""
    if isinstance(error, UserError | OSError):
        return Outcome(USER_ERROR, str(error))
    traceback.print_exception(error)
    return Outcome(FAILED, f"{type(error).__name__}: {error}")


class Packer:
    """Trains trials in packs, and keeps what is compiled and loaded for later ones.

    Args:
      pack: the most trials in one program.
      say: takes a line on what cannot be packed together.
    """

    def __init__(self, pack: int = 16, say: Callable[[str], None] = print):
        check_flags(1, pack=pack)
        self._pack = pack
        self.say = say
        self._groups: list[Group] = []
        self._loaded: list[Experiment] = []

    def train(
        self,
        configs: Sequence[Any],
        workdirs: Sequence[Path],
        *,
        starts: Sequence[Start] | None = None,
        signals: StopSignals | None = None,
        on_start: Callable[[Sequence[int]], None] = lambda indices: None,
        on_end: Callable[[int, Outcome], None] = lambda index, outcome: None,
        is_enough: Callable[[int], bool] = lambda index: False,
        watch: Watch | None = None,
    ) -> list[Outcome]:
        """Trains every config in its folder, from the start or from where it was stopped.

        Args:
          configs: of the trials.
          workdirs: the folder of each.
          starts: what each folder says of how its run was started.
          signals: by which the trials are asked to stop; None listens to SIGTERM and SIGINT.
          on_start: called with the numbers of the trials of a pack before it trains.
          on_end: called with the number of a trial and how it ended, as soon as it has.
          is_enough: called with the number of a trial after each of its validations; if so, it saves and ends.
          watch: told of the course; None shows it on standard output.

        Returns:
          How each trial ended. A trial whose config or folder is refused does not keep the others from training.

        Raises:
          UserError: the device has not the memory for a pack; no more is lost than if the process had been killed.
        """
        outcomes: dict[int, Outcome] = {}

        def end(trial: _Trial, outcome: Outcome) -> None:
            try:
                trial.close()
            except OSError as error:  # as a full disk may say once more
                outcome = outcome if outcome.code else _outcome_of(error)
            outcomes[trial.index] = outcome
            on_end(trial.index, outcome)

        with contextlib.ExitStack() as stack:
            shared = signals or stack.enter_context(StopSignals())
            shown = watch or stack.enter_context(_Course())
            own = starts or [Start(False, None, command_line())] * len(configs)
            trials = [
                _Trial(index, Path(path), start, config, _TrialSignals(shared))
                for index, (config, path, start) in enumerate(zip(configs, workdirs, own, strict=True))
            ]
            for trial in trials:
                stack.enter_context(trial.stack)
            ready = [trial for trial in trials if self._make(trial, end)]
            for group, size, members in list(self._packs(ready)):
                if shared.should_stop():  # what has not begun is left as it is
                    for trial in members:
                        end(trial, Outcome(PREEMPTED))
                    continue
                on_start([trial.index for trial in members])
                _Session(group, size, members, shared, end, is_enough, shown).train()
        return [outcomes[index] for index in range(len(configs))]

    def _make(self, trial: _Trial, end: Callable[[_Trial, Outcome], None]) -> bool:
        """Builds and checks one trial; returns whether it is to be trained."""
        if trial.signals.should_stop():
            end(trial, Outcome(PREEMPTED))
            return False
        try:
            overwrite = trial.start.overwrite_config
            if finished_step(trial.config, trial.path, overwrite_config=overwrite) is not None:
                end(trial, Outcome(FINISHED))
                return False
            workdir = check_workdir(trial.path, trial.config, overwrite_config=overwrite)
            files = files_to_resume_with(workdir, trial.config)
            like = (
                None if files else next((each for each in self._loaded if same_data(each.config, trial.config)), None)
            )
            experiment = Experiment.from_config(trial.config, files=files, like=like)
            if not files and like is None:
                self._loaded.append(experiment)
            if experiment.parallel != Parallel():
                raise UserError("parallel divides one run among devices, and a pack divides its trials; leave it out")
            check_metric(experiment, Evaluator(experiment.task))
            trial.member = Member(experiment)
            trial.group = self._group(trial.member)
        except Exception as error:  # of this trial; the others go on
            end(trial, _outcome_of(error))
            return False
        return True

    def _packs(self, trials: Sequence[_Trial]) -> Iterator[tuple[Group, int, list[_Trial]]]:
        """Yields trials that are alike, as many of them as fit, with the number of rows of their pack."""
        alike: dict[Any, list[_Trial]] = {}
        for trial in trials:
            # All are evaluated on the same batches; and batches of training whose shapes vary from step to step can be
            # stacked only if they are the same.
            data = data_of(trial.config, training=trial.group.varies)
            alike.setdefault((trial.group, data), []).append(trial)
        if len(alike) > 1:
            keys = _keys_that_part([[trial.config for trial in members] for members in alike.values()])
            by = f", by {', '.join(keys)}" if keys else ""
            self.say(f"{len(trials)} trials make {len(alike)} kinds of programs{by}")
        for (group, _), members in alike.items():
            try:
                group.prepare([trial.member for trial in members])
            except NotPackableError as error:
                self.say(f"{len(members)} trials train one by one: {error}")
                for trial in members:
                    yield Group(trial.member), 1, [trial]
                continue
            count = -(-len(members) // self._pack)
            size = -(-len(members) // count)
            for first in range(0, len(members), size):
                yield group, size, members[first : first + size]

    def _group(self, member: Any) -> Group:
        """Returns the group of a trial, a new one where it is like none."""
        found = next((group for group in self._groups if group.accepts(member)), None)
        if found is None:
            found = Group(member)
            self._groups.append(found)
        return found


def train_packed(configs: Sequence[Any], workdirs: Sequence[Path], *, pack: int = 16) -> list[Outcome]:
    """Trains configs, each in its own folder, as many at a time in one program as `pack` says; see `Packer.train`."""
    return Packer(pack).train(configs, workdirs)


def _keys_that_part(kinds: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the config keys of which no two kinds of programs share a value, but for those that are all fractions.

    A fraction that is not 0 is seldom what makes another program, and drawn ones are never the same.
    """
    flat = [[dict(flat_config(check_sections(config))) for config in configs] for configs in kinds]
    parting = []
    for key in dict.fromkeys(key for configs in flat for config in configs for key in config):
        values = [{repr(config.get(key)) for config in configs} for configs in flat]
        drawn = all(isinstance(config.get(key), float) and config[key] for configs in flat for config in configs)
        if not drawn and sum(map(len, values)) == len(set().union(*values)):
            parting.append(key)
    return parting


class _Streams:
    """The batches of the trials of a pack: one stream for trials with the same data and seed."""

    def __init__(self, trials: Mapping[int, _Trial]):
        self._keys = {row: data_of(trial.config) for row, trial in trials.items()}
        self._experiments = {self._keys[row]: trial.member.experiment for row, trial in trials.items()}
        self._iterators: dict[str, Iterator[PyTree]] = {}
        self._next: dict[str, int] = {}  # the step of the next batch of each
        self._shared = len(self._experiments) == 1

    def at(self, step: int, rows: Sequence[int], size: int) -> Iterator[tuple[list[int], list[PyTree]]]:
        """Yields rows with the batches of step `step`: of every row of the pack, or one for all.

        Where the trials' batches differ in shape, those of one shape come at a time.
        """
        batches = {}
        for key in dict.fromkeys(self._keys[row] for row in rows):
            if self._next.get(key) != step:  # the first time, or after all have ended that were behind the others
                self._close(key)
                self._iterators[key] = iter(self._experiments[key].train_iterator(step))
            batches[key] = next(self._iterators[key])
            self._next[key] = step + 1
        by_shape: dict[Any, list[int]] = {}
        for row in rows:
            shape = tuple(leaf.shape for leaf in jax.tree.leaves(batches[self._keys[row]]))
            by_shape.setdefault(shape, []).append(row)
        for alike in by_shape.values():
            one = batches[self._keys[alike[0]]]
            used = set(alike)
            yield (
                alike,
                [one] if self._shared else [batches[self._keys[row]] if row in used else one for row in range(size)],
            )

    def close(self) -> None:
        """Ends the threads that make batches."""
        for key in list(self._iterators):
            self._close(key)

    def _close(self, key: str) -> None:
        close = getattr(self._iterators.pop(key, None), "close", None)
        if close is not None:
            close()


class _Session:
    """The training of trials that are alike, until each has ended.

    Args:
      group: what they have in common.
      size: the rows of the pack.
      trials: at most so many.
      signals: by which all are asked to stop.
      end: told of a trial that has ended.
      is_enough: see `Packer.train`.
      watch: told of the course.
    """

    def __init__(
        self,
        group: Group,
        size: int,
        trials: Sequence[_Trial],
        signals: StopSignals,
        end: Callable[[_Trial, Outcome], None],
        is_enough: Callable[[int], bool],
        watch: Watch,
    ):
        self._signals, self._end, self._is_enough, self._watch = signals, end, is_enough, watch
        self._watched = time.monotonic()
        opened = [trial for trial in trials if self._goes_on(trial, functools.partial(self._open, trial))]
        self._training: dict[int, _Trial] = dict(enumerate(opened))
        if not opened:
            return
        states = [trial.slot.state for trial in opened]
        self._pack = Pack(group, [trial.member for trial in opened], states, size)
        del states
        for row, trial in self._training.items():
            trial.slot.join(self._pack, row)
        self._streams = _Streams(self._training)

    def train(self) -> None:
        """Trains until each trial has ended."""
        training = self._training
        if not training:
            return
        try:
            for row in list(training):
                self._ask(row, functools.partial(next, training[row].requests))
            while training:
                if not self._evaluate():
                    self._update()
        finally:
            self._streams.close()

    def _open(self, trial: _Trial) -> None:
        quiet = Console(quiet=True, force_terminal=False)  # what a run says is in its `train.log`
        experiment = trial.member.experiment
        opened = open_run(experiment, trial.path, trial.slot, trial.signals, trial.stack, trial.start, quiet)
        trial.run, trial.requests = opened

    def _evaluate(self) -> bool:
        """Meets the requests for an evaluation of one split; returns whether there were any."""
        wanted = {row: trial.request for row, trial in self._training.items() if trial.request is not None}
        if not wanted:
            return False
        split = next(iter(wanted.values())).split
        params = {row: request.params for row, request in wanted.items() if request.split == split}
        try:
            answers = self._pack.evaluate(params, split, self._signals.should_stop)
        except OutOfMemoryError:
            raise
        except Exception as error:
            answers = dict.fromkeys(params, error)
        del wanted, params  # which may hold weights
        for row, answer in answers.items():
            trial = self._training[row]
            self._answer(row, answer)
            if split == "valid" and row in self._training and self._is_enough(trial.index):
                trial.signals.requested = "the sweep"
        return True

    def _update(self) -> None:
        """Makes an update of the trials that have made the fewest; those ahead, after a restart, wait for them."""
        step = min(trial.run.step for trial in self._training.values())
        rows = [row for row, trial in self._training.items() if trial.run.step == step]
        try:
            made: list[tuple[list[int], Any]] = [
                (alike, self._pack.update(alike, batches))
                for alike, batches in self._streams.at(step, rows, self._pack.size)
            ]
        except OutOfMemoryError:
            raise
        except Exception as error:  # the states may be lost
            made = [(list(self._training), error)]
        for alike, answer in made:
            for row in alike:
                self._answer(row, answer)
        if time.monotonic() - self._watched >= _SECONDS_BETWEEN_LOOKS:
            self._watched = time.monotonic()
            self._watch([trial.index for trial in self._training.values()], step + 1)

    def _answer(self, row: int, answer: Any) -> None:
        """Gives a run what it asked for, or what went wrong with that."""
        requests = self._training[row].requests
        self._ask(row, functools.partial(requests.throw if isinstance(answer, Exception) else requests.send, answer))

    def _ask(self, row: int, action: Callable[[], Evaluation | None]) -> None:
        """Goes on with a run to its next request; forgets it if it ends."""
        trial = self._training[row]

        def ask() -> None:
            trial.request = action()

        if not self._goes_on(trial, ask):
            del self._training[row]

    def _goes_on(self, trial: _Trial, action: Callable[[], None]) -> bool:
        """Whether a trial goes on after an action; what goes wrong is the end of this trial and of no other."""
        try:
            with room_on_disk(trial.path):
                try:
                    action()
                except StopIteration as ended:
                    outcome = Outcome(ended.value)
                else:
                    return True
        except Exception as error:
            outcome = _outcome_of(error)
        self._end(trial, outcome)
        return False


class _Course:
    """Shows the course of packs by a line, which changes on a terminal. A context manager."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True)
        self._status = self._console.status("starting")
        self._last = (0, time.monotonic())

    def __enter__(self) -> "_Course":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._status.stop()

    def __call__(self, trials: Sequence[int], step: int) -> None:
        """Shows which trials train, and at which step they are."""
        seconds = time.monotonic() - self._last[1]
        if not self._console.is_terminal and seconds < _SECONDS_BETWEEN_LINES:
            return
        speed = f"  {(step - self._last[0]) / seconds:.1f} steps/s" if step > self._last[0] else ""
        self._last = (step, time.monotonic())
        text = f"step {step}: {len(trials)} trials{speed}"
        if self._console.is_terminal:
            self._status.update(text)
        else:
            self._console.print(text, highlight=False)
