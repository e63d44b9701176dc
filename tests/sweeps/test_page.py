"""The page of a sweep, from the records of its trials."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import check_page, look_at
from scipy import stats

from lstm_research.common.errors import UserError
from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.importance import MIN_TRIALS, importances
from lstm_research.sweeps.page import mean_interval, sweep_page
from lstm_research.sweeps.space import Space
from lstm_research.sweeps.sweep_charts import Scale
from lstm_research.sweeps.trial import Trial

RATE, NAME, BIAS = "optimizer.learning_rate", "model.cell.name", "model.cell.forget_bias"


def make_sweep(folder: Path, num_trials: int = 24, **changes: Any) -> Path:
    """Writes a sweep in which the learning rate is nearly all that matters, and two seeds of each other choice."""
    space = Space()
    parameters = [
        space.log_uniform(RATE, 1e-4, 1e-1),
        space.categorical(NAME, ["lstm", "gru"]),
        *space.conditional(NAME, ["lstm"], [space.uniform(BIAS, 0.0, 2.0)]),
        space.integer("seed", 0, 1),
    ]
    definition = SweepDefinition(
        folder=folder,
        recipe="recipe.py",
        overrides=(),
        config={},
        points=None,
        space=tuple(parameters),
        num_trials=num_trials + 1,
        sampler="random",
        pruner="none",
        seed=0,
        metric="loss",
        direction="minimize",
        recipe_text="",
        sweep_text="",
    )
    folder.mkdir()
    dataclasses.replace(definition, **changes).write()
    generator = np.random.default_rng(0)
    for number in range(num_trials):
        if number % 2 == 0:
            rate, name = float(10 ** generator.uniform(-4, -1)), ("lstm", "gru")[number // 2 % 2]
            overrides = {RATE: rate, NAME: name} | ({BIAS: float(generator.uniform(0, 2))} if name == "lstm" else {})
        value = 1 + abs(np.log10(overrides[RATE]) + 2.5) + 0.01 * generator.normal()
        workdir = folder / "trials" / f"{number:04d}"
        Trial(number, {**overrides, "seed": number % 2}, workdir, state="finished", value=float(value)).write()
        lines = [{"step": step, "split": "valid", "seconds": 1.0, "loss": value + 10 / step} for step in (10, 20, 30)]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_page(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "rates")
    first = Trial.read(folder / "trials" / "0000")
    other_seed = {**first.overrides, "seed": 2}
    Trial(24, other_seed, folder / "trials/0024", "failed", reason="<it> broke").write()
    text = sweep_page(folder)
    page = check_page(text)
    wanted = [
        "Trials",
        "Parallel coordinates",
        "Importance",
        "Slices",
        "Learning curves",
        "Seeds",
        "The best one again",
    ]
    assert page.headings == wanted
    assert "24 finished, 1 failed" in text
    assert "&lt;it&gt; broke" in text
    assert {f"loss over {key}" in text for key in (RATE, NAME, BIAS)} == {True}
    assert "loss over seed" not in text  # a repetition, and no choice
    seeds = text[text.index("<h2>Seeds") :]
    assert seeds.count("<td>2</td><td>0</td>") == 11
    assert seeds.count("<td>2</td><td>1</td>") == 1  # the seed that did not finish is not left out
    assert "not set" in text  # the forget bias of other cells
    best = min((Trial.read(path) for path in (folder / "trials").iterdir()), key=lambda trial: trial.value or np.inf)
    assert f"<td>{best.number}</td><td>{best.value:.5g}</td>" in text
    look_at(text, tmp_path)


def test_a_trial_that_was_drawn_twice_is_no_other_seed(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "twice", 1)
    first = Trial.read(folder / "trials" / "0000")
    dataclasses.replace(first, number=1, workdir=folder / "trials" / "0001").write()
    assert "<h2>Seeds" not in sweep_page(folder)


def test_pages_of_little(tmp_path: Path) -> None:
    assert check_page(sweep_page(make_sweep(tmp_path / "none", 0))).headings == ["Trials"]
    page = check_page(sweep_page(make_sweep(tmp_path / "one", 1)))
    assert page.headings == ["Trials", "Learning curves", "The best one again"]  # nothing varies yet
    with pytest.raises(UserError, match="holds no sweep"):
        sweep_page(tmp_path)


def test_more_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    text = sweep_page(make_sweep(tmp_path / "most", direction="maximize"))
    values = [Trial.read(path).value or 0.0 for path in (tmp_path / "most/trials").iterdir()]
    rows = text[text.index("<h2>Trials") :]
    assert rows.index(f"<td>{max(values):.5g}</td>") < rows.index(f"<td>{sorted(values)[-3]:.5g}</td>")


def test_importance_finds_what_mattered_and_says_nothing_of_too_little() -> None:
    generator = np.random.default_rng(1)
    trials = [
        ({"a": float(a), "b": float(b), "c": ("x", None)[number % 2], "same": 1}, float(3 * a + b))
        for number, (a, b) in enumerate(generator.uniform(size=(60, 2)))
    ]
    shares = importances(trials)
    assert set(shares) == {"a", "b", "c"}
    assert sum(shares.values()) == pytest.approx(1)
    # Var(3a) : Var(b) = 9 : 1.
    assert 0.75 < shares["a"] < 0.98
    assert shares["c"] < 0.05
    assert importances(trials[: MIN_TRIALS - 1]) == {}
    assert importances([({"a": 1.0}, 2.0)] * 20) == {}
    assert importances([({"a": float(i), "b": i % 2}, 1.0 + 1e-12 * (i == 0)) for i in range(10)]) == {}


def test_scales_have_the_ends_of_their_values() -> None:
    logarithmic = Scale([1e-4, 1e-2, 1e-3])
    assert logarithmic.log
    assert [logarithmic.fraction(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [text for _, text in logarithmic.ticks()] == ["0.0001", "0.001", "0.01"]
    assert not Scale([0.0, 0.5, 1.0]).log
    assert not Scale([0.25, 1.0, 5.0, float("inf")]).is_number  # as a norm that clips nothing
    names = Scale(["gru", None, True, 1])
    assert not names.is_number
    assert len({names.place(value) for value in ("gru", None, True, 1)}) == 4


def test_the_interval_is_that_of_the_t_test() -> None:
    values = [0.3, 0.5, 0.4, 0.9]
    wanted = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((wanted.low, wanted.high))
