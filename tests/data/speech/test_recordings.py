"""What all datasets of recordings share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.examples import Utterance
from lstm_research.data.speech.recordings import SPEECH_DATASETS, SpeechDataset

WAVE = np.arange(6, dtype=np.int16)


class Fixed(SpeechDataset):
    """The same utterance in every split."""

    def __init__(self, **keys: Any) -> None:
        self.utterance = Utterance("name", WAVE, "text")._replace(**keys)

    def examples(self, split: str) -> list[Utterance]:
        return [self.utterance]

    def describe(self) -> str:
        return "fixed"


def test_the_fingerprint_tells_signals_and_transcripts_apart_and_not_names() -> None:
    one = Fixed().fingerprint()
    assert Fixed(name="other", signal=WAVE.copy()).fingerprint() == one
    others = [
        Fixed(transcript="texts"),
        Fixed(signal=WAVE[:-1]),
        Fixed(signal=WAVE + np.int16(1)),
        Fixed(signal=np.zeros((2, 3), np.float32)),
        Fixed(signal=np.zeros((3, 2), np.float32)),
    ]
    assert len({one, *(other.fingerprint() for other in others)}) == 6
    assert Fixed(signal=np.arange(12, dtype=np.int16)[::2] // 2).fingerprint() == one  # not in one piece of memory
    assert Fixed().notes == ()


@pytest.mark.parametrize("name", SPEECH_DATASETS)
def test_signals_are_waveforms_or_features(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,transcript\n")
    keys = dict.fromkeys(("train", "valid", "test"), str(tmp_path / "a.csv")) if name == "manifest" else {}
    dataset = build(SPEECH_DATASETS, {"name": name, **keys}, where="dataset")
    assert (dataset.sample_rate is None) != (dataset.num_features is None)
    assert "\n" not in dataset.describe()


def test_wrong_keys_are_named() -> None:
    with pytest.raises(UserError, match=r"dataset.language must be one of 'cs', 'nl', got str 'de'"):
        build(SPEECH_DATASETS, {"name": "fillets", "language": "de"}, where="dataset")
    with pytest.raises(UserError, match=r"dataset.sample_rate must be one of 8000, 16000, got int 22050"):
        build(SPEECH_DATASETS, {"name": "fillets", "sample_rate": 22_050}, where="dataset")
