"""Going on with another config: results of the two configs are never mixed. And what a long run keeps in memory."""

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import jax
import pytest
from fake_task import FakeExperiment, make_experiment

from lstm_research.training import run as one_run
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.weights import load_weights

pytestmark = pytest.mark.usefixtures("collected_alone")

FIRST = {"num_steps": 20, "log_every": 10, "eval_every": 10, "checkpoint_every": 5}


class CrashError(BaseException):
    """Stands for the end of the process."""


def crash_before_step(experiment: FakeExperiment, last: int) -> None:
    """Makes the run end as if killed before it makes update `last` + 1."""
    iterate = experiment.train_iterator

    def batches(start_step: int) -> Any:
        for index, batch in enumerate(iterate(start_step), start_step):
            if index == last:
                raise CrashError
            yield batch

    experiment.train_iterator = batches  # type: ignore[method-assign]


def status(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "status.json").read_text())


def test_a_best_result_of_another_metric_is_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_experiment(**FIRST), tmp_path / "run") == 0
    other = make_experiment(**{**FIRST, "num_steps": 40}, metric="absolute_error", patience=2)
    assert run(other, tmp_path / "run", overwrite_config=True) == 0
    assert "is forgotten: it is of loss, and training.metric is absolute_error" in capsys.readouterr().out
    valid = {
        line["step"]: line["absolute_error"]
        for line in read_metrics(tmp_path / "run/metrics.jsonl")
        if line["split"] == "valid" and line["step"] > 20
    }
    best = min(valid, key=valid.__getitem__)
    assert status(tmp_path / "run")["best"] == {"step": best, "metric": "absolute_error", "value": valid[best]}
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == best


def test_best_weights_of_an_overwritten_run_are_not_those_of_the_new_one(tmp_path: Path) -> None:
    first = make_experiment(**{**FIRST, "checkpoint_every": 15, "num_steps": 60}, schedule="constant")
    crash_before_step(first, 29)
    with pytest.raises(CrashError):  # best/ is of step 20, the newest checkpoint of step 15
        run(first, tmp_path / "run")
    assert load_weights(tmp_path / "run/best/model.safetensors")[1]["step"] == "20"
    worse = make_experiment(**{**FIRST, "num_steps": 30}, learning_rate=0.3, schedule="constant")
    assert run(worse, tmp_path / "run", overwrite_config=True) == 0
    _, metadata = load_weights(tmp_path / "run/best/model.safetensors")
    best = status(tmp_path / "run")["best"]
    assert metadata["config_digest"] == status(tmp_path / "run")["config_digest"]
    assert int(metadata["step"]) == best["step"]
    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    (found,) = [line for line in lines if line["split"] == "valid" and line["step"] == best["step"]]
    assert found["loss"] == best["value"] == float(metadata["value"])


def test_a_resumed_run_keeps_one_state(tmp_path: Path) -> None:
    first = make_experiment(**FIRST)
    crash_before_step(first, 12)
    with pytest.raises(CrashError):
        run(first, tmp_path / "run")
    again = make_experiment(**FIRST)
    made: list[weakref.ref[Any]] = []  # an id would soon be that of another array
    init, step = again.init_state, again.train_step

    def init_state() -> Any:
        state = init()
        if not isinstance(jax.tree.leaves(state.params)[0], jax.core.Tracer):
            made.extend(map(weakref.ref, jax.tree.leaves(state.params)))
        return state

    alive: list[int] = []

    def train_step(state: Any, batch: Any) -> Any:
        result = step(state, batch)
        gc.collect()
        alive.append(sum(array is not None and not array.is_deleted() for array in (each() for each in made)))
        return result

    again.init_state, again.train_step = init_state, train_step  # type: ignore[method-assign]
    gc.freeze()  # what earlier tests left is not searched again after every step
    try:
        assert run(again, tmp_path / "run") == 0
    finally:
        gc.unfreeze()
    assert made
    assert alive
    assert max(alive) == 0


def test_results_that_wait_for_the_host_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {}
    for bound in (3, 1000):
        monkeypatch.setattr(one_run, "_MOST_PENDING", bound)
        waiting: list[int] = []
        fetch = one_run.Run._fetch

        def counted(self: Any, waiting: list[int] = waiting, fetch: Any = fetch) -> None:
            waiting.append(len(self._pending))
            fetch(self)

        with monkeypatch.context() as patch:
            patch.setattr(one_run.Run, "_fetch", counted)
            assert run(make_experiment(num_steps=20, log_every=20), tmp_path / str(bound)) == 0
        assert max(waiting) == min(bound, 10)
        lines[bound] = [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read_metrics(tmp_path / str(bound) / "metrics.jsonl")
        ]
    assert lines[3] == lines[1000]
