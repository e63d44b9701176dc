"""The embedded Reber grammar."""

import dataclasses

import numpy as np

from lstm_research.common.errors import UserError
from lstm_research.data.synthetic.base import Examples, SyntheticDataset, one_hot, within

SYMBOLS = "BTSXPVE"
_B, _T, _S, _X, _P, _V, _E = range(7)
# From each node (6 is the end): two symbols that may come next, and the node that each leads to.
_SYMBOL = np.array([[0, 0], [_T, _P], [_S, _X], [_T, _V], [_S, _X], [_V, _P], [0, 0]])
_TO = np.array([[0, 0], [2, 3], [2, 4], [3, 5], [6, 3], [6, 4], [6, 6]])
_ALLOWED = np.eye(7, dtype=bool)[_SYMBOL].any(axis=1) & (np.arange(7) % 6 > 0)[:, None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedReber(SyntheticDataset):
    """Strings of the embedded Reber grammar: at every symbol the next one is to be predicted.

        B, T or P, a string of the Reber grammar, the same T or P again, E

    so the last symbol but one is known only to who remembers the second. The Reber grammar's own strings begin with B
    and end with E, and follow this graph from node 1 to node 6:

        1 -T-> 2, -P-> 3     2 -S-> 2, -X-> 4     3 -T-> 3, -V-> 5     4 -S-> 6, -X-> 3     5 -V-> 6, -P-> 4

    A prediction is right if all symbols that may come next (one or two) are above all others. Smith and Zipser,
    "Learning Sequential Structure with the Real-Time Recurrent Learning Algorithm", 1989; Hochreiter and Schmidhuber
    1997, experiment 1. Input features and classes are B, T, S, X, P, V, E.

    Attributes:
      length: symbols of the longest string; longer ones are drawn again. The shortest have 9.
      loop_rate: probability of the symbol that stays at its node, where there is one (nodes 2 and 3). More than the
        grammar's 0.5 makes longer lags.
      num_examples: see `SyntheticDataset`.
    """

    length: int = 50
    loop_rate: float = 0.5
    num_examples: int = 200

    input_size = 7
    num_outputs = 7
    least_length = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.loop_rate < 1:
            raise UserError(f"dataset.loop_rate must be at least 0 and below 1, got {self.loop_rate}")

    def draw(self, generator: np.random.Generator, count: int, split: str) -> Examples:
        """Returns random strings, each without its last symbol and with those that follow; not the too long ones."""
        longest_walk = self.length - 6
        nodes = np.ones((count, longest_walk + 1), np.int64)
        walks = np.zeros((count, longest_walk), np.int64)
        for move in range(longest_walk):
            node = nodes[:, move]
            stays = _TO[node, 0] == node
            choice = (generator.random(count) >= np.where(stays, self.loop_rate, 0.5)).astype(np.int64)
            walks[:, move], nodes[:, move + 1] = _SYMBOL[node, choice], _TO[node, choice]
        complete = nodes[:, -1] == 6
        walks, nodes = walks[complete], nodes[complete]
        remembered = generator.integers(0, 2, len(walks)) * (_P - _T) + _T
        rows, ends = np.arange(len(walks)), (nodes != 6).sum(axis=1)  # moves of each walk

        symbols = np.zeros((len(walks), self.length), np.int32)  # 0 is B
        symbols[:, 1] = remembered
        symbols[:, 3:-3] = walks
        symbols[rows, ends + 3] = symbols[rows, ends + 5] = _E
        symbols[rows, ends + 4] = remembered
        allowed = np.eye(len(SYMBOLS), dtype=bool)[symbols[:, 1:]]
        allowed[:, 0, [_T, _P]] = True
        for move in range(longest_walk):
            allowed[:, move + 2] |= _ALLOWED[nodes[:, move]]
        lengths = (ends + 5).astype(np.int32)
        weights = within(lengths, self.length - 1)
        inputs = one_hot(symbols[:, :-1], len(SYMBOLS), lengths)
        return Examples(inputs, symbols[:, 1:] * (weights > 0), weights, lengths, allowed & (weights > 0)[..., None])
