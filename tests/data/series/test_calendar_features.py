"""Calendar features against the standard library's calendar."""

import calendar
import datetime
import math

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.series.calendar_features import CALENDAR, calendar_features, calendar_size, check_calendar


def expected(name: str, time: datetime.datetime) -> list[float]:
    """Returns the columns of a feature, from the fields of a date."""
    second = time.hour * 3600 + time.minute * 60 + time.second
    days = calendar.monthrange(time.year, time.month)[1]
    in_year = time.timetuple().tm_yday - 1 + second / 86400
    phases = {
        "minute": (time.minute * 60 + time.second) / 3600,
        "hour": second / 86400,
        "weekday": time.weekday() / 7,
        "day_of_month": (time.day - 1 + second / 86400) / days,
        "day_of_year": in_year / (366 if calendar.isleap(time.year) else 365),
        "month": (time.month - 1) / 12,
    }
    if name == "business_day":
        return [float(time.weekday() < 5)]
    return [math.sin(2 * math.pi * phases[name]), math.cos(2 * math.pi * phases[name])]


@pytest.mark.parametrize("name", CALENDAR)
def test_features_are_those_of_the_calendar(name: str) -> None:
    random = np.random.default_rng(0)
    seconds = np.concatenate([random.integers(-(6 * 10**9), 4 * 10**9, 200), [0, 951782400, -1, 1709164799]])
    times = seconds.astype("datetime64[s]")
    found = calendar_features(times, (name,))
    assert found.shape == (204, calendar_size((name,)))
    np.testing.assert_allclose(found, [expected(name, time) for time in times.tolist()], atol=1e-9)


def test_columns_stand_in_the_order_of_the_names() -> None:
    times = np.array(["2024-02-29 13:45"], "datetime64[s]")
    both = calendar_features(times, ("business_day", "hour"))
    assert both[0].tolist() == [1.0, *calendar_features(times, ("hour",))[0]]
    assert calendar_features(times, ()).shape == (1, 0)


def test_another_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown dataset.calendar 'week_day'; did you mean 'weekday'"):
        check_calendar(("hour", "week_day"))
