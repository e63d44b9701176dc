"""What a run writes, when it stops, and that every way of stopping leaves it resumable."""

import dataclasses
import errno
import gc
import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from fake_task import FakeExperiment, make_experiment

from lstm_research.common.errors import UserError
from lstm_research.training import run as one_run
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.loop import run
from lstm_research.training.metrics import MetricsLog, read_metrics
from lstm_research.training.weights import load_weights, named_leaves
from lstm_research.training.workdir import config_digest

pytestmark = pytest.mark.usefixtures("collected_alone")

SHORT = {"num_steps": 12, "log_every": 4, "eval_every": 6, "checkpoint_every": 5}


class CrashError(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


def outcome(workdir: Path, experiment: FakeExperiment) -> dict[str, Any]:
    """Returns all of a finished run that must not depend on interruptions."""
    lines = [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]
    checkpoints = Checkpoints(workdir / "checkpoints", 2)
    restored = checkpoints.restore_latest(experiment.init_state())
    checkpoints.close()
    assert restored is not None
    step, state, _ = restored
    final = {name: np.asarray(leaf).tobytes() for name, leaf in named_leaves(state._replace(key=())).items()}
    best = (workdir / "best/model.safetensors").read_bytes()
    status = json.loads((workdir / "status.json").read_text())
    return {"lines": lines, "step": step, "final": final, "best": best, "status": status}


@pytest.fixture(scope="module")
def short() -> FakeExperiment:
    return make_experiment(**SHORT)


@pytest.fixture(scope="module")
def reference(short: FakeExperiment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    workdir = tmp_path_factory.mktemp("reference") / "run"
    assert run(short, workdir) == 0
    return outcome(workdir, short)


def test_lines_are_written_in_order_at_their_intervals(reference: dict[str, Any]) -> None:
    lines = reference["lines"]
    assert [(line["split"], line["step"]) for line in lines[:-1]] == [
        ("train", 4),
        ("valid", 6),
        ("train", 8),
        ("train", 12),
        ("valid", 12),
    ]
    best = min((line for line in lines if line["split"] == "valid"), key=lambda line: line["loss"])
    assert (lines[-1]["split"], lines[-1]["step"]) == ("test", best["step"])
    assert {"loss", "learning_rate", "gradient_norm"} <= lines[0].keys()
    assert reference["status"]["state"] == "finished"
    assert reference["status"]["best"] == {"step": best["step"], "metric": "loss", "value": best["loss"]}


def test_train_line_is_the_mean_of_its_steps(short: FakeExperiment, reference: dict[str, Any]) -> None:
    state, total, count, norms = short.init_state(), 0.0, 0.0, []
    batches = short.train_iterator(0)
    for _ in range(4):
        state, metrics = short.train_step(state, next(batches))
        total, count = total + float(metrics["loss"][0]), count + float(metrics["loss"][1])
        norms.append(float(metrics["gradient_norm"][0]))
    line = reference["lines"][0]
    assert line["loss"] == total / count
    assert line["gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-12)
    assert line["learning_rate"] == float(metrics["learning_rate"][0])


def test_best_weights_are_those_of_the_best_validation(short: FakeExperiment, tmp_path: Path) -> None:
    run(short, tmp_path / "run")
    params, metadata = load_weights(tmp_path / "run/best/model.safetensors", short.init_state().params)
    line = next(
        line
        for line in read_metrics(tmp_path / "run/metrics.jsonl")
        if line["split"] == "valid" and line["step"] == int(metadata["step"])
    )
    values = Evaluator(short.task).evaluate(params, "valid")
    assert values is not None
    assert values["loss"] == line["loss"] == float(metadata["value"])
    assert metadata["metric"] == "loss"
    assert metadata["config_digest"] == config_digest(short.config)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_crash_before_every_write_resumes_to_the_same_end(
    short: FakeExperiment,
    reference: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Every fsync and every rename of a run (every third without `--whole`) once is the last thing, and fails."""
    every = 1 if request.config.getoption("--whole") else 3
    countdown = [0]
    main = threading.main_thread()

    def crashing(original: Any) -> Any:
        def wrapper(*args: Any, **keywords: Any) -> Any:
            if threading.current_thread() is main:
                countdown[0] -= 1
                if countdown[0] == 0:
                    raise CrashError
            return original(*args, **keywords)

        return wrapper

    # Where the process ends and not the machine, a file is whole without waiting for the disk.
    monkeypatch.setattr(os, "fsync", crashing(lambda descriptor: None))
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, crashing(getattr(os, name)))
    crashes = 0
    while True:
        workdir = tmp_path / str(crashes)
        countdown[0] = every * crashes + 1
        try:
            code = run(short, workdir)
        except CrashError:
            crashes += 1
            countdown[0] = 0
            assert run(short, workdir) == 0
            assert outcome(workdir, short) == reference, f"after a crash before write {every * (crashes - 1) + 1}"
            continue
        assert code == 0
        break
    assert every * crashes > 40
    gc.collect()  # a crash leaves files open, where the end of a process would close them


def test_crash_before_and_after_every_checkpoint_line_and_best(
    reference: dict[str, Any], short: FakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run crashes again and again, once around each of its larger events, and still ends the same."""
    events = [0]
    crash_at = [1]

    def crashing(original: Any) -> Any:
        def wrapper(*args: Any, **keywords: Any) -> Any:
            for call in (lambda: None, lambda: original(*args, **keywords)):
                events[0] += 1
                result = call()
                if events[0] == crash_at[0]:
                    raise CrashError
            return result

        return wrapper

    monkeypatch.setattr(Checkpoints, "save", crashing(Checkpoints.save))
    monkeypatch.setattr(MetricsLog, "append", crashing(MetricsLog.append))
    monkeypatch.setattr("lstm_research.training.run.save_weights", crashing(one_run.save_weights))
    crashes = 0
    while True:
        events[0] = 0
        try:
            assert run(short, tmp_path / "run") == 0
            break
        except CrashError:
            # A start that crashes at the same event each time would never end: each gets one event further.
            crash_at[0] += 1
            crashes += 1
    assert crashes >= 9
    assert outcome(tmp_path / "run", short) == reference


def test_finished_run_is_left_alone(short: FakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = tmp_path / "run"
    assert run(short, workdir) == 0
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    capsys.readouterr()
    assert run(short, workdir) == 0
    assert "finished at step 12" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.mark.parametrize("moment", ["step 7", "evaluation at 6", "evaluation at 12", "test", "step 0"])
def test_sigterm_saves_exits_143_and_resumes_to_the_same_end(
    moment: str, short: FakeExperiment, reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = tmp_path / "run"
    sent = []

    def send() -> None:
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    kind, _, number = moment.partition(" ")
    if kind == "step" and number == "0":
        original = short.init_state
        experiment = dataclasses.replace(short)
        monkeypatch.setattr(experiment, "init_state", lambda: (send(), original())[1], raising=False)
        stopped_at = 0
    elif kind == "step":
        experiment = dataclasses.replace(short)

        def iterator(start: int) -> Any:
            for index, batch in zip(range(start, 100), FakeExperiment.train_iterator(short, start), strict=False):
                if index == 6:
                    send()
                yield batch

        monkeypatch.setattr(experiment, "train_iterator", iterator, raising=False)
        stopped_at = 7
    else:
        experiment = short
        split = "test" if kind == "test" else "valid"
        stopped_at = 12 if kind == "test" else int(number.split()[-1])
        seen = []
        batches = short.task.eval_batches

        class Batches(list):  # type: ignore[type-arg]
            def __getitem__(self, index: Any) -> Any:
                # The second batch of the wanted evaluation; the first look only asks for the metrics' names.
                if index == 1:
                    seen.append(index)
                    if split == "test" or len(seen) == stopped_at // 6:
                        send()
                return super().__getitem__(index)

        monkeypatch.setattr(
            short.task, "eval_batches", lambda name: Batches(batches(name)) if name == split else batches(name)
        )
    assert run(experiment, workdir) == 143
    assert sent
    status = json.loads((workdir / "status.json").read_text())
    assert (status["state"], status["step"]) == ("preempted", stopped_at)
    assert Checkpoints(workdir / "checkpoints", 2).steps()[-1] == stopped_at
    if kind == "evaluation":
        assert (stopped_at, "valid") not in [
            (line["step"], line["split"]) for line in read_metrics(workdir / "metrics.jsonl")
        ]
    monkeypatch.undo()
    assert run(short, workdir) == 0
    assert outcome(workdir, short) == reference


def test_signals_while_saving_do_not_break_the_save(
    short: FakeExperiment, reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def interrupted(self: Checkpoints, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in (0.002, 0.005, 0.01)]
        for timer in timers:
            timer.start()
        save(self, *args)
        for timer in timers:
            timer.join()

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    codes = [run(short, tmp_path / "run") for _ in range(2)]
    monkeypatch.undo()
    assert codes == [143, 143]
    assert run(short, tmp_path / "run") == 0
    assert outcome(tmp_path / "run", short) == reference


@pytest.mark.parametrize(("batch", "last_good"), [(8, 5), (2, None), (11, 10)])
def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(
    batch: int,
    last_good: int | None,
    short: FakeExperiment,
    reference: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir = tmp_path / "run"
    assert run(dataclasses.replace(short, nan_batch=batch), workdir) == 1
    assert f"diverged at step {batch + 1}: loss is nan on batch {batch}" in capsys.readouterr().out
    status = json.loads((workdir / "status.json").read_text())
    assert (status["state"], status["step"]) == ("diverged", batch + 1)
    assert Checkpoints(workdir / "checkpoints", 2).steps()[-1:] == ([] if last_good is None else [last_good])
    metrics = workdir / "metrics.jsonl"
    assert all(line["step"] <= batch for line in (read_metrics(metrics) if metrics.exists() else []))
    # Without the bad batch the run goes on as if nothing had been.
    assert run(short, workdir) == 0
    assert outcome(workdir, short) == reference


def test_early_stopping_also_when_killed_after_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**SHORT, "num_steps": 60, "patience": 2}
    experiment = make_experiment(**options, learning_rate=0.6, schedule="constant")
    assert run(experiment, tmp_path / "a") == 0
    expected = outcome(tmp_path / "a", experiment)
    assert expected["step"] < 60
    assert expected["status"]["best"]["step"] == expected["step"] - 12

    def crash(*args: Any) -> None:
        raise CrashError

    monkeypatch.setattr("lstm_research.training.run.Run._finish", crash)
    with pytest.raises(CrashError):
        run(experiment, tmp_path / "b")
    monkeypatch.undo()
    assert run(experiment, tmp_path / "b") == 0
    assert outcome(tmp_path / "b", experiment) == expected


def test_longer_run_goes_on_where_the_shorter_one_finished(short: FakeExperiment, tmp_path: Path) -> None:
    assert run(short, tmp_path / "run") == 0
    longer = make_experiment(**{**SHORT, "num_steps": 24})
    with pytest.raises(UserError, match=r"training.num_steps: 12 -> 24.*--overwrite_config"):
        run(longer, tmp_path / "run")
    assert run(longer, tmp_path / "run", overwrite_config=True) == 0
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12, 16, 20, 24]
    assert [line["split"] for line in lines].count("test") == 1


def test_run_without_validation_and_test_split(tmp_path: Path) -> None:
    experiment = make_experiment(**SHORT, splits=("train",))
    assert run(experiment, tmp_path / "run") == 0
    assert {line["split"] for line in read_metrics(tmp_path / "run/metrics.jsonl")} == {"train"}
    params, metadata = load_weights(tmp_path / "run/best/model.safetensors")
    assert metadata["step"] == "12"
    assert params["recurrence"]["decay"].shape == (4,)


def test_metric_that_validation_does_not_give_is_refused_before_anything_is_written(
    short: FakeExperiment, tmp_path: Path
) -> None:
    experiment = dataclasses.replace(short, training=dataclasses.replace(short.training, metric="perplexity"))
    with pytest.raises(UserError, match=r"training.metric 'perplexity'.*valid: absolute_error, loss"):
        run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_second_trainer_in_a_workdir_is_refused(short: FakeExperiment, tmp_path: Path) -> None:
    from lstm_research.training.workdir import open_workdir

    _, lock = open_workdir(tmp_path / "run", short.config)
    with pytest.raises(UserError, match="another process is training in workdir"):
        run(short, tmp_path / "run")
    lock.release()
    assert run(short, tmp_path / "run") == 0


def test_full_disk_is_one_line_and_the_last_checkpoint_is_intact(
    short: FakeExperiment, reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def full(self: Any, step: int, **keywords: Any) -> bool:
        if step < 10:
            return save(self, step, **keywords)
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ValueError("could not write") from error

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(UserError, match="no room left on the disk") as raised:
        run(short, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"
    assert Checkpoints(tmp_path / "run/checkpoints", 2).steps() == [5]
    monkeypatch.undo()
    assert run(short, tmp_path / "run") == 0
    assert outcome(tmp_path / "run", short) == reference


def test_full_disk_while_writing_a_line(
    short: FakeExperiment, reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, count = MetricsLog.append, [0]

    def full(self: MetricsLog, line: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, line)

    monkeypatch.setattr(MetricsLog, "append", full)
    with pytest.raises(UserError, match="no room left"):
        run(short, tmp_path / "run")
    assert run(short, tmp_path / "run") == 0
    assert outcome(tmp_path / "run", short) == reference


def test_full_disk_that_says_so_again_when_files_are_closed(short: FakeExperiment, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/train.log").symlink_to("/dev/full")
    with pytest.raises(UserError, match="no room left"):
        run(short, tmp_path / "run")


def test_too_little_room_is_refused_before_anything_is_written(
    short: FakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match=r"no room on disk: .*keep_checkpoints=2\) in .* needs about"):
        run(short, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_host_runs_16_steps_ahead_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, ahead, most = make_experiment(num_steps=40, log_every=100), 0, []
    step, wait = experiment.train_step, jax.block_until_ready

    def counted_step(state: Any, batch: Any) -> Any:
        nonlocal ahead
        ahead += 1
        most.append(ahead)
        return step(state, batch)

    def counted_wait(metrics: Any) -> Any:
        nonlocal ahead
        ahead -= 1
        return wait(metrics)

    experiment.train_step = counted_step
    monkeypatch.setattr(jax, "block_until_ready", counted_wait)
    assert run(experiment, tmp_path / "run") == 0
    assert max(most) == 17
