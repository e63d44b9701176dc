"""Floor 1: one step of one recurrent layer, as pure functions. A new cell is one file here and one row below."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lstm_research.models.cells.base import Cell, GatedCell, HiddenCarry
from lstm_research.models.cells.gru import GRU, OriginalGRU
from lstm_research.models.cells.indrnn import IndRNN
from lstm_research.models.cells.janet import JANET
from lstm_research.models.cells.lstm import LSTM, GateRecurrentLSTMCarry, LSTMCarry
from lstm_research.models.cells.minimal_gated_unit import MGU
from lstm_research.models.cells.mogrifier import MogrifierLSTM
from lstm_research.models.cells.multiplicative_lstm import MultiplicativeLSTM
from lstm_research.models.cells.rnn import RNN

# The vanilla LSTM of Greff et al., "LSTM: A Search Space Odyssey", 2017; there each variant differs from it in
# one thing. (NP, no peepholes, is "lstm".)
_GREFF = partial(LSTM, peepholes=True)
_NO_FORGET_GATE: Mapping[str, Any] = {"forget_gate": False, "forget_bias": None, "chrono_max_length": None}

CELLS: Mapping[str, Callable[..., Cell]] = {
    "capped_lstm": partial(LSTM, input_gate="capped", forget_gate=True),
    "cifg_lstm": partial(_GREFF, input_gate="coupled", forget_gate=True),
    "fgr_lstm": partial(_GREFF, gate_recurrence=True),
    "gru": GRU,
    "indrnn": IndRNN,
    "irnn": partial(RNN, activation="relu", recurrent_initializer="identity"),
    "janet": JANET,
    "layer_norm_gru": partial(GRU, layer_norm=True),
    "layer_norm_lstm": partial(LSTM, layer_norm=True),
    "lstm": LSTM,
    "mgu": MGU,
    "mogrifier_lstm": MogrifierLSTM,
    "multiplicative_lstm": MultiplicativeLSTM,
    "nfg_lstm": partial(_GREFF, **_NO_FORGET_GATE),
    "niaf_lstm": partial(_GREFF, input_activation="identity"),
    "nig_lstm": partial(_GREFF, input_gate="none"),
    "noaf_lstm": partial(_GREFF, output_activation="identity"),
    "nog_lstm": partial(_GREFF, output_gate=False),
    "original_gru": OriginalGRU,
    "original_lstm": partial(LSTM, **_NO_FORGET_GATE),
    "peephole_lstm": _GREFF,
    "rnn": RNN,
}
"""Every cell by the name that configs use."""

__all__ = [
    "CELLS",
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "RNN",
    "Cell",
    "GateRecurrentLSTMCarry",
    "GatedCell",
    "HiddenCarry",
    "IndRNN",
    "LSTMCarry",
    "MogrifierLSTM",
    "MultiplicativeLSTM",
    "OriginalGRU",
]
