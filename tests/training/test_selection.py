"""Which weights are the best, and when their average begins."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_task import FakeExperiment, LinearRecurrence, make_experiment

from lstm_research.common.errors import UserError
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.optimizers import layer_depths, make_optimizer
from lstm_research.training.weights import load_weights


class Scored(LinearRecurrence):
    """Reports what is lowest for the loss as what is highest for `goodness`, and counts its scores."""

    higher_is_better = frozenset({"goodness"})

    def metrics(self, sums: Any) -> dict[str, float]:
        sums = {name: pair for name, pair in sums.items() if name != "errors"}
        metrics = super().metrics(sums)
        return metrics | {"goodness": -metrics["loss"]}

    def score_names(self, split: str) -> tuple[str, ...]:
        return ("mass",)

    def scores(self, params: Any, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        return None if should_stop() else {"mass": float(params["output"]["kernel"].sum())}


def scored(**options: Any) -> FakeExperiment:
    return dataclasses.replace(make_experiment(**options), task=Scored())


def valid_lines(workdir: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(workdir / "metrics.jsonl") if line["split"] == "valid"]


def test_more_is_better_where_the_task_says_so(tmp_path: Path) -> None:
    options = {"num_steps": 12, "eval_every": 3, "schedule": "plateau", "learning_rate": 0.2}
    assert run(scored(**options, metric="loss"), tmp_path / "loss") == 0
    assert run(scored(**options, metric="goodness"), tmp_path / "goodness") == 0
    best = {
        name: json.loads((tmp_path / name / "status.json").read_text())["best"]["step"] for name in ("loss", "goodness")
    }
    assert best["loss"] == best["goodness"]
    lines = [valid_lines(tmp_path / name) for name in ("loss", "goodness")]
    # The plateau schedule, too, took the one for the other's opposite.
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    assert len({line["loss"] for line in lines[0]}) == 4


def test_scores_are_part_of_every_evaluation(tmp_path: Path) -> None:
    experiment = scored(num_steps=6, eval_every=3, metric="mass")
    assert "mass" in Evaluator(experiment.task).metric_names(experiment.init_state().params, "valid")
    assert run(experiment, tmp_path / "run") == 0
    masses = [line["mass"] for line in valid_lines(tmp_path / "run")]
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["best"]["value"] == min(masses)
    assert {line["split"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if "mass" in line} == {
        "valid",
        "test",
    }
    stopped = Evaluator(experiment.task).evaluate(experiment.init_state().params, "valid", lambda: True)
    assert stopped is None


def test_sums_of_arrays_are_arrays() -> None:
    class Counted(Scored):
        def loss(self, params: Any, batch: Any, carry: Any, key: Any) -> Any:
            loss, weight, extras, carry = super().loss(params, batch, carry, key)
            return loss, weight, extras | {"errors": (jnp.arange(6.0).reshape(2, 3), jnp.float32(1))}, carry

        def metrics(self, sums: Any) -> dict[str, float]:
            errors, count = sums["errors"]
            assert errors.dtype == np.float64
            return {"last": float(errors[1, 2]), "count": count}

    params = make_experiment().init_state().params
    assert Evaluator(Counted()).evaluate(params, "valid") == pytest.approx(
        {"last": 15.0, "count": 3.0, "mass": 1.0}, abs=1e-6
    )
    assert Evaluator(Counted()).metric_names(params, "valid") == ["count", "last", "mass"]


def test_the_average_begins_after_validations_without_gain(tmp_path: Path) -> None:
    # So high a rate that the loss is soon no lower than it was.
    options = {"num_steps": 40, "eval_every": 2, "checkpoint_every": 5, "log_every": 100, "average_decay": None}
    experiment = make_experiment(**options, average_patience=2, learning_rate=0.5, schedule="constant")
    assert run(experiment, tmp_path / "run") == 0
    losses = [line["loss"] for line in valid_lines(tmp_path / "run")]
    log = (tmp_path / "run/train.log").read_text()
    # By the definition: the first validation that is worse than the best of those more than two before it.
    first = next(k for k in range(3, 20) if losses[k] > min(losses[: k - 2]))
    start = 2 * (first + 1)
    assert f"averaging the weights from step {start} on" in log
    assert log.count("averaging the weights") == 1
    # The average is the mean of the weights after every later step.
    state = experiment.init_state()
    seen = []
    for batch, _ in zip(experiment.train_iterator(0), range(40), strict=False):
        state, _ = experiment.train_step(state, batch)
        seen.append(jax.device_get(state.params))
    means = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *seen[start:])
    last = Evaluator(experiment.task).evaluate(means, "valid")
    assert last is not None
    assert losses[-1] == pytest.approx(last["loss"], rel=1e-4)
    assert losses[first - 1] == pytest.approx(
        Evaluator(experiment.task).evaluate(seen[2 * first - 1], "valid")["loss"],  # type: ignore[index]
        rel=1e-5,
    )


def test_a_triggered_average_survives_a_stop(tmp_path: Path) -> None:
    options = {"eval_every": 2, "checkpoint_every": 5, "log_every": 100, "average_decay": None}
    options |= {"average_patience": 2, "learning_rate": 0.5, "schedule": "constant"}
    assert run(make_experiment(num_steps=40, **options), tmp_path / "whole") == 0
    for num_steps in (7, 23, 25, 40):
        assert run(make_experiment(num_steps=num_steps, **options), tmp_path / "parts", overwrite_config=True) == 0
    whole, parts = (
        {line["step"]: line["loss"] for line in valid_lines(tmp_path / name)} for name in ("whole", "parts")
    )
    assert 40 in whole
    assert whole == {step: parts[step] for step in whole}  # the parts also validate where they end
    weights = [load_weights(tmp_path / name / "best/model.safetensors")[0] for name in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *weights)


PARAMS: dict[str, Any] = {
    "embedding": {"table": jnp.ones((3, 2))},
    "stack": {f"layer_{k}": {"forward": {"params": {"input_kernel": jnp.ones(2)}}} for k in range(3)},
    "output": {"kernel": jnp.ones(2)},
}
PARAMS["stack"]["layer_1_highway"] = {"bias": jnp.ones(2)}


def test_depths_follow_the_names() -> None:
    depths = layer_depths(PARAMS)
    assert depths["output"]["kernel"] == 0
    assert [jax.tree.leaves(depths["stack"][f"layer_{k}"]) for k in range(3)] == [[3], [2], [1]]
    assert depths["stack"]["layer_1_highway"]["bias"] == 2
    assert depths["embedding"]["table"] == 4
    assert layer_depths({"a": {"embedding": jnp.ones(1)}}) == {"a": {"embedding": 1}}


def test_rates_by_layer_and_gradual_unfreezing() -> None:
    optimizer = make_optimizer(name="sgd", num_steps=9, learning_rate=1.0, layer_decay=0.5, unfreeze_steps=2)
    state, params = optimizer.init(PARAMS), PARAMS
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    depths = layer_depths(PARAMS)
    for step in range(9):
        updates, state = optimizer.update(gradients, state, params)
        expected = jax.tree.map(lambda depth, step=step: -(0.5**depth) * (step >= 2 * depth), depths)
        jax.tree.map(lambda u, e: np.testing.assert_allclose(u, np.full_like(u, e)), updates, expected)


def test_a_frozen_layer_is_not_decayed() -> None:
    adam = {"name": "adamw", "num_steps": 9, "learning_rate": 0.1, "weight_decay": 0.1}
    frozen = make_optimizer(**adam, unfreeze_steps=100)
    updates, _ = frozen.update(jax.tree.map(jnp.ones_like, PARAMS), frozen.init(PARAMS), PARAMS)
    assert not np.any(updates["embedding"]["table"])
    assert np.all(updates["output"]["kernel"])


def test_a_layer_that_thaws_takes_steps_as_large_as_any_other() -> None:
    # With moments that begin at zero then, long after Adam's correction of them has ended, they would be three to six
    # times as large.
    optimizer = make_optimizer(name="adam", num_steps=400, learning_rate=1.0, unfreeze_steps=100)
    state = optimizer.init(PARAMS)
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    update = jax.jit(optimizer.update)
    for step in range(320):
        updates, state = update(gradients, state, PARAMS)
        if step % 100 in (0, 9):
            thawed = jax.tree.map(lambda depth, step=step: -1.0 * (step >= 100 * depth), layer_depths(PARAMS))
            jax.tree.map(lambda u, t: np.testing.assert_allclose(u, np.full_like(u, t), rtol=1e-3), updates, thawed)


@pytest.mark.parametrize(("key", "value"), [("layer_decay", 0.0), ("layer_decay", 1.5), ("unfreeze_steps", 0)])
def test_wrong_layer_options_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"optimizer.{key} must be"):
        make_optimizer(name="sgd", num_steps=9, learning_rate=1.0, **{key: value})
