"""Output layers of language models: from the last layer's outputs to a distribution over symbols."""

from collections.abc import Mapping

from lstm_research.models.layers.softmax.adaptive import AdaptiveSoftmax
from lstm_research.models.layers.softmax.base import FullSoftmax, Softmax
from lstm_research.models.layers.softmax.mixture import MixtureSoftmax
from lstm_research.models.layers.softmax.sampled import SampledSoftmax

SOFTMAXES: Mapping[str, type[Softmax]] = {
    "adaptive": AdaptiveSoftmax,
    "full": FullSoftmax,
    "mixture": MixtureSoftmax,
    "sampled": SampledSoftmax,
}
"""Every output layer by the name that configs use."""

__all__ = ["SOFTMAXES", "AdaptiveSoftmax", "FullSoftmax", "MixtureSoftmax", "SampledSoftmax", "Softmax"]
