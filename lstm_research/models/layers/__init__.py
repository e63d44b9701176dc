"""Floor 3: Flax NNX layers around the recurrent cells."""

from lstm_research.models.layers.bidirectional import Bidirectional
from lstm_research.models.layers.dropout import DropoutRates
from lstm_research.models.layers.embedding import Embedding
from lstm_research.models.layers.functional import functional
from lstm_research.models.layers.highway import Highway
from lstm_research.models.layers.recurrent import Recurrent
from lstm_research.models.layers.stack import RecurrentStack

__all__ = ["Bidirectional", "DropoutRates", "Embedding", "Highway", "Recurrent", "RecurrentStack", "functional"]
