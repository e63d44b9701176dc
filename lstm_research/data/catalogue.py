"""Every dataset there is: the built-in ones with their parts, and the forms of one's own files."""

import dataclasses
from typing import Any

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.bible import CHAPTERS, VERSES
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.data.movie_reviews import REVIEWS
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.series.datasets import ORIGINS, SERIES_DATASETS
from lstm_research.data.shakespeare import SHAKESPEARE
from lstm_research.data.speech.prompts import PROMPTS
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.data.speech.spoken_digits import DIGITS
from lstm_research.data.speech.voice_acting import FILLETS
from lstm_research.data.synthetic import SYNTHETIC_DATASETS
from lstm_research.data.tatoeba import TATOEBA
from lstm_research.data.text import DATASETS
from lstm_research.data.vader import VADER

TABLES: dict[str, dict[str, Any]] = {
    "language_modelling": DATASETS,
    "text_classification": LABELLED_DATASETS,
    "translation": PARALLEL_DATASETS,
    "speech_recognition": SPEECH_DATASETS,
    "synthetic": SYNTHETIC_DATASETS,
    "forecasting": SERIES_DATASETS,
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
      prepared: what is prepared of it; None where nothing is, because it is generated.
      prepared_parts: the parts of that; None: the part.
    """

    task: str
    name: str
    part: str
    what: str
    size: str
    prepared: PreparedDataset | None = None
    prepared_parts: tuple[str, ...] | None = None

    def is_prepared(self) -> bool:
        """Whether the part is already on this machine."""
        prepared, parts = self.prepared, self.prepared_parts or (self.part,)
        return prepared is None or all(prepared.path(part).exists() for part in parts)

    @property
    def source(self) -> str:
        """Where it comes from and under which licence, in words."""
        return "generated" if self.prepared is None else self.prepared.source


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
_SPEECH = (
    ("connected_digits", "", "strings of 3 to 7 English digits, as MFCC", "3,000 recorded digits", DIGITS, ("digits",)),
    ("fillets", "cs", "Czech voice acting (optional, of Debian)", "1,775 utterances, 100 minutes", FILLETS["cs"]),
    ("fillets", "nl", "Dutch voice acting (optional, of Debian)", "1,598 utterances, 95 minutes", FILLETS["nl"]),
    (
        "asterisk_prompts",
        "",
        "English telephone prompts (optional, of Debian)",
        "535 utterances, 18 minutes",
        PROMPTS,
        ("en",),
    ),
)
_SYNTHETIC = (
    ("adding", "", "the sum of the two marked values of a sequence", "any length"),
    ("copy", "", "the first symbols again, after a long time", "any length"),
    ("temporal_order", "", "which of two symbols came first, among many others", "any length"),
    ("noisy_sequence", "", "the class that the first values show, before noise", "any length"),
    ("parity", "", "whether the number of ones is odd", "any length"),
    ("even_pairs", "", "whether 01 and 10 occur an even number of times", "any length"),
    ("modular_arithmetic", "", "the value of an expression modulo 5", "any length"),
    ("embedded_reber", "", "the next symbol of the embedded Reber grammar", "any length"),
    ("spike_delays", "", "measuring the time between spikes", "any length"),
    ("timed_spikes", "", "making spikes at the right time", "any length"),
    ("mackey_glass", "", "the Mackey-Glass series, ahead of time", "any length"),
    ("digits", "", "scikit-learn's digits, by pixels or rows", "1,797 images of 64 pixels"),
)
_SERIES = tuple(
    (name, "", each.what, f"{each.num_rows:,} times, {len(each.columns)} variables", each.prepared, (each.part,))
    for name, each in ORIGINS.items()
)
_ROWS = (_TEXTS, _LABELLED, _PARALLEL, _SPEECH, _SYNTHETIC, _SERIES)
CATALOGUE: tuple[Entry, ...] = tuple(
    Entry(task, *row) for task, rows in zip(TABLES, _ROWS, strict=True) for row in rows
)

OWN_FILES = {
    "text_files": "text files: dataset.train, .valid, .test",
    "text_file": "one text file: dataset.path, cut by dataset.fractions",
    "csv": "tables of texts and labels: dataset.train, .text_column, .label_column",
    "parallel_files": "text files line by line: dataset.train_source, .train_target, ...",
    "tsv": "tables of sentences and translations: dataset.train, .source_column, .target_column",
    "manifest": "recordings (wav, flac, ogg) and transcripts in a CSV or JSONL table: dataset.train, .path_column, ...",
    "csv_series": "series in a table: dataset.path, .time_column, .target_columns, .id_column, ...",
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
    keys = {"translation": ("source", "target"), "speech_recognition": ("language",)}.get(task, ("part",))
    values = part.split("-")
    if len(values) != len(keys):
        raise unknown(f"part of dataset {dataset!r}:", part, parts)
    return task, {"name": dataset, **dict(zip(keys, values, strict=True))}
