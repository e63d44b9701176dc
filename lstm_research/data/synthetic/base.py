"""What every generated dataset is: sequences that a seed makes, without end for training, a fixed number held out."""

import abc
import functools
import hashlib
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.dataset import SPLITS, Dataset, known_split

_HELD_OUT = {0: "valid", 1: "test"}  # by the last decimal digit of a sequence's hash

_MIN_HELD_OUT = 100  # sequences of a split, unless fewer are asked for: a criterion met by a few would say nothing


class Examples(NamedTuple):
    """Sequences with their answers, padded to one length.

    Attributes:
      inputs: 0 in padding.
      targets: numbers of classes, or values.
      weights: 1 where a target counts, 0 elsewhere.
      lengths: steps of each sequence.
      allowed: the classes that are right at each step, where it can be more than the target.
    """

    inputs: Float[np.ndarray, "N T D"]
    targets: Int[np.ndarray, "N T"] | Float[np.ndarray, "N T O"]
    weights: Float[np.ndarray, "N T"]
    lengths: Int[np.ndarray, "N"]
    allowed: Bool[np.ndarray, "N T C"] | None = None

    def take(self, rows: np.ndarray | list[int] | slice) -> "Examples":
        """Returns some of the examples."""
        taken: Any = (None if array is None else array[rows] for array in self)
        return Examples(*taken)


class SyntheticDataset(Dataset):
    """Sequences that a random generator draws. Subclasses are frozen dataclasses of what a config can choose.

    No sequence of one split is in another: where a sequence may well be drawn twice (`discrete`), a hash of it decides
    which split it is of, and draws of other splits are thrown away. One tenth each is validation and test, in which no
    sequence is twice.

    Attributes:
      length: T, in the sense of the paper that the dataset is from.
      num_examples: of the validation split, and of the test split; fewer where there are no more, down to 100.
      discrete: whether there are so few different sequences that one may be drawn twice.
      tolerance: largest error of an answer that is right; None where answers are classes.
      least_length: the smallest `length`.
      variety: the keys that make more different sequences where they are raised.
    """

    length: int
    num_examples: int
    discrete: ClassVar[bool] = True
    tolerance: ClassVar[float | None] = None
    least_length: ClassVar[int] = 1
    variety: ClassVar[tuple[str, ...]] = ("length",)

    def __post_init__(self) -> None:
        check_at_least(self.least_length, "dataset", length=self.length)
        check_at_least(1, "dataset", num_examples=self.num_examples)

    @property
    @abc.abstractmethod
    def input_size(self) -> int:
        """D."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """The number of classes, or of values at a step."""

    @property
    def baseline(self) -> float:
        """The loss of an answer without memory: of the best constant on the test split, unless it is known exactly."""
        return best_constant(self.examples("test"))

    @property
    def solved(self) -> tuple[str, float]:
        """The metric, and what it has to reach for the problem to count as solved."""
        return "sequence_accuracy", 0.99

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns `count` random sequences; of a discrete dataset of any split, and at most as many.

        All draws for a split have the same number of steps.
        """

    def sample(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns `count` random sequences of a split; held-out ones all differ, and are fewer if there are no more.

        Raises:
          UserError: there are too few different sequences for the split, see `num_examples`.
        """
        if not self.discrete:
            return self.draw(generator, count, split)
        kept: list[Examples] = []
        seen: set[int] = set()
        found = 0
        for _ in range(100 + 10_000 // count):
            examples = self.draw(generator, count, split)
            mine = []
            for row, (inputs, length) in enumerate(zip(examples.inputs, examples.lengths, strict=True)):
                number = _hash(inputs[:length])
                if _HELD_OUT.get(number % 10, "train") == split and number not in seen:
                    mine.append(row)
                    if split != "train":
                        seen.add(number)
            kept.append(examples.take(mine))
            found += len(mine)
            if found >= count:
                break
        wanted = count if split == "train" else min(count, _MIN_HELD_OUT)
        if found < wanted:
            keys = ", ".join(f"dataset.{key}={getattr(self, key)}" for key in self.variety)
            way_out = "raise it" if len(self.variety) == 1 else "raise one of them"
            way_out += ", or reduce dataset.num_examples" * (split != "train")
            raise UserError(
                f"{keys}: too few different sequences for split {split!r} ({found}, and {wanted} are wanted); {way_out}"
            )
        columns: Any = zip(*kept, strict=True)
        together: Any = (None if parts[0] is None else np.concatenate(parts) for parts in columns)
        return Examples(*together).take(slice(count))

    def examples(self, split: str) -> Examples:
        """Returns the held-out sequences of a split; of training, which has no end, as many."""
        return _fixed(self, known_split(split))

    def describe(self) -> str:
        """Returns one line: the dataset with its choices."""
        return f"generated, for training without end: {self!r}"

    def contents(self, split: str) -> Iterable[str]:
        """Returns hashes of the first examples. They are rounded: integrated values have last bits that vary."""
        for inputs, targets in zip(*self.examples(split).take(slice(100))[:2], strict=True):
            yield hashlib.sha256(np.round(inputs, 3).tobytes() + np.round(targets, 3).tobytes()).hexdigest()


def best_constant(examples: Examples) -> float:
    """Returns the loss of the best constant answer: the entropy of the classes in nats, or the values' variance."""
    counted = examples.targets[examples.weights > 0]
    if counted.ndim == 2:
        return float(np.var(counted, axis=0, dtype=np.float64).mean())
    shares = np.unique(counted, return_counts=True)[1] / len(counted)
    return float(-(shares * np.log(shares)).sum())


def one_hot(
    symbols: Int[np.ndarray, "N T"], size: int, lengths: Int[np.ndarray, "N"] | None = None
) -> Float[np.ndarray, "N T D"]:
    """Returns symbols as unit vectors, and padding as 0."""
    vectors = np.eye(size, dtype=np.float32)[symbols]
    return vectors if lengths is None else vectors * within(lengths, symbols.shape[1])[..., None]


def within(lengths: Int[np.ndarray, "N"], num_steps: int) -> Float[np.ndarray, "N T"]:
    """Returns 1 in the steps of each sequence and 0 in its padding."""
    return (np.arange(num_steps) < lengths[:, None]).astype(np.float32)


def answer_at_end(inputs: Float[np.ndarray, "N T D"], answers: np.ndarray, lengths: Int[np.ndarray, "N"]) -> Examples:
    """Returns examples of which only the last step's answer counts.

    Args:
      inputs: with 0 in padding.
      answers: int `[N]` for classes, float `[N, O]` for values.
      lengths: of the sequences.
    """
    last = np.arange(len(lengths)), lengths - 1
    dtype = np.int32 if answers.ndim == 1 else np.float32
    targets = np.zeros((*inputs.shape[:2], *answers.shape[1:]), dtype)
    weights = np.zeros(inputs.shape[:2], np.float32)
    targets[last], weights[last] = answers, 1
    return Examples(inputs, targets, weights, lengths.astype(np.int32))


def _hash(sequence: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(sequence.tobytes(), digest_size=8).digest(), "big")


@functools.lru_cache(maxsize=16)
def _fixed(dataset: SyntheticDataset, split: str) -> Examples:
    generator = np.random.default_rng([SPLITS.index(split)])
    return dataset.sample(generator, dataset.num_examples, split)
