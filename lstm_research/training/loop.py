"""The run: from a config and a folder to a finished, resumable, documented training.

What happens at step k (k updates made) happens in a fixed order, each part at most once: the train line, the
evaluation, the checkpoint, then the update k + 1. A checkpoint holds, beside the arrays, what the host remembers of
that order. So a run that goes on from it does exactly what a run that was never stopped would do next, wherever it
was killed.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from lstm_research.common.disk import check_room, is_out_of_room
from lstm_research.common.errors import UserError, unknown
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.environment import command_line
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.files import out_of_room, write_atomically
from lstm_research.training.metrics import DivergedError, MetricsLog, MetricSums, TensorBoard
from lstm_research.training.optimizers import set_learning_rate_scale
from lstm_research.training.progress import RunProgress
from lstm_research.training.stopping import StopSignals
from lstm_research.training.weights import load_weights, save_weights
from lstm_research.training.workdir import Workdir, check_workdir, config_digest, open_workdir

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


@dataclass(frozen=True)
class _Setup:
    """What is kept of how a run was started."""

    overwrite_config: bool
    config_source: str | None
    argv: list[str]


def run(
    experiment: Any,
    workdir: Path,
    *,
    overwrite_config: bool = False,
    config_source: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Trains an experiment in a folder, from the start or from where it was stopped.

    Args:
      experiment: task, optimizer, training options and functions (`Experiment`).
      workdir: the folder; made if missing.
      overwrite_config: go on with this config in a workdir that was made by another one.
      config_source: text of the config file, to be kept in the workdir.
      argv: the command line, to be kept in the workdir; None is that of this process.

    Returns:
      The exit code: 0 finished, 1 diverged, 143 preempted.

    Raises:
      UserError: the workdir or the disk cannot be used; the last good checkpoint is intact.
    """
    digest = config_digest(experiment.config)
    status = check_workdir(workdir, experiment.config, overwrite_config=overwrite_config).read_status()
    if status.get("state") == "finished" and status.get("config_digest") == digest:
        print(f"the run in {workdir} is finished at step {status['step']}", flush=True)
        return FINISHED
    setup = _Setup(overwrite_config, config_source, command_line() if argv is None else list(argv))
    with StopSignals() as signals:
        shapes = jax.eval_shape(experiment.init_state)
        evaluator = Evaluator(experiment.task)
        _check_metric(experiment, evaluator, shapes.params)
        _check_disk(experiment, workdir, shapes)
        with contextlib.ExitStack() as stack:
            try:
                return _run_locked(experiment, workdir, evaluator, signals, stack, digest, setup)
            except Exception as error:
                if is_out_of_room(error) and not isinstance(error, UserError):
                    raise out_of_room(workdir) from error
                raise


def _run_locked(
    experiment: Any,
    path: Path,
    evaluator: Evaluator,
    signals: StopSignals,
    stack: contextlib.ExitStack,
    digest: str,
    setup: _Setup,
) -> int:
    """Opens the folder, restores what it holds, and trains; `stack` closes what is opened."""
    workdir, lock = open_workdir(path, experiment.config, overwrite_config=setup.overwrite_config)
    stack.callback(lock.release)
    notes: list[str] = []
    checkpoints = Checkpoints(workdir.checkpoints, experiment.training.keep_checkpoints, notes.append)
    stack.callback(checkpoints.close)
    # First what can fail without a trace, then what writes.
    state = experiment.init_state()
    restored = checkpoints.restore_latest(state)
    notes += workdir.initialize(experiment.config, experiment.task.files(), **asdict(setup))
    step, record, resumed = 0, Record(), restored is not None
    if restored is not None:
        step, state, host = restored
        record = Record(**host)
        notes += _forget_other_results(record, workdir, experiment.training.metric, digest)
    else:
        notes += experiment.notes
    del restored  # the first step gives up its state, and no other name may keep the memory
    tensorboard = TensorBoard(workdir.tensorboard, step if workdir.tensorboard.exists() else None)
    stack.callback(tensorboard.close)
    options = experiment.training
    progress = stack.enter_context(RunProgress(options.num_steps, step, workdir.log, experiment.task.unit))
    for note in notes:
        progress.say(note)
    trainer = _Run(experiment, workdir, digest, evaluator, checkpoints, signals, tensorboard, progress)
    return trainer.run(state, step, record, restored=resumed)


