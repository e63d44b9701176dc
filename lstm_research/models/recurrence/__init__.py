"""Floor 2: a cell through time."""

from lstm_research.models.recurrence.engines import ENGINES
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.unroll import unroll

__all__ = ["ENGINES", "RecurrentMasks", "unroll"]
