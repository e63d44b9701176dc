"""Dynamic evaluation: against a loop written out, and that no target is predicted by weights that have seen it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.tasks import LanguageModelling
from lstm_research.tasks.dynamic_evaluation import DynamicEvaluation
from lstm_research.training.evaluation import Evaluator

TEXT = "to be, or not to be:\nthat is the question.\n"
OTHER = "be not to be that\nis is not the question.\n" * 3


@pytest.fixture
def make_task(tmp_path):
    (tmp_path / "train.txt").write_text(TEXT * 4)
    (tmp_path / "a.txt").write_text(OTHER)
    (tmp_path / "b.txt").write_text("not that\nto be\n")

    def make(test=("a.txt", "b.txt"), model=None, **section):
        paths = tuple(str(tmp_path / name) for name in test)
        task = LanguageModelling(
            dataset={
                "name": "text_files",
                "train": str(tmp_path / "train.txt"),
                "valid": tuple(paths),
                "test": tuple(paths),
            },
            vocabulary={"name": "characters"},
            model={"name": "language_model", "embedding_size": 4, "cell": {"name": "lstm", "hidden_size": 6}}
            | (model or {}),
            batch_size=2,
            unroll_length=7,
            dynamic_evaluation=section or None,
        )
        task.load()
        return task

    return make


def varied(params):
    return jax.tree.map(lambda p: 0.8 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def run(task, params, split="test"):
    return task.adaptations["perplexity_dynamic"].loss(task, params, split, lambda: False)


def by_loop(task, params, rule, *, learning_rate, decay, unroll_length, clip_norm=math.inf, eps=2e-5, batches=3):
    """The paper's algorithm in NumPy over one row of text; JAX only differentiates a segment's mean loss."""

    def mean_loss(params, batch, carry):
        loss, weight, _, carry = task.loss(params, batch, carry, None)
        return loss / max(float(weight), 1), carry

    def gradient(params, batch, carry):
        (loss, carry), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params, batch, carry)
        return float(loss), jax.tree.map(lambda g: np.asarray(g, np.float64), gradients), carry

    as_arrays = lambda batch: jax.tree.map(jnp.asarray, batch)  # noqa: E731
    squares, carry = jax.tree.map(lambda p: np.zeros(p.shape), params), task.initial_carry(params, task.batch_size)
    for k in range(batches):
        _, gradients, carry = gradient(params, as_arrays(task.train_batches(seed=0)[k]), carry)
        squares = jax.tree.map(lambda s, g: s + g**2, squares, gradients)
    rms = jax.tree.map(lambda s: np.sqrt(s / batches), squares)
    mean = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(rms)]).mean()

    trained = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    current, total, count = trained, 0.0, 0.0
    windows = task.eval_batches("test", batch_size=1, unroll_length=unroll_length)
    carry = task.initial_carry(params, 1)
    for k in range(len(windows)):
        batch = as_arrays(windows[k])
        now = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), current)
        loss, gradients, carry = gradient(now, batch, carry)
        total, count = total + loss * float(batch["weights"].sum()), count + float(batch["weights"].sum())
        norm = math.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
        gradients = jax.tree.map(lambda g, norm=norm: g * min(1, clip_norm / norm), gradients)
        if rule == "sgd":
            current = jax.tree.map(
                lambda p, p0, g: p - learning_rate * g + decay * (p0 - p), current, trained, gradients
            )
        else:
            current = jax.tree.map(
                lambda p, p0, g, r: p - learning_rate * g / (r + eps) + np.minimum(1, decay * r / mean) * (p0 - p),
                current,
                trained,
                gradients,
                rms,
            )
    return total / count


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("sgd", {"learning_rate": 0.3, "decay": 0.05}),
        ("sgd", {"learning_rate": 0.3, "decay": 0.0, "clip_norm": 0.2}),
        ("rms", {"learning_rate": 0.02, "decay": 0.3}),
        ("rms", {"learning_rate": 0.02, "decay": 0.0, "clip_norm": 0.2, "eps": 0.1}),
    ],
)
def test_equals_a_loop(make_task, rule, options):
    options = {"unroll_length": 5, **options}
    task = make_task(rule=rule, statistics_batches=3, **options)
    params = varied(task.init(jax.random.key(0)))
    expected = by_loop(task, params, rule, **options)
    assert run(task, params) == pytest.approx(expected, rel=1e-4)
    static = Evaluator(task).evaluate(params, "valid")["loss"]
    assert abs(expected - static) > 0.01


@pytest.mark.parametrize("rule", ["sgd", "rms"])
def test_a_step_of_nearly_nothing_is_the_plain_evaluation(make_task, rule):
    task = make_task(rule=rule, learning_rate=1e-12, unroll_length=4)
    task.eval_batch_size = 1
    params = varied(task.init(jax.random.key(0)))
    assert run(task, params) == pytest.approx(Evaluator(task).evaluate(params, "valid")["loss"], rel=1e-6)


@pytest.mark.parametrize(("rule", "learning_rate"), [("sgd", 0.01), ("rms", 1e-3)])
def test_weights_in_bfloat16_learn_in_float32(make_task, rule, learning_rate):
    options = {"rule": rule, "learning_rate": learning_rate, "unroll_length": 4}
    task = make_task(**options)
    narrow = make_task(model={"param_dtype": "bfloat16"}, **options)
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), varied(task.init(jax.random.key(0))))
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    change = run(task, wide) - Evaluator(task).evaluate(wide, "valid")["loss"]
    found = run(narrow, params) - Evaluator(narrow).evaluate(params, "valid")["loss"]
    # Of such small steps most would be lost where weights have three digits.
    assert found == pytest.approx(change, rel=0.2)
    assert change < -1e-3, change


class First(NamedTuple):
    """The first batches of some."""

    batches: Any
    count: int
    batch_size: int = 1

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.batches[index]

    @property
    def num_targets(self):
        return int(sum(self.batches[k]["weights"].sum() for k in range(self.count)))


@pytest.mark.parametrize("rule", ["sgd", "rms"])
def test_a_segment_is_predicted_before_it_is_learnt(make_task, monkeypatch, rule):
    """A step that ruins the model shows from the second segment on, and not in the first."""
    task = make_task(rule=rule, learning_rate=30.0)
    params = varied(task.init(jax.random.key(0)))
    batches = task.eval_batches("test", batch_size=1, unroll_length=5)
    for count in (1, 2):
        monkeypatch.setattr(task, "eval_batches", lambda split, count=count, **shape: First(batches, count))
        plain = Evaluator(task).evaluate(params, "valid")["loss"]
        assert (run(task, params) == pytest.approx(plain, rel=1e-6)) == (count == 1)


def test_it_learns_what_repeats_and_leaves_the_weights(make_task, tmp_path):
    (tmp_path / "a.txt").write_text("is not the question.\n" * 30)
    task = make_task(("a.txt",), rule="sgd", learning_rate=1.0, unroll_length=5)
    params = task.init(jax.random.key(0))
    copy = jax.tree.map(np.array, params)
    assert run(task, params) < 0.9 * Evaluator(task).evaluate(params, "valid")["loss"]
    jax.tree.map(np.testing.assert_array_equal, params, copy)


def test_all_decay_returns_to_the_trained_weights():
    trained, moved = {"kernel": jnp.ones(3)}, {"kernel": jnp.asarray([0.0, 2.0, 5.0])}
    dynamic = DynamicEvaluation(0.1, decay=1.0, rule="sgd")
    none = {"kernel": jnp.zeros(3)}
    np.testing.assert_allclose(dynamic.update(moved, trained, None, none)["kernel"], 1)
    # With the rule "rms" no weight goes beyond, however large its share.
    rms = {"kernel": jnp.asarray([1e-3, 1.0, 100.0])}
    new = np.asarray(DynamicEvaluation(0.1, decay=1.0).update(moved, trained, rms, none)["kernel"])
    assert new[2] == 1
    assert 0 < new[0] < 1 < new[1] < 2


def test_a_stop_is_heard(make_task):
    task = make_task(learning_rate=0.1)
    params = task.init(jax.random.key(0))
    answers = iter([False] * 5)
    assert task.adaptations["perplexity_dynamic"].loss(task, params, "test", lambda: next(answers, True)) is None