class _Run:
    """One start of a run: the state, and all that is written while it changes."""

    def __init__(
        self,
        experiment: Any,
        workdir: Workdir,
        digest: str,
        evaluator: Evaluator,
        checkpoints: Checkpoints,
        signals: StopSignals,
        tensorboard: TensorBoard,
        progress: RunProgress,
    ):
        self._experiment = experiment
        self._task = experiment.task
        self._options = experiment.training
        self._workdir = workdir
        self._digest = digest
        self._evaluator = evaluator
        self._checkpoints = checkpoints
        self._signals = signals
        self._tensorboard = tensorboard
        self._progress = progress
        self._metrics = MetricsLog(workdir.metrics)
        # Metrics of updates whose results the host has not waited for, with the step that each update made.
        self._pending: list[tuple[int, dict[str, Any]]] = []

    def run(self, state: Any, step: int, record: Record, *, restored: bool) -> int:
        """Trains to the end, or until something stops it. Returns the exit code."""
        self._state, self._step, self._record = state, step, record
        self._saved_step = step if restored else -1
        self._sums = MetricSums(record.sums, _LATEST)
        self._begin = time.monotonic() - record.seconds
        try:
            self._metrics.truncate(logged_step=record.logged_step, evaluated_step=record.evaluated_step)
            self._write_status("running")
            size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
            where = f"going on from step {step}" if restored else "starting"
            self._progress.say(f"{where} in {self._workdir.path}: {size:,} parameters, {self._options.num_steps} steps")
            preempted = self._train() or self._finish()
        except DivergedError as error:
            # Nothing of the diverged state is kept: the newest checkpoint was saved while all was finite.
            self._write_status("diverged", error.step)
            last = self._checkpoints.steps()[-1:]
            kept = f"the checkpoint of step {last[0]} is the last good one" if last else "there is no checkpoint yet"
            self._progress.say(f"{error}; {kept}")
            return DIVERGED
        except Exception as error:
            self._note_failure(error)
            raise
        if preempted:
            self._write_status("preempted")
            self._progress.say(
                f"stopped by {self._signals.requested} at step {self._step}, saved; start again to go on"
            )
            return PREEMPTED
        self._write_status("finished")
        self._progress.say(f"finished at step {self._step} in {self._workdir.path}")
        return FINISHED

    def _train(self) -> bool:
        """Trains until the last step or until patience runs out. Returns whether a signal stopped it."""
        batches: Iterator[PyTree] | None = None
        last, options = self._options.num_steps, self._options
        try:
            while True:
                step = self._step
                if _is_due(step, options.log_every, last) and self._record.logged_step < step:
                    self._log()
                if _is_due(step, options.eval_every, last) and self._record.evaluated_step < step:
                    self._validate()
                # Read once: a signal that comes while saving is for the next round.
                preempted = self._signals.requested is not None
                ending = step >= last or self._is_out_of_patience()
                if (_is_due(step, options.checkpoint_every, last) or ending or preempted) and self._saved_step < step:
                    self._save()
                if preempted or ending:
                    if ending and step < last and not preempted:
                        self._progress.say(
                            f"no better validation in training.patience={options.patience} evaluations: stopping early"
                        )
                    return preempted
                first = batches is None
                if batches is None:
                    batches = iter(self._experiment.train_iterator(step))
                self._state, metrics = self._experiment.train_step(self._state, next(batches))
                self._step = step + 1
                self._pending.append((self._step, metrics))
                if len(self._pending) >= _MOST_PENDING:
                    self._fetch()
                self._progress.advance(self._step, compiled=first)
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def _log(self) -> None:
        """Writes the train line: means since the line before, learning rate and gradient norm."""
        self._fetch()
        sums = self._sums.as_dict()
        own = {name: sums.pop(name) for name in ("learning_rate", "gradient_norm") if name in sums}
        values = self._task.metrics(sums) | {name: total / count for name, (total, count) in own.items()}
        self._progress.measure(self._step, sums["loss"][1] / (self._step - self._record.logged_step))
        self._write_line(self._step, "train", values)
        self._record.logged_step = self._step
        self._sums = MetricSums(latest=_LATEST)
        self._write_status("running")

    def _validate(self) -> None:
        """Evaluates, writes the line, keeps the best weights; does nothing if a signal comes meanwhile."""
        if "valid" not in self._task.splits():
            return
        self._fetch()
        start = time.monotonic()
        self._progress.doing("evaluating")
        params = self._state.evaluated
        values = self._evaluator.evaluate(params, "valid", self._should_stop)
        self._progress.doing("training")
        if values is None:
            return
        record, metric = self._record, self._options.metric
        value = values[metric]
        if not math.isfinite(value):
            raise DivergedError(self._step, f"validation {metric} is {value}")
        sign = -1.0 if metric in self._task.higher_is_better else 1.0
        best = record.best is None or sign * value < sign * record.best["value"]
        self._write_line(self._step, "valid", values, "best so far" if best else "")
        if best:
            self._save_best(params, value)
        record.bad_evaluations = 0 if best else record.bad_evaluations + 1
        plateau = self._experiment.optimizer.plateau
        if plateau is not None:
            scale = plateau.update(sign * value, record.plateau)
            self._state = self._state._replace(opt_state=set_learning_rate_scale(self._state.opt_state, scale))
        self._trigger_average(sign * value)
        record.evaluated_step = self._step
        self._write_status("running")
        self._progress.pause(time.monotonic() - start)

    def _trigger_average(self, value: float) -> None:
        """Lets the average begin once validations stop falling (`training.average_patience`)."""
        patience, history = self._options.average_patience, self._record.history
        if patience is None or int(self._state.average_start) >= 0:
            return
        if len(history) > patience and value > min(history[:-patience]):
            self._state = self._state._replace(average_start=jnp.int32(self._step))
            self._progress.say(f"averaging the weights from step {self._step} on: no gain in {patience} validations")
        history.append(value)

    def _save_best(self, params: PyTree, value: float | None) -> None:
        metric = self._options.metric if value is not None else None
        metadata = {"step": self._step, "metric": metric, "value": value, "config_digest": self._digest}
        save_weights(self._workdir.best_weights, params, {key: str(item) for key, item in metadata.items()})
        # In the order that a checkpoint gives it back in: `status.json` is to be the same bytes.
        self._record.best = {"metric": metric, "step": self._step, "value": value}

    def _save(self) -> None:
        """Writes a checkpoint, after all that it says was written."""
        self._fetch()
        start = time.monotonic()
        self._progress.doing("saving")
        self._record.sums = {name: list(pair) for name, pair in self._sums.as_dict().items()}
        self._record.seconds = self._seconds()
        self._checkpoints.save(self._step, self._state, asdict(self._record))
        self._saved_step = self._step
        self._write_status("running")
        self._progress.doing("training")
        self._progress.pause(time.monotonic() - start)

    def _finish(self) -> bool:
        """Evaluates the best weights on the test split, and keeps samples. Returns whether a signal stopped it."""
        if self._record.best is None:  # no validation split: the last weights are the run's result
            self._save_best(self._state.evaluated, None)
        # The file is the truth about its own step, also where a run went on with another config from an older step.
        params, metadata = load_weights(self._workdir.best_weights, self._state.params)
        for name, text in self._task.samples(params).items():
            write_atomically(self._workdir.samples / name, text)
        if "test" not in self._task.splits():
            return False
        self._progress.doing("testing")
        values = self._evaluator.evaluate(params, "test", self._should_stop)
        if values is None:
            return True
        self._write_line(int(metadata["step"]), "test", values, f"weights of step {metadata['step']}")
        return False

    def _fetch(self) -> None:
        """Waits for the updates made so far, adds their metrics, and checks that they are finite.

        Raises:
          DivergedError: names the first step that is not finite.
        """
        pending, self._pending = self._pending, []
        for (step, _), metrics in zip(pending, jax.device_get([metrics for _, metrics in pending]), strict=True):
            for name in _MUST_BE_FINITE:
                value = float(metrics[name][0])
                if not math.isfinite(value):
                    raise DivergedError(step, f"{name} is {value} on batch {step - 1}")
            self._sums.add(metrics)

    def _is_out_of_patience(self) -> bool:
        patience = self._options.patience
        return patience is not None and self._record.bad_evaluations >= patience

    def _should_stop(self) -> bool:
        return self._signals.requested is not None

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begin, 3)

    def _write_line(self, step: int, split: str, values: dict[str, float], note: str = "") -> None:
        values = dict(sorted(values.items(), key=lambda item: item[0] != "loss"))  # what is looked for comes first
        line = {"step": step, "split": split, "seconds": self._seconds(), **values}
        self._metrics.append(line)
        self._tensorboard.append(line)
        self._progress.result(step, split, values, note)

    def _write_status(self, state: str, step: int | None = None) -> None:
        self._workdir.write_status(state, self._step if step is None else step, self._digest, self._record.best)

    def _note_failure(self, error: Exception) -> None:
        """Leaves a trace of an unexpected end, as far as a full disk allows."""
        try:
            self._write_status("failed")
            self._progress.say(f"failed at step {self._step}: {type(error).__name__}: {error}")
        except OSError:
            pass


