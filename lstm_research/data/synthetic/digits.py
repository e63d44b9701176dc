"""Handwritten digits, read pixel by pixel or row by row."""

import dataclasses
import functools
from typing import Literal

import numpy as np

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.dataset import known_split
from lstm_research.data.synthetic.base import Examples, SyntheticDataset, answer_at_end

_NUM_HELD_OUT = {"test": 300, "valid": 200}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(SyntheticDataset):
    """Handwritten digits as sequences of pixels or of rows; which digit it is has to be said at the end.

    The 1,797 images of 8 × 8 pixels that scikit-learn carries stand for MNIST (Le, Jaitly and Hinton, "A Simple Way to
    Initialize Recurrent Networks of Rectified Linear Units", 2015). 300 are the test split and 200 the validation
    split; training draws from the others, with replacement. Pixels are from 0 to 1.

    Attributes:
      length: T; 64 for pixels and 8 for rows, or more: the rest of the steps is blank, and the answer due after them.
      unit: what is read at a step.
      permuted: whether all images have their pixels in one and the same random order.
    """

    length: int = 64
    unit: Literal["pixel", "row"] = "pixel"
    permuted: bool = False

    discrete = False
    num_outputs = 10

    def __post_init__(self) -> None:
        check_at_least(64 if self.unit == "pixel" else 8, "dataset", length=self.length)

    @property
    def input_size(self) -> int:
        """One pixel, or a row of them."""
        return 1 if self.unit == "pixel" else 8

    @property
    def solved(self) -> tuple[str, float]:
        """As good as a linear classifier that sees the whole image."""
        return "sequence_accuracy", 0.95

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random images of a split."""
        return self._sequences(generator.choice(_rows_of(split), count))

    def examples(self, split: str) -> Examples:
        """Returns all images of a split."""
        return self._sequences(_rows_of(known_split(split)))

    def describe(self) -> str:
        """Returns one line: the dataset with its choices."""
        return f"optical recognition of handwritten digits (UCI), from scikit-learn: {self!r}"

    def _sequences(self, rows: np.ndarray) -> Examples:
        images, labels = _images()
        pixels = images[rows]
        if self.permuted:
            pixels = pixels[:, np.random.default_rng(1).permutation(64)]
        steps = pixels.reshape(len(rows), -1, self.input_size)
        inputs = np.pad(steps, ((0, 0), (0, self.length - steps.shape[1]), (0, 0)))
        return answer_at_end(inputs, labels[rows], np.full(len(rows), self.length))


def _rows_of(split: str) -> np.ndarray:
    """Returns the numbers of the images of a split."""
    order = np.random.default_rng(0).permutation(len(_images()[1]))
    num_test, num_valid = _NUM_HELD_OUT["test"], _NUM_HELD_OUT["valid"]
    parts = np.split(order, [num_test, num_test + num_valid])
    return dict(zip(("test", "valid", "train"), parts, strict=True))[split]


@functools.lru_cache(maxsize=1)
def _images() -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 `[N, 64]` and int `[N]`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the images of dataset 'digits' are in scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    return (digits.data / 16).astype(np.float32), digits.target
