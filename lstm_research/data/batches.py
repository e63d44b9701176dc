"""What all sources of batches share: item k is batch k, whichever way it is asked for."""

import abc
from typing import Any

import grain
import numpy as np

Batch = dict[str, np.ndarray]


class Batches(grain.MapDataset[Batch]):
    """Batches by number, with slices and negative numbers as in a sequence."""

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        index = int(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self._batch(index)

    @abc.abstractmethod
    def _batch(self, index: int) -> Batch:
        """Returns batch `index`, which is 0 or more and below `len`."""
