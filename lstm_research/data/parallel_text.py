"""The translated texts a config can name: sentences with their translations."""

import abc
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from lstm_research.common.errors import UserError, unknown
from lstm_research.data import bible, tatoeba
from lstm_research.data.dataset import SPLITS, Dataset, known_split
from lstm_research.data.delimited import Column, Row, TableFiles
from lstm_research.data.examples import Pair, SentencePair
from lstm_research.data.held_out import hold_out_pairs
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.text_files import Paths, check_file, paths_of, read_lines
from lstm_research.data.tfds_examples import DatasetTable, TFDSReader


class ParallelDataset(Dataset):
    """Sentences with translations in the splits train, valid and test.

    Attributes:
      source: the language that is translated.
      target: the language that it is translated to. A code such as "ja" tells BLEU how to find words.
      normalized: whether its sentences are what `normalize` returns; those to translate are then treated alike.
    """

    source: str
    target: str
    normalized: ClassVar[bool] = False

    @property
    def languages(self) -> tuple[str, str]:
        """The source and the target language."""
        return self.source, self.target

    @abc.abstractmethod
    def examples(self, split: str) -> list[SentencePair]:
        """Returns the examples of a split; the first use fetches, prepares or reads what is needed.

        An example of the training split has one translation, one of another split all that there are.

        Raises:
          UserError: no such split, or the data is missing, empty, damaged or cannot be fetched.
        """

    def contents(self, split: str) -> Iterator[str]:
        """Yields the texts of every example."""
        return (json.dumps([source, *references]) for source, references in self.examples(split))


def as_examples(pairs: Iterable[tuple[str, ...]], split: str) -> list[SentencePair]:
    """Returns every pair for training; of the other splits every distinct sentence with all its translations."""
    if split == "train":
        return [SentencePair(source, (target,)) for source, target in pairs]
    references: dict[str, list[str]] = {}
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    return [SentencePair(source, tuple(targets)) for source, targets in references.items()]


@dataclasses.dataclass(frozen=True)
class _BuiltIn(ParallelDataset):
    """What the built-in datasets share: pairs are kept once, and serve in both directions."""

    normalized: ClassVar[bool] = True
    source: str = "en"
    target: str = "fr"

    def __post_init__(self) -> None:
        for key in ("source", "target"):
            if getattr(self, key) not in self._languages():
                raise unknown(f"language dataset.{key}", getattr(self, key), self._languages())
        if self.source == self.target:
            raise UserError(f"dataset.source and dataset.target are both {self.source!r}; name two languages")

    @abc.abstractmethod
    def _languages(self) -> Sequence[str]:
        """The languages in the order that the parts of `_pairs` name them."""

    @abc.abstractmethod
    def _pairs(self) -> PreparedDataset[Pair]:
        """What is prepared."""

    @property
    def part(self) -> str:
        """What is prepared for the two languages."""
        return "-".join(sorted(self.languages, key=list(self._languages()).index))

    def examples(self, split: str) -> list[SentencePair]:
        """Returns the examples of a split."""
        pairs = self._pairs().load(self.part, split)
        in_order = self.part.startswith(f"{self.source}-")
        return as_examples(pairs if in_order else ((target, source) for source, target in pairs), split)


@dataclasses.dataclass(frozen=True)
class Tatoeba(_BuiltIn):
    """Sentences of the Tatoeba project; see `lstm_research.data.tatoeba`.

    Attributes:
      source: the language to translate from: en, ja, de, es, fr, nl or sv.
      target: the language to translate to. Both directions have the same splits.
    """

    def _languages(self) -> Sequence[str]:
        return tuple(tatoeba.LANGUAGES)

    def _pairs(self) -> PreparedDataset[Pair]:
        return tatoeba.TATOEBA

    def describe(self) -> str:
        """Returns one line on the two languages."""
        return f"Tatoeba sentences {self.source}→{self.target} ({tatoeba.TATOEBA.source})"


@dataclasses.dataclass(frozen=True)
class BibleVerses(_BuiltIn):
    """The Bible's verses in free translations; see `lstm_research.data.bible`.

    Attributes:
      source: the language to translate from: en, de, es, fr or it.
      target: the language to translate to. Both directions have the same splits.
    """

    def _languages(self) -> Sequence[str]:
        return tuple(bible.LANGUAGES)

    def _pairs(self) -> PreparedDataset[Pair]:
        return bible.VERSES

    def describe(self) -> str:
        """Returns one line on the two languages."""
        return f"Bible verses {self.source}→{self.target} ({bible.VERSES.source})"


