"""The forecasting task: what it sees of a series and when, what it reports, and what it forecasts."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.series.base import SINGLE, Series
from lstm_research.tasks import TASKS
from lstm_research.tasks.forecasting import Forecasting, _window, _window_keys
from lstm_research.training.evaluation import Evaluator

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
N, C, H = 120, 8, 4
CELL = {"name": "lstm", "hidden_size": 6}
MODELS: dict[str, dict[str, Any]] = {
    "direct": {"name": "direct", "cell": CELL, "patch_length": 4, "linear": True, "distribution": {"name": "gaussian"}},
    "encoder_decoder": {"name": "encoder_decoder", "cell": CELL, "distribution": {"name": "quantiles"}},
    "deepar": {"name": "deepar", "cell": CELL, "lags": (1, 4), "distribution": {"name": "student_t"}},
}
each_model = pytest.mark.parametrize("name", MODELS)


def table(seed: int = 0, length: int = N, future: int = H) -> np.ndarray:
    """Returns rows of two variables and one that is known in advance; some values are missing."""
    random, t = np.random.default_rng(seed), np.arange(length + future)
    known = np.cos(t / 3)
    values = np.stack([10 + 3 * np.sin(t / 4 + seed), 50 * known + t], axis=1) + random.normal(0, 0.3, (len(t), 2))
    values[random.random(values.shape) < 0.05] = np.nan
    values[length:] = np.nan
    values[length - 1] = 1.0  # observed, whatever is missing
    return np.concatenate([values, known[:, None]], axis=1)


def write(path: str, **series: np.ndarray) -> None:
    begin = np.datetime64("2024-01-01T00", "s")
    lines = ["id,time,a,b,price"]
    for name, rows in series.items():
        for t, row in enumerate(rows):
            cells = ["" if np.isnan(value) else repr(float(value)) for value in row]
            lines.append(",".join([name, str(begin + np.timedelta64(t, "h")), *cells]))
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("t.csv", x=table(0), y=table(1))


DATASET = {"name": "csv_series", "path": "t.csv", "id_column": "id", "known_columns": ("price",), "calendar": ("hour",)}


def make(
    name: str = "direct", files: Any = None, dataset: Any = None, model: Any = None, **options: Any
) -> Forecasting:
    task = {"name": "forecasting", "batch_size": 6, "history": C, "horizon": H, "eval_batch_size": 16} | options
    if name == "deepar" and "num_samples" not in options:
        task["num_samples"] = 12
    sections = {"dataset": DATASET | (dataset or {}), "vocabulary": {}, "model": MODELS[name] | (model or {})}
    built = build(TASKS, task, where="task", files=files, **sections)
    if files is None:
        built.load()
    return built


def forecasts(task: Forecasting, params: Any, split: str) -> dict[str, np.ndarray]:
    """Returns the forecast of every window of a split, of evaluation batches."""
    found: dict[str, list[np.ndarray]] = {"mean": [], "quantiles": []}
    batches = task.eval_batches(split)
    for number in range(len(batches)):
        batch = batches[number]
        at = _window_keys(jax.random.key(0), batch["window"])
        forecast = task._forecast(params, _window(batch), at, num_samples=task.num_samples)
        found["mean"].append(np.moveaxis(forecast.mean, 1, 0))
        found["quantiles"].append(np.moveaxis(forecast.quantiles, 2, 0))
    return {key: np.concatenate(arrays)[: len(batches.order)] for key, arrays in found.items()}


@each_model
def test_no_forecast_sees_the_future(name: str) -> None:
    """All values from an origin on are poisoned; the forecast from there, and all before it, are the same bits."""
    clean = make(name)
    params = clean.init(jax.random.key(0))
    before = {split: forecasts(clean, params, split) for split in ("valid", "test")}
    begin, end = clean._rows("test")[0]
    num_windows = end - begin - H + 1  # of the first series
    for number in (0, 9):
        rows = [table(0), table(1)]
        for each in rows:
            each[begin + number : N, :2] = 1e9
        write("t.csv", x=rows[0], y=rows[1])
        dirty = make(name)
        assert dirty.scaler == clean.scaler
        for key, values in forecasts(dirty, params, "test").items():
            for first in (0, num_windows):  # of the first and the second series
                one, other = (each[first : first + num_windows] for each in (values, before["test"][key]))
                np.testing.assert_array_equal(one[: number + 1], other[: number + 1])
                assert not np.isclose(one[number + 1 :], other[number + 1 :]).all(axis=(-1, -2)).any()
        for key, values in forecasts(dirty, params, "valid").items():
            np.testing.assert_array_equal(values, before["valid"][key])


def test_training_sees_nothing_of_the_later_splits() -> None:
    clean = make()
    rows, begin = [table(0), table(1)], clean._rows("valid")[0][0]
    for each in rows:
        each[begin:N, :2], each[begin:, 2] = 1e9, -1e9
    write("t.csv", x=rows[0], y=rows[1])
    dirty = make()
    assert dirty.files()["series.json"] == clean.files()["series.json"]
    for step in range(40):
        one, other = clean.train_batches(0)[step], dirty.train_batches(0)[step]
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key])
    rows[0][begin - 1, 0] = 77.0
    write("t.csv", x=rows[0], y=rows[1])
    assert make().files()["series.json"] != clean.files()["series.json"]


@each_model
def test_metrics_do_not_depend_on_the_size_of_batches(name: str) -> None:
    found = []
    for size in (5, 16):
        task = make(name, eval_batch_size=size)
        found.append(Evaluator(task).evaluate(task.init(jax.random.key(0)), "test"))
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    for metric in (
        "loss",
        "mse",
        "mae",
        "mase",
        "smape",
        "nd",
        "nrmse",
        "crps",
        "weighted_quantile_loss",
        "coverage_80",
    ):
        assert np.isfinite(found[0][metric])
    for baseline in ("last_value", "seasonal_naive", "linear"):
        assert {f"{baseline}_{metric}" for metric in ("mse", "mae", "mase")} <= found[0].keys()
    assert set(Evaluator(task).metric_names(task.init(jax.random.key(0)), "valid")) <= found[0].keys()


def test_every_value_of_a_split_counts_as_often_as_it_is_in_a_window() -> None:
    for stride in (1, 3):
        task = make(eval_stride=stride)
        series = {each.name: each for each in task.own_series()}
        for split in ("valid", "test"):
            expected = 0
            for name in "xy":
                begin, end = task._dataset.rows(series[name], split)
                for origin in range(begin, end - H + 1, stride):
                    expected += np.isfinite(series[name].targets[origin : origin + H]).sum()
            assert sum(batch["weights"].sum() for batch in task.eval_batches(split)[:]) == expected


def test_the_loss_is_that_of_the_horizon_and_the_gradient_that_of_all_that_is_learnt_from() -> None:
    for name in MODELS:
        task = make(name)
        params, batch = task.init(jax.random.key(0)), task.train_batches(0)[0]

        @functools.partial(jax.jit, static_argnums=1)
        def loss(params: Any, training: bool, task: Any = task, batch: Any = batch) -> Any:
            return task.loss(params, batch, (), jax.random.key(0) if training else None)[:2]

        (training, weight), (evaluation, same) = loss(params, True), loss(params, False)
        assert float(weight) == float(same) == batch["weights"].sum()
        np.testing.assert_allclose(training, evaluation, rtol=1e-4)  # there is no dropout
        # DeepAR learns from the history too, the others from the horizon alone: the mean over what was observed.
        parts = ["weights"] if name != "deepar" else ["history_observed", "weights"]
        counts = np.concatenate([np.moveaxis(batch[part], 1, 0) for part in parts])
        assert 0 < counts.sum() < counts.size

        def by_hand(params: Any, task: Any = task, batch: Any = batch, counts: Any = counts) -> Any:
            targets, weights = (jnp.moveaxis(batch[key], 1, 0) for key in ("targets", "weights"))
            losses, _ = task._apply(params, _window(batch), targets, weights, method="losses")
            return jnp.sum(losses * counts) / counts.sum() * weights.sum()

        assert_close(gradient(task, params, batch), jax.jit(jax.grad(by_hand))(params))


def gradient(task: Forecasting, params: Any, batch: Any) -> Any:
    """Returns the gradient of the loss that is minimised."""
    return jax.jit(jax.grad(lambda params: task.loss(params, batch, (), jax.random.key(0))[0]))(params)


def assert_close(one: Any, other: Any) -> None:
    """Compares the leaves of two trees."""
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), one, other)


@each_model
def test_rows_that_only_fill_a_batch_are_not_learnt_from(name: str) -> None:
    task = make(name)
    params = task.init(jax.random.key(0))
    windows = task._cut("train")
    indices, alone = np.array([3, 50, 60, 61, 70, 99]), windows.collate(np.array([3]), np.array([True]), 1)
    filled = windows.collate(indices, np.arange(6) < 1, 1)
    assert filled["history_observed"][1:].any()
    assert_close(gradient(task, params, filled), gradient(task, params, alone))


@each_model
def test_a_prediction_is_the_forecast_of_evaluation_in_the_unit_of_the_data(name: str) -> None:
    task = make(name)
    params = task.init(jax.random.key(0))
    before = forecasts(task, params, "test")
    begin = task._rows("test")[0][0]
    series = task.own_series()[0]
    cut = series._replace(targets=series.targets[:begin])
    (found,) = task.predict(params, [cut])
    statistics = task.scaler.series["x"]
    np.testing.assert_allclose(found.mean, before["mean"][0] * statistics.deviation + statistics.mean, rtol=1e-5)
    np.testing.assert_array_equal(found.times, series.times[begin : begin + H])
    assert found.quantiles is not None
    assert found.quantiles.shape == (9, H, 2)
    if name != "deepar":
        np.testing.assert_allclose(
            found.quantiles[4], before["quantiles"][0][4] * statistics.deviation + statistics.mean, rtol=1e-5
        )
        return
    more, again, other = (
        task.predict(params, [cut], num_samples=n, seed=s)[0].mean for n, s in ((50, 0), (50, 0), (50, 1))
    )
    np.testing.assert_array_equal(more, again)
    assert not np.array_equal(more, other)
    assert not np.array_equal(more, found.mean)


def test_a_run_serves_without_its_data() -> None:
    task = make()
    params, series = task.init(jax.random.key(0)), task.own_series()
    again = make(files=task.files())
    Path("t.csv").unlink()
    for one, other in zip(task.predict(params, series), again.predict(params, series), strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        assert one.series.name == other.series.name
    write("t.csv", x=table(0), y=table(2))
    with pytest.raises(UserError, match="has changed since this run was trained on it"):
        make(files=task.files()).eval_batches("test")


def test_series_that_were_not_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    task = make()
    params, known = task.init(jax.random.key(0)), task.own_series()[0]
    new = known._replace(name="new", targets=known.targets * 1000)
    one, other = task.predict(params, [new, known])
    # It has its own mean and deviation, so its forecast is in its own unit.
    assert np.abs(one.mean).mean() > 100 * np.abs(other.mean).mean()
    caplog.clear()
    short = known._replace(targets=known.targets[: C - 1])  # less than a history
    assert np.isfinite(task.predict(params, [short, known])[0].mean).all()
    assert caplog.messages == ["series with fewer rows than task.history=8 are forecast from less than training had: x"]
    with pytest.raises(
        UserError, match=r"series 'x' has 2 row\(s\) after its last observation.*in which price are known"
    ):
        task.predict(params, [known._replace(times=known.times[: N + 2], known=known.known[: N + 2]), new])


def test_times_go_on_where_nothing_must_be_known() -> None:
    task = make(dataset={"known_columns": (), "target_columns": ("a", "b")})
    series = task.own_series()
    (one, _) = task.predict(task.init(jax.random.key(0)), series)
    assert len(series[0].times) == N
    assert one.times.tolist() == (series[0].times[-1] + np.arange(1, H + 1) * np.timedelta64(3600, "s")).tolist()


def test_a_series_without_a_name_is_the_one_that_was_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    write("t.csv", x=table(0))
    columns = {"known_columns": (), "target_columns": ("a", "b")}
    for id_column, other, same in (("id", SINGLE, True), (None, "shop", True), ("id", "shop", False)):
        task = make(dataset=columns | {"id_column": id_column})
        params, (own,) = task.init(jax.random.key(0)), task.own_series()
        part = own._replace(targets=own.targets[30:60])  # which has another mean than the training rows
        caplog.clear()
        (expected,), (found,) = task.predict(params, [part]), task.predict(params, [part._replace(name=other)])
        assert found.series.name == other
        assert np.array_equal(found.mean, expected.mean) == same
        assert ("not trained on" in caplog.text) == (not same)


def test_short_series_are_left_out_of_training_and_that_is_said() -> None:
    write("t.csv", x=table(0), y=table(1, length=20))
    task = make(dataset={"known_columns": (), "target_columns": ("a", "b")}, history=20)
    assert task.notes == (
        "1 of 2 series have fewer than task.history + task.horizon training rows, and are neither trained on nor "
        "evaluated",
    )
    assert list(task.scaler.series) == ["x"]
    begin, end = task._dataset.rows(task.own_series()[0], "test")
    assert len(task.eval_batches("test").order) == end - begin - H + 1
    assert make(history=10).notes == ()


def test_metrics_that_are_undefined_are_said_to_be() -> None:
    for rows, said in ((table(0), []), (0 * table(0), ["mase", "nd, nrmse and weighted_quantile_loss"])):
        write("t.csv", x=rows)
        notes = make(dataset={"known_columns": (), "target_columns": ("a", "b")}).notes
        assert [note.partition(" is undefined: ")[0].partition(" are undefined: ")[0] for note in notes] == said


@pytest.mark.parametrize("distribution", ["gaussian", "quantiles"])
def test_it_learns_and_its_intervals_hold_what_they_promise(distribution: str) -> None:
    random, t = np.random.default_rng(0), np.arange(900)
    noisy = np.stack([5 + 2 * np.sin(2 * np.pi * t / 12) + random.normal(0, 0.5, 900), 0 * t, 0 * t], axis=1)
    noisy[:, 1] = noisy[:, 0]
    write("t.csv", x=noisy)
    keys = {"known_columns": (), "target_columns": ("a",), "calendar": ()}
    options = {"batch_size": 32, "history": 24, "season": 12, "eval_batch_size": 64}
    task = make(dataset=keys, model={"distribution": {"name": distribution}}, **options)
    optimizer = optax.adam(0.02)
    params, batches = task.init(jax.random.key(0)), task.train_batches(0)
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        def mean_loss(params: Any) -> Any:
            total, weight, _, _ = task.loss(params, batch, (), jax.random.key(0))
            return total / weight

        updates, state = optimizer.update(jax.grad(mean_loss)(params), state)
        return optax.apply_updates(params, updates), state

    for number in range(200):
        params, state = step(params, state, batches[number])
    found = Evaluator(task).evaluate(params, "test")
    assert found is not None
    assert found["mse"] < 0.75 * found["seasonal_naive_mse"]  # noise once, and not twice
    assert found["mase"] < found["seasonal_naive_mase"]
    assert 0.7 < found["coverage_80"] < 0.9


REFUSED: dict[str, dict[str, Any]] = {
    "the task 'forecasting' has no vocabulary; leave the section empty": {"vocabulary": {"name": "words"}},
    "task.history must be at least 1": {"history": 0},
    "task.season must be at least 1": {"season": 0},
    "task.num_samples is for models that draw their forecasts, and 'direct' does not": {"num_samples": 10},
    "model.patch_length=9 is longer than task.history=8": {"model": {"patch_length": 9}},
    "'negative_binomial' is for counts": {
        "model": {"distribution": {"name": "negative_binomial"}, "normalization": "mean"}
    },
    "split 'test' has no window": {"dataset": {"test": 0.02}},
    "no series has 94 row(s) before the validation split": {"history": 90},
    "unknown dataset.name 'csv'; valid: beijing_air, csv_series": {"dataset": {"name": "csv"}},
    "unknown model.distribution.name 'normal'": {"model": {"distribution": {"name": "normal"}}},
    "model.distribution is missing": {"distribution": None},
}


def refuse(vocabulary: Any = None, distribution: Any = 0, **options: Any) -> None:
    """Makes the task with a section that `make` has no argument for, or else as `make` does."""
    model = {key: value for key, value in MODELS["direct"].items() if key != "distribution" or distribution == 0}
    if vocabulary or distribution is None:
        sections = {"dataset": DATASET, "vocabulary": vocabulary or {}, "model": model}
        Forecasting(**sections, batch_size=1, history=4, horizon=2)
    make(**options)


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(message: str) -> None:
    with pytest.raises(UserError) as error:
        refuse(**REFUSED[message])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_counts_are_forecast_as_counts() -> None:
    random = np.random.default_rng(0)
    counts = np.concatenate([random.poisson(6, (N, 2)), np.zeros((N, 1))], axis=1).astype(float)
    write("t.csv", x=counts)
    keys = {"known_columns": (), "target_columns": ("a", "b")}
    task = make("deepar", dataset=keys, model={"distribution": {"name": "negative_binomial"}, "normalization": "mean"})
    params = task.init(jax.random.key(0))
    (found,) = task.predict(params, task.own_series(), num_samples=5)
    assert (found.mean >= 0).all()
    np.testing.assert_allclose(found.mean * 5, np.round(found.mean * 5), atol=1e-4)  # a mean of five whole numbers
    values = Evaluator(task).evaluate(params, "valid")
    assert values is not None
    assert np.isfinite(values["loss"])


def test_the_name_of_a_series_stays_with_it() -> None:
    task = make()
    found = task.predict(task.init(jax.random.key(0)), task.own_series()[::-1])
    assert [each.series.name for each in found] == ["y", "x"]
    assert isinstance(found[0].series, Series)
