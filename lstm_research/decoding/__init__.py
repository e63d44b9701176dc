"""Floor 4: from a model's predictions to sequences."""

from collections.abc import Mapping

from lstm_research.decoding.beam_search import BeamSearch
from lstm_research.decoding.left_to_right import Greedy, Sample

Decoder = Greedy | BeamSearch | Sample

DECODERS: Mapping[str, type[Decoder]] = {"greedy": Greedy, "beam": BeamSearch, "sample": Sample}
"""Every sequence-to-sequence decoder by the name that configs use."""

__all__ = ["DECODERS", "BeamSearch", "Decoder", "Greedy", "Sample"]
