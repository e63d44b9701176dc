"""Windows of series: each one exactly once, as brute force finds them, and nothing in them from after their origin."""

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch
from lstm_research.data.series.scaling import ScaledSeries
from lstm_research.data.series.windows import ForecastWindows, rolling_origins, training_origins

C, H = 5, 3


def make(length: int, seed: int = 0, future: int = 0) -> ScaledSeries:
    random = np.random.default_rng(seed)
    observed = (random.random((length, 2)) > 0.2).astype(np.float32)
    values = random.normal(size=(length, 2)).astype(np.float32) * observed
    known = random.normal(size=(length + future, 3)).astype(np.float32)
    return ScaledSeries(values, observed, known, np.float32([seed]), random.random((4, 2)).astype(np.float32))


def cut(*series: ScaledSeries, origins: list[np.ndarray], history: int = C) -> ForecastWindows:
    return ForecastWindows(series, origins, history=history, horizon=H, where="split 'x'")


def all_rows(windows: ForecastWindows, batch_size: int) -> list[dict[str, np.ndarray]]:
    batches = windows.evaluation(batch_size)
    rows = [
        {name: array[row] for name, array in batches[n].items()}
        for n in range(len(batches))
        for row in range(batch_size)
    ]
    return rows[: len(windows)]


def padded(array: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Returns rows of an array, zeros where there are none."""
    return np.stack([array[t] if 0 <= t < len(array) else np.zeros_like(array[0]) for t in range(begin, end)])


def test_rows_are_those_of_brute_force() -> None:
    several = [make(20, 0), make(9, 1), make(30, 2)]
    origins = [rolling_origins((2, 18), H, 2), rolling_origins((0, 9), H, 4), training_origins((0, 30), C, H)]
    assert [each.tolist() for each in origins] == [[2, 4, 6, 8, 10, 12, 14], [0, 4], list(range(5, 28))]
    windows = cut(*several, origins=origins)
    expected = [(series, t) for series, at in zip(several, origins, strict=True) for t in at.tolist()]
    expected = [(series, t) for series, t in expected if series.observed[t : t + H].any()]
    found = all_rows(windows, 4)
    assert len(found) == len(expected)
    for row, (series, t) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row["history"], padded(series.values, t - C, t))
        np.testing.assert_array_equal(row["history_observed"], padded(series.observed, t - C, t))
        np.testing.assert_array_equal(row["targets"], series.values[t : t + H])
        np.testing.assert_array_equal(row["weights"], series.observed[t : t + H])
        np.testing.assert_array_equal(row["known"], padded(series.known, t - C, t + H))
        np.testing.assert_array_equal(row["static"], series.static)
        np.testing.assert_array_equal(row["units"], series.units)
    assert [row["window"] for row in found] == list(range(len(found)))


def test_a_batch_that_is_not_full_has_rows_without_weight() -> None:
    windows = cut(make(12), origins=[np.arange(5, 10)])
    batch = windows.evaluation(4)[1]
    assert batch["weights"][0].sum() > 0
    assert batch["weights"][1:].sum() == 0
    total = sum(windows.evaluation(size)[n]["weights"].sum() for size in (4,) for n in range(2))
    assert total == sum(make(12).observed[t : t + H].sum() for t in range(5, 10))


def test_training_batches_are_a_function_of_seed_and_step() -> None:
    windows = cut(make(40), make(25, 1), origins=[training_origins((0, 40), C, H), training_origins((0, 25), C, H)])
    one, again, other = windows.training(4, 0), windows.training(4, 0), windows.training(4, 1)

    def numbers(batch: Batch) -> list[int]:
        return batch["window"].tolist()

    assert [numbers(one[k]) for k in (7, 3, 90)] == [numbers(again[k]) for k in (7, 3, 90)]
    assert [numbers(one[k]) for k in range(5)] != [numbers(other[k]) for k in range(5)]
    epoch = -(-len(windows) // 4)
    for first in (0, epoch):
        rows = [
            (int(w), b["weights"][r].any())
            for k in range(first, first + epoch)
            for b in [one[k]]
            for r, w in enumerate(b["window"])
        ]
        valid = [window for window, has_weight in rows if has_weight]
        assert sorted(valid) == list(range(len(windows)))


def poison(series: ScaledSeries, row: int, what: float) -> ScaledSeries:
    values, observed = series.values.copy(), series.observed.copy()
    values[row:], observed[row:] = what, 1
    return series._replace(values=values, observed=observed)


@pytest.mark.parametrize("what", [1e9, np.nan])
def test_no_history_sees_its_origin_or_anything_after_it(what: float) -> None:
    series = make(40)
    for t in rolling_origins((20, 40), H, 1).tolist():
        clean = cut(series, origins=[np.array([t])]).evaluation(1)[0]
        dirty = cut(poison(series, t, what), origins=[np.array([t])]).evaluation(1)[0]
        for name in clean:
            same = np.array_equal(clean[name], dirty[name])
            assert same == (name not in ("targets", "weights")) or (name == "weights" and same)


@pytest.mark.parametrize("what", [1e9, np.nan])
def test_no_training_window_sees_the_rows_after_the_training_part(what: float) -> None:
    series = make(40)
    origins = [training_origins((0, 25), C, H)]
    clean, dirty = (cut(each, origins=origins).training(6, 0) for each in (series, poison(series, 25, what)))
    for step in range(20):
        for name, array in clean[step].items():
            np.testing.assert_array_equal(array, dirty[step][name])
    # It is a test: one row earlier shows.
    earlier = cut(poison(series, 24, what), origins=origins).training(6, 0)
    assert any(not np.array_equal(clean[step]["targets"], earlier[step]["targets"]) for step in range(20))


def test_a_window_after_the_last_row_has_nothing_to_compare_with() -> None:
    series = make(20, future=H)
    (row,) = all_rows(cut(series, origins=[np.array([20])]), 1)
    np.testing.assert_array_equal(row["history"], series.values[15:])
    np.testing.assert_array_equal(row["known"], series.known[15:])
    assert not row["weights"].any()


def test_a_longer_history_has_the_same_windows() -> None:
    series = make(20)
    short, long = (all_rows(cut(series, origins=[np.arange(3, 15)], history=c), 5) for c in (C, 4 * C))
    for one, other in zip(short, long, strict=True):
        np.testing.assert_array_equal(one["history"], other["history"][-C:])
        np.testing.assert_array_equal(one["targets"], other["targets"])


def test_no_window_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"split 'x' has no window.*task.horizon=3.*task.history=5.*reduce them"):
        cut(make(7), origins=[training_origins((0, 7), C, H)])
