"""The timing tasks of Gers, Schraudolph and Schmidhuber, "Learning Precise Timing with LSTM Recurrent Networks", 2002.

Both are about a train of spikes, 1 among 0, whose intervals are F + I(n) with random I(n) from 0 to a largest offset:

    T(0) = F + I(0),    T(n) = T(n - 1) + F + I(n)
"""

import dataclasses

import numpy as np

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.synthetic.base import Examples, SyntheticDataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Spikes(SyntheticDataset):
    length: int = 200
    min_interval: int = 10
    max_offset: int = 1
    num_examples: int = 1000

    tolerance = 0.49
    input_size = 1
    num_outputs = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, "dataset", min_interval=self.min_interval, max_offset=self.max_offset)
        if self.length <= self.min_interval + self.max_offset:
            raise UserError(
                f"dataset.length={self.length} has no room for a spike at dataset.min_interval + dataset.max_offset = "
                f"{self.min_interval + self.max_offset}; raise it"
            )

    def _spikes(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns bool `[N, T]`, the spikes, and int `[N, T]`, the offset of the spike that is next or now."""
        offsets = generator.integers(0, self.max_offset + 1, (count, self.length // self.min_interval + 1))
        times = (self.min_interval + offsets).cumsum(axis=1)
        inside = times < self.length
        spikes = np.zeros((count, self.length), bool)
        spikes[np.nonzero(inside)[0], times[inside]] = True
        num_before = spikes.cumsum(axis=1) - spikes
        return spikes, np.take_along_axis(offsets, num_before, axis=1)


class SpikeDelays(_Spikes):
    """Measuring spike delays: at each spike of the input the answer is I(n), by how much the interval was above F.

    Only the spikes count. An answer is right if it rounds to I(n). Spikes 49 or 50 steps apart, which the paper tells
    from one another, are F = 49 and a largest offset of 1; with T = 1000, as few spikes make few different sequences.

    Attributes:
      length: T, the steps of a sequence; step 0 is no spike.
      min_interval: F.
      max_offset: the largest I(n).
      num_examples: see `SyntheticDataset`.
    """

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        spikes, offsets = self._spikes(generator, count)
        weights = spikes.astype(np.float32)
        targets = offsets.astype(np.float32) * weights
        return Examples(weights[..., None], targets[..., None], weights, np.full(count, self.length, np.int32))


class TimedSpikes(_Spikes):
    """Generating timed spikes: the input holds I(n) until the spike that the output must then make.

    This is `SpikeDelays` with input and output exchanged: the answer is 1 at T(n) and 0 elsewhere, and all steps count.
    An answer is right if it is clearly on the right side of one half (the error below 0.49).

    Attributes:
      length: T, the steps of a sequence.
      min_interval: F.
      max_offset: the largest I(n).
      num_examples: see `SyntheticDataset`.
    """

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        spikes, offsets = self._spikes(generator, count)
        inputs, targets = (array.astype(np.float32)[..., None] for array in (offsets, spikes))
        weights = np.ones((count, self.length), np.float32)
        return Examples(inputs, targets, weights, np.full(count, self.length, np.int32))
