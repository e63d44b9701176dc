"""The engine `packed`: trials that differ only in numbers train as one program, in the process of the command."""

from collections.abc import Sequence

from lstm_research.common.errors import UserError
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.display import Display
from lstm_research.sweeps.driver import DONE, NOTHING_FINISHED, end_trial, say_stopped
from lstm_research.sweeps.process import is_alive
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import DIVERGED, FAILED, FINISHED, PRUNED, PRUNING, RUNNING, Trial
from lstm_research.training import run
from lstm_research.training.loop import Start
from lstm_research.training.packed import USER_ERROR, Outcome, Packer
from lstm_research.training.stopping import StopSignals
from lstm_research.training.workdir import Workdir


class PackedEngine:
    """Trains trials in packs.

    Args:
      pack: the most trials in one program.
    """

    trains_here = True

    def __init__(self, pack: int = 16):
        self._packer = Packer(pack)
        self._pack = pack

    def run(self, sweep: SweepDefinition) -> int:
        """Runs the sweep; returns 0, or 1 if no trial was finished, or 143 or 130 if it was stopped.

        Raises:
          UserError: the first trials are all refused for the same reason; the device has not the memory for a pack; a
            trial still runs in a process of its own.
        """
        with Study(sweep) as study, StopSignals() as signals, Display(sweep) as display:
            self._packer.say = display.say
            waiting = []
            for trial in study.unfinished():
                if is_alive(trial.workdir):
                    raise UserError(
                        f"trial {trial.number} still runs as another engine started it; wait for it, or stop it"
                    )
                over = trial.how_it_ended(None) if trial.state == PRUNING else None
                if over is None:
                    waiting.append(trial)
                else:
                    end_trial(study, display, trial, *over)
            while not signals.should_stop():
                waiting += self._ask(sweep, study, len(waiting))
                if not waiting:
                    break
                waiting = _Batch(sweep, study, display, waiting).train(self._packer, signals)
            if signals.requested is not None:
                return say_stopped(signals.requested, display)
            display.finish()
        return DONE if read_sweep(sweep.folder).best is not None else NOTHING_FINISHED

    def _ask(self, sweep: SweepDefinition, study: Study, waiting: int) -> list[Trial]:
        """Returns new trials: all that do not depend on results, so that those alike are found among them."""
        learns = sweep.sampler == "tpe"
        asked: list[Trial] = []
        while not learns or waiting + len(asked) < self._pack:
            trial = study.ask()
            if trial is None:
                break
            asked.append(trial)
        return asked


class _Batch:
    """Trials that are trained together, in as many packs as it takes.

    Args:
      sweep: whose trials.
      study: told of their results.
      display: shows them.
      trials: the trials.
    """

    def __init__(self, sweep: SweepDefinition, study: Study, display: Display, trials: Sequence[Trial]):
        self._sweep, self._study, self._display, self._trials = sweep, study, display, trials
        self._refused: list[Trial] = []
        self._unfinished: list[Trial] = []

    def train(self, packer: Packer, signals: StopSignals) -> list[Trial]:
        """Trains the trials; returns those that were stopped before their end.

        Raises:
          UserError: see `PackedEngine.run`.
        """
        self._sweep.check_recipe()
        starts = []
        for trial in self._trials:
            command = self._sweep.train_command(trial.overrides, trial.workdir)
            starts.append(Start(False, self._sweep.recipe_text, command))
        packer.train(
            [self._sweep.trial_config(trial.overrides) for trial in self._trials],
            [trial.workdir for trial in self._trials],
            starts=starts,
            signals=signals,
            on_start=self._begin,
            on_end=self._end,
            is_enough=self._is_enough,
            watch=lambda numbers, _: self._display.update([self._trials[number] for number in numbers]),
        )
        self._settle_refused()
        return self._unfinished

    def _begin(self, indices: Sequence[int]) -> None:
        if len(indices) > 1:
            self._display.say(f"{len(indices)} trials train as one program:")
        for index in indices:
            trial = self._trials[index]
            trial.state, trial.restarted_from = RUNNING, trial.step
            trial.write()
            self._display.started(trial)

    def _is_enough(self, index: int) -> bool:
        """Reports a validation; whether the pruner says that it was the last one."""
        trial = self._trials[index]
        if not self._study.report(trial):
            return False
        trial.state = PRUNING
        trial.write()
        return True

    def _end(self, index: int, outcome: Outcome) -> None:
        trial = self._trials[index]
        if outcome.code == run.PREEMPTED and trial.state != PRUNING:
            trial.wait()
            self._unfinished.append(trial)
        elif outcome.code == USER_ERROR:
            trial.reason = outcome.reason.replace(str(trial.workdir), "its workdir")
            self._refused.append(trial)
        else:
            diverged = Workdir(trial.workdir).read_status().get("state") == "diverged"
            states = {run.FINISHED: FINISHED, run.PREEMPTED: PRUNED}
            state = states.get(outcome.code, DIVERGED if diverged else FAILED)
            end_trial(self._study, self._display, trial, state, outcome.reason)

    def _settle_refused(self) -> None:
        """Ends trials that were refused, unless all of the first ones were for the same reason, as others would be."""
        reasons = {trial.reason for trial in self._refused}
        if len(self._refused) == len(self._trials) and len(reasons) == 1 and self._study.num_told == 0:
            for trial in self._refused:  # they have not had their chance: what is wrong may be put right
                trial.wait()
            raise UserError(f"the first trials are all refused: {reasons.pop()}")
        for trial in self._refused:
            end_trial(self._study, self._display, trial, FAILED, trial.reason)
