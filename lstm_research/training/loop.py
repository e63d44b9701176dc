"""The run: from a config and a folder to a finished, resumable, documented training."""

import collections
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree
from rich.console import Console

from lstm_research.common.disk import check_room, is_out_of_room
from lstm_research.common.errors import UserError, unknown
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.environment import command_line
from lstm_research.training.evaluation import IN_FLIGHT, Evaluator
from lstm_research.training.files import out_of_room
from lstm_research.training.metrics import TensorBoard
from lstm_research.training.processes import is_first, on_first, stop_signals
from lstm_research.training.profile import StepProfile
from lstm_research.training.progress import RunProgress
from lstm_research.training.run import FINISHED, Evaluation, Record, Requests, Run, Slot
from lstm_research.training.stopping import StopSignals
from lstm_research.training.weights import load_weights
from lstm_research.training.workdir import Workdir, check_workdir, config_digest, open_workdir


@dataclass(frozen=True)
class Start:
    """How a run is started; kept in its workdir.

    Attributes:
      overwrite_config: go on with this config in a workdir that was made by another one.
      config_source: text of the config file.
      argv: the command line.
    """

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
    profile: tuple[int, int] | None = None,
) -> int:
    """Trains an experiment in a folder, from the start or from where it was stopped.

    Args:
      experiment: task, optimizer, training options and functions (`Experiment`).
      workdir: the folder; made if missing.
      overwrite_config: go on with this config in a workdir that was made by another one.
      config_source: text of the config file, to be kept in the workdir.
      argv: the command line, to be kept in the workdir; None is that of this process.
      profile: the first and the last step of which a trace is written to the workdir.

    Returns:
      The exit code: 0 finished, 1 diverged, 143 preempted.

    Raises:
      UserError: the workdir or the disk cannot be used; the last good checkpoint is intact.
    """
    if profile is not None and profile[1] > experiment.training.num_steps:
        raise UserError(f"--profile={profile[0]}..{profile[1]}: the run has {experiment.training.num_steps} steps")

    def look() -> tuple[int | None, PyTree]:
        return finished_step(experiment.config, workdir, overwrite_config=overwrite_config), ()

    finished, _ = on_first(look, ())
    if finished is not None:
        if is_first():
            print(f"the run in {workdir} is finished at step {finished}", flush=True)
        return FINISHED
    experiment.parallel.check(experiment.task.batch_size, experiment.training.accumulation_steps)
    start = Start(overwrite_config, config_source, command_line() if argv is None else list(argv))
    with stop_signals() as signals:
        evaluator = Evaluator(experiment.task, experiment.parallel)
        check_metric(experiment, evaluator)
        with room_on_disk(workdir), contextlib.ExitStack() as stack:
            slot = Slot()
            one, requests = open_run(experiment, workdir, slot, signals, stack, start)
            slot.state = experiment.parallel.place_state(slot.state)
            trace = StepProfile(Workdir(workdir).profile, profile if is_first() else None)
            stack.callback(trace.close)
            if profile is not None and int(slot.state.step) >= profile[0]:
                where = f"the run is at step {int(slot.state.step)}, so not all of them are traced"
                one.progress.say(f"--profile={profile[0]}..{profile[1]}: {where}")
            return _drive(experiment, one, slot, requests, evaluator, signals, trace)


def finished_step(config: Any, workdir: Path, *, overwrite_config: bool = False) -> int | None:
    """Returns the step at which the run in a folder finished with this config; None if it is to be trained.

    Raises:
      UserError: the folder is not one for this config.
    """
    status = check_workdir(workdir, config, overwrite_config=overwrite_config).read_status()
    done = status.get("state") == "finished" and status.get("config_digest") == config_digest(config)
    return status["step"] if done else None


@contextlib.contextmanager
def room_on_disk(workdir: Path) -> Iterator[None]:
    """Says in one line that the disk is full, in whatever words that is raised."""
    try:
        yield
    except Exception as error:
        if is_out_of_room(error) and not isinstance(error, UserError):
            raise out_of_room(workdir) from error
        raise


