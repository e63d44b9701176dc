"""One start of a run: what is written while its state changes, and when.

What happens at step k (k updates made) happens in a fixed order, each part at most once: the train line, the
evaluation, the checkpoint, then the update k + 1. A checkpoint holds, beside the arrays, what the host remembers of
that order. So a run that goes on from it does exactly what a run that was never stopped would do next, wherever it
was killed.
"""

import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.files import write_atomically
from lstm_research.training.metrics import DivergedError, MetricsLog, MetricSums, TensorBoard
from lstm_research.training.optimizers import set_learning_rate_scale
from lstm_research.training.parallel import place_like
from lstm_research.training.processes import is_first, lost_process, on_first, whole
from lstm_research.training.progress import RunProgress
from lstm_research.training.step import TrainState
from lstm_research.training.stopping import StopSignals
from lstm_research.training.weights import load_weights, save_weights
from lstm_research.training.workdir import Workdir

FINISHED, DIVERGED, PREEMPTED = 0, 1, 143

_MUST_BE_FINITE = ("loss", "gradient_norm")
# However rarely the run logs, the host looks at the results this often: they take memory, and may not be finite.
_MOST_PENDING = 1000
# Of these a train line shows the value of its step, not the mean since the line before.
_LATEST = ("learning_rate",)


@dataclass
class Record:
    """What the host remembers of a run; stored in every checkpoint.

    Attributes:
      logged_step: step of the newest train line.
      evaluated_step: step of the newest validation.
      sums: (sum, count) by metric, over the steps since that train line.
      best: step, metric and value of the best validation.
      bad_evaluations: validations since the best one.
      history: the validation metric of all validations, where the average waits for them.
      plateau: what the plateau schedule remembers.
      seconds: time spent on the run.
    """

    logged_step: int = 0
    evaluated_step: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    bad_evaluations: int = 0
    history: list[float] = field(default_factory=list)
    plateau: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Evaluation(NamedTuple):
    """What a run asks for beside updates: the metrics of weights over a split.

    Attributes:
      params: the weights.
      split: the split's name.
    """

    params: PyTree
    split: str


Requests = Generator[Evaluation | None, Any, int]
"""What a run asks for: an evaluation, or None for an update; it ends with the exit code."""


class Slot:
    """Holds the state of a run; where several runs are one program, it is a view of theirs."""

    state: TrainState

    def fetch(self, metrics: list[Any]) -> list[dict[str, Any]]:
        """Waits for the metrics of updates and returns them as numbers."""
        return jax.device_get(metrics)


