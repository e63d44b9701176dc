"""Recurrent models: cells (one step), recurrence (a cell through time), layers, whole models, weights in and out.

The names below are the public interface for use in other JAX code, and stay. Importing them loads JAX and NumPy, and
nothing of data, training or commands. The layers are Flax NNX modules; what is not asked for is not loaded, so that
cells can be had without Flax. `docs/reuse.md` shows all of it at work; `lstm_research.models.interop` exchanges weights
with other libraries.

Cells, one step of one layer: `LSTM` (with peepholes, coupled or missing gates, projection, layer norm, ... as options),
`GRU`, `OriginalGRU`, `MGU`, `JANET`, `RNN`, `IndRNN`, `MultiplicativeLSTM`, `MogrifierLSTM`, and the table `CELLS` of
all by name; what they are made of: `Cell`, `GatedCell` and the NamedTuples of their states.

Recurrence: `unroll` runs a cell through time, `RecurrentMasks` is the noise that it applies, `ENGINES` the table of the
ways it has.

Layers: `Recurrent`, `Bidirectional`, `RecurrentStack`, `Highway`, `Embedding`, `DropoutRates`, and `functional`, which
makes a pure function and a nested dict of any of them.
"""

from typing import TYPE_CHECKING, Any

from lstm_research.models.cells import (
    CELLS,
    GRU,
    JANET,
    LSTM,
    MGU,
    RNN,
    Cell,
    GatedCell,
    GateRecurrentLSTMCarry,
    HiddenCarry,
    IndRNN,
    LSTMCarry,
    MogrifierLSTM,
    MultiplicativeLSTM,
    OriginalGRU,
)
from lstm_research.models.recurrence import ENGINES, RecurrentMasks, unroll

if TYPE_CHECKING:
    from lstm_research.models.layers import (
        Bidirectional,
        DropoutRates,
        Embedding,
        Highway,
        Recurrent,
        RecurrentStack,
        functional,
    )

_LAYERS = {"Bidirectional", "DropoutRates", "Embedding", "Highway", "Recurrent", "RecurrentStack", "functional"}

__all__ = [
    "CELLS",
    "ENGINES",
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "RNN",
    "Bidirectional",
    "Cell",
    "DropoutRates",
    "Embedding",
    "GateRecurrentLSTMCarry",
    "GatedCell",
    "HiddenCarry",
    "Highway",
    "IndRNN",
    "LSTMCarry",
    "MogrifierLSTM",
    "MultiplicativeLSTM",
    "OriginalGRU",
    "Recurrent",
    "RecurrentMasks",
    "RecurrentStack",
    "functional",
    "unroll",
]


def __getattr__(name: str) -> Any:
    """Loads the layers, and Flax with them, when the first of them is asked for."""
    if name in _LAYERS:
        from lstm_research.models import layers

        return getattr(layers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
