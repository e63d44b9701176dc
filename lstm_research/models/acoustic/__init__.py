"""Models of speech recognition: from frames of audio features to symbols.

All of them are made with the number of features of a frame, the number of symbols V, and the one symbol that no
transcript holds, `blank_id`: the blank of CTC and of the transducer, and what the attention decoder begins with and
ends with. `losses` is the loss of a batch; how symbols are found is a matter of `lstm_research.decoding`.
"""

from collections.abc import Mapping

from lstm_research.models.acoustic.ctc import CTC
from lstm_research.models.acoustic.encoder import AcousticEncoder
from lstm_research.models.acoustic.listen_attend_spell import ListenAttendSpell
from lstm_research.models.acoustic.transducer import Transducer

AcousticModel = CTC | ListenAttendSpell | Transducer

ACOUSTIC_MODELS: Mapping[str, type[AcousticModel]] = {
    "ctc": CTC,
    "listen_attend_spell": ListenAttendSpell,
    "transducer": Transducer,
}
"""Every acoustic model by the name that configs use."""

__all__ = ["ACOUSTIC_MODELS", "CTC", "AcousticEncoder", "AcousticModel", "ListenAttendSpell", "Transducer"]
