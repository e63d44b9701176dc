"""Formal languages: what a finite automaton knows of a string at its end.

Delétang et al., "Neural Networks and the Chomsky Hierarchy", 2023. There a model is trained on lengths from 1 to 40 and
tested on lengths up to 500, which is `test_length`.
"""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.synthetic.base import Examples, SyntheticDataset, answer_at_end, one_hot


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormalLanguage(SyntheticDataset):
    """Strings of uniform lengths, with a class that is due at the last symbol.

    Attributes:
      length: of the longest string.
      min_length: of the shortest.
      test_length: of the longest in the test split, which then has only lengths above `length`; None for the same
        lengths as in training.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 40
    min_length: int = 1
    test_length: int | None = None
    num_examples: int = 1000

    only_odd: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_length <= self.length:
            raise UserError(f"dataset.min_length must be from 1 to dataset.length, got {self.min_length}")
        if self.test_length is not None and self.test_length <= self.length:
            raise UserError(f"dataset.test_length must be above dataset.length={self.length}, got {self.test_length}")
        for split in ("train", "test"):
            if not len(self._lengths(split)):
                raise UserError("dataset.min_length, .length and .test_length leave no odd length; set another")

    def _lengths(self, split: str) -> np.ndarray:
        """Returns the lengths that strings of a split can have."""
        shortest, longest = self.min_length, self.length
        if split == "test" and self.test_length is not None:
            shortest, longest = self.length + 1, self.test_length
        return np.arange(shortest | 1, longest + 1, 2) if self.only_odd else np.arange(shortest, longest + 1)

    @abc.abstractmethod
    def strings(self, generator: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Returns int `[N, length]`, random symbols."""

    @abc.abstractmethod
    def answers(self, symbols: np.ndarray) -> np.ndarray:
        """Returns int `[N, T]`, at each step the class of the string up to it."""

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random strings."""
        possible = self._lengths(split)
        lengths = generator.choice(possible, count)
        symbols = self.strings(generator, count, int(possible[-1]))
        answers = self.answers(symbols)[np.arange(count), lengths - 1]
        return answer_at_end(one_hot(symbols, self.input_size, lengths), answers, lengths)


class _BinaryLanguage(FormalLanguage):
    input_size = 2
    num_outputs = 2

    def strings(self, generator: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Returns random bits."""
        return generator.integers(0, 2, (count, length))


class Parity(_BinaryLanguage):
    """Parity: whether the number of ones is odd (class 1). For the choices see `FormalLanguage`."""

    baseline = math.log(2)

    def answers(self, symbols: np.ndarray) -> np.ndarray:
        """Returns the parity of every beginning."""
        return symbols.cumsum(axis=1) % 2


class EvenPairs(_BinaryLanguage):
    """Even pairs: whether 01 and 10 together occur an even (class 0) or an odd number of times (class 1).

    That is, whether the last symbol is the first. For the choices see `FormalLanguage`.
    """

    def answers(self, symbols: np.ndarray) -> np.ndarray:
        """Returns whether each symbol differs from the first."""
        return (symbols != symbols[:, :1]).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModularArithmetic(FormalLanguage):
    """Modular arithmetic without brackets: the value of a string like 1 + 2 × 3 - 4 modulo m; × goes first.

    The symbols are the digits 0 to m - 1, then +, × and -. Only odd lengths occur. For the other choices see
    `FormalLanguage`.

    Attributes:
      modulus: m.
    """

    modulus: int = 5

    only_odd = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(2, "dataset", modulus=self.modulus)

    @property
    def input_size(self) -> int:
        """Digits and operators."""
        return self.modulus + 3

    @property
    def num_outputs(self) -> int:
        """The residues."""
        return self.modulus

    def strings(self, generator: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Returns random expressions."""
        symbols = generator.integers(0, self.modulus, (count, length))
        symbols[:, 1::2] = self.modulus + generator.integers(0, 3, (count, length // 2))
        return symbols

    def answers(self, symbols: np.ndarray) -> np.ndarray:
        """Returns the value of every beginning that ends with a digit."""
        m = self.modulus
        values = np.zeros_like(symbols)
        total, product = np.zeros(len(symbols), np.int64), symbols[:, 0]  # what is closed, and the last term so far
        values[:, 0] = product
        for step in range(2, symbols.shape[1], 2):
            operator, digit = symbols[:, step - 1] - m, symbols[:, step]
            times = operator == 1
            total = np.where(times, total, total + product) % m
            product = np.where(times, product * digit, np.where(operator == 0, digit, -digit)) % m
            values[:, step] = (total + product) % m
        return values
