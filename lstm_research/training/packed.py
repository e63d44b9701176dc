"""Packed trials: trainings that differ only in numbers, as one program, each with the workdir of a run of its own.

What each run writes, and when, is decided by the run itself (`Run.requests`); here their requests are met together. A
trial that has ended, well or not, leaves the others as they are. All is resumable as a single run is: a workdir does
not tell whether its run was part of a pack.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lstm_research.common.errors import UserError
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment, data_of, files_to_resume_with, same_data
from lstm_research.training.loop import Start, check_metric, finished_step, open_run, room_on_disk
from lstm_research.training.pack import Group, Member, Pack, PackedSlot
from lstm_research.training.run import FINISHED, PREEMPTED, Evaluation
from lstm_research.training.stopping import StopSignals
from lstm_research.training.workdir import check_workdir

FAILED, USER_ERROR = 1, 2
_SECONDS_BETWEEN_LINES = 10.0


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
    member: Any = None
    slot: PackedSlot = field(default_factory=PackedSlot)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    run: Any = None
    requests: Any = None
    request: Evaluation | None = None


class Packer:
    """Trains trials in packs, and keeps what is compiled and loaded for later ones.

    Args:
      pack: the most trials in one program.
      console: where the course of the packs is shown; None is standard output.
    """

    def __init__(self, pack: int = 16, console: Console | None = None):
        if pack < 1:
            raise UserError(f"--pack must be at least 1, got {pack}")
        self._pack = pack
        self._console = console or Console(soft_wrap=True)
        self._groups: list[Group] = []
        self._loaded: list[Experiment] = []

    def train(
        self,
        configs: Sequence[Any],
        workdirs: Sequence[Path],
        *,
        starts: Sequence[Start] | None = None,
        signals: StopSignals | None = None,
        on_end: Callable[[int, Outcome], None] = lambda index, outcome: None,
    ) -> list[Outcome]:
        """Trains every config in its folder, from the start or from where it was stopped.

        Args:
          configs: of the trials.
          workdirs: the folder of each.
          starts: what each folder says of how its run was started.
          signals: by which the trials are asked to stop; None listens to SIGTERM and SIGINT.
          on_end: called with the number of a trial and how it ended, as soon as it has.

        Returns:
          How each trial ended. A trial whose config or folder is refused does not keep the others from training.
        """
        outcomes: dict[int, Outcome] = {}

        def end(trial: _Trial, outcome: Outcome) -> None:
            trial.stack.close()
            outcomes[trial.index] = outcome
            on_end(trial.index, outcome)

        trials = [
            _Trial(index, Path(path), start, config)
            for index, (config, path, start) in enumerate(
                zip(configs, workdirs, starts or [Start(False, None, [])] * len(configs), strict=True)
            )
        ]
        with contextlib.ExitStack() as stack:
            signals = signals or stack.enter_context(StopSignals())
            ready = [trial for trial in trials if self._make(trial, signals, end)]
            packs = list(self._packs(ready))
            for number, (group, size, members) in enumerate(packs):
                if len(packs) > 1:
                    self._console.print(f"pack {number + 1} of {len(packs)}: {len(members)} trials", highlight=False)
                _Session(group, size, members, signals, end, self._console).train()
        return [outcomes[index] for index in range(len(trials))]

    def _make(self, trial: _Trial, signals: StopSignals, end: Callable[[_Trial, Outcome], None]) -> bool:
        """Builds and checks one trial; returns whether it is to be trained."""
        if signals.should_stop():
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
            check_metric(experiment, Evaluator(experiment.task))
            trial.member = Member(experiment)
        except (UserError, OSError) as error:
            end(trial, Outcome(USER_ERROR, str(error)))
            return False
        return True

    def _packs(self, trials: Sequence[_Trial]) -> Iterator[tuple[Group, int, list[_Trial]]]:
        """Yields trials that are alike, as many of them as fit, with the number of rows of their pack."""
        alike: dict[Any, list[_Trial]] = {}
        for trial in trials:
            group = self._group(trial.member)
            # Batches whose shapes vary from step to step can be stacked only if they are the same.
            alike.setdefault((group, data_of(trial.config) if group.varies else ""), []).append(trial)
        for (group, _), members in alike.items():
            group.prepare([trial.member for trial in members])
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


class _Streams:
    """The batches of the trials of a pack: one stream for trials with the same data and seed."""

    def __init__(self, trials: Mapping[int, _Trial]):
        self._keys = {row: data_of(trial.config) for row, trial in trials.items()}
        self._experiments = {self._keys[row]: trial.member.experiment for row, trial in trials.items()}
        self._iterators: dict[str, Iterator[PyTree]] = {}
        self._shared = len(self._experiments) == 1

    def at(self, step: int, rows: Sequence[int], size: int) -> Iterator[tuple[list[int], list[PyTree]]]:
        """Yields rows with the batches of step `step`: of every row of the pack, or one for all.

        Where the trials' batches differ in shape, those of one shape come at a time.
        """
        batches = {}
        for key in dict.fromkeys(self._keys[row] for row in rows):
            if key not in self._iterators:
                self._iterators[key] = iter(self._experiments[key].train_iterator(step))
            batches[key] = next(self._iterators[key])
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
        for iterator in self._iterators.values():
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


class _Session:
    """The training of trials that are alike, until each has ended.

    Args:
      group: what they have in common.
      size: the rows of the pack.
      trials: at most so many.
      signals: by which they are asked to stop.
      end: told of a trial that has ended.
      console: where the course of the pack is shown.
    """

    def __init__(
        self,
        group: Group,
        size: int,
        trials: Sequence[_Trial],
        signals: StopSignals,
        end: Callable[[_Trial, Outcome], None],
        console: Console,
    ):
        self._signals, self._end, self._size = signals, end, size
        opened = [trial for trial in trials if self._goes_on(trial, functools.partial(self._open, trial))]
        self._training: dict[int, _Trial] = dict(enumerate(opened))
        if not opened:
            return
        states = [trial.slot.state for trial in opened]
        self._pack = Pack(group, [trial.member for trial in opened], states, size)
        for row, trial in self._training.items():
            trial.slot.join(self._pack, row)
        self._streams = _Streams(self._training)
        self._shown = _Course(console, max(trial.member.experiment.training.num_steps for trial in opened))

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
            self._shown.close()

    def _open(self, trial: _Trial) -> None:
        quiet = Console(quiet=True, force_terminal=False)  # what a run says is in its `train.log`
        experiment = trial.member.experiment
        opened = open_run(experiment, trial.path, trial.slot, self._signals, trial.stack, trial.start, quiet)
        trial.run, trial.requests = opened

    def _evaluate(self) -> bool:
        """Meets the requests for an evaluation of one split; returns whether there were any."""
        wanted = {row: trial.request for row, trial in self._training.items() if trial.request is not None}
        if not wanted:
            return False
        # Trials with other data cannot have the same batches.
        keys = {
            row: (request.split, data_of(self._training[row].config, seed=False)) for row, request in wanted.items()
        }
        first = next(iter(keys.values()))
        params = {row: request.params for row, request in wanted.items() if keys[row] == first}
        try:
            answers = self._pack.evaluate(params, first[0], self._signals.should_stop)
        except Exception as error:
            answers = dict.fromkeys(params, error)
        del wanted, params
        for row, answer in answers.items():
            self._answer(row, answer)
        return True

    def _update(self) -> None:
        """Makes an update of the trials that have made the fewest; those ahead, after a restart, wait for them."""
        step = min(trial.run.step for trial in self._training.values())
        rows = [row for row, trial in self._training.items() if trial.run.step == step]
        try:
            made: list[tuple[list[int], Any]] = [
                (alike, self._pack.update(alike, batches))
                for alike, batches in self._streams.at(step, rows, self._size)
            ]
        except Exception as error:  # the states may be lost
            made = [(list(self._training), error)]
        for alike, answer in made:
            for row in alike:
                self._answer(row, answer)
        self._shown.advance(step + 1, len(self._training))

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
        except (UserError, OSError) as error:
            outcome = Outcome(USER_ERROR, str(error))
        except Exception as error:
            outcome = Outcome(FAILED, f"{type(error).__name__}: {error}")
        self._end(trial, outcome)
        return False


class _Course:
    """Shows how far a pack is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, num_steps: int):
        self._console, self._num_steps = console, num_steps
        self._bar: Progress | None = None
        self._last = (0, time.monotonic())
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task("training", total=num_steps)
            self._bar.start()

    def advance(self, step: int, count: int) -> None:
        """Shows that `count` trials train, up to this step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=f"training {count} trials")
        elif time.monotonic() - self._last[1] >= _SECONDS_BETWEEN_LINES:
            speed = (step - self._last[0]) / (time.monotonic() - self._last[1])
            text = f"step {step}/{self._num_steps}  {count} trials  {speed:.1f} steps/s"
            self._console.print(text, highlight=False)
            self._last = (step, time.monotonic())

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