class Run:
    """One start of a run: all that is written while its state changes.

    Attributes:
      step: the number of updates made.
      progress: shows the course.
    """

    def __init__(
        self,
        experiment: Any,
        workdir: Workdir,
        digest: str,
        checkpoints: Checkpoints,
        signals: StopSignals,
        tensorboard: TensorBoard | None,
        progress: RunProgress,
        slot: Slot,
    ):
        self._experiment = experiment
        self._task = experiment.task
        self._options = experiment.training
        self._workdir = workdir
        self._digest = digest
        self._checkpoints = checkpoints
        self._signals = signals
        self._tensorboard = tensorboard
        self.progress = progress
        self._slot = slot
        self._metrics = MetricsLog(workdir.metrics)
        self._writes = is_first()
        # Metrics of updates whose results the host has not waited for, with the step that each update made.
        self._pending: list[tuple[int, Any]] = []

    def requests(self, step: int, record: Record, *, restored: bool) -> Requests:
        """Asks for all that takes the device, and writes what is due.

        Yields None when the state in the slot is to be updated, and is sent the metrics of that. Yields an
        `Evaluation`, and is sent its metrics, or None if the run has been asked to stop meanwhile. What goes wrong
        with either is to be thrown into it.

        Args:
          step: the number of updates made.
          record: what the host remembers of them.
          restored: whether both come from a checkpoint.

        Returns:
          The exit code, once the run has ended, well or not.
        """
        self.step, self._record = step, record
        self._saved_step = step if restored else -1
        self._sums = MetricSums(record.sums, _LATEST)
        self._begin = time.monotonic() - record.seconds
        try:
            if self._writes:
                self._metrics.truncate(logged_step=record.logged_step, evaluated_step=record.evaluated_step)
            self._write_status("running")
            size = sum(leaf.size for leaf in jax.tree.leaves(self._slot.state.params))
            where = f"going on from step {step}" if restored else "starting"
            self.progress.say(f"{where} in {self._workdir.path}: {size:,} parameters, {self._options.num_steps} steps")
            preempted = (yield from self._train()) or (yield from self._finish())
        except DivergedError as error:
            # Nothing of the diverged state is kept: the newest checkpoint was saved while all was finite.
            self._write_status("diverged", error.step)
            last = self._checkpoints.steps()[-1:]
            kept = f"the checkpoint of step {last[0]} is the last good one" if last else "there is no checkpoint yet"
            self.progress.say(f"{error}; {kept}")
            return DIVERGED
        except Exception as error:
            explained = lost_process(error)
            self._note_failure(explained)
            if explained is error:
                raise
            raise explained from error
        if preempted:
            self._write_status("preempted")
            self.progress.say(f"stopped by {self._signals.requested} at step {self.step}, saved; start again to go on")
            return PREEMPTED
        self._write_status("finished")
        self.progress.say(f"finished at step {self.step} in {self._workdir.path}")
        return FINISHED

    def _train(self) -> Generator[Evaluation | None, Any, bool]:
        """Asks for updates until the last step or until patience runs out. Returns whether a signal stopped it."""
        last, options = self._options.num_steps, self._options
        first = True
        while True:
            step = self.step
            if _is_due(step, options.log_every, last) and self._record.logged_step < step:
                self._log()
            if _is_due(step, options.eval_every, last) and self._record.evaluated_step < step:
                yield from self._validate()
            # Read once: a signal that comes while saving is for the next round.
            preempted = self._signals.poll() is not None
            ending = step >= last or self._is_out_of_patience()
            if (_is_due(step, options.checkpoint_every, last) or ending or preempted) and self._saved_step < step:
                self._save()
            if preempted or ending:
                if ending and step < last and not preempted:
                    self.progress.say(
                        f"no better validation in training.patience={options.patience} evaluations: stopping early"
                    )
                return preempted
            metrics = yield None
            self.step = step + 1
            self._pending.append((self.step, metrics))
            if len(self._pending) >= _MOST_PENDING:
                self._fetch()
            self.progress.advance(self.step, compiled=first)
            first = False

    def _log(self) -> None:
        """Writes the train line: means since the line before, learning rate and gradient norm."""
        self._fetch()
        sums = self._sums.as_dict()
        own = {name: sums.pop(name) for name in ("learning_rate", "gradient_norm") if name in sums}
        values = self._task.metrics(sums) | {name: total / count for name, (total, count) in own.items()}
        self.progress.measure(self.step, sums["loss"][1] / (self.step - self._record.logged_step))
        self._write_line(self.step, "train", values)
        self._record.logged_step = self.step
        self._sums = MetricSums(latest=_LATEST)
        self._write_status("running")

    def _validate(self) -> Generator[Evaluation, Any, None]:
        """Evaluates, writes the line, keeps the best weights; does nothing if a signal comes meanwhile."""
        if "valid" not in self._task.splits():
            return
        self._fetch()
        start = time.monotonic()
        self.progress.doing("evaluating")
        params = self._slot.state.evaluated
        values = yield Evaluation(params, "valid")
        self.progress.doing("training")
        if values is None:
            return
        record, metric = self._record, self._options.metric
        value = values[metric]
        if not math.isfinite(value):
            raise DivergedError(self.step, f"validation {metric} is {value}")
        sign = -1.0 if metric in self._task.higher_is_better else 1.0
        best = record.best is None or sign * value < sign * record.best["value"]
        self._write_line(self.step, "valid", values, "best so far" if best else "")
        if best:
            self._save_best(params, value)
        record.bad_evaluations = 0 if best else record.bad_evaluations + 1
        plateau = self._experiment.optimizer.plateau
        if plateau is not None:
            scale = plateau.update(sign * value, record.plateau)
            self._slot.state = self._slot.state._replace(
                opt_state=set_learning_rate_scale(self._slot.state.opt_state, scale)
            )
        self._trigger_average(sign * value)
        record.evaluated_step = self.step
        self._write_status("running")
        self.progress.pause(time.monotonic() - start)

    def _trigger_average(self, value: float) -> None:
        """Lets the average begin once validations stop falling (`training.average_patience`)."""
        patience, history = self._options.average_patience, self._record.history
        start = self._slot.state.average_start
        if patience is None or start is None or int(start) >= 0:
            return
        if len(history) > patience and value > min(history[:-patience]):
            self._slot.state = self._slot.state._replace(average_start=place_like(jnp.int32(self.step), start))
            self.progress.say(f"averaging the weights from step {self.step} on: no gain in {patience} validations")
        history.append(value)

    def _save_best(self, params: PyTree, value: float | None) -> None:
        metric = self._options.metric if value is not None else None
        metadata = {"step": self.step, "metric": metric, "value": value, "config_digest": self._digest}
        params = whole(params)
        if self._writes:
            save_weights(self._workdir.best_weights, params, {key: str(item) for key, item in metadata.items()})
        # In the order that a checkpoint gives it back in: `status.json` is to be the same bytes.
        self._record.best = {"metric": metric, "step": self.step, "value": value}

    def _save(self) -> None:
        """Writes a checkpoint, after all that it says was written."""
        self._fetch()
        start = time.monotonic()
        self.progress.doing("saving")
        self._record.sums = {name: list(pair) for name, pair in self._sums.as_dict().items()}
        self._record.seconds = self._seconds()
        self._checkpoints.save(self.step, whole(self._slot.state), asdict(self._record))
        self._saved_step = self.step
        self._write_status("running")
        self.progress.doing("training")
        self.progress.pause(time.monotonic() - start)

    def _finish(self) -> Generator[Evaluation, Any, bool]:
        """Evaluates the best weights on the test split, and keeps samples. Returns whether a signal stopped it."""
        if self._record.best is None:  # no validation split: the last weights are the run's result
            self._save_best(self._slot.state.evaluated, None)
        # The file is the truth about its own step, also where a run went on with another config from an older step.
        template = self._slot.state.params
        step, weights = on_first(lambda: self._load_best(template), template)
        params = jax.device_put(weights)
        if self._writes:
            for name, text in self._task.samples(params).items():
                write_atomically(self._workdir.samples / name, text)
        if "test" not in self._task.splits():
            return False
        self.progress.doing("testing")
        values = yield Evaluation(params, "test")
        if values is None:
            return True
        self._write_line(step, "test", values, f"weights of step {step}")
        return False

    def _load_best(self, template: PyTree) -> tuple[int, PyTree]:
        params, metadata = load_weights(self._workdir.best_weights, template)
        return int(metadata["step"]), params

    def _fetch(self) -> None:
        """Waits for the updates made so far, adds their metrics, and checks that they are finite.

        Raises:
          DivergedError: names the first step that is not finite.
        """
        pending, self._pending = self._pending, []
        with self.progress.waiting_for("device"):
            fetched = self._slot.fetch([metrics for _, metrics in pending])
        for (step, _), metrics in zip(pending, fetched, strict=True):
            for name in _MUST_BE_FINITE:
                value = float(metrics[name][0])
                if not math.isfinite(value):
                    raise DivergedError(step, f"{name} is {value} on batch {step - 1}")
            self._sums.add(metrics)

    def _is_out_of_patience(self) -> bool:
        patience = self._options.patience
        return patience is not None and self._record.bad_evaluations >= patience

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begin, 3)

    def _write_line(self, step: int, split: str, values: dict[str, float], note: str = "") -> None:
        values = dict(sorted(values.items(), key=lambda item: item[0] != "loss"))  # what is looked for comes first
        line = {"step": step, "split": split, "seconds": self._seconds(), **values}
        if self._writes:
            self._metrics.append(line)
        if self._tensorboard is not None:
            self._tensorboard.append(line)
        self.progress.result(step, split, values, note)

    def _write_status(self, state: str, step: int | None = None) -> None:
        if self._writes:
            self._workdir.write_status(state, self.step if step is None else step, self._digest, self._record.best)

    def _note_failure(self, error: Exception) -> None:
        """Leaves a trace of an unexpected end, as far as a full disk allows."""
        try:
            self._write_status("failed")
            self.progress.say(f"failed at step {self.step}: {type(error).__name__}: {error}")
        except OSError:
            pass


def _is_due(step: int, every: int | None, last: int) -> bool:
    return step > 0 and (step == last or (every is not None and step % every == 0))
