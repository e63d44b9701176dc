"""Voice acting: lines of scripts and sounds of packages that are made here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import debian
from lstm_research.data.examples import Utterance
from lstm_research.data.prepared import _read_once
from lstm_research.data.speech import voice_acting
from lstm_research.data.speech.audio import decode
from lstm_research.data.speech.recordings import Fillets

SCRIPT = r"""
-- Random text
dialogId("m-co", "font_small", "What \"is\" it?")
dialogStr("Co  je
to?")

dialogId("v-tady", "font_big", "It (here) is!")
dialogStr(
"C:\\adresář, \"tady\"")
dialogId("laser", "", "")
dialogId("x", "", "")
dialogStr("")
"""
SHARED = 'dialogId("s", "font_big", "S")\ndialogStr("Voda!")\n'
LEVEL = """
dialogId("{level}-one", "font_small", "One")
dialogStr("Věta {level} jedna.")
dialogId("{level}-two", "font_statue", "Two")
dialogStr("{two}")
dialogId("number", "font_big", "Number")
dialogStr("Konkrétně {digits} hodin!")
dialogId("mixed", "font_big", "Mixed")
dialogStr("Подожди. Počkej.")
dialogId("empty", "font_big", "Silence")
dialogStr("Ticho.")
dialogId("fast", "font_big", "Fast")
dialogStr("Dvacet tři písmen je moc!")
dialogId("long", "font_big", "Long")
dialogStr("Ještě dlouho.")
dialogId("unsaid", "font_big", "Nothing")
dialogStr("Nic.")
"""
ROOT = "usr/share/games/fillets-ng"


def test_lines_are_read_from_scripts() -> None:
    assert voice_acting.read_lines(SCRIPT) == {
        "m-co": ("small", "Co je to?"),
        "v-tady": ("big", 'C:\\adresář, "tady"'),
        "x": ("", ""),
    }


@pytest.fixture
def packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debian_package: Callable[..., Path], sound: Callable[..., bytes]
) -> None:
    """Thirty levels of two lines; what is said second is the same in every other level."""
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(voice_acting, "LEAST", 50)
    _read_once.cache_clear()
    scripts, sounds = {}, {}
    tones = [sound(300, 300, seconds=1), sound(500.0, rate=44_100, seconds=1), sound(400, seconds=0)]
    for number in range(30):
        level = f"level{'abcde'[number % 5]}{'uvwxyz'[number // 5]}"
        digits = "12" if number % 2 else "%d"
        two = "Voda!" if number % 2 else f"voda, {level}"
        scripts[f"{ROOT}/script/{level}/dialogs_cs.lua"] = LEVEL.format(level=level, two=two, digits=digits).encode()
        scripts[f"{ROOT}/script/{level}/dialogs_nl.lua"] = LEVEL.format(
            level=f"nl {level}", two="Water", digits=digits
        ).encode()
        for name, tone in zip((f"{level}-one", f"{level}-two"), tones, strict=False):
            sounds[f"{ROOT}/sound/{level}/cs/{name}.ogg"] = tone
        for name in ("number", "mixed", "fast", "no-line"):
            sounds[f"{ROOT}/sound/{level}/cs/{name}.ogg"] = tones[0]
        sounds[f"{ROOT}/sound/{level}/cs/empty.ogg"] = tones[2]
    sounds[f"{ROOT}/sound/{level}/cs/long.ogg"] = sound(300, seconds=14.1)
    scripts[f"{ROOT}/script/share/black_dialogs_cs.lua"] = SHARED.encode()
    sounds[f"{ROOT}/sound/share/blackjokes/cs/s.ogg"] = tones[0]
    sounds[f"{ROOT}/sound/share/bubbles.ogg"] = tones[0]
    debian_package(debian.path_of("fillets-ng-data"), "1.0", scripts)
    debian_package(debian.path_of("fillets-ng-data-cs"), "1.0", sounds)


@pytest.mark.usefixtures("packages")
def test_utterances_have_their_lines_and_no_line_is_in_two_splits() -> None:
    dataset = Fillets()
    splits = {split: dataset.examples(split) for split in dataset.splits}
    levels = [{each.name.split("/")[0] for each in utterances} for utterances in splits.values()]
    lines = [{each.transcript for each in utterances} for utterances in splits.values()]
    for parts in (levels, lines):
        assert not parts[0] & (parts[1] | parts[2])
        assert not parts[1] & parts[2]
    assert len(set().union(*levels)) >= 30
    every = [each for utterances in splits.values() for each in utterances]
    assert len(set().union(*lines)) == 30 + 15 + 1
    for name, signal, line in every:
        level, speaker, _ = name.split("/")
        assert level in line or line == "Voda!"
        assert signal.dtype == np.int16
        assert len(signal) == 16_000
        spectrum = np.abs(np.fft.rfft(signal))
        assert spectrum.argmax() == pytest.approx(500 if speaker == "statue" else 300, abs=4)
    assert [len(splits[split]) for split in ("valid", "test")] == pytest.approx([6, 6], abs=3)
    assert "cs, 16000 Hz (package fillets-ng-data and fillets-ng-data-cs of Debian, 1.0; GPL 2)" in dataset.describe()
    low = Fillets(sample_rate=8_000)
    assert [len(each.signal) for each in low.examples("test")] == [8_000] * len(splits["test"])
    assert low.fingerprint() != dataset.fingerprint()


@pytest.mark.usefixtures("packages")
def test_a_package_with_too_little_in_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_acting, "LEAST", 62)
    with pytest.raises(UserError, match=r"has 61 utterances in 'cs', and at least 62"):
        Fillets().examples("train")


def test_levels_stay_whole_and_repeated_lines_stay_in_one_split() -> None:
    signal = decode_nothing()
    utterances = [
        Utterance(f"level{number % 40}/small/{number}", signal, f"Line {number % 97}!") for number in range(400)
    ]
    splits = voice_acting.split_by_level(utterances)
    assert len(splits["test"]) == 40  # nothing of the test split is left out
    said = [{each.transcript for each in splits[split]} for split in splits]
    assert not said[0] & (said[1] | said[2])
    assert not said[1] & said[2]
    assert {each.transcript for each in utterances} == set().union(*said)


def decode_nothing() -> np.ndarray:
    with pytest.raises(ValueError, match=r"unknown format|format not recognised"):
        decode(b"no sound", 16_000)
    return np.zeros(1, np.int16)
