"""Windows of series: a history, and the horizon after it that is to be forecast.

A window is known by its origin, the first row of its horizon. Its history is all that a forecast may see, beside what
is known of the horizon in advance: it ends before the origin, and reaches back into earlier splits. What lies before
the first row of a series counts as not observed.

The arrays of a batch are batch-major, with C rows of history, H of the horizon and V variables: `history` and
`history_observed` float32 [B, C, V], `targets` and `weights` float32 [B, H, V], where `weights` is 0 for what was not
observed and in rows that only fill the batch; `known` float32 [B, C + H, K], `static` float32 [B, S], `units` float32
[B, 4, V] (see `ScaledSeries`), and `window` int32 [B], the number of the window.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets
from lstm_research.data.series.scaling import ScaledSeries


def training_origins(rows: tuple[int, int], history: int, horizon: int) -> Int[np.ndarray, "W"]:
    """Returns every origin whose history and horizon lie in the rows."""
    begin, end = rows
    return np.arange(begin + history, end - horizon + 1)


def rolling_origins(rows: tuple[int, int], horizon: int, stride: int) -> Int[np.ndarray, "W"]:
    """Returns every `stride`-th origin whose horizon lies in the rows, from the first on: rolling origins."""
    begin, end = rows
    return np.arange(begin, end - horizon + 1, stride)


class ForecastWindows:
    """The windows of several series.

    A window of whose horizon nothing was observed is left out, unless its horizon begins after the last row: that is a
    forecast of what nobody knows yet.

    Args:
      series: what is cut.
      origins: of the windows of each series.
      history: C.
      horizon: H.
      where: what the windows are of, for the message.

    Raises:
      UserError: there is no window.
    """

    def __init__(
        self,
        series: Sequence[ScaledSeries],
        origins: Sequence[Int[np.ndarray, "_"]],
        *,
        history: int,
        horizon: int,
        where: str,
    ):
        self.history, self.horizon = history, horizon
        # Unobserved rows around each series, so that every window lies in it: row 0 is history rows before the first.
        self._series = [_padded(each, history, horizon) for each in series]
        places = [self._worthwhile(each, at) for each, at in zip(self._series, origins, strict=True)]
        self._numbers = np.repeat(np.arange(len(places)), [len(at) for at in places])
        self._origins = np.concatenate([np.zeros(0, np.int64), *places]).astype(np.int64)
        if not len(self._origins):
            raise UserError(
                f"{where} has no window: no series has enough rows in it for task.horizon={horizon} (in training after "
                f"task.history={history}), with a value observed; reduce them or give more data"
            )

    def __len__(self) -> int:
        return len(self._origins)

    def training(self, batch_size: int, seed: int) -> TrainingBuckets:
        """Returns training batches: item k is that of step k, and an epoch has every window once."""
        lengths = np.ones(len(self), np.int64)
        return TrainingBuckets(lengths, self.collate, batch_size=batch_size, boundaries=(1,), seed=seed)

    def evaluation(self, batch_size: int) -> EvaluationBuckets:
        """Returns batches that hold every window exactly once, in their order."""
        lengths = np.ones(len(self), np.int64)
        return EvaluationBuckets(lengths, self.collate, batch_size=batch_size, boundaries=(1,))

    def collate(self, indices: Int[np.ndarray, "B"], valid: Bool[np.ndarray, "B"], length: int) -> Batch:
        """Returns the batch of these windows, see the top of the file; `length` means nothing."""
        C, H = self.history, self.horizon
        rows: dict[str, list[np.ndarray]] = {}
        for index, is_valid in zip(indices.tolist(), valid.tolist(), strict=True):
            series, origin = self._series[self._numbers[index]], int(self._origins[index])
            row = {
                "history": series.values[origin : origin + C],
                "history_observed": series.observed[origin : origin + C],
                "targets": series.values[origin + C : origin + C + H],
                "weights": series.observed[origin + C : origin + C + H] * np.float32(is_valid),
                "known": series.known[origin : origin + C + H],
                "static": series.static,
                "units": series.units,
            }
            for name, array in row.items():
                rows.setdefault(name, []).append(array)
        return {name: np.stack(arrays) for name, arrays in rows.items()} | {"window": indices.astype(np.int32)}

    def _worthwhile(self, series: ScaledSeries, origins: Int[np.ndarray, "W"]) -> Int[np.ndarray, "_"]:
        """Returns the origins of whose horizon something was observed, or that are after the last row."""
        counts = np.concatenate([[0], np.cumsum(series.observed.any(axis=1))])
        begins = origins + self.history
        future = begins + self.horizon == len(counts) - 1
        return origins[(counts[begins + self.horizon] > counts[begins]) | future]


def _padded(series: ScaledSeries, before: int, after: int) -> ScaledSeries:
    """Returns a series with rows around it of which nothing is known."""
    end = len(series.values) + after
    known = series.known[:end]
    return series._replace(
        values=np.pad(series.values, ((before, after), (0, 0))),
        observed=np.pad(series.observed, ((before, after), (0, 0))),
        known=np.pad(known, ((before, end - len(known)), (0, 0))),
    )
