"""What a sweep shows while it runs: a table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.results import Sweep, read_sweep
from lstm_research.sweeps.trial import FAILED, FINISHED, Trial, describe, short_names, show

_SECONDS_BETWEEN_LINES = 60.0


class Display:
    """Shows the course of a sweep. A context manager.

    Args:
      sweep: which.
      console: where to show; None is standard output.
    """

    def __init__(self, sweep: SweepDefinition, console: Console | None = None):
        self._sweep = sweep
        self._console = console or _console()
        self._best: Trial | None = None
        self._over = 0
        self._seen: dict[int, _Course] = {}
        self._said = time.monotonic()
        self._live = Live(console=self._console, transient=True, auto_refresh=False)

    def __enter__(self) -> "Display":
        before = read_sweep(self._sweep.folder)
        self._best, self._over = before.best, sum(trial.is_over for trial in before.trials)
        going = f", {self._over} of them over" if self._over else ""
        self.say(
            f"sweep of {self._sweep.recipe} in {self._sweep.folder}: {self._sweep.num_trials} trials{going}, "
            f"{self._sweep.direction} validation {self._sweep.metric}"
        )
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Shows one line."""
        self._console.print(Text(text))
        sys.stdout.flush()

    def started(self, trial: Trial) -> None:
        """Says that a trial is started, at first or again."""
        again = f" again, having been at step {trial.restarted_from}" if trial.restarted_from else ""
        self.say(f"trial {trial.number} starts{again}: {describe(trial.overrides)}")

    def ended(self, trial: Trial) -> None:
        """Says what came out of a trial."""
        self._over += 1
        text = f"trial {trial.number} {trial.state}"
        if trial.value is not None:
            text += f": {self._sweep.metric} {show(trial.value)} at step {trial.best_step}"
        if trial.reason:
            text += f": {trial.reason}"
        if trial.state == FAILED:
            text += f" (see {trial.log})"
        if trial.state == FINISHED and trial.value is not None:
            best = self._best
            if best is None or best.value is None or self._sweep.better(trial.value, best.value):
                self._best = trial
                text += ", best so far"
        self.say(f"{text}  ({self._over}/{self._sweep.num_trials})")

    def update(self, running: Sequence[Trial]) -> None:
        """Shows where the running trials are."""
        if not self._console.is_terminal:
            self._say_where(running)
            return
        table = _table("trial", "state", "step", "steps/s", self._sweep.metric, "overrides")
        for trial in running:
            course = self._seen.setdefault(trial.number, _Course())
            course.read(trial, self._sweep.metric)
            table.add_row(
                str(trial.number), trial.state, str(course.step), course.speed, course.value, describe(trial.overrides)
            )
        best = f"best: trial {self._best.number}, {show(self._best.value)}" if self._best else "no trial finished yet"
        table.caption = f"{self._over} of {self._sweep.num_trials} trials over; {best}"
        self._live.update(table, refresh=True)

    def _say_where(self, running: Sequence[Trial]) -> None:
        """Says every minute how far the running trials are."""
        if not running or time.monotonic() - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = time.monotonic()
        steps = [trial.step for trial in running]
        reached = f"step {min(steps)}" if len(set(steps)) == 1 else f"steps {min(steps)} to {max(steps)}"
        self.say(f"{len(running)} trial{'s' if len(running) > 1 else ''} at {reached}")

    def finish(self) -> None:
        """Shows the table of all trials, and the command of the best."""
        self._live.stop()
        show_results(read_sweep(self._sweep.folder), self._console)


class _Course:
    """Where a running trial is, read anew only when its metrics have changed."""

    def __init__(self) -> None:
        self.step, self.speed, self.value = 0, "", ""
        self._size = -1

    def read(self, trial: Trial, metric: str) -> None:
        path = trial.workdir / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else -1
        if size == self._size:
            return
        self._size = size
        lines = trial.lines()
        self.step = max((line["step"] for line in lines), default=0)
        train = [line for line in lines if line["split"] == "train"][-2:]
        if len(train) == 2 and train[1]["seconds"] > train[0]["seconds"]:
            self.speed = f"{(train[1]['step'] - train[0]['step']) / (train[1]['seconds'] - train[0]['seconds']):.1f}"
        values = [line[metric] for line in lines if line["split"] == "valid" and line.get(metric) is not None]
        self.value = show(values[-1]) if values else ""


def show_results(sweep: Sweep, console: Console | None = None) -> None:
    """Shows a table of a sweep's trials, the best of them first, and how to train the best."""
    console = console or _console()
    definition = sweep.definition
    sign = -1 if definition.direction == "maximize" else 1
    table = _table("trial", "state", definition.metric, "step", "seconds", *short_names(definition.keys), "")
    ranked = sorted(
        sweep.trials, key=lambda t: (t.state != FINISHED, t.value is None, sign * (t.value or 0.0), t.number)
    )
    for trial in ranked:
        value = "" if trial.value is None else show(trial.value)
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        swept = [show(trial.overrides[key]) if key in trial.overrides else "" for key in definition.keys]
        table.add_row(str(trial.number), trial.state, value, str(trial.best_step or ""), seconds, *swept, trial.reason)
    console.print(table)
    over = sum(trial.is_over for trial in sweep.trials)
    console.print(Text(f"{over} of {definition.num_trials} trials over; all of them in {definition.folder}/sweep.csv"))
    if sweep.best is not None:
        console.print(Text(f"the best, trial {sweep.best.number}: {sweep.best_command}"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    console = Console(soft_wrap=True)
    # A file has no width that a table must fit.
    return console if console.is_terminal else Console(soft_wrap=True, width=1000)
