"""English prompts: texts and sounds of packages that are made here."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.data import debian
from lstm_research.data.prepared import _read_once
from lstm_research.data.speech import prompts
from lstm_research.data.speech.recordings import AsteriskPrompts

TEXT = """; Core sounds

activated: Activated.
letters/dot: dot [.]
beep: [this is a simple beep tone]
silence/1: (1 second of silence)
join: <beep ascending>
unsaid: Not recorded.
 time:  The time will be:  exactly...
"""


def test_notes_are_no_part_of_a_text() -> None:
    texts = prompts.read_texts(TEXT)
    assert {name: said for name, said in texts.items() if said} == {
        "activated": "Activated.",
        "letters/dot": "dot",
        "unsaid": "Not recorded.",
        " time": "The time will be: exactly...",
    }


def test_prompts_have_their_texts_and_equal_ones_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debian_package: Callable[..., Path], sound: Callable[..., bytes]
) -> None:
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(prompts, "LEAST", 60)
    _read_once.cache_clear()
    names = [f"digits/h-{number}" for number in range(60)]
    said = [f"Te{'-' * (number % 2)}xt {number // 2}{'.,'[number % 2]}" for number in range(60)]  # in two ways
    text = TEXT + "".join(f"{name}: {line}\n" for name, line in zip(names, said, strict=True))
    tone = sound(440, rate=8_000, form="wav")
    folder = "usr/share/asterisk/sounds/en_US_f_Allison"
    sounds = {f"{folder}/{name}.wav": tone for name in [*names, "activated", "beep"]}
    sounds[f"{folder}/letters/dot.wav"] = sound(440, rate=8_000, form="wav", seconds=14.1)  # too long
    documents = {"usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": gzip.compress(text.encode())}
    debian_package(debian.path_of("asterisk-core-sounds-en"), "1.6", documents)
    debian_package(debian.path_of("asterisk-core-sounds-en-wav"), "1.6", sounds)
    dataset = AsteriskPrompts()
    splits = {split: dataset.examples(split) for split in dataset.splits}
    every = {each.name: each.transcript for examples in splits.values() for each in examples}
    assert every == dict(zip(names, said, strict=True)) | {"activated": "Activated."}
    texts = [{re.sub(r"\W", "", each.transcript) for each in examples} for examples in splits.values()]
    assert sum(map(len, texts)) == 31
    assert [len(splits[split]) for split in ("valid", "test")] == pytest.approx([6, 6], abs=1)
    assert all(len(each.signal) == 4000 for each in splits["train"])
    assert "8000 Hz" in dataset.describe()