def _forget_other_results(record: Record, workdir: Workdir, metric: str, digest: str) -> list[str]:
    """Forgets a best result that this config's results cannot be compared with; says so.

    That is one of another metric, or one that `best/` no longer holds, because a run with another config went on
    beyond the checkpoint and was overwritten.
    """
    if record.best is None:
        return []
    reason = ""
    if record.best["metric"] not in (metric, None):
        reason = f"it is of {record.best['metric']}, and training.metric is {metric}"
        record.plateau = {key: value for key, value in record.plateau.items() if key == "scale"}
        record.history = []
    elif workdir.best_weights.exists():
        _, metadata = load_weights(workdir.best_weights)
        if int(metadata["step"]) != record.best["step"] and metadata["config_digest"] != digest:
            reason = f"its weights were replaced at step {metadata['step']} of the run with the other config"
    if not reason:
        return []
    step, record.best, record.bad_evaluations = record.best["step"], None, 0
    return [f"the best result, of step {step}, is forgotten: {reason}"]


def _is_due(step: int, every: int | None, last: int) -> bool:
    return step > 0 and (step == last or (every is not None and step % every == 0))


def _check_metric(experiment: Any, evaluator: Evaluator, params: PyTree) -> None:
    """Raises a `UserError` now rather than at the first validation if it will not give the wanted metric."""
    if "valid" in experiment.task.splits():
        names = evaluator.metric_names(params, "valid")
        if experiment.training.metric not in names:
            raise unknown("training.metric", experiment.training.metric, names)


def _check_disk(experiment: Any, workdir: Path, state: PyTree) -> None:
    """Raises a `UserError` unless the checkpoints that are still to come have room."""
    kept = min(len(Checkpoints(Workdir(workdir).checkpoints, 1).steps()), experiment.training.keep_checkpoints)
    size, weights = (sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(t)) for t in (state, state.params))
    # One checkpoint more than are kept, and the best weights twice: the old goes when the new is whole.
    needed = (experiment.training.keep_checkpoints - kept + 1) * size + 2 * weights
    what = f"keeping checkpoints (training.keep_checkpoints={experiment.training.keep_checkpoints})"
    check_room(workdir, needed, what, "make room or give a workdir on another disk")
