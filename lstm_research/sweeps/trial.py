"""One trial: what it overrides, how far it is, what came out; kept in `trial.json` of its workdir."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_research.common.errors import UserError
from lstm_research.sweeps.points import plain_value
from lstm_research.training.files import write_atomically
from lstm_research.training.metrics import read_metrics
from lstm_research.training.workdir import Workdir

WAITING, RUNNING, PRUNING = "waiting", "running", "pruning"
FINISHED, PRUNED, DIVERGED, FAILED = "finished", "pruned", "diverged", "failed"
ENDS = (FINISHED, PRUNED, DIVERGED, FAILED)
"""States of a trial that is over."""

START_MARK = "$ "
"""Begins the line of `trial.log` that says what was started."""

_TRACEBACK = "Traceback (most recent call last):"
_NOT_METRICS = ("step", "split", "seconds")


@dataclasses.dataclass
class Trial:
    """A trial of a sweep.

    Attributes:
      number: in the sweep, from 0.
      overrides: values by config key.
      workdir: of its run.
      state: waiting (to be started, or started again), running, pruning (told to stop, since others are better), or one
        of `ENDS`.
      value: best validation result so far; None before the first.
      best_step: the step of that.
      seconds: time spent on training.
      test: metrics of the test split.
      reason: why it failed.
      restarts: how often it was started again without having got any further.
      restarted_from: the step of its newest start.
      job: what the engine calls the process that runs it, where it needs that to find it again.
    """

    number: int
    overrides: dict[str, Any]
    workdir: Path
    state: str = WAITING
    value: float | None = None
    best_step: int | None = None
    seconds: float | None = None
    test: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""
    restarts: int = 0
    restarted_from: int = 0
    job: str | None = None

    @property
    def record(self) -> Path:
        """`trial.json`."""
        return self.workdir / "trial.json"

    @property
    def log(self) -> Path:
        """What its process wrote."""
        return self.workdir / "trial.log"

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end."""
        return self.state in ENDS

    def write(self) -> None:
        """Replaces `trial.json`."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "workdir"}
        write_atomically(self.record, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, workdir: Path) -> "Trial":
        """Returns the trial of a workdir.

        Raises:
          UserError: `trial.json` is missing or damaged.
        """
        path = workdir / "trial.json"
        try:
            content = json.loads(path.read_text())
            overrides = {key: plain_value(key, value) for key, value in content.pop("overrides").items()}
            return cls(**content, overrides=overrides, workdir=workdir)
        except FileNotFoundError:
            raise UserError(f"{workdir} holds no trial.json: it is not a trial of a sweep") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of its `metrics.jsonl`, if there are any yet."""
        path = Workdir(self.workdir).metrics
        return read_metrics(path) if path.exists() else []

    def validations(self, metric: str) -> dict[int, float]:
        """Returns the validation results so far by step."""
        return {
            line["step"]: line[metric]
            for line in self.lines()
            if line["split"] == "valid" and line.get(metric) is not None
        }

    @property
    def step(self) -> int:
        """How far its run is; 0 before it began."""
        return int(Workdir(self.workdir).read_status().get("step", 0))

    def collect(self) -> None:
        """Takes over what its run has come to: best validation, time, test metrics."""
        best = Workdir(self.workdir).read_status().get("best") or {}
        self.value, self.best_step = best.get("value"), best.get("step")
        lines = self.lines()
        self.seconds = max((line["seconds"] for line in lines), default=None)
        tests = [line for line in lines if line["split"] == "test"]
        self.test = {key: value for key, value in tests[-1].items() if key not in _NOT_METRICS} if tests else {}

    def wait(self) -> None:
        """Records that it is to be started, or started again."""
        self.state, self.reason = WAITING, ""
        self.write()

    def end(self, state: str, reason: str = "") -> None:
        """Collects the results and sets a state of `ENDS`; `Study.tell` records it."""
        self.collect()
        self.state, self.reason = state, reason

    def how_it_ended(self, code: int | None) -> tuple[str, str] | None:
        """Says what to make of the end of its process.

        A fault may be the machine's: it ends the trial only if it came before the run had got further than at its
        newest start, as one of the trial's own does the second time.

        Args:
          code: exit code, below 0 for a signal; None if nobody knows it.

        Returns:
          A state of `ENDS` and the reason; None if the same command should go on with the run.
        """
        state = Workdir(self.workdir).read_status().get("state")
        if state == "finished":
            return FINISHED, ""
        if self.state == PRUNING:
            return PRUNED, ""
        if state == "diverged" and code in (1, None):
            return DIVERGED, self.last_words()
        if code == 0:
            return FAILED, "its command ended without having finished the run"
        has_fault = code in (1, 2) or (code is None and state == "failed")
        if has_fault and self.step <= self.restarted_from:
            return FAILED, self.last_words()
        return None

    def last_words(self) -> str:
        """Returns why its newest start ended: the exception, or the last line of the log.

        Without what names this program or this trial.
        """
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        starts = [i for i, line in enumerate(lines) if line.startswith(START_MARK)]
        lines = lines[starts[-1] + 1 :] if starts else lines
        tracebacks = [i for i, line in enumerate(lines) if line == _TRACEBACK]
        if tracebacks:  # after the exception may come more lines of its message, and notes of JAX
            lines = [line for line in lines[tracebacks[-1] + 1 :] if not line.startswith(" ")][:1] or lines
        words = lines[-1].removeprefix("lstm-research: error: ") if lines else "it said nothing"
        return words.replace(str(self.workdir), "its workdir")


def describe(overrides: Mapping[str, Any]) -> str:
    """Returns overrides as they are shown: `key=value key=value`."""
    return " ".join(f"{key}={show(value)}" for key, value in overrides.items())


def short_names(keys: Sequence[str]) -> list[str]:
    """Returns the last parts of keys, and a whole key where others end like it."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def show(value: Any) -> str:
    """Returns a value as it is shown, a number short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
