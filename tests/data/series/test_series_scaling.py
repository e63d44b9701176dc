"""Series as a model reads them: scaled by their training rows, and by nothing else."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from lstm_research.common.errors import UserError
from lstm_research.data.series.base import Series, SeriesDataset
from lstm_research.data.series.calendar_features import calendar_features
from lstm_research.data.series.frequency import Frequency
from lstm_research.data.series.scaling import SeriesScaler


@dataclasses.dataclass(frozen=True)
class Made(SeriesDataset):
    """Series that are made here, of which the first 60 rows are for training and the next 20 for validation."""

    made: tuple[Series, ...]
    calendar: tuple[str, ...] = ()
    known_names: tuple[str, ...] = ("price",)
    static_names: tuple[str, ...] = ("size", "kind")

    @property
    def target_names(self) -> tuple[str, ...]:
        return tuple("ab"[: self.made[0].targets.shape[1]])

    @property
    def step(self) -> Frequency:
        return Frequency.parse("h", "x")

    def series(self) -> list[Series]:
        return list(self.made)

    def cuts(self) -> tuple[np.datetime64, np.datetime64]:
        return HOURS[60], HOURS[80]

    def describe(self) -> str:
        return "made"


HOURS = Frequency.parse("h", "x").grid(np.array(["2024-01-01"], "datetime64[s]"), 110)


def make(name: str = "one", seed: int = 0, static: tuple[str, ...] = ("1.5", "red"), first: int = 0) -> Series:
    random = np.random.default_rng(seed)
    targets = random.normal(5 * seed, 3, (100 - first, 2))
    targets[random.random(targets.shape) < 0.1] = np.nan
    return Series(name, HOURS[first:], targets, random.normal(100, 9, (110 - first, 1)), static)


def fit(*series: Series, **keys: object) -> SeriesScaler:
    options = {"season": None, "counts": False} | keys
    return SeriesScaler.fit(Made(series), **options)  # type: ignore[arg-type]


def test_values_are_z_scores_of_the_training_rows() -> None:
    series = make()
    scaled = fit(series).scale(series)
    reference = StandardScaler().fit(series.targets[:60])  # which leaves missing values out
    np.testing.assert_allclose(
        scaled.values[scaled.observed > 0],
        reference.transform(series.targets)[scaled.observed > 0],
        rtol=1e-5,
        atol=1e-6,
    )
    assert ((scaled.observed > 0) == np.isfinite(series.targets)).all()
    assert (scaled.values[scaled.observed == 0] == 0).all()
    shift, scale, deviation, _ = scaled.units
    np.testing.assert_allclose([shift, scale], [reference.mean_, reference.scale_], rtol=1e-6)
    np.testing.assert_allclose(deviation, 1)
    prices = (series.known - series.known[:60].mean()) / series.known[:60].std()
    np.testing.assert_allclose(scaled.known, prices, rtol=1e-4)


def test_values_come_back() -> None:
    series = make()
    scaler = fit(series)
    values = scaler.unscale(series, scaler.scale(series).values)
    there = np.isfinite(series.targets)
    np.testing.assert_allclose(values[there], series.targets[there], rtol=1e-5, atol=1e-5)


def test_nothing_is_learnt_from_later_rows() -> None:
    series, other = make(), make("two", 1, ("2.5", "blue"))
    poisoned = []
    for each in (series, other):
        targets, known = each.targets.copy(), each.known.copy()
        targets[60:], known[60:] = 1e9, np.nan
        poisoned.append(each._replace(targets=targets, known=known))
    assert fit(*poisoned).to_json() == fit(series, other).to_json()
    early = poisoned[0].targets.copy()
    early[59] = 1e9
    assert fit(poisoned[0]._replace(targets=early), other).to_json() != fit(series, other).to_json()


@pytest.mark.parametrize("season", [None, 1, 7])
def test_the_naive_error_is_that_of_the_season_before(season: int | None) -> None:
    series = make()
    scaler = fit(series, season=season)
    m = 24 if season is None else season
    errors = [[] for _ in "ab"]
    for t in range(m, 60):
        for v in range(2):
            errors[v].append(abs(series.targets[t, v] - series.targets[t - m, v]))
    expected = [np.nanmean(each) for each in errors]
    np.testing.assert_allclose(scaler.series["one"].naive_error, expected)
    scaled = scaler.scale(series)
    np.testing.assert_allclose(scaled.units[3] * scaled.units[1], expected, rtol=1e-5)


def test_what_is_constant_becomes_numbers_and_categories() -> None:
    several = [make(f"{n}", n, (f"{n}", kind)) for n, kind in enumerate(["red", "blue", "red", "green"])]
    scaler = fit(*several)
    found = np.stack([scaler.scale(each).static for each in several])
    np.testing.assert_allclose(found[:, 0], (np.arange(4) - 1.5) / np.std(np.arange(4)), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]])  # blue, green, red
    assert scaler.num_static == 4
    with pytest.raises(UserError, match=r"unknown kind of series 'x'.*'gren'; did you mean 'green'"):
        scaler.scale(make("x", static=("1", "gren")))
    with pytest.raises(UserError, match=r"size of series 'x' is 'big'"):
        scaler.scale(make("x", static=("big", "green")))


def test_calendar_features_stand_after_what_is_known() -> None:
    series = make()
    names = ("hour", "business_day")
    scaler = SeriesScaler.fit(Made((series,), calendar=names), season=None, counts=False)
    known = scaler.scale(series).known
    assert known.shape == (110, scaler.num_known) == (110, 4)
    np.testing.assert_allclose(known[:, 1:], calendar_features(HOURS, names), atol=1e-6)


def test_counts_stay_as_they_are() -> None:
    series = make()._replace(targets=np.random.default_rng(0).poisson(5, (100, 2)).astype(float))
    scaler = fit(series, counts=True)
    scaled = scaler.scale(series)
    np.testing.assert_array_equal(scaled.values, series.targets)
    np.testing.assert_allclose(scaled.units[:2], [[0, 0], [1, 1]])
    np.testing.assert_allclose(scaled.units[2], series.targets[:60].std(axis=0), rtol=1e-6)
    assert scaler.unscale(series, scaled.values) is scaled.values
    for wrong in (series.targets + 0.5, series.targets - 20):
        with pytest.raises(UserError, match="'negative_binomial' is for counts"):
            fit(series._replace(targets=wrong), counts=True)


def test_json_keeps_everything() -> None:
    series = make()
    scaler = fit(series, make("two", 1, ("2.5", "blue")))
    again = SeriesScaler.from_json(scaler.to_json())
    assert again == scaler
    assert json.loads(again.to_json()) == json.loads(scaler.to_json())
    assert all((one == other).all() for one, other in zip(scaler.scale(series), again.scale(series), strict=True))


def test_a_series_that_begins_late_is_not_trained_on_and_one_that_is_new_scales_itself() -> None:
    late, new = make("late", 1, first=70), make("new", 2)
    scaler = fit(make(), late)
    assert list(scaler.series) == ["one"]
    reference = StandardScaler().fit(new.targets)
    np.testing.assert_allclose(scaler.scale(new).units[:2], [reference.mean_, reference.scale_], rtol=1e-5)
    with pytest.raises(UserError, match=r"no series has 1 row\(s\) before the validation split.*task.history"):
        fit(late)


def test_statistics_of_few_rows_are_not_kept() -> None:
    one, short = make("one"), make("short", 1, ("2.5", "blue"), first=50)
    assert list(fit(one, short, min_rows=10).series) == ["one", "short"]
    scaler = fit(one, short, min_rows=11)
    assert list(scaler.series) == ["one"]
    assert scaler.static["kind"] == ("blue", "red")  # what a word can be is known all the same
    with pytest.raises(UserError, match=r"no series has 61 row\(s\) before the validation split"):
        fit(one, short, min_rows=61)


@pytest.mark.parametrize("constant", [7, 0.1, 9.99])
def test_constant_and_missing_variables(constant: float) -> None:
    series = make(static=(str(constant), "red"))
    targets, known = series.targets, series.known.copy()
    targets[:, 0] = known[:] = constant
    targets[60:, 0] = known[60:] = constant - 1  # a price that falls after the training rows
    series = series._replace(known=known)
    scaled = fit(series, series._replace(name="two")).scale(series)
    for values in (scaled.values[:, 0], scaled.known[:, 0]):
        np.testing.assert_allclose(values[:60], 0, atol=1e-12)
        np.testing.assert_allclose(values[60:], -1, rtol=1e-6)  # its unit is 1
    np.testing.assert_allclose(scaled.static[0], 0, atol=1e-12)
    assert scaled.units[3, 0] == 0
    targets[:60, 1] = np.nan
    with pytest.raises(UserError, match="the training part of series 'one' has no value of 'b'"):
        fit(make()._replace(targets=targets))
