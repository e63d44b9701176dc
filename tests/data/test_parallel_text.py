"""The user's own translations: files line by line and tables, and what wrong ones get."""

from pathlib import Path
from typing import Any

import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.parallel_text import PARALLEL_DATASETS

SPLITS = ("train", "valid", "test")
TEXTS = {
    "train_source": "one\n\nthree\r\n",
    "train_target": "un\ndeux\n\n",
    "valid_source": "four\nfour\n",
    "valid_target": "quatre\nQuatre",
    "test_source": "five\u2028still five\n",
    "test_target": "cinq\n",
    "other": "Cinq!\n",
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    for name, text in TEXTS.items():
        (tmp_path / name).write_bytes(text.encode())
    return {name: str(tmp_path / name) for name in TEXTS if name != "other"}


def make(name: str, **keys: Any) -> Any:
    return build(PARALLEL_DATASETS, {"name": name, **keys}, where="dataset")


def make_and_read(name: str, **keys: Any) -> None:
    dataset = make(name, **keys)
    for split in SPLITS:
        dataset.examples(split)


def refused(name: str, **keys: Any) -> str:
    """The one line that a wrong dataset gets, when it is built or read."""
    with pytest.raises(UserError) as error:
        make_and_read(name, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_line_n_is_the_translation_of_line_n(files: dict[str, Any], tmp_path: Path) -> None:
    dataset = make("parallel_files", **files, source="en", target="fr")
    assert dataset.languages == ("en", "fr")
    # Empty lines are kept, and a separator that Python counts as a line end is none.
    assert dataset.examples("train") == [("one", ("un",)), ("", ("deux",)), ("three", ("",))]
    assert dataset.examples("valid") == [("four", ("quatre",)), ("four", ("Quatre",))]
    assert dataset.examples("test") == [("five\u2028still five", ("cinq",))]
    several = make("parallel_files", **files | {"test_target": (files["test_target"], str(tmp_path / "other"))})
    assert several.examples("test") == [("five\u2028still five", ("cinq", "Cinq!"))]
    assert several.fingerprint() != dataset.fingerprint()
    assert files["valid_target"] in dataset.describe()


def test_unequal_line_counts_name_both(files: dict[str, Any]) -> None:
    Path(files["train_target"]).write_text("un\ndeux\n")
    message = refused("parallel_files", **files)
    assert "train_target has 2 lines and " in message
    assert "train_source (dataset.train_source) has 3" in message


def test_a_missing_or_empty_file_is_named(files: dict[str, Any]) -> None:
    assert "dataset.test_target: there is no file" in refused("parallel_files", **files | {"test_target": "gone"})
    Path(files["valid_source"]).write_text("")
    assert "dataset.valid_source" in refused("parallel_files", **files)
    assert "dataset.train_target must be str" in refused("parallel_files", **files | {"train_target": ("a", "b")})


def test_tables_by_number_or_name(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('He "said\tIl a\tCC\nBye\tAdieu\tCC\nBye\tSalut\tCC\n')
    path = str(tmp_path / "a.tsv")
    dataset = make("tsv", train=path, valid=path, test=path)
    assert dataset.examples("train") == [('He "said', ("Il a",)), ("Bye", ("Adieu",)), ("Bye", ("Salut",))]
    assert dataset.examples("test") == [('He "said', ("Il a",)), ("Bye", ("Adieu", "Salut"))]
    (tmp_path / "b.csv").write_text('fr,en\n"Bon, bien","Well, good"\n')
    path = str(tmp_path / "b.csv")
    keys = {"delimiter": ",", "source_column": "en", "target_column": "fr"}
    assert make("tsv", train=path, valid=path, test=path, **keys).examples("test") == [("Well, good", ("Bon, bien",))]
    assert "'de'" in refused("tsv", train=path, **keys | {"target_column": "de"})
    assert "dataset.target_column" in refused("tsv", train=path, **keys | {"target_column": "de"})


def test_splits_cut_from_a_table_share_no_sentence(tmp_path: Path) -> None:
    rows = [f"Say {number // 2}{'.!'[number % 2]}\tDire {number // 3}" for number in range(600)]
    (tmp_path / "a.tsv").write_text("\n".join([*rows, rows[0]]) + "\n")
    dataset = make("tsv", train=str(tmp_path / "a.tsv"), valid_fraction=0.05)
    sides = [
        [{example.source.strip(".!") for example in dataset.examples(split)} for split in SPLITS],
        [{target for example in dataset.examples(split) for target in example.references} for split in SPLITS],
    ]
    for train, valid, test in sides:
        assert not train & valid
        assert not train & test
        assert not valid & test
    assert sum(len(example.references) for split in SPLITS for example in dataset.examples(split)) == 601
    assert 30 <= len(dataset.examples("valid")) < 40
    assert 60 <= len(dataset.examples("test")) < 70


def test_a_row_without_a_translation_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\nc\n")
    assert "a.tsv line 2 has 1 fields separated by '\\t', and the first line has 2" in refused(
        "tsv", train=str(tmp_path / "a.tsv")
    )
