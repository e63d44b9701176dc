"""The user's own table of series: what is read, how it is divided, and what is said of mistakes."""

from pathlib import Path

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.series.csv_series import CSVSeries
from lstm_research.data.series.datasets import SERIES_DATASETS


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked_shapes: None) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, **keys: object) -> CSVSeries:
    Path("t.csv").write_text(text)
    return build(SERIES_DATASETS, {"name": "csv_series", "path": "t.csv", **keys}, where="dataset")


def days(count: int, columns: str = "a", row: str = "{n}") -> str:
    lines = [f"2024-01-{n:02}," + row.format(n=n) for n in range(1, count + 1)]
    return "\n".join([f"time,{columns}", *lines]) + "\n"


def test_a_table_is_read_as_it_is_written() -> None:
    dataset = read(
        "time,a,b\n2024-01-01,1,x\n2024-01-02,,y\n2024-01-03,NA,x\n2024-01-04,4e1,z\n", target_columns=("a",)
    )
    (series,) = dataset.series()
    assert (dataset.target_names, str(dataset.step), series.name) == (("a",), "D", "series")
    np.testing.assert_array_equal(series.targets, [[1], [np.nan], [np.nan], [40]])
    assert series.times.astype(str).tolist() == [f"2024-01-0{n}T00:00:00" for n in (1, 2, 3, 4)]


def test_all_columns_that_no_key_names_are_forecast() -> None:
    dataset = read(
        "shop,time,sold,price,size,other\na,2024-01,1,2,3,4\na,2024-02,1,2,3,4\n",
        known_columns=("price",),
        static_columns=("size",),
        id_column="shop",
    )
    assert (dataset.target_names, dataset.known_names, dataset.static_names) == (
        ("sold", "other"),
        ("price",),
        ("size",),
    )
    assert str(dataset.step) == "M"


def test_several_series_stand_in_any_order_of_rows() -> None:
    rows = [(name, n, 10 * n + number) for n in range(1, 7) for number, name in enumerate("ab") if name == "a" or n > 2]
    text = "\n".join(["id,time,kind,y", *(f"{name},2024-01-0{n},{name.upper()},{y}" for name, n, y in rows)])
    dataset = read(text, id_column="id", static_columns=("kind",))
    first, second = dataset.series()
    assert (first.name, second.name, first.static, second.static) == ("a", "b", ("A",), ("B",))
    assert first.targets.ravel().tolist() == [10, 20, 30, 40, 50, 60]
    assert second.targets.ravel().tolist() == [31, 41, 51, 61]


def test_names_of_columns_are_read_as_the_rows_are() -> None:
    text = 'time,"sold,\nin all","b ""c"""\n2024-01-01,1,2\n2024-01-02,3,4\n'
    dataset = read(text)
    assert dataset.target_names == ("sold,\nin all", 'b "c"')
    assert dataset.series()[0].targets.tolist() == [[1, 2], [3, 4]]
    dataset = read('time\t"a"\tb\n2024-01-01\t1\t2\n2024-01-02\t3\t4\n', delimiter="\t")
    assert dataset.target_names == ('"a"', "b")
    assert dataset.series()[0].targets.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(UserError, match="has a column without a name"):  # the tab at the beginning ends a name
        read("\ttime\ta\n0\t2024-01-01\t1\n1\t2024-01-02\t2\n", delimiter="\t").series()


def test_rows_without_targets_at_the_end_are_the_future() -> None:
    text = days(8, "a,b,price", "{n},,{n}0") + "2024-01-09,,,90\n2024-01-10,NA,,100\n"
    (series,) = read(text, target_columns=("a", "b"), known_columns=("price",)).series()
    assert series.targets.shape == (8, 2)
    assert series.known.ravel().tolist() == [10 * n for n in range(1, 11)]
    assert len(series.times) == 10
    (series,) = read(text, target_columns=("a", "b")).series()
    assert (len(series.times), series.known.shape) == (8, (8, 0))  # nothing is known of the future


