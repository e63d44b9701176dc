"""What a run shows while it runs: a bar on a terminal, plain lines elsewhere, the same lines in `train.log`."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from lstm_research.training.metrics import write_text

_SHORT = {"learning_rate": "lr", "gradient_norm": "grad", "bits_per_character": "bits/char"}


class RunProgress:
    """Shows the course of a run. A context manager; `say` and `result` also write to the log file.

    Args:
      num_steps: steps of the whole run.
      step: the step the run starts from.
      log: the file that gets every line; None shows and logs nothing.
      unit: what the targets are, of which the speed tells how many a second.
      console: where to show; None is standard output.
    """

    def __init__(
        self, num_steps: int, step: int, log: Path | None, unit: str = "tokens", console: Console | None = None
    ):
        self._num_steps = num_steps
        self._console = console or Console(soft_wrap=True)
        self._log: IO[str] | None = None
        if log is not None:
            self._log = open(log, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self._bar: Progress | None = None
        self._unit = unit
        self._rate = _Rate(step, unit)
        if self._log is not None and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("training", total=num_steps, completed=step, speed="starting")

    def __enter__(self) -> "RunProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._log is not None:
            self._log.close()

    def advance(self, step: int, *, compiled: bool = False) -> None:
        """Moves the bar; `compiled` says that this step was compiled first, so that it tells nothing of the speed."""
        if compiled:
            self._rate = _Rate(step, self._unit)
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    @contextlib.contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """While entered, the run waits for "data" or for the "device"."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._rate.waited(what, time.monotonic() - start)

    def doing(self, what: str) -> None:
        """Names on the bar what goes on: training, evaluating, saving."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def measure(self, step: int, tokens: float) -> None:
        """Takes the speed since the last call; the host must have waited for the device just before.

        Args:
          step: updates made.
          tokens: weight of the targets of one step.
        """
        self._rate.measure(step, tokens)
        if self._bar is not None:
            self._bar.update(self._task, speed=self._rate.describe(self._num_steps - step))

    def pause(self, seconds: float) -> None:
        """Leaves time that went into evaluating or saving out of the training speed."""
        self._rate.pause(seconds)

    def result(self, step: int, split: str, metrics: Mapping[str, Any], note: str = "") -> None:
        """Shows the metrics of a split, after those of training also the speed and where the time went."""
        values = "  ".join(f"{_SHORT.get(name, name)} {_number(value)}" for name, value in metrics.items())
        line = f"step {step:>{len(str(self._num_steps))}}/{self._num_steps}  {split:<5}  {values}"
        if split == "train":
            speed = "" if self._bar is not None else self._rate.describe(self._num_steps - step)
            note = "  ".join(filter(None, (speed, self._rate.describe_waiting())))
        self.say(f"{line}  {note}" if note else line)

    def say(self, text: str) -> None:
        """Shows one line and appends it to the log."""
        if self._log is not None:
            self._console.print(Text(text))
            write_text(self._log, text)


class _Rate:
    """Training speed over the last interval, where its time went, and what is left at the pace of the whole run."""

    def __init__(self, step: int, unit: str):
        self._unit = unit
        self._start = self._last = (step, time.monotonic())
        self._paused = 0.0
        self._steps = self._tokens = self._pace = 0.0
        self._waiting = {"data": 0.0, "device": 0.0}
        self._shares: dict[str, float] = {}

    def waited(self, what: str, seconds: float) -> None:
        self._waiting[what] += seconds

    def pause(self, seconds: float) -> None:
        self._paused += seconds

    def measure(self, step: int, tokens: float) -> None:
        now = time.monotonic()
        count, duration = step - self._last[0], max(now - self._last[1] - self._paused, 1e-9)
        self._steps, self._tokens = count / duration, tokens * count / duration
        # The pace counts evaluations and saves too: they will come again.
        self._pace = (step - self._start[0]) / max(now - self._start[1], 1e-9)
        self._shares = {what: min(seconds / duration, 1) for what, seconds in self._waiting.items()} if count else {}
        self._waiting = dict.fromkeys(self._waiting, 0.0)
        self._last, self._paused = (step, now), 0.0

    def describe_waiting(self) -> str:
        """Returns the time of the last interval in percent: waiting for data, for the device, and the host's own."""
        if not self._shares:
            return ""
        shares = self._shares | {"host": max(1 - sum(self._shares.values()), 0)}
        return " ".join(f"{what} {share:.0%}" for what, share in shares.items())

    def describe(self, left: int) -> str:
        remaining = _duration(left / self._pace) if self._pace else "?"
        return f"{_count(self._steps)} steps/s  {_count(self._tokens)} {self._unit}/s  {remaining} left"


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 0.01 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"


def _count(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{letter}"
    return f"{value:.1f}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{whole % 60:02}s"
