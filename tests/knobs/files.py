"""The small data that the base configs name, in the current folder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lstm_research.data.examples import Document, LabelledText

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


def write_files() -> None:
    """Writes them."""
    for name, text in TEXTS.items():
        Path(name).write_text(text)


def load(self: Any, part: str, split: str) -> list[Any]:
    """Stands for `PreparedDataset.load`: made up examples, others for every dataset, part and split."""
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
