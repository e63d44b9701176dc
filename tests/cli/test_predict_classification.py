"""`lstm-research predict` for text classifiers: texts from flags, lines and tables; CSV out; the page of attention."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from ml_collections import ConfigDict

from lstm_research.analysis.attention_html import attention_page
from lstm_research.tasks.text_classification import Prediction
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run

TEXTS = ["good film", "", "not a bad, bad film", "<b>& plots</b>", 'a "dull" plot', ""]


def make_config(folder: Path, pooling: tuple[str, ...], target: str, kind: str) -> ConfigDict:
    config = {
        "seed": 0,
        "dataset": {"name": "csv", "target": target}
        | dict.fromkeys(("train", "valid", "test"), str(folder / "train.csv")),
        "vocabulary": {"name": kind, **({"unknown": "replace"} if kind == "characters" else {})},
        "task": {"name": "text_classification", "batch_size": 4, "max_length": 40},
        "model": {
            "name": "classifier",
            "embedding_size": 4,
            "cell": {"name": "gru", "hidden_size": 4},
            "pooling": pooling,
        },
        "optimizer": {"name": "adam", "learning_rate": 0.05, "schedule": {"name": "constant"}},
        "training": {"num_steps": 4, "log_every": 4, "eval_every": 4, "checkpoint_every": 4},
    }
    return ConfigDict(config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of finished runs, the current one; not to be changed."""
    folder = tmp_path_factory.mktemp("classifiers")
    rows = [(f"a {word} film", label) for label, word in enumerate(["good", "bad", "dull", "<fine>"] * 10)]
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label % 2}\n" for text, label in rows))
    kinds = {
        "attention": (("max", "attention"), "classes", "words"),
        "without": (("max", "last"), "classes", "words"),
        "score": (("attention",), "score", "characters"),
    }
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    for name, kind in kinds.items():
        assert run(Experiment.from_config(make_config(folder, *kind)), folder / name) == 0
    jaxtyping.config.update("jaxtyping_disable", before)
    (folder / "lines.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(TEXTS)])
    (folder / "table.tsv").write_text("id\ttext\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(TEXTS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def table_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def predicted(command: Any, workdir: str, *arguments: str) -> list[dict[str, str]]:
    """Returns the rows that are printed."""
    result = command("predict", f"--workdir={workdir}", *arguments)
    assert (result.code, result.err) == (0, "")
    return table_of(result.out)


def test_every_line_gets_a_label_and_probabilities(command: Any, runs: Path) -> None:
    rows = predicted(command, "attention", "--input=lines.txt")
    assert len(rows) == len(TEXTS)
    for row in rows:
        assert list(row) == ["label", "probability_0", "probability_1"]
        p = [float(row["probability_0"]), float(row["probability_1"])]
        assert sum(p) == pytest.approx(1, abs=2e-6)
        assert row["label"] == str(int(p[1] > p[0]))
    assert rows[1] == rows[5] != rows[0]  # the empty ones
    assert len({row["probability_0"] for row in rows}) > 3


def test_one_text_a_table_and_lines_give_the_same(command: Any, runs: Path) -> None:
    rows = predicted(command, "attention", "--input=lines.txt")
    assert predicted(command, "attention", "--input=table.csv", "--text_column=review") == rows
    assert predicted(command, "attention", "--input=table.tsv") == rows
    for text, row in zip(TEXTS, rows, strict=True):
        (alone,) = predicted(command, "attention", f"--text={text}")
        assert alone["label"] == row["label"]
        assert float(alone["probability_0"]) == pytest.approx(float(row["probability_0"]), abs=2e-6)
    # Any file is a table if a column is named.
    (runs / "table.data").write_text((runs / "table.csv").read_text())
    assert predicted(command, "attention", "--input=table.data", "--text_column=review") == rows


@pytest.mark.parametrize("column", ["review", 1])
def test_a_table_is_read_like_those_of_training(command: Any, runs: Path, tmp_path: Path, column: Any) -> None:
    rows = predicted(command, "attention", "--input=lines.txt")
    shutil.copytree(runs / "attention", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["dataset"] |= {"text_column": column, "delimiter": ";"}
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["id", "review"]] * (column == "review") + [*enumerate(TEXTS)])
    assert predicted(command, str(tmp_path / "run"), f"--input={tmp_path / 'table.csv'}") == rows


def test_lines_come_from_standard_input(command: Any, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = predicted(command, "attention", "--input=lines.txt")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\r\n".join([*TEXTS, ""]).encode())))
    assert predicted(command, "attention", "--input=-") == rows
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    result = command("predict", "--workdir=attention", "--input=-")
    assert (result.code, result.out) == (2, "")
    assert "standard input is not UTF-8 (byte 3)" in result.err


def test_output_goes_to_a_file(command: Any, runs: Path) -> None:
    rows = predicted(command, "attention", "--input=lines.txt")
    result = command("predict", "--workdir=attention", "--input=lines.txt", "--output=labels.csv")
    assert (result.code, result.out) == (0, "")
    assert table_of((runs / "labels.csv").read_text()) == rows


def test_numbers(command: Any, runs: Path) -> None:
    rows = predicted(command, "score", "--input=lines.txt")
    assert len(rows) == len(TEXTS)
    assert all(list(row) == ["score"] and -3 < float(row["score"]) < 3 for row in rows)


class Page(HTMLParser):
    """The words with their weights, article by article, and what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.articles: list[list[tuple[str, float]]] = []
        self.open: list[str] = []
        self.fetched: list[Any] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        addresses = [str(value) for name, value in attrs if name in ("src", "href")]
        self.fetched += [each for each in addresses if not each.startswith("data:")] + [tag] * (tag == "script")
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "article":
            self.articles.append([])
        if tag == "span" and values.get("class") == "w":
            self.articles[-1].append(("", float(str(values["title"]))))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1:] == ["span"] and self.articles and self.articles[-1]:
            word, weight = self.articles[-1][-1]
            self.articles[-1][-1] = word + data, weight


@pytest.mark.parametrize("workdir", ["attention", "score"])
def test_the_page_holds_every_word_with_its_weight(command: Any, runs: Path, workdir: str) -> None:
    rows = predicted(command, workdir, "--input=lines.txt", "--attention_html=page.html")
    page = Page((runs / "page.html").read_text())
    assert page.fetched == []
    assert "http" not in (runs / "page.html").read_text()
    assert len(page.articles) == len(TEXTS)
    known = {"a", "film", "good", "bad", "dull", "<fine>"}
    for text, words in zip(TEXTS, page.articles, strict=True):
        found = [word for word, _ in words]
        if workdir == "attention":
            assert found == [word if word in known else "<unk>" for word in text.split()]
        else:
            assert len(found) == len(text)
        assert sum(weight for _, weight in words) == pytest.approx(float(bool(text)), abs=3e-3)
    if workdir == "attention":
        assert f"1. {rows[0]['label']} · probability {max(map(float, list(rows[0].values())[1:])):.3f}" in page.text
    else:
        assert f"1. {float(rows[0]['score']):.3f}" in page.text


def test_words_are_escaped_and_the_largest_weight_has_the_full_colour() -> None:
    evil = '</p><script>alert("x")</script>'
    prediction = Prediction(evil, (0.25, 0.75), None, ("a", evil), (0.2, 0.8))
    text = attention_page([prediction], title=evil, separator=" ")
    assert "<script" not in text
    page = Page(text)
    assert page.articles == [[("a", 0.2), (evil, 0.8)]]
    assert page.text.count(evil) == 4  # the title, twice, the label and the word
    assert re.findall(r"--a:([\d.]+)", text) == ["0.250", "1.000"]


WRONG = {
    "nothing": ([], "either --text=TEXT or --input=FILE"),
    "both": (["--text=a", "--input=lines.txt"], "either --text=TEXT or --input=FILE"),
    "no file": (["--input=nowhere.txt"], "there is no file nowhere.txt"),
    "no column": (["--input=table.csv"], "valid: id, review"),
    "wrong column": (["--input=table.csv", "--text_column=reviews"], "(--text_column; columns in --input: table.csv)"),
    "a text and a table": (["--text=a", "--input=table.csv"], "either --text=TEXT or --input=FILE"),
    "column of a text": (["--text=a", "--text_column=review"], "--text_column"),
    "flag of another task": (["--text=a", "--prompt=b"], "--prompt means nothing"),
    "not UTF-8": (["--input=latin.txt"], "not UTF-8"),
    "too long": (["--text=" + "a " * 41], "task.max_length=40"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses(case: str, command: Any, runs: Path) -> None:
    arguments, message = WRONG[case]
    result = command("predict", "--workdir=attention", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert message in result.err


def test_refuses_a_page_of_a_model_without_attention(command: Any, runs: Path) -> None:
    result = command("predict", "--workdir=without", "--text=a", "--attention_html=none.html", "--output=none.csv")
    assert (result.code, result.out) == (2, "")
    assert "has no attention to show" in result.err
    assert not list(runs.glob("none.*"))
