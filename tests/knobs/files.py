"""The small data that the base configs name, in the current folder."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lstm_research.data.examples import Document, LabelledText, Observations, Utterance
from lstm_research.data.series.datasets import ORIGINS
from lstm_research.data.series.frequency import Frequency
from lstm_research.data.speech.spoken_digits import NUM_FEATURES, SpokenDigit

TEXTS = {
    "train.txt": "To be or not to be that is the question\n" * 3,
    "valid.txt": "to be or not to sit is that the question\n" * 2,
    "other.txt": "that is the question\nTo be or not to be\n" * 4,
    "train.csv": "text,label,other\nto be,yes,1\nor not to be,no,2\nthat is,yes,3\nnot to sit,no,1.5\nto be it,yes,2\n",
    "valid.csv": "text,label,other\nto sit,no,1\nor to be,yes,2\nis it,yes,1\n",
    "source.txt": "to be\nor not to be\nthat is it\nto sit\nnot to be\n",
    "target.txt": "eb ot!\neb ot ton ro\nti si taht\ntis ot\neb ot ton\n",
    "other_source.txt": "to be it\nor to sit\nto be\n",
    "other_target.txt": "ti eb ot\ntis ot ro\neb ot\n",
    "many.csv": "text,label,other\n" + "".join(f"to be {n},{'yes' if n % 2 else 'no'},{n}\n" for n in range(30)),
    "pairs.tsv": "".join(f"to be {n}\t{n} eb ot\t{n}\n" for n in range(30)),
    "train.tsv": "to be\teb ot\tbe\nnot\tton\tnot\n",
    "vectors.txt": "to 1 2 3 4\nbe 4 3 2 1\n",
    "accents.txt": "é" * 9 + "To be or not to be that is the question\n" * 3,
}

_HOURS = [f"2024-01-0{1 + n // 24}T{n % 24:02}:00,2025-01-0{1 + n // 24}T{n % 24:02}:00" for n in range(48)]
_SERIES = [f"{time},{n % 5},{(n * n) % 7},{n % 3},{n % 4}," for n, time in enumerate(_HOURS)]
TEXTS["series.csv"] = "time,other_time,a,b,price,c,size,shop\n" + "".join(f"{line}1,x\n" for line in _SERIES)
TEXTS["other_series.csv"] = TEXTS["series.csv"].replace(",4,", ",6,")
TEXTS["gaps.csv"] = TEXTS["series.csv"].replace(_SERIES[9] + "1,x\n", "")

SPEECH = {
    "train_speech.csv": ("To be.", "or not", "to be!", "a"),
    "valid_speech.csv": ("be to.", "not", ""),
    "test_speech.csv": ("or", "To not"),
    "many_speech.csv": tuple(["to", "be", "or", "not", "a", "b", "to", "or", "be", "not"]),
}
"""Tables of recordings, and what is said in each of them."""


def write_files() -> None:
    """Writes them."""
    import soundfile

    for name, text in TEXTS.items():
        Path(name).write_text(text)
    numbers = itertools.count(1)
    for name, transcripts in SPEECH.items():
        lines = ["path,transcript,other"]
        for transcript in transcripts:
            number = next(numbers)
            samples = np.sin(np.arange(500 + 30 * number) * 0.02 * number) / 2
            soundfile.write(f"{number}.wav", samples, 2000)
            lines.append(f"{number}.wav,{transcript},1.wav")
        Path(name).write_text("\n".join(lines) + "\n")


def load(self: Any, part: str, split: str) -> list[Any]:
    """Stands for `PreparedDataset.load`: made up examples, others for every dataset, part and split."""
    rng = np.random.default_rng(len(part + split + self.name))
    if self.example is Observations:
        begins = {"train": 0, "valid": 60, "test": 80, "": 100}
        splits = list(begins)
        rows = slice(begins[split], begins[splits[splits.index(split) + 1]])
        grid = Frequency.parse(ORIGINS[part].frequency, "frequency").grid(
            np.array(["2024-01-01"], "datetime64[s]"), 100
        )
        times = grid.astype(np.int64)[rows]
        return [Observations(name, times, rng.normal(size=len(times))) for name in ORIGINS[part].columns]
    if self.example is SpokenDigit:
        return [SpokenDigit(rng.normal(size=(12, NUM_FEATURES)).astype(np.float32), n) for n in range(8)]
    if self.example is Utterance:
        signals = [rng.integers(-9000, 9000, 8000 + 100 * n).astype(np.int16) for n in range(3)]
        return [Utterance(f"{split} {n}", signal, f"to be {part}") for n, signal in enumerate(signals)]
    if self.example is Document:
        return [Document(part, f"to be or not to be, {part} {split}\nthat is {self.name} {n}\n") for n in range(4)]
    second = (lambda n: n % 2) if self.example is LabelledText else (lambda n: f"{n} {part}")
    return [self.example(f"{self.name[0]} {part} {split} {n}", second(n)) for n in range(4)]


class TFDSReader:
    """Stands for the reader of TFDS datasets."""

    def __init__(self, dataset: str, data_dir: str | None) -> None:
        self.name = f"{dataset} {data_dir}"

    def feature(self, path: str, key: str, *, text: bool) -> Any:
        return SimpleNamespace(names=["no", "yes"], num_classes=2)

    def rows(self, split: str, key: str, paths: tuple[str, ...]) -> list[tuple[Any, ...]]:
        second = (lambda n: n % 2) if paths[1] == "label" else (lambda n: 1) if paths[1] == "star" else str
        return [(f"{split} {paths[0]} {self.name} {n}", second(n)) for n in range(4)]
