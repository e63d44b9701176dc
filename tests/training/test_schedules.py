"""Learning-rate schedules: the factor at every step that matters."""

import json
import math

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.training.schedules import SCHEDULES, Plateau, as_float32

N, W = 100, 10


def make(name, **options):
    return build(SCHEDULES, {"name": name, **options}, where="optimizer.schedule", num_steps=N)


def factors(schedule, steps=range(N)):
    return np.array([float(schedule(step)) for step in steps])


MIDDLE = W + (N - W) // 2
ROWS = {
    # name, options: factor right after the warm-up, in the middle of the rest, and once all steps are taken
    "constant": ({}, 1.0, 1.0, 1.0),
    "linear": ({"final_fraction": 0.2}, 1.0, 0.6, 0.2),
    "linear to 0": ({}, 1.0, 0.5, 0.0),
    "cosine": ({"final_fraction": 0.1}, 1.0, 0.55, 0.1),
    "cosine to 0": ({}, 1.0, 0.5, 0.0),
    "exponential": ({"decay_steps": 45, "decay_rate": 0.5}, 1.0, 0.5, 0.25),
    "exponential slow": ({"decay_steps": 90, "decay_rate": 0.25}, 1.0, 0.5, 0.25),
    "plateau": ({}, 1.0, 1.0, 1.0),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, W])
def test_values(row, warmup_steps):
    options, first, middle, last = ROWS[row]
    schedule = make(row.split()[0], warmup_steps=warmup_steps, **options)
    # The first step already learns, and the last one of the warm-up learns at the full rate.
    rise = [(k + 1) / warmup_steps for k in range(warmup_steps)]
    np.testing.assert_allclose(factors(schedule, range(warmup_steps)), rise, rtol=1e-6)
    assert float(schedule(warmup_steps)) == pytest.approx(first)
    if warmup_steps == W:
        assert float(schedule(MIDDLE)) == pytest.approx(middle, abs=1e-6)
    if warmup_steps == W or not row.startswith("exponential"):
        assert float(schedule(N)) == pytest.approx(last, abs=1e-6)
        assert float(schedule(N - 1)) == pytest.approx(last, abs=0.02)


@pytest.mark.parametrize("row", ROWS)
def test_never_rises_after_the_warmup_and_never_is_zero_on_a_step_that_is_taken(row):
    options = ROWS[row][0]
    values = factors(make(row.split()[0], warmup_steps=W, **options))
    assert (np.diff(values[:W]) > 0).all()
    assert (np.diff(values[W:]) <= 1e-7).all()
    assert (values > 0).all()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_stays_at_the_final_fraction_beyond_the_end_and_survives_a_warmup_of_the_whole_run(name):
    assert float(make(name, final_fraction=0.3)(10 * N)) == pytest.approx(0.3)
    values = factors(make(name, warmup_steps=N))
    np.testing.assert_allclose(values, np.arange(1, N + 1) / N, atol=1e-6)


def test_cosine_follows_the_cosine():
    k = np.arange(W, N)
    expected = 0.1 + 0.9 * 0.5 * (1 + np.cos(math.pi * (k - W) / (N - W)))
    np.testing.assert_allclose(factors(make("cosine", warmup_steps=W, final_fraction=0.1))[W:], expected, atol=1e-6)


def test_exponential_in_stairs_and_with_a_late_start():
    stairs = make("exponential", decay_steps=10, decay_rate=0.5, staircase=True)
    np.testing.assert_allclose(factors(stairs, [0, 9, 10, 19, 20]), [1, 1, 0.5, 0.5, 0.25])
    late = make("exponential", decay_steps=10, decay_rate=0.5, start_step=30)
    np.testing.assert_allclose(factors(late, [0, 30, 40, 50]), [1, 1, 0.5, 0.25], rtol=1e-6)


def test_as_float32():
    assert as_float32(lambda step: 0.5)(3).dtype == "float32"


def test_plateau_falls_after_patience_evaluations_without_a_new_best():
    plateau = Plateau(N, factor=0.5, patience=2, min_fraction=0.2)
    state = {}
    values = [3.0, 2.0, 2.0, 2.5, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.5]
    expected = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2]
    assert [plateau.update(value, state) for value in values] == expected


def test_plateau_of_patience_one_falls_at_once():
    plateau, state = Plateau(N, factor=0.1, patience=1, min_fraction=0.0), {}
    assert [plateau.update(value, state) for value in (1.0, 1.0, 0.9, 2.0)] == [1.0, 0.1, 0.1, pytest.approx(0.01)]


def test_plateau_goes_on_from_a_saved_state():
    plateau, values = Plateau(N, patience=2), [3.0, 3.0, 3.0, 2.0, 4.0, 4.0, 4.0]
    whole = {}
    expected = [plateau.update(value, whole) for value in values]
    for cut in range(1, len(values)):
        state = {}
        for value in values[:cut]:
            plateau.update(value, state)
        state = json.loads(json.dumps(state))
        assert [plateau.update(value, state) for value in values[cut:]] == expected[cut:]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_plateau_counts_a_validation_that_is_no_number_as_no_new_best(value):
    plateau, state = Plateau(N, factor=0.5, patience=2), {}
    assert [plateau.update(v, state) for v in (value, value, 1.0)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("cosine", {"warmup_steps": -1}, "warmup_steps"),
        ("linear", {"final_fraction": 1.5}, "final_fraction"),
        ("cosine", {"final_fraction": -0.1}, "final_fraction"),
        ("exponential", {"decay_steps": 0}, "decay_steps"),
        ("exponential", {"decay_steps": 5, "decay_rate": 0.0}, "decay_rate"),
        ("exponential", {}, "decay_steps"),
        ("exponential", {"decay_steps": 5, "start_step": -1}, "start_step"),
        ("plateau", {"factor": 1.0}, "factor"),
        ("plateau", {"patience": 0}, "patience"),
        ("plateau", {"min_fraction": 2.0}, "min_fraction"),
        ("constant", {"final_fraction": 0.5}, "final_fraction"),
        ("cosin", {}, "'cosine'"),
        ("constant", {"num_steps": 5}, "num_steps"),
        ("constant", {"warmup_steps": 1.5}, "warmup_steps"),
    ],
)
def test_wrong_values_are_refused_by_name(name, options, named):
    with pytest.raises(UserError, match=named) as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)
