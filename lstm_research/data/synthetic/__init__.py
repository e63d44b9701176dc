"""Generated data: long dependencies, formal languages and timing, of any length. A new dataset is a row below."""

from lstm_research.data.synthetic.base import Examples, SyntheticDataset
from lstm_research.data.synthetic.digits import Digits
from lstm_research.data.synthetic.formal_languages import EvenPairs, ModularArithmetic, Parity
from lstm_research.data.synthetic.long_lags import Adding, Copy, NoisySequence, TemporalOrder
from lstm_research.data.synthetic.mackey_glass import MackeyGlass
from lstm_research.data.synthetic.reber import EmbeddedReber
from lstm_research.data.synthetic.timing import SpikeDelays, TimedSpikes

SYNTHETIC_DATASETS: dict[str, type[SyntheticDataset]] = {
    "adding": Adding,
    "copy": Copy,
    "digits": Digits,
    "embedded_reber": EmbeddedReber,
    "even_pairs": EvenPairs,
    "mackey_glass": MackeyGlass,
    "modular_arithmetic": ModularArithmetic,
    "noisy_sequence": NoisySequence,
    "parity": Parity,
    "spike_delays": SpikeDelays,
    "temporal_order": TemporalOrder,
    "timed_spikes": TimedSpikes,
}
"""Every dataset by the name that configs use."""

__all__ = ["SYNTHETIC_DATASETS", "Examples", "SyntheticDataset"]