def open_run(
    experiment: Any,
    path: Path,
    slot: Slot,
    signals: StopSignals,
    stack: contextlib.ExitStack,
    start: Start,
    console: Console | None = None,
) -> tuple[Run, Requests]:
    """Opens the folder of a run and restores what it holds.

    Args:
      experiment: see `run`.
      path: the folder.
      slot: where the state is put.
      signals: by which the run is asked to stop.
      stack: closes what is opened here.
      start: how the run is started.
      console: where its course is shown; None is standard output.

    Returns:
      The run, and its requests, of which the first has not been asked for yet.
    """
    digest, shapes = config_digest(experiment.config), experiment.state_shapes
    workdir, options = Workdir(path), experiment.training
    notes: list[str] = []
    checkpoints = Checkpoints(workdir.checkpoints, options.keep_checkpoints, notes.append, write=is_first())
    stack.callback(checkpoints.close)

    def open_and_restore() -> tuple[tuple[int, dict[str, Any], bool], PyTree]:
        _check_disk(experiment, path, shapes)
        _, lock = open_workdir(path, experiment.config, overwrite_config=start.overwrite_config)
        stack.callback(lock.release)
        # First what can fail without a trace, then what writes.
        state = experiment.init_state()
        restored = checkpoints.restore_latest(state)
        notes.extend(workdir.initialize(experiment.config, experiment.task.files(), **asdict(start)))
        if restored is None:
            notes.extend(experiment.notes)
            return (0, asdict(Record()), False), state
        step, state, host = restored
        record = Record(**host)
        notes.extend(_forget_other_results(record, workdir, options.metric, digest))
        return (step, asdict(record), True), state

    (step, record, resumed), state = on_first(open_and_restore, shapes)
    slot.state = state
    tensorboard = None
    if is_first():
        tensorboard = TensorBoard(workdir.tensorboard, step if workdir.tensorboard.exists() else None)
        stack.callback(tensorboard.close)
    log = workdir.log if is_first() else None
    progress = stack.enter_context(RunProgress(options.num_steps, step, log, experiment.task.unit, console))
    for note in notes:
        progress.say(note)
    one = Run(experiment, workdir, digest, checkpoints, signals, tensorboard, progress, slot)
    return one, one.requests(step, Record(**record), restored=resumed)


def _drive(
    experiment: Any,
    run: Run,
    slot: Slot,
    requests: Requests,
    evaluator: Evaluator,
    signals: StopSignals,
    trace: StepProfile,
) -> int:
    """Does what a run asks for until it ends; returns its exit code."""
    batches: Iterator[PyTree] | None = None
    launched: collections.deque[PyTree] = collections.deque()
    try:
        request = next(requests)
        while True:
            try:
                if isinstance(request, Evaluation):
                    answer: Any = evaluator.evaluate(*request, signals.should_stop)
                else:
                    if batches is None:
                        batches = iter(experiment.train_iterator(run.step))
                    with trace.step(run.step + 1):
                        with run.progress.waiting_for("data"):
                            batch = next(batches)
                        batch = experiment.parallel.place_batch(batch)
                        slot.state, answer = experiment.train_step(slot.state, batch)
                    trace.made(run.step + 1, answer)
                    # Beyond 32 steps ahead JAX waits in the launch itself, which would count as the host's time.
                    launched.append(answer)
                    if len(launched) > IN_FLIGHT:
                        with run.progress.waiting_for("device"):
                            jax.block_until_ready(launched.popleft())
            except Exception as error:
                requests.throw(error)
            request = requests.send(answer)
    except StopIteration as end:
        return end.value
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


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


def check_metric(experiment: Any, evaluator: Evaluator) -> None:
    """Raises a `UserError` now rather than at the first validation if it will not give the wanted metric."""
    if "valid" in experiment.task.splits():
        names = evaluator.metric_names(experiment.state_shapes.params, "valid")
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
