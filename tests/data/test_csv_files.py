"""The user's own tables of labelled texts, and what a wrong table gets."""

import csv
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.labelled_text import LABELLED_DATASETS, CSVFiles

SPLITS = ("train", "valid", "test")


def write(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("id", "text", "label")) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    rows = {
        "train": [(1, 'He said "no",\nand left', "bad"), (2, "", "good"), (3, "日本 é", " fine ")],
        "valid": [(4, "x, y", "good")],
        "test": [(5, "x", "fine"), (6, "x", "bad")],
    }
    return {split: write(tmp_path / f"{split}.csv", rows[split]) for split in rows}


def make(**keys: Any) -> CSVFiles:
    return build(LABELLED_DATASETS, {"name": "csv", **keys}, where="dataset")


def make_and_read(**keys: Any) -> None:
    dataset = make(**keys)
    for split in SPLITS:
        dataset.examples(split)


def refused(**keys: Any) -> str:
    """The one line that a wrong dataset gets, when it is built or read."""
    with pytest.raises(UserError) as error:
        make_and_read(**keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tables_are_read_as_they_are(files: dict[str, str]) -> None:
    dataset = make(**files)
    assert dataset.labels == ("bad", "fine", "good")
    assert dataset.examples("train") == [('He said "no",\nand left', 0), ("", 2), ("日本 é", 1)]
    assert dataset.examples("valid") == [("x, y", 2)]
    assert dataset.examples("test") == [("x", 1), ("x", 0)]
    assert files["valid"] in dataset.describe()


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", [(0, f"text {number}", number % 10 + 1) for number in range(50)])
    assert make(train=train).labels == tuple(map(str, range(1, 11)))


def test_scores_are_numbers(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", [(0, f"text {number}", number / 4) for number in range(50)])
    dataset = make(train=train, target="score")
    assert dataset.labels is None
    for split in SPLITS:
        for text, score in dataset.examples(split):
            assert score == int(text.split()[1]) / 4
    for wrong in ("good", "nan", "inf"):
        table = write(tmp_path / "b.csv", [(0, "a", 1.0), (0, "b\nc", 2), (0, "d", wrong)])
        assert f"b.csv line 5 has the label '{wrong}'" in refused(train=train, test=table, target="score")


def test_columns_by_number_and_other_delimiters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('good\tsay "hi\nbad\t"quoted"\n\nbad\t\n')
    (tmp_path / "b.csv").write_text('text;label\n"a;b";good\nc;bad\n')
    keys = {"valid": str(tmp_path / "a.tsv"), "test": str(tmp_path / "a.tsv")}
    dataset = make(train=str(tmp_path / "a.tsv"), delimiter="\t", text_column=1, label_column=0, **keys)
    assert dataset.examples("train") == [('say "hi', 1), ('"quoted"', 0), ("", 0)]
    keys = {"valid": str(tmp_path / "b.csv"), "test": str(tmp_path / "b.csv")}
    assert make(train=str(tmp_path / "b.csv"), delimiter=";", **keys).examples("train") == [("a;b", 1), ("c", 0)]


def test_missing_splits_are_cut_from_the_training_table(tmp_path: Path, files: dict[str, str]) -> None:
    rows = [(number, f"text {number // 2}", "ab"[number % 2]) for number in range(1000)]
    train = write(tmp_path / "all.csv", rows)
    dataset = make(train=train, test_fraction=0.2)
    parts = {split: dataset.examples(split) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [700, 100, 200]
    texts = [{text for text, _ in part} for part in parts.values()]
    assert not any(one & other for one, other in itertools.combinations(texts, 2))
    assert sum(map(len, texts)) == 500
    # What is left over for the test table is for training.
    keys = {"text_column": "text", "label_column": "label"}
    test = write(tmp_path / "test.csv", [(0, "new", "a")])
    assert [len(make(train=train, test=test, **keys).examples(split)) for split in SPLITS] == [900, 100, 1]


def test_the_fingerprint_tells_labels_apart(tmp_path: Path, files: dict[str, str]) -> None:
    before = make(**files).fingerprint()
    assert make(**files).fingerprint() == before
    write(Path(files["test"]), [(5, "x", "fine"), (6, "x", "good")])
    assert make(**files).fingerprint() != before


def test_labels_of_equal_size_and_nan_have_one_order(tmp_path: Path) -> None:
    names = ["2", "nan", "1.0", "-1", "1", "0", "01"]
    rows = [(number, "text", names[number]) for number in range(len(names))]
    keys = {split: write(tmp_path / f"{split}.csv", rows) for split in SPLITS}
    program = f"from lstm_research.data.labelled_text import CSVFiles; print(CSVFiles(**{keys!r}).labels)"
    orders = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(orders) == 1


def test_a_label_unseen_in_training_is_named_with_its_line(files: dict[str, str]) -> None:
    write(Path(files["test"]), [(1, "two\nlines", "bad"), (2, "x", "awful")])
    assert "test.csv line 4 has the label 'awful'" in refused(**files)
    assert "bad, fine, good" in refused(**files)


def test_a_missing_column_lists_the_columns(files: dict[str, str]) -> None:
    message = refused(**files, text_column="txet")
    assert "dataset.text_column" in message
    assert "'txet'; did you mean 'text'? valid: id, label, text" in message
    Path(files["train"]).write_text("text,text,label\na,b,c\n")
    assert "train.csv has 2 columns 'text'; name them differently" in refused(**files)
    message = refused(**files, text_column=1, label_column=3)
    assert "has 3 columns separated by ','" in message
    assert "dataset.label_column names number 3" in message


@pytest.mark.parametrize("line", ["4,a good, funny film,good", "4,good"])
def test_a_line_with_another_number_of_fields_is_refused(files: dict[str, str], line: str) -> None:
    number = len(Path(files["train"]).read_text().splitlines()) + 1
    with Path(files["train"]).open("a") as file:
        file.write(line + "\n")
    message = refused(**files)
    assert (
        f"train.csv line {number} has {line.count(',') + 1} fields separated by ',', and the first line has 3"
        in message
    )


def test_a_label_that_is_only_in_a_split_cut_from_training(tmp_path: Path) -> None:
    rows = [(number, f"text {number}", "good" if number % 2 else "bad") for number in range(100)]
    parts = make(train=write(tmp_path / "all.csv", rows))
    held_out = parts.examples("test")[0].text
    rows = [(number, text, "rare" if text == held_out else label) for number, text, label in rows]
    message = refused(train=write(tmp_path / "all.csv", rows))
    line = 2 + [text for _, text, _ in rows].index(held_out)
    assert f"all.csv line {line} has the label 'rare', and is held out, with no other example of it left" in message


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"text_column": "text", "label_column": "text"}, "columns are given by different names"),
        ({"text_column": "text", "label_column": 2}, "columns are given by different names or by different numbers"),
        ({"text_column": 0, "label_column": -1}, "columns are numbered from 0"),
        ({"delimiter": ", "}, "dataset.delimiter must be one character"),
        ({"valid_fraction": 0.2}, "dataset.valid and dataset.valid_fraction are both set"),
        ({"target": "class"}, "dataset.target must be one of 'classes', 'score'"),
        ({"test": "gone.csv"}, "dataset.test: there is no file gone.csv"),
        ({"tset": "gone.csv"}, "did you mean 'test'"),
    ],
)
def test_wrong_keys_are_named(keys: dict[str, Any], part: str, files: dict[str, str]) -> None:
    assert part in refused(**files | keys)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('text,label\na,"b\n', "is not CSV"),
        ("text,label\na,b\nc\n", "line 3 has 1 fields separated by ',', and the first line has 2"),
        ("text,label\n", "has no rows"),
        ("text,label\na,b\nc,\n", "line 3 has no label in column 'label'"),
        ("text,label\na,b\nc,b\n", "has only one label, 'b'"),
        ("text,label\na,b\nc,d\n", "has 2 rows, none left for"),
        ("text\tlabel\na\tb\n", "valid: text\tlabel"),
    ],
)
def test_wrong_tables_are_named(content: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    path = str(tmp_path / "a.csv")
    message = refused(train=path) if "none left" in part else refused(train=path, valid=path, test=path)
    assert part in message
    assert "a.csv" in message


def test_fractions_must_leave_something() -> None:
    assert "must be above 0 and below 0.5, got 0.7" in refused(train="a.csv", valid_fraction=0.7)


def test_a_text_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    rows = [(0, "x" * 200_000, "a"), (0, "y", "b")]
    train = write(tmp_path / "a.csv", rows)
    assert len(make(train=train, valid=train, test=train).examples("train")[0].text) == 200_000
