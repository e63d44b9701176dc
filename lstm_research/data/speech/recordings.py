"""The recordings a config can name: utterances with their transcripts."""

import abc
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from typing import Literal

from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.dataset import SPLITS, Dataset, known_split
from lstm_research.data.delimited import Column, Row, TableFiles
from lstm_research.data.examples import Utterance
from lstm_research.data.held_out import hold_out
from lstm_research.data.speech import audio, prompts, voice_acting
from lstm_research.data.speech.manifest import content_hash, read_json_lines, read_recording
from lstm_research.data.speech.spoken_digits import DIGITS, NUM_FEATURES, connect


class SpeechDataset(Dataset):
    """Utterances in the splits train, valid and test: waveforms at one sample rate, or features of their frames.

    Attributes:
      sample_rate: of the waveforms, in Hz; None: signals are features.
      num_features: of a frame, where signals are features; None: signals are waveforms.
    """

    sample_rate: int | None = None
    num_features: int | None = None

    @abc.abstractmethod
    def examples(self, split: str) -> list[Utterance]:
        """Returns the utterances of a split; the first use fetches, prepares or reads what is needed.

        Raises:
          UserError: no such split, or the data is missing, empty, damaged or cannot be fetched.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth saying about the data, in words."""
        return ()

    def contents(self, split: str) -> Iterator[str]:
        """Yields the transcript and the signal's hash of every utterance."""
        for _, signal, transcript in self.examples(split):
            digest = hashlib.sha256(signal.tobytes()).hexdigest()
            yield json.dumps([transcript, str(signal.dtype), signal.shape, digest])


@dataclasses.dataclass(frozen=True)
class ConnectedDigits(SpeechDataset):
    """Strings of English digits, put together from single utterances; see `lstm_research.data.speech.spoken_digits`.

    The strings of a split are made of its own utterances, 2,100 for training, 300 for validation and 600 for test, by
    all six speakers in any order, with nothing between them. They are always the same.

    Attributes:
      num_train: strings for training.
      num_valid: strings for validation.
      num_test: strings for test.
      min_digits: of a string.
      max_digits: of a string.
    """

    num_train: int = 3000
    num_valid: int = 300
    num_test: int = 600
    min_digits: int = 3
    max_digits: int = 7

    num_features = NUM_FEATURES

    def __post_init__(self) -> None:
        check_at_least(1, "dataset", **dataclasses.asdict(self))
        if self.min_digits > self.max_digits:
            raise UserError(
                f"dataset.min_digits is {self.min_digits}, and dataset.max_digits only {self.max_digits}; raise the "
                "latter"
            )

    def examples(self, split: str) -> list[Utterance]:
        """Returns the strings of a split, called `SPLIT-NUMBER`."""
        return connect(
            DIGITS.load("digits", split),
            num=getattr(self, f"num_{split}"),
            min_digits=self.min_digits,
            max_digits=self.max_digits,
            name=split,
            seed=SPLITS.index(split),
        )

    def describe(self) -> str:
        """Returns one line on the strings."""
        sizes = f"{self.min_digits} to {self.max_digits}"
        return f"strings of {sizes} digits of the Free Spoken Digit Dataset ({DIGITS.source})"


@dataclasses.dataclass(frozen=True)
class Fillets(SpeechDataset):
    """Czech or Dutch voice acting of a computer game; see `lstm_research.data.speech.voice_acting`.

    Attributes:
      language: cs (Czech: 1,775 utterances, 100 minutes) or nl (Dutch: 1,598, 95 minutes).
      sample_rate: of the waveforms, in Hz.
    """

    language: Literal["cs", "nl"] = "cs"
    sample_rate: Literal[8_000, 16_000] = 16_000

    def examples(self, split: str) -> list[Utterance]:
        """Returns the utterances of a split, called `LEVEL/SPEAKER/LINE`."""
        utterances = voice_acting.FILLETS[self.language].load(self.language, split)
        if self.sample_rate == voice_acting.SAMPLE_RATE:
            return utterances
        return [
            each._replace(signal=audio.change_rate(each.signal, voice_acting.SAMPLE_RATE, self.sample_rate))
            for each in utterances
        ]

    def describe(self) -> str:
        """Returns one line on the language."""
        source = voice_acting.FILLETS[self.language].source
        return f"voice acting of Fish Fillets, {self.language}, {self.sample_rate} Hz ({source})"


@dataclasses.dataclass(frozen=True)
class AsteriskPrompts(SpeechDataset):
    """English telephone prompts of one speaker, 18 minutes at 8 kHz; see `lstm_research.data.speech.prompts`."""

    sample_rate = prompts.SAMPLE_RATE

    def examples(self, split: str) -> list[Utterance]:
        """Returns the prompts of a split."""
        return prompts.PROMPTS.load("en", split)

    def describe(self) -> str:
        """Returns one line on the prompts."""
        return f"Asterisk's English prompts, {self.sample_rate} Hz ({prompts.PROMPTS.source})"


@dataclasses.dataclass(frozen=True)
class Manifest(TableFiles, SpeechDataset):
    """The user's own recordings, listed in tables with their transcripts; see `TableFiles` on the other keys.

    A table is CSV (see `lstm_research.data.delimited`), or has one JSON object a line if its name ends with `.jsonl`.
    Paths in it are relative to its folder. A recording is wav, flac, ogg or what else libsndfile reads; several
    channels become their mean. Splits that are cut from the training table are chosen by a hash of the recordings'
    files. An empty transcript is kept: it says that nobody speaks.

    Attributes:
      path_column: name (or number, in CSV) of the column of paths.
      transcript_column: name or number of the column of transcripts.
      sample_rate: in Hz, to which recordings of another one are resampled.
    """

    path_column: Column = "path"
    transcript_column: Column = "transcript"
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1_000, "dataset", sample_rate=self.sample_rate)

    def columns(self) -> dict[str, Column]:
        """The two columns."""
        return {"dataset.path_column": self.path_column, "dataset.transcript_column": self.transcript_column}

    def read(self, path: str, where: str) -> list[Row]:
        """Returns the rows of a table."""
        if path.endswith(".jsonl"):
            return read_json_lines(path, where, self.columns())
        return super().read(path, where)

    def cut(self, rows: list[Row], valid_fraction: float, test_fraction: float) -> dict[str, list[Row]]:
        """Holds rows out by a hash of their recordings' files."""
        num_valid, num_test = (round(len(rows) * fraction) for fraction in (valid_fraction, test_fraction))
        return hold_out(rows, content_hash, num_valid=num_valid, num_test=num_test)

    @functools.cached_property
    def _recordings(self) -> dict[str, list[audio.Audio]]:
        """The recordings of all splits, read once."""
        return {split: [read_recording(row, self.sample_rate) for row in self.rows(split)] for split in SPLITS}

    def examples(self, split: str) -> list[Utterance]:
        """Returns the recordings of a split, called as in the table."""
        rows = self.rows(known_split(split))
        return [
            Utterance(row.values[0], recording.signal, row.values[1])
            for row, recording in zip(rows, self._recordings[split], strict=True)
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the recordings."""
        recordings = [each for split in SPLITS for each in self._recordings[split]]
        return audio.conversions(recordings, self.sample_rate, "dataset.sample_rate")

    def describe(self) -> str:
        """Returns one line with the tables' paths."""
        return f"recordings: {self.describe_files()}"


SPEECH_DATASETS = {
    "connected_digits": ConnectedDigits,
    "fillets": Fillets,
    "asterisk_prompts": AsteriskPrompts,
    "manifest": Manifest,
}
"""Every dataset of recordings by the name that configs use."""
