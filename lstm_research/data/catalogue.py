"""Every dataset there is: the built-in ones with their parts, and the forms of one's own files."""

import dataclasses
from typing import Any

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.bible import CHAPTERS, VERSES
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.data.movie_reviews import REVIEWS
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.shakespeare import SHAKESPEARE
from lstm_research.data.tatoeba import TATOEBA
from lstm_research.data.text import DATASETS
from lstm_research.data.vader import VADER

TABLES: dict[str, dict[str, Any]] = {
    "language_modelling": DATASETS,
    "text_classification": LABELLED_DATASETS,
    "translation": PARALLEL_DATASETS,
}
"""The datasets of every task by the task's name."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the catalogue: what a user can name without having any file.

    Attributes:
      task: the task it is for.
      name: the dataset's name in a config.
      part: the part's name; nothing if there are no parts.
      what: what is in it.
      size: how much, in words.
      prepared: what is prepared of it.
      prepared_parts: the parts of that; None: the part.
    """

    task: str
    name: str
    part: str
    what: str
    size: str
    prepared: PreparedDataset
    prepared_parts: tuple[str, ...] | None = None

    def is_prepared(self) -> bool:
        """Whether the part is already on this machine."""
        return all(self.prepared.path(part).exists() for part in self.prepared_parts or (self.part,))


_TEXTS = (
    ("shakespeare", "tiny", "tiny Shakespeare, rebuilt: nine plays, cut 90/5/5", "1,132,189 characters", SHAKESPEARE),
    ("shakespeare", "all", "Shakespeare's 38 plays, six of them held out", "4.8 million characters", SHAKESPEARE),
    ("imdb_reviews", "", "film reviews, in the splits of imdb", "25,000 texts, 5.8 million words", REVIEWS, ("imdb",)),
    ("bible", "", "World English Bible, chapters held out", "1,189 chapters, 760,000 words", CHAPTERS, ("en",)),
)
_LABELLED = (
    ("rotten_tomatoes", "", "film reviews, sentences, two classes", "8,530", REVIEWS, ("rotten_tomatoes",)),
    ("imdb", "", "film reviews, two classes", "25,000", REVIEWS, ("imdb",)),
    ("vader", "all", "the four below: three classes, or scores", "23,703", VADER, VADER.parts),
    ("vader", "movies", "film reviews, sentences", "10,605", VADER),
    ("vader", "tweets", "tweets", "4,200", VADER),
    ("vader", "amazon", "product reviews, sentences", "3,708", VADER),
    ("vader", "news", "newspaper editorials, sentences", "5,190", VADER),
)
_PARALLEL = (
    ("tatoeba", "en-fr", "short sentences; any two of en, ja, de, es, fr, nl, sv", "34,914 pairs", TATOEBA),
    ("tatoeba", "en-de", "short sentences", "38,524 pairs", TATOEBA),
    ("tatoeba", "en-es", "short sentences", "30,279 pairs", TATOEBA),
    ("tatoeba", "en-ja", "short sentences", "203,308 pairs", TATOEBA),
    ("bible_verses", "en-fr", "verses; any two of en, de, es, fr, it", "31,102 verses", VERSES),
    ("bible_verses", "en-de", "verses", "31,102 verses", VERSES),
)
CATALOGUE: tuple[Entry, ...] = tuple(
    Entry(task, *row) for task, rows in zip(TABLES, (_TEXTS, _LABELLED, _PARALLEL), strict=True) for row in rows
)

OWN_FILES = {
    "text_files": "text files: dataset.train, .valid, .test",
    "text_file": "one text file: dataset.path, cut by dataset.fractions",
    "csv": "tables of texts and labels: dataset.train, .text_column, .label_column",
    "parallel_files": "text files line by line: dataset.train_source, .train_target, ...",
    "tsv": "tables of sentences and translations: dataset.train, .source_column, .target_column",
    "tfds:NAME": "a dataset of TFDS prepared in array_record, with labels or of translations: dataset.data_dir",
}
"""The forms of one's own files: the name in a config, and what to set."""


def spec_of(name: str) -> tuple[str, dict[str, Any]]:
    """Returns the task and the config of a built-in dataset.

    Args:
      name: `NAME` or `NAME:PART`; a part of a dataset of translations is `SOURCE-TARGET`.

    Raises:
      UserError: there is none of this name, or it consists of the user's own files.
    """
    dataset, _, part = name.partition(":")
    if dataset == "tfds" or dataset in OWN_FILES:
        raise UserError(f"dataset {dataset!r} consists of your own files; name them in a config and give --config")
    entries = [entry for entry in CATALOGUE if entry.name == dataset]
    if not entries:
        raise unknown("dataset", dataset, {entry.name for entry in CATALOGUE} | set(OWN_FILES))
    task, parts = entries[0].task, [entry.part for entry in entries if entry.part]
    if not part:
        return task, {"name": dataset}
    if not parts:
        raise UserError(f"dataset {dataset!r} has no parts; leave out :{part}")
    keys = ("source", "target") if task == "translation" else ("part",)
    values = part.split("-")
    if len(values) != len(keys):
        raise unknown(f"part of dataset {dataset!r}:", part, parts)
    return task, {"name": dataset, **dict(zip(keys, values, strict=True))}
