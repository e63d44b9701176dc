"""Frequencies: the grid of times, found and continued."""

import datetime

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.series.frequency import Frequency


def times(*written: str) -> np.ndarray:
    return np.array(written, "datetime64[s]")


def grid(begin: str, text: str, count: int) -> np.ndarray:
    return Frequency.parse(text, "x").grid(times(begin), count)


@pytest.mark.parametrize(
    "text", ["s", "10s", "min", "15min", "h", "6h", "D", "2D", "7D", "B", "M", "2M", "3M", "6M", "12M"]
)
@pytest.mark.parametrize("begin", ["2023-12-29 06:30", "1749-02-01", "2024-02-29"])
def test_a_frequency_is_found_in_its_own_grid(text: str, begin: str) -> None:
    if text == "B" and not np.is_busday(np.datetime64(begin, "D")):
        begin = "2023-12-29"
    made = grid(begin, text, 40)
    found = Frequency.infer(made)
    assert str(found) == text
    assert found == Frequency.parse(text, "x")
    positions, on_grid = found.positions(made)
    assert on_grid.all()
    assert positions.tolist() == list(range(40))
    assert (found.after(made[:30], 10) == made[30:]).all()
    # Rows that are missing leave gaps, and no other frequency.
    holes = np.delete(made, [3, 17, 18])
    assert Frequency.infer(holes) == found
    assert found.positions(holes)[0].tolist() == np.delete(np.arange(40), [3, 17, 18]).tolist()


def test_other_names_of_the_same() -> None:
    assert [str(Frequency.parse(text, "x")) for text in ("W", "2W", "Q", "Y", "60min", "24h")] == [
        *("7D", "14D", "3M", "12M", "h", "D")
    ]


def test_days_of_the_month_are_kept_as_a_calendar_keeps_them() -> None:
    assert grid("2024-01-15 08:00", "M", 3).tolist() == times(*(f"2024-0{m}-15 08:00" for m in (1, 2, 3))).tolist()
    ends = times("2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30")
    assert str(Frequency.infer(ends)) == "M"
    assert Frequency(1, "M").after(ends, 2).tolist() == times("2024-05-31", "2024-06-30").tolist()
    assert Frequency(1, "M").after(times("2024-02-28"), 1) == times("2024-03-28")
    for text in ("28D", "61D"):
        assert str(Frequency.infer(grid("2024-01-01", text, 20))) == text  # and no months


def test_business_days_leave_weekends_out() -> None:
    friday = times("2024-05-31")
    assert (
        Frequency(1, "B").after(friday, 6).tolist() == times(*(f"2024-06-{d:02}" for d in (3, 4, 5, 6, 7, 10))).tolist()
    )
    # Without a weekend between them days are days; with a Saturday among them they are no business days.
    assert str(Frequency.infer(times("2024-06-03", "2024-06-04", "2024-06-05"))) == "D"
    assert str(Frequency.infer(times("2024-06-06", "2024-06-07", "2024-06-08", "2024-06-11"))) == "D"
    on_grid = Frequency(1, "B").positions(times("2024-06-07", "2024-06-08", "2024-06-10"))[1]
    assert on_grid.tolist() == [True, False, True]


def test_times_beside_the_grid_are_seen() -> None:
    hours = grid("2024-01-01", "h", 5)
    hours[3] += np.timedelta64(60, "s")
    assert Frequency.infer(hours).positions(hours)[1].tolist() == [True, True, True, False, True]
    months = times("2024-01-01", "2024-02-01", "2024-03-02", "2024-04-01")
    assert Frequency(1, "M").positions(months)[1].tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("text", "season"),
    [("s", 86400), ("15min", 96), ("h", 24), ("D", 7), ("W", 52), ("B", 5), ("M", 12), ("Q", 4), ("Y", 1), ("5M", 1)],
)
def test_seasons(text: str, season: int) -> None:
    assert Frequency.parse(text, "x").season == season


def test_grids_agree_with_the_calendar_of_the_standard_library() -> None:
    day = datetime.date(2023, 12, 25)
    days = [day + datetime.timedelta(days=n) for n in range(60)]
    business = [each for each in days if each.weekday() < 5]
    assert grid("2023-12-25", "B", len(business)).astype("datetime64[D]").tolist() == business
    assert grid("2023-12-25", "D", 60).astype("datetime64[D]").tolist() == days


@pytest.mark.parametrize("text", ["", "fortnight", "0h", "2B", "h2", "1.5h"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"dataset.frequency must be s, min, h, D, B \(business days\)"):
        Frequency.parse(text, "dataset.frequency")
