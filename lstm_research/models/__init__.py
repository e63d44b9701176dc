"""Recurrent models: cells (one step), recurrence (a cell through time), layers and whole models.

The names below are the public interface for use in other JAX code.
"""

from lstm_research.models.cells import CELLS, GRU, LSTM, RNN, Cell, GatedCell, OriginalGRU
from lstm_research.models.recurrence import RecurrentMasks, unroll

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Cell", "GatedCell", "OriginalGRU", "RecurrentMasks", "unroll"]
