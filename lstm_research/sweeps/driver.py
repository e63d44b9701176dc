"""The driver: asks for trials, has them run, starts again what died, prunes, and tells the results.

It works on any launcher. What it must survive is its own end at any moment: all it knows is in the trials' records, and
`Study.unfinished` gives that back.
"""

import time

from lstm_research.common.errors import UserError
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.display import Display
from lstm_research.sweeps.launcher import Job, Launcher
from lstm_research.sweeps.results import read_sweep
from lstm_research.sweeps.study import Study
from lstm_research.sweeps.trial import FAILED, PRUNING, RUNNING, WAITING, Trial
from lstm_research.training.stopping import StopSignals

# How often a driver with nothing to ask for looks for trials of others that have died.
LOOK_AROUND_SECONDS = 10.0

DONE, NOTHING_FINISHED, INTERRUPTED, PREEMPTED = 0, 1, 130, 143


def end_trial(study: Study, display: Display, trial: Trial, state: str, reason: str) -> None:
    """Ends a trial with a state of `ENDS` and the reason."""
    trial.end(state, reason)
    study.report(trial)  # what it wrote since the last look
    study.tell(trial)
    display.ended(trial)


def say_stopped(signal: str, display: Display) -> int:
    """Says that a signal stopped the sweep; returns the exit code."""
    display.say(f"stopped by {signal}; the same command goes on")
    return INTERRUPTED if signal == "SIGINT" else PREEMPTED


class Driver:
    """Runs the trials of a sweep to their ends.

    Args:
      sweep: what to run.
      study: entered.
      launcher: where.
      max_restarts: how often a trial is started again without having got any further.
      poll_seconds: how often it looks.
    """

    def __init__(
        self,
        sweep: SweepDefinition,
        study: Study,
        launcher: Launcher,
        *,
        max_restarts: int = 10,
        poll_seconds: float = 0.5,
    ):
        self._sweep = sweep
        self._study = study
        self._launcher = launcher
        self._max_restarts = max_restarts
        self._poll_seconds = poll_seconds
        self._waiting: list[Trial] = []
        self._running: dict[int, tuple[Trial, Job]] = {}
        # Trials that failed before a step while no other got anywhere: all of them may have the same mistake.
        self._refused: list[Trial] = []

    def run(self) -> int:
        """Runs until every trial has ended, or a signal comes. Returns the exit code.

        Raises:
          UserError: the first trials all fail before their first step for the same reason, as all others would.
        """
        with StopSignals() as signals, Display(self._sweep) as display:
            self._display = display
            self._take_over()
            while not self._is_done():
                if signals.requested is not None:
                    self._stop_all()
                    return say_stopped(signals.requested, display)
                self._start_more()
                display.update([trial for trial, _ in self._running.values()])
                time.sleep(self._poll_seconds)
                self._look()
            display.finish()
        return DONE if read_sweep(self._sweep.folder).best is not None else NOTHING_FINISHED

    def _is_done(self) -> bool:
        return not self._running and not self._waiting and not self._refused and self._study.is_complete()

    def _take_over(self) -> None:
        """Cares for the trials that another driver left when it died."""
        self._looked_around = time.monotonic()
        for trial in self._study.unfinished():
            job = self._launcher.adopt(trial) if trial.state != WAITING else None
            if job is not None:
                self._display.say(f"trial {trial.number} still runs")
                self._running[trial.number] = (trial, job)
            elif trial.state == WAITING:
                self._waiting.append(trial)
            else:
                self._settle(trial, None)

    def _start_more(self) -> None:
        batch: list[Trial] = []
        # A refused trial keeps its place, or the first ones would never be all of them.
        while len(self._running) + len(self._refused) + len(batch) < self._launcher.slots:
            trial = self._waiting.pop(0) if self._waiting else self._study.ask()
            if trial is None:
                if time.monotonic() - self._looked_around > LOOK_AROUND_SECONDS:
                    self._take_over()
                break
            batch.append(trial)
        if not batch:
            return
        self._sweep.check_recipe()
        for trial in batch:
            # Before the start: what says running may have a process, what says waiting has none.
            trial.state, trial.restarted_from = RUNNING, trial.step
            trial.write()
        jobs = self._launcher.start(batch)
        for trial, job in zip(batch, jobs, strict=True):
            if trial.job is not None:
                trial.write()
            self._running[trial.number] = (trial, job)
            self._display.started(trial)

    def _look(self) -> None:
        for trial, job in list(self._running.values()):
            if job.has_ended():
                del self._running[trial.number]
                self._settle(trial, job.code)
            elif trial.state == PRUNING:
                job.stop()
            elif self._study.report(trial):
                trial.state = PRUNING
                trial.write()
                job.stop()
        if self._refused and any(trial.step > 0 for trial, _ in self._running.values()):
            self._give_up_refused()

    def _settle(self, trial: Trial, code: int | None) -> None:
        """Ends a trial whose process is over, or has it started again."""
        end = trial.how_it_ended(code)
        if end is None:
            trial.restarts = trial.restarts + 1 if trial.step <= trial.restarted_from else 0
            if trial.restarts > self._max_restarts:
                times = f"{trial.restarts} times" if trial.restarts > 1 else "once"
                end = FAILED, f"it died {times} without getting any further"
        if end is None:
            self._put_back(trial)
            why = f" ({trial.last_words()})" if code in (1, 2) else ""
            self._display.say(f"trial {trial.number} died at step {trial.step}{why}; it goes on from its checkpoint")
        elif end[0] == FAILED and trial.step == 0 and self._study.num_told == 0:
            self._refuse(trial, end[1])
        else:
            self._give_up_refused()
            end_trial(self._study, self._display, trial, *end)

    def _refuse(self, trial: Trial, reason: str) -> None:
        trial.reason = reason
        self._refused.append(trial)
        if len({other.reason for other in self._refused}) > 1:
            self._give_up_refused()
        elif len(self._refused) >= min(self._launcher.slots, self._sweep.num_trials):
            for other in self._refused:  # they have not had their chance: what is wrong may be put right
                other.restarts = 0
                self._put_back(other)
            self._stop_all()
            raise UserError(f"the first trials all fail before their first step: {reason} (see {trial.log})")

    def _give_up_refused(self) -> None:
        refused, self._refused = self._refused, []
        for trial in refused:
            end_trial(self._study, self._display, trial, FAILED, trial.reason)

    def _put_back(self, trial: Trial) -> None:
        trial.wait()
        self._waiting.append(trial)

    def _stop_all(self) -> None:
        """Asks all jobs to save and to end, and waits; a job that cannot be asked goes on alone."""
        jobs = {number: pair for number, pair in self._running.items() if pair[1].stop()}
        while jobs:
            for number, (trial, job) in list(jobs.items()):
                if job.has_ended():
                    del jobs[number]
                    if trial.state == RUNNING and trial.how_it_ended(job.code) is None:
                        trial.wait()
            self._display.update([trial for trial, _ in jobs.values()])
            time.sleep(min(self._poll_seconds, 0.2))
