"""The long-lag problems of Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, and the copying problem."""

import dataclasses
import math
from typing import Literal

import numpy as np

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.synthetic.base import Examples, SyntheticDataset, answer_at_end, one_hot, within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adding(SyntheticDataset):
    """The adding problem: a step has a value and a marker, and the answer at the end is the sum of the marked values.

    As in Arjovsky, Shah and Bengio, "Unitary Evolution Recurrent Neural Networks", 2016: values are uniform in [0, 1),
    one marker (1 among 0) is in the first half and one in the second; answering 1 has the squared error 1/6.

    The original (Hochreiter and Schmidhuber, experiment 4): lengths vary from T to T + T/10, values are uniform in
    [-1, 1), the first of the two markers is among the first ten steps, the second among the first T/2 - 1 steps that
    are left, the first and the last step have the marker -1, and the answer is 0.5 + (X1 + X2)/4. A marked first step
    counts as 0.

    An answer is right within 0.04, as in the original: there 4 % of the answers' range, 0 to 1; otherwise 2 % of it, 0
    to 2.

    Attributes:
      length: T.
      original: as in 1997.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 100
    original: bool = False
    num_examples: int = 1000

    discrete = False
    tolerance = 0.04
    input_size = 2
    num_outputs = 1
    least_length = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.original:
            check_at_least(12, "dataset", length=self.length)

    @property
    def baseline(self) -> float:
        """The variance of the answer."""
        if not self.original:
            return 1 / 6
        first_is_zero = 1 / 10
        second_is_zero = (1 - first_is_zero) / (self.length // 2 - 1)
        return (2 - first_is_zero - second_is_zero) / 3 / 16

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        T, rows = self.length, np.arange(count)
        if self.original:
            lengths = generator.integers(T, T + T // 10 + 1, count)
            num_steps = T + T // 10
            values = generator.uniform(-1, 1, (count, num_steps))
            first = generator.integers(0, 10, count)
            second = generator.integers(0, T // 2 - 1, count)
            second += second >= first
        else:
            lengths, num_steps = np.full(count, T), T
            values = generator.random((count, T))
            first = generator.integers(0, T // 2, count)
            second = generator.integers(T // 2, T, count)
        marks = np.zeros((count, num_steps))
        marks[rows, first] = marks[rows, second] = 1
        if self.original:
            marks[:, 0] = marks[rows, lengths - 1] = -1
        inputs = np.stack([values, marks], axis=-1).astype(np.float32) * within(lengths, num_steps)[..., None]
        answers = (inputs[..., 0] * (inputs[..., 1] == 1)).sum(axis=1, keepdims=True)
        return answer_at_end(inputs, 0.5 + answers / 4 if self.original else answers, lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy(SyntheticDataset):
    """The copying problem: the first K symbols are to be written again, T steps after they were read.

        in:   K symbols,  T - 1 blanks,  a delimiter,  K blanks
        out:  T + K blanks,  the K symbols

    Every step counts, and a sequence is right if all of them are. Knowing only when to answer, one has the
    cross-entropy K log n / (T + 2 K) for n symbols. Arjovsky, Shah and Bengio 2016, after Hochreiter and Schmidhuber.

    Attributes:
      length: T; a sequence has T + 2 K steps.
      num_symbols: n. Their numbers are 0 to n - 1, that of the blank is n, and that of the delimiter n + 1.
      copy_length: K.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 100
    num_symbols: int = 8
    copy_length: int = 10
    num_examples: int = 1000

    variety = ("copy_length", "num_symbols")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(2, "dataset", num_symbols=self.num_symbols)
        check_at_least(1, "dataset", copy_length=self.copy_length)

    @property
    def input_size(self) -> int:
        """The symbols, the blank and the delimiter."""
        return self.num_symbols + 2

    @property
    def num_outputs(self) -> int:
        """The symbols and the blank."""
        return self.num_symbols + 1

    @property
    def baseline(self) -> float:
        """The loss of blanks, then any symbol."""
        return self.copy_length * math.log(self.num_symbols) / (self.length + 2 * self.copy_length)

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        K, num_steps = self.copy_length, self.length + 2 * self.copy_length
        copied = generator.integers(0, self.num_symbols, (count, K))
        symbols = np.full((count, num_steps), self.num_symbols)
        targets = symbols.astype(np.int32)
        symbols[:, :K] = targets[:, -K:] = copied
        symbols[:, -K - 1] = self.num_symbols + 1
        weights = np.ones((count, num_steps), np.float32)
        return Examples(one_hot(symbols, self.input_size), targets, weights, np.full(count, num_steps, np.int32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalOrder(SyntheticDataset):
    """Temporal order: which of X and Y came first, second (and third), among symbols that mean nothing.

    A sequence of T to T + T/10 symbols begins with E and ends with B, where the answer is due; the others are of
    a, b, c, d, but for two X or Y, one at a random step from T/10 to 2T/10 and one from 5T/10 to 6T/10. The classes are
    XX, XY, YX and YY. With three (from T/10, T/3 and 2T/3 on) there are eight. Hochreiter and Schmidhuber, experiments
    6a and 6b. Input features are E, B, a, b, c, d, X, Y.

    Attributes:
      length: T.
      num_relevant: how many X or Y.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 100
    num_relevant: Literal[2, 3] = 2
    num_examples: int = 1000

    input_size = 8
    least_length = 10

    @property
    def num_outputs(self) -> int:
        """Every order."""
        return 2**self.num_relevant

    @property
    def baseline(self) -> float:
        """The entropy of the classes."""
        return math.log(self.num_outputs)

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        T, rows = self.length, np.arange(count)
        lengths = generator.integers(T, T + T // 10 + 1, count)
        symbols = generator.integers(2, 6, (count, T + T // 10))
        symbols[:, 0], symbols[rows, lengths - 1] = 0, 1
        answers = np.zeros(count, np.int64)
        for index in range(self.num_relevant):
            earliest = index * T // self.num_relevant if index else T // 10
            is_y = generator.integers(0, 2, count)
            symbols[rows, generator.integers(earliest, earliest + T // 10 + 1, count)] = 6 + is_y
            answers = 2 * answers + is_y
        return answer_at_end(one_hot(symbols, 8, lengths), answers, lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisySequence(SyntheticDataset):
    """Noisy sequence classification: the first N values are the class, all others noise on the same input.

    A sequence has T to T + T/10 steps. The first N values are 1 (class 1) or -1 (class 0), those after them normal with
    mean 0 and variance 0.2. Hochreiter and Schmidhuber, experiment 3a, after Bengio, Simard and Frasconi, "Learning
    Long-Term Dependencies with Gradient Descent is Difficult", 1994. In experiment 3b the first values have the same
    noise added to them; then N should be 3, since with N = 1 one in 80 has the wrong sign.

    Attributes:
      length: T.
      signal_length: N.
      noisy_signal: as in 3b.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 100
    signal_length: int = 3
    noisy_signal: bool = False
    num_examples: int = 1000

    discrete = False
    input_size = 1
    num_outputs = 2
    baseline = math.log(2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.signal_length <= self.length:
            raise UserError(f"dataset.signal_length must be from 1 to dataset.length, got {self.signal_length}")

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random sequences."""
        T, N = self.length, self.signal_length
        lengths = generator.integers(T, T + T // 10 + 1, count)
        answers = generator.integers(0, 2, count)
        values = generator.normal(0, math.sqrt(0.2), (count, T + T // 10))
        values[:, :N] = values[:, :N] * self.noisy_signal + (2 * answers - 1)[:, None]
        inputs = values.astype(np.float32) * within(lengths, T + T // 10)
        return answer_at_end(inputs[..., None], answers, lengths)
