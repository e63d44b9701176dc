"""The Mackey-Glass series."""

import dataclasses
import math

import numpy as np

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.synthetic.base import Examples, SyntheticDataset

STEPS_PER_UNIT = 10
"""Of the integration."""
_WASHOUT = 1000  # units of time until nothing is seen of how a series began


@dataclasses.dataclass(frozen=True, kw_only=True)
class MackeyGlass(SyntheticDataset):
    """The Mackey-Glass series, to be predicted some time ahead at every step.

        dx/dt = 0.2 x(t - τ) / (1 + x(t - τ)^10) - 0.1 x(t)

    is chaotic for τ above 16.8. The input of step k is x(k s), the answer x(k s + horizon). Steps count once τ has been
    seen. Every sequence is a series of its own, from a random beginning. The series is solved with a squared error of
    1 % of the variance, a normalised root mean squared error (NRMSE) of 0.1. Mackey and Glass, "Oscillation and Chaos
    in Physiological Control Systems", 1977; Gers, Eck and Schmidhuber, "Applying LSTM to Time Series Predictable
    Through Time-Window Approaches", 2001.

    Attributes:
      length: T, the steps of a sequence.
      delay: τ, in units of time.
      horizon: how far ahead, in units of time.
      interval: s, the units of time between two steps.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 200
    delay: int = 17
    horizon: int = 84
    interval: int = 6
    num_examples: int = 200

    discrete = False
    tolerance = 0.1
    input_size = 1
    num_outputs = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, "dataset", delay=self.delay, horizon=self.horizon, interval=self.interval)
        if (self.length - 1) * self.interval < self.delay:
            raise UserError(f"dataset.length={self.length} ends before dataset.delay={self.delay} was seen; raise it")

    @property
    def solved(self) -> tuple[str, float]:
        """NRMSE 0.1."""
        return "mse", 0.01 * self.baseline

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random series."""
        history = generator.uniform(0.5, 1.5, (count, self.delay * STEPS_PER_UNIT + 2))
        seen = self.interval * np.arange(self.length)
        num_units = _WASHOUT + int(seen[-1]) + self.horizon
        series = integrate(history, num_units * STEPS_PER_UNIT + 1)[:, ::STEPS_PER_UNIT].astype(np.float32)
        inputs = series[:, _WASHOUT + seen, None]
        targets = series[:, _WASHOUT + seen + self.horizon, None]
        weights = np.tile((seen >= self.delay).astype(np.float32), (count, 1))
        return Examples(inputs, targets, weights, np.full(count, self.length, np.int32))


def integrate(history: np.ndarray, num_steps: int) -> np.ndarray:
    """Integrates the equation with steps of h = 1 / `STEPS_PER_UNIT`.

    With g = 0.2 x / (1 + x^10) of the delayed values and A = exp(-0.1 h), a step is

        x(t + h) = A x(t) + ∫ exp(-0.1 (h - s)) g(t - τ + s) ds        over s from 0 to h

    and the integral is that of the cubic through the values at s = -h, 0, h and 2 h, so the error of a step is O(h^5).
    The values of nearly a whole delay depend on known ones alone, so they are computed at once.

    Args:
      history: `[N, τ / h + 2]`, the values up to now.
      num_steps: how many to add.

    Returns:
      `[N, num_steps]`, the values after the history.
    """
    delay, h = history.shape[1] - 2, 1 / STEPS_PER_UNIT
    A = math.exp(-0.1 * h)
    x = np.concatenate([history, np.zeros((len(history), num_steps))], axis=1)
    end = history.shape[1]
    while end < x.shape[1]:
        size = min(delay - 1, x.shape[1] - end)
        delayed = x[:, end - delay - 2 : end - delay + size + 1]
        square = delayed * delayed
        g = 0.2 * delayed / (1 + (square * square) ** 2 * square)
        cubic = h / 24 * (-A * A * g[:, :-3] + 13 * A * g[:, 1:-2] + 13 * g[:, 2:-1] - g[:, 3:] / A)
        powers = A ** np.arange(1, size + 1)
        x[:, end : end + size] = (x[:, end - 1 : end] + (cubic / powers).cumsum(axis=1)) * powers
        end += size
    return x[:, history.shape[1] :]