def test_splits_begin_at_the_same_time_in_all_series() -> None:
    rows = [f"{name},2024-01-{n:02},{n}" for name, begin in (("a", 1), ("b", 12)) for n in range(begin, 21)]
    dataset = read("\n".join(["id,time,y", *rows]), id_column="id", valid=0.2, test=0.1)
    cuts = [np.datetime64("2024-01-15"), np.datetime64("2024-01-19")]
    assert list(dataset.cuts()) == cuts
    for series in dataset.series():
        values = {
            split: series.targets[slice(*dataset.rows(series, split))].ravel().tolist() for split in dataset.splits
        }
        assert values["valid"] == [15, 16, 17, 18]
        assert values["test"] == [19, 20]
        assert values["train"] == list(range(1 if series.name == "a" else 12, 15))
    named = read("\n".join(["id,time,y", *rows]), id_column="id", valid="2024-01-05", test="2024-01-19 00:00")
    assert list(named.cuts()) == [np.datetime64("2024-01-05"), cuts[1]]
    assert named.cuts() is named.cuts()  # not computed again for every series
    mixed = read("\n".join(["id,time,y", *rows]), id_column="id", valid=0.1, test="2024-01-19")
    assert list(mixed.cuts()) == [np.datetime64("2024-01-17"), cuts[1]]


def test_gaps_are_filled_if_that_is_wanted() -> None:
    text = "time,a\n" + "".join(f"2024-06-{n:02},{n}\n" for n in (3, 4, 5, 7, 10, 12, 13))  # without 6 and 11 June
    dataset = read(text, gaps="fill", frequency="B")
    (series,) = dataset.series()
    np.testing.assert_array_equal(series.targets.ravel(), [3, 4, 5, np.nan, 7, 10, np.nan, 12, 13])
    assert str(read(text, gaps="fill").step) == "B"  # found by itself
    assert series.times.astype("datetime64[D]").astype(str).tolist()[3] == "2024-06-06"


def test_times_in_other_forms() -> None:
    (series,) = read(
        "when;a\n31.12.23 23h;1\n01.01.24 00h;2\n", time_column="when", delimiter=";", time_format="%d.%m.%y %Hh"
    ).series()
    assert series.times.astype(str).tolist() == ["2023-12-31T23:00:00", "2024-01-01T00:00:00"]
    (series,) = read("time,a\n2024-03-31T01:30+01:00,1\n2024-03-31T03:30:00+02:00,2\n2024-03-31T02:30Z,3\n").series()
    assert series.times.astype(str).tolist() == [f"2024-03-31T0{n}:30:00" for n in (0, 1, 2)]


def test_the_fingerprint_is_that_of_the_data() -> None:
    text = days(20, "a,price", "{n},{n}")
    keys = {"known_columns": ("price",)}
    fingerprint = read(text, **keys).fingerprint()
    assert read(text, **keys).fingerprint() == fingerprint
    for other in (text.replace("07,7,7", "07,7,8"), text.replace(",19,19", ",19.5,19"), text + "2024-01-21,,21\n"):
        assert read(other, **keys).fingerprint() != fingerprint
    assert read(text, valid=0.2, **keys).fingerprint() != fingerprint
    record = read(text, **keys).record()
    with pytest.raises(UserError, match="has changed since this run was trained"):
        read(text.replace("07,7,7", "07,7,8"), **keys).check_record(record)


