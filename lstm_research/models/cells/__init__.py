"""Floor 1: one step of one recurrent layer, as pure functions. A new cell is one file here and one row below."""

from collections.abc import Callable, Mapping
from functools import partial

from lstm_research.models.cells.base import Cell, GatedCell
from lstm_research.models.cells.gru import GRU, GRUCarry, OriginalGRU
from lstm_research.models.cells.lstm import LSTM, LSTMCarry
from lstm_research.models.cells.rnn import RNN, RNNCarry

CELLS: Mapping[str, Callable[..., Cell]] = {
    "gru": GRU,
    "lstm": LSTM,
    "original_gru": OriginalGRU,
    "peephole_lstm": partial(LSTM, peepholes=True),
    "rnn": RNN,
}
"""Every cell by the name that configs use."""

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "GRUCarry",
    "GatedCell",
    "LSTMCarry",
    "OriginalGRU",
    "RNNCarry",
]
