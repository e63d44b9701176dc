"""Batches of generated sequences: endless and fresh in training, fixed in evaluation."""

import sys

import numpy as np

from lstm_research.data.batches import Batch, Batches
from lstm_research.data.synthetic.base import Examples, SyntheticDataset


class TrainingSequences(Batches):
    """Training batches: item k is drawn for training step k, a pure function of (seed, k), without end.

    Args:
      dataset: draws the sequences.
      batch_size: B.
      seed: 0 or more.
    """

    def __init__(self, dataset: SyntheticDataset, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed

    def __len__(self) -> int:
        return sys.maxsize

    def _batch(self, index: int) -> Batch:
        generator = np.random.default_rng([len(self._dataset.splits), self._seed, index])
        return _arrays(self._dataset.sample(generator, self._batch_size, "train"))


class EvaluationSequences(Batches):
    """Evaluation batches: every example in exactly one row; what fills the last batch has weight 0.

    Args:
      examples: all of them.
      batch_size: B.
    """

    def __init__(self, examples: Examples, *, batch_size: int) -> None:
        super().__init__()
        self._examples, self._batch_size = examples, batch_size

    def __len__(self) -> int:
        return -(-len(self._examples.lengths) // self._batch_size)

    def _batch(self, index: int) -> Batch:
        rows = np.arange(index * self._batch_size, (index + 1) * self._batch_size)
        last = len(self._examples.lengths) - 1
        examples = self._examples.take(np.minimum(rows, last))
        return _arrays(examples._replace(weights=examples.weights * (rows <= last)[:, None].astype(np.float32)))


def _arrays(examples: Examples) -> Batch:
    return {name: array for name, array in examples._asdict().items() if array is not None}