GOOD = days(10)
WRONG: dict[str, tuple[str, dict[str, object]]] = {
    "unknown column (dataset.time_column; columns in dataset.path: t.csv): 'date'; valid: a, time": (
        *(GOOD, {"time_column": "date", "target_columns": ("a",)}),
    ),
    r"unknown column (dataset.target_columns[1]; columns in dataset.path: t.csv): 'b'; valid: a, time": (
        *(GOOD, {"target_columns": ("a", "b")}),
    ),
    "column 'a' is named more than once, by dataset.target_columns[0] and dataset.known_columns[0]": (
        *(GOOD, {"target_columns": ("a",), "known_columns": ("a",)}),
    ),
    "t.csv has no column to forecast besides time": ("time\n2024-01-01\n", {}),
    "line 4, time: '2024-01-33' is no time of the form ISO 8601, as in 2024-01-31 18:00; correct it, or set "
    "dataset.time_format": (GOOD.replace("2024-01-03", "2024-01-33"), {}),
    "line 2, time: '2024-01-01' is no time of the form '%d.%m.%Y' (dataset.time_format); correct it": (
        *(GOOD, {"time_format": "%d.%m.%Y"}),
    ),
    "line 5 repeats the time 2024-01-03T00:00:00 of line 4; leave one of the two out, or name the column of the "
    "series' names in dataset.id_column": (GOOD.replace("2024-01-04", "2024-01-03"), {}),
    "line 5 has an earlier time (2023-12-31T00:00:00) than line 4; sort the file by time": (
        *(GOOD.replace("2024-01-04", "2023-12-31"), {}),
    ),
    "line 4: 1 gap(s) in steps of D, the first from 2024-01-03T00:00:00 to 2024-01-05T00:00:00; rows are missing "
    "there: add them, or set dataset.gaps='fill'": (GOOD.replace("2024-01-04,4\n", ""), {}),
    "rows are missing there: add the rows": (
        *(days(9, "a,p", "{n},{n}").replace("2024-01-04,4,4\n", ""), {"known_columns": ("p",), "gaps": "fill"}),
    ),
    "line 5 has the time 2024-01-04T12:00:00, which is no multiple of D after 2024-01-01T00:00:00; round or resample": (
        *(GOOD.replace("2024-01-04", "2024-01-04 12:00"), {}),
    ),
    "line 6 has 'five' in column 'a', which is no number; a missing value is empty or NA; if it is not to be forecast, "
    "name what is in dataset.target_columns, or this one in dataset.id_column": (GOOD.replace(",5", ",five"), {}),
    "line 6 has 'inf' in column 'a', which is no number": (GOOD.replace(",5", ",inf"), {}),
    "line 6 has no value in column 'p' of dataset.known_columns; give it, or make the column a target": (
        *(days(10, "a,p", "{n},1").replace("5,1", "5,NA"), {"known_columns": ("p",)}),
    ),
    "t.csv has several values of k in dataset.static_columns": (
        *(days(10, "a,k", "{n},x").replace("5,x", "5,y"), {"static_columns": ("k",)}),
    ),
    "t.csv has no value of any target": (days(10, "a", ""), {}),
    "has no series of two rows or more": ("time,a\n2024-01-01,1\n", {}),
    "dataset.test must be a time, or a share above 0 and below 0.5, got 0.7": (GOOD, {"test": 0.7}),
    "dataset.valid: 'soon' is no time of the form ISO 8601, as in 2024-01-31 18:00; correct it": (
        GOOD,
        {"valid": "soon"},
    ),
    "give two of these times, the first earlier": (GOOD, {"valid": "2024-01-09", "test": "2024-01-05"}),
    "dataset.gaps must be one of 'refuse', 'fill'": (GOOD, {"gaps": "drop"}),
    "dataset.frequency must be s, min": (GOOD, {"frequency": "daily"}),
    "dataset.delimiter must be one character": (GOOD, {"delimiter": "tab"}),
    "unknown dataset.calendar 'day'": (GOOD, {"calendar": ("day",)}),
    "t.csv has a column without a name, such as an index that was written with the table; leave it out, or name": (
        *(days(10, ",a", "{n},{n}"), {}),
    ),
    "line 2, time: '0001-01-01T00:00+05:00' is no time of the form ISO 8601": (
        *(GOOD.replace("2024-01-01", "0001-01-01T00:00+05:00"), {}),
    ),
    "line 5, time: '2024-01-04T00:00Z' has an offset from UTC, and those before it have no offset; write all": (
        *(GOOD.replace("2024-01-04", "2024-01-04T00:00Z"), {}),
    ),
    "line 5, time: '2024-01-04 00:00:00.5' has a fraction of a second, and seconds are the finest step; round it": (
        *(GOOD.replace("2024-01-04", "2024-01-04 00:00:00.5"), {}),
    ),
    "there is no file": ("", {"path": "none.csv"}),
    "line 3, series 'x', repeats the time": (
        *("time,id,a\n2024-01-01,x,1\n2024-01-01,x,2\n2024-01-02,x,1\n", {"id_column": "id"}),
    ),
}


def test_no_way_out_is_proposed_that_there_is_not() -> None:
    with pytest.raises(UserError, match=r"a missing value is empty or NA$"):
        read(GOOD.replace(",5", ",five"), target_columns=("a",)).series()


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_are_said_in_one_line(message: str) -> None:
    text, keys = WRONG[message]
    with pytest.raises(UserError) as error:
        read(text, **keys).cuts()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
