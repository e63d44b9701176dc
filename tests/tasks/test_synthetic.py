"""Generated problems: losses and metrics against NumPy, baselines, what counts as solved, files, answers."""

import csv
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.tasks import Synthetic
from lstm_research.training.evaluation import Evaluator

# One with classes at the end, one at every step with several that are right; values at the end, at some steps.
DATASETS = {
    "temporal_order": {"length": 12},
    "embedded_reber": {"length": 18},
    "adding": {"length": 20, "original": True},
    "spike_delays": {"length": 40, "min_interval": 3, "max_offset": 2},
}
each = pytest.mark.parametrize("name", DATASETS)


def make_task(name, *, load=True, **options):
    task = Synthetic(
        **{
            "dataset": {"name": name, "num_examples": 13, **DATASETS.get(name, {})},
            "vocabulary": {},
            "model": {"name": "sequence_model", "cell": {"name": "lstm", "hidden_size": 5}},
            "batch_size": 8,
            "eval_batch_size": 9,
            **options,
        }
    )
    if load:
        task.load()
    return task


def varied(params):
    """Random parameters, so large that outputs differ."""
    return jax.tree.map(lambda p: 1.5 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def constant(task, values):
    """Parameters with which every answer is `values`."""
    params = task.init(jax.random.key(0))
    return params | {"output": {"kernel": 0 * params["output"]["kernel"], "bias": jnp.asarray(values, "float32")}}


def outputs_alone(task, params, examples):
    """The outputs [T, O] of each sequence, alone in its batch."""
    apply = jax.jit(task._apply)
    return [
        np.asarray(apply(params, jnp.asarray(x[:, None]), jnp.array([length]))[:, 0], np.float64)
        for x, length in zip(examples.inputs, examples.lengths, strict=True)
    ]


@each
def test_metrics_equal_those_in_a_loop(name):
    task = make_task(name)
    params = varied(task.init(jax.random.key(0)))
    metrics = Evaluator(task).evaluate(params, "test")
    examples = task.dataset.examples("test")
    losses, absolute, right, whole = [], [], [], []
    for row, outputs in enumerate(outputs_alone(task, params, examples)):
        right_here = []
        for step in np.flatnonzero(examples.weights[row]):
            output, target = outputs[step], examples.targets[row, step]
            if task.dataset.tolerance is None:
                losses.append(np.log(np.exp(output).sum()) - output[target])
                allowed = {target} if examples.allowed is None else set(np.flatnonzero(examples.allowed[row, step]))
                best = np.argsort(-output)[: len(allowed)]
                right_here.append(set(best) == allowed)
            else:
                losses.append(((output - target) ** 2).mean())
                absolute.append(np.abs(output - target).mean())
                right_here.append(bool((np.abs(output - target) < task.dataset.tolerance).all()))
        right += right_here
        whole.append(all(right_here))
    expected = {"loss": np.mean(losses), "sequence_accuracy": np.mean(whole), "solved": 0.0}
    expected["baseline"] = task.dataset.baseline
    expected |= {"mse": np.mean(losses), "mae": np.mean(absolute)} if absolute else {"accuracy": np.mean(right)}
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert Evaluator(task).metric_names(params, "test") == sorted(metrics)
    assert absolute or 0 < np.mean(right) < 1


@each
def test_padding_counts_for_nothing(name):
    task = make_task(name)
    params, batch = varied(task.init(jax.random.key(0))), task.train_batches(0)[0]
    loss = jax.jit(lambda batch: task.loss(params, batch, (), None)[:3])
    steps = np.arange(batch["inputs"].shape[1]) < batch["lengths"][:, None]
    longer = {}
    for key, array in batch.items():
        if key != "lengths":
            array = np.pad(array, [(0, 1), (0, 2), *[(0, 0)] * (array.ndim - 2)])  # a row and two steps more
        else:
            array = np.append(array, 3).astype("int32")
        longer[key] = array
    longer["inputs"] = np.where(np.pad(steps, ((0, 1), (0, 2)))[..., None], longer["inputs"], 7).astype("float32")
    for (path, one), (_, other) in zip(
        jax.tree_util.tree_leaves_with_path(loss(batch)), jax.tree_util.tree_leaves_with_path(loss(longer)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("eval_batch_size", [1, 30])
def test_metrics_do_not_depend_on_the_batch_size(eval_batch_size):
    task, other = make_task("embedded_reber"), make_task("embedded_reber", eval_batch_size=eval_batch_size)
    params = varied(task.init(jax.random.key(0)))
    first, second = (Evaluator(each).evaluate(params, "valid") for each in (task, other))
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("name", ["embedded_reber", "spike_delays", "even_pairs", "timed_spikes"])
def test_the_baseline_is_the_least_loss_of_a_constant_answer(name):
    task = make_task(name)
    examples = task.dataset.examples("test")
    counted = examples.targets[examples.weights > 0]
    if task.dataset.tolerance is None:
        shares = np.bincount(counted, minlength=task.dataset.num_outputs) / len(counted)
        best = np.log(shares)
    else:
        best = counted.mean(axis=0)
    evaluator = Evaluator(task)
    metrics = evaluator.evaluate(constant(task, best), "test")
    assert metrics["loss"] == pytest.approx(metrics["baseline"], rel=1e-5)
    assert metrics["solved"] == 0
    for direction in (0.1, -0.1):
        worse = best + direction * np.eye(len(best))[0]
        assert evaluator.evaluate(constant(task, worse), "test")["loss"] > metrics["baseline"]


def test_the_baseline_of_adding_is_about_what_a_constant_measures():
    task = make_task("adding", dataset={"name": "adding", "length": 5, "num_examples": 4000})
    metrics = Evaluator(task).evaluate(constant(task, [1.0]), "test")
    assert metrics["baseline"] == 1 / 6
    assert metrics["loss"] == pytest.approx(1 / 6, rel=0.05)


@pytest.mark.parametrize(("error", "solved"), [(0.0, 1), (0.03, 1), (0.05, 0)])
def test_adding_is_solved_by_who_adds_within_the_tolerance(error, solved):
    task = make_task("adding", dataset={"name": "adding", "length": 9, "num_examples": 50})
    task._apply = lambda params, xs, lengths, key: jnp.cumsum(xs[..., :1] * xs[..., 1:], axis=0) + error
    metrics = Evaluator(task).evaluate({}, "test")
    assert metrics["loss"] == pytest.approx(error**2, abs=1e-6)
    assert (metrics["solved"], metrics["sequence_accuracy"]) == (solved, solved)


def test_even_pairs_are_solved_by_who_compares_both_ends():
    task = make_task("even_pairs", dataset={"name": "even_pairs", "length": 9, "num_examples": 50})
    task._apply = lambda params, xs, lengths, key: jnp.where(
        (xs == xs[:1]).all(axis=-1, keepdims=True), jnp.array([9.0, 0]), jnp.array([0, 9.0])
    )
    metrics = Evaluator(task).evaluate({}, "test")
    assert (metrics["accuracy"], metrics["sequence_accuracy"], metrics["solved"]) == (1, 1, 1)
    assert metrics["loss"] < 0.001


def test_each_problem_has_its_criterion():
    def solved(task, **means):
        return task.metrics({name: (mean, 1.0) for name, mean in means.items()})["solved"]

    order = make_task("temporal_order", load=False)
    assert [solved(order, loss=1.0, sequence_accuracy=share) for share in (0.98, 0.99, 1.0)] == [0, 1, 1]
    series = make_task("mackey_glass", load=False, dataset={"name": "mackey_glass", "length": 8, "num_examples": 40})
    variance = series.dataset.baseline
    assert variance == pytest.approx(0.052, abs=0.01)
    assert [solved(series, loss=share * variance, sequence_accuracy=0.0) for share in (0.011, 0.0099)] == [0, 1]
    assert (
        "baseline: loss 1.386 without memory; solved: sequence_accuracy at least 0.99"
        in make_task("temporal_order").notes
    )
    series.load()
    assert f"mse at most {0.01 * variance:.4g}" in series.notes[0]


def test_a_finished_run_draws_the_same_data_or_says_so():
    task = make_task("embedded_reber")
    files = task.files()
    assert "EmbeddedReber(length=18" in json.loads(files["dataset.json"])["dataset"]
    again = make_task("embedded_reber", load=False, files=files)
    np.testing.assert_array_equal(again.eval_batches("test")[0]["inputs"], task.eval_batches("test")[0]["inputs"])
    other = make_task("temporal_order", load=False, files=files)
    with pytest.raises(UserError, match="has changed since this run"):
        other.eval_batches("test")


@each
def test_answers_are_those_of_the_model(name):
    task = make_task(name)
    params = varied(task.init(jax.random.key(0)))
    lines = list(csv.DictReader(io.StringIO(task.answers(params, 2))))
    examples = task.dataset.examples("test").take([0, 1])
    assert len(lines) == examples.lengths.sum()
    for row, outputs in enumerate(outputs_alone(task, params, examples)):
        mine = [line for line in lines if line["example"] == str(row)]
        for step, line in enumerate(mine):
            expected = outputs[step].argmax() if task.dataset.tolerance is None else outputs[step, 0]
            assert float(line["output_0"]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
            counts = examples.weights[row, step] > 0
            assert (line["target_0"] != "") == counts
            if counts:
                target = np.atleast_1d(examples.targets[row, step])[0]
                assert float(line["target_0"]) == pytest.approx(target, rel=1e-4)
    assert task.samples(params)["answers.csv"].startswith(task.answers(params, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": {"name": "words"}}, "has no vocabulary"),
        ({"dataset": {"name": "addding"}}, "did you mean 'adding'"),
        ({"dataset": {"name": "adding", "lenght": 5}}, "did you mean 'length'"),
        ({"batch_size": 0}, "task.batch_size must be at least 1"),
        ({"eval_batch_size": 0}, "task.eval_batch_size must be at least 1"),
        ({"model": {"name": "sequence_model"}}, "model.cell is missing"),
    ],
)
def test_wrong_configs_get_one_line(options, message):
    with pytest.raises(UserError) as error:
        make_task("adding", load=False, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