@dataclasses.dataclass(frozen=True)
class ParallelFiles(ParallelDataset):
    """The user's own text files: line n of one is the translation of line n of the other. Empty lines are kept.

    Every line of a validation or test file is an example, whether or not the same sentence stands elsewhere, so that
    results are those of the whole file.

    Attributes:
      train_source: path of the sentences to learn from, UTF-8.
      train_target: path of their translations.
      valid_source: path of the sentences for validation.
      valid_target: path of their translations, or paths of several translations of all of them.
      test_source: path of the sentences for test.
      test_target: path or paths of their translations.
      source: the language that is translated, for messages.
      target: the language that it is translated to, as a code such as "ja", which tells BLEU how to find words.
    """

    train_source: str
    train_target: str
    valid_source: str
    valid_target: Paths
    test_source: str
    test_target: Paths
    source: str = "source"
    target: str = "target"

    def __post_init__(self) -> None:
        for split in SPLITS:
            for path, where in self._files(split):
                check_file(path, where)

    def _files(self, split: str) -> list[tuple[str, str]]:
        """The files of a split, that of the sentences first, with the config keys that name them."""
        keys = (f"{known_split(split)}_source", f"{known_split(split)}_target")
        return [(path, f"dataset.{key}") for key in keys for path in paths_of(getattr(self, key), f"dataset.{key}")]

    def examples(self, split: str) -> list[SentencePair]:
        """Returns the lines of a split."""
        files = self._files(split)
        lines = [read_lines(path, where) for path, where in files]
        for (path, where), found in zip(files[1:], lines[1:], strict=True):
            if len(found) != len(lines[0]):
                raise UserError(
                    f"{where}: {path} has {len(found):,} lines and {files[0][0]} ({files[0][1]}) has "
                    f"{len(lines[0]):,}; line n of one must be the translation of line n of the other"
                )
        return [SentencePair(source, tuple(references)) for source, *references in zip(*lines, strict=True)]

    def describe(self) -> str:
        """Returns one line with the files' paths."""
        files = "; ".join(f"{split} {', '.join(path for path, _ in self._files(split))}" for split in SPLITS)
        return f"parallel files {self.source}→{self.target}: {files}"


@dataclasses.dataclass(frozen=True)
class TSVFiles(TableFiles, ParallelDataset):
    """The user's own tables; see `lstm_research.data.delimited` on their form and `TableFiles` on the other keys.

    Rows of a validation or test table with the same sentence are one example with several translations. Where a split
    is cut from the training table, no sentence of it is left there.

    Attributes:
      delimiter: the character between columns.
      source_column: number or name of the column of sentences.
      target_column: number or name of the column of translations.
      source: the language that is translated, for messages.
      target: the language that it is translated to, as a code such as "ja", which tells BLEU how to find words.
    """

    delimiter: str = "\t"
    source_column: Column = 0
    target_column: Column = 1
    source: str = "source"
    target: str = "target"

    def columns(self) -> dict[str, Column]:
        """The two columns."""
        return {"dataset.source_column": self.source_column, "dataset.target_column": self.target_column}

    def cut(self, rows: list[Row], valid_fraction: float, test_fraction: float) -> dict[str, list[Row]]:
        """Holds rows out by a hash of their sentences."""
        num = len({row.values[0] for row in rows})
        by_pair: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            by_pair.setdefault(row.values, []).append(row)
        splits = hold_out_pairs(
            list(by_pair), num_valid=round(num * valid_fraction), num_test=round(num * test_fraction)
        )
        return {split: [row for pair in pairs for row in by_pair[pair]] for split, pairs in splits.items()}

    def examples(self, split: str) -> list[SentencePair]:
        """Returns the examples of a split."""
        return as_examples((row.values for row in self.rows(split)), split)

    def describe(self) -> str:
        """Returns one line with the files' paths."""
        return f"tables {self.source}→{self.target}: {self.describe_files()}"


@dataclasses.dataclass(frozen=True)
class TFDSTranslation(ParallelDataset):
    """A TFDS dataset of translations, prepared in array_record files; in a config also named `tfds:DATASET`.

    Attributes:
      dataset: its name as TFDS has it: `name`, `name/config` or `name/config:version`.
      source: the feature of sentences, which TFDS names by their language; one inside another as in `translation/de`.
      target: the feature of their translations.
      data_dir: the folder of prepared datasets; None: that of TFDS.
      train: the training split as TFDS has it, as in "train" or "train[:90%]".
      valid: the validation split.
      test: the test split.
    """

    dataset: str
    source: str
    target: str
    data_dir: str | None = None
    train: str = "train"
    valid: str = "validation"
    test: str = "test"

    @functools.cached_property
    def _reader(self) -> TFDSReader:
        return TFDSReader(self.dataset, self.data_dir)

    def examples(self, split: str) -> list[SentencePair]:
        """Returns the pairs of a split, each an example."""
        for key in ("source", "target"):
            self._reader.feature(getattr(self, key), key, text=True)
        rows = self._reader.rows(getattr(self, known_split(split)), split, self.languages)
        return [SentencePair(source, (target,)) for source, target in rows]

    def describe(self) -> str:
        """Returns one line on the dataset."""
        return f"TFDS dataset {self.dataset}, {self.source}→{self.target}"


PARALLEL_DATASETS = DatasetTable(
    tatoeba=Tatoeba, bible_verses=BibleVerses, parallel_files=ParallelFiles, tsv=TSVFiles, tfds=TFDSTranslation
)
"""Every dataset of translations by the name that configs use."""
