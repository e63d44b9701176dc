"""How often a series is observed: the grid of its times, found from the times or named in words."""

import dataclasses
import re
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from lstm_research.common.errors import UserError

Times = np.ndarray
"""`datetime64[s]` `[N]`."""

DAY = 86_400
_SECONDS = {"D": DAY, "h": 3600, "min": 60, "s": 1}
# What a name stands for: how many of which unit. Longer ones first, for a search.
_NAMES = {"min": (60, "s"), "s": (1, "s"), "h": (3600, "s"), "D": (DAY, "s"), "W": (7 * DAY, "s"), "B": (1, "B")}
_NAMES |= {"M": (1, "M"), "Q": (3, "M"), "Y": (12, "M")}


@dataclasses.dataclass(frozen=True)
class Frequency:
    """The step from one time to the next.

    Business days are Monday to Friday, whatever is celebrated. A month later is the same day of the month, or the last
    day if all times are last days.

    Attributes:
      count: how many units.
      unit: "s" for seconds, "B" for business days, "M" for months.
    """

    count: int
    unit: Literal["s", "B", "M"]

    @classmethod
    def parse(cls, text: str, where: str) -> "Frequency":
        """Reads what `str` writes: a number, which may be left out, and s, min, h, D, B, W, M, Q or Y.

        Raises:
          UserError: it is no such text.
        """
        found = re.fullmatch(rf"([1-9]\d*)?({'|'.join(_NAMES)})", text)
        if not found or (found[2] == "B" and found[1] not in (None, "1")):
            raise UserError(
                f"{where} must be s, min, h, D, B (business days), W, M, Q or Y, all but B with a number before "
                f"them if need be, as in 15min, got {text!r}"
            )
        count, unit = _NAMES[found[2]]
        return cls(int(found[1] or 1) * count, unit)  # type: ignore[arg-type]

    @classmethod
    def infer(cls, times: Times) -> "Frequency":
        """Returns the most common step between times in increasing order, at least two of them."""
        steps, counts = np.unique(np.diff(times).astype(np.int64), return_counts=True)
        seconds = int(steps[counts.argmax()])
        if count := round(seconds / (30.44 * DAY)):
            months = cls(count, "M")
            if months.positions(times)[1].mean() > 0.9:  # else it is a number of days
                return months
        if seconds == DAY and steps.max() >= 3 * DAY and np.is_busday(times.astype("datetime64[D]")).all():
            return cls(1, "B")
        return cls(seconds, "s")

    def __str__(self) -> str:
        if self.unit == "s":
            name, seconds = next((name, seconds) for name, seconds in _SECONDS.items() if self.count % seconds == 0)
            count = self.count // seconds
        else:
            name, count = self.unit, self.count
        return name if count == 1 else f"{count}{name}"

    @property
    def season(self) -> int:
        """The number of steps of a season: a day, a week of days or of business days, a year; 1 where none fits."""
        if self.unit != "s":
            return 5 if self.unit == "B" else 12 // self.count if 12 % self.count == 0 else 1
        for season in (DAY, 7 * DAY, 52 * 7 * DAY):
            if self.count < season and season % self.count == 0:
                return season // self.count
        return 1

    def positions(self, times: Times) -> tuple[Int[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
        """Returns how many steps each time is after the first, and which of the times are on the grid at all."""
        if self.unit == "s":
            seconds = (times - times[0]).astype(np.int64)
            return seconds // self.count, seconds % self.count == 0
        days = times.astype("datetime64[D]")
        of_day = (times - days).astype(np.int64)
        if self.unit == "B":
            on_grid = np.is_busday(days) & (of_day == of_day[0])
            return np.busday_count(days[0], days).astype(np.int64), on_grid
        months = (days.astype("datetime64[M]") - days[0].astype("datetime64[M]")).astype(np.int64)
        return months // self.count, (months % self.count == 0) & (self._after(times, months) == times)

    def after(self, times: Times, count: int) -> Times:
        """Returns the `count` times that follow the last of `times`."""
        steps = np.arange(1, count + 1)
        if self.unit == "s":
            return times[-1] + (steps * self.count).astype("timedelta64[s]")
        if self.unit == "B":
            day = times[-1].astype("datetime64[D]")
            return np.busday_offset(day, steps).astype("datetime64[s]") + (times[-1] - day)
        first, last = times[[0, -1]].astype("datetime64[M]")
        return self._after(times, (last - first).astype(np.int64) + steps * self.count)

    def grid(self, times: Times, count: int) -> Times:
        """Returns the first `count` times from the first of `times` on, with no gap."""
        if self.unit == "M":
            return self._after(times, np.arange(count) * self.count)
        return np.concatenate([times[:1], self.after(times[:1], count - 1)])

    def _after(self, times: Times, months: Int[np.ndarray, "M"]) -> Times:
        """Returns the times this many months after the first, see the class on days."""
        days = times.astype("datetime64[D]")
        of_day = times[0] - days[0]
        begins = days[0].astype("datetime64[M]") + months
        lengths = ((begins + 1).astype("datetime64[D]") - begins.astype("datetime64[D]")).astype(np.int64)
        ends = (days + 1).astype("datetime64[M]") != days.astype("datetime64[M]")
        day = int((days[0] - days[0].astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64))
        offsets = lengths - 1 if ends.all() else np.minimum(day, lengths - 1)
        return (begins.astype("datetime64[D]") + offsets).astype("datetime64[s]") + of_day
