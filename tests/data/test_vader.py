"""VADER's scored texts: the extraction on made-up texts, and the real ones."""

import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import prepared, vader
from lstm_research.data.labelled_text import Vader
from lstm_research.data.packages import Package


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    information = tarfile.TarInfo(name)
    information.size = len(data)
    archive.addfile(information, io.BytesIO(data))


def make_sdist(path: Path, lines: list[str]) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name in vader.FILES.values():
            add(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt", "\r\n".join(lines).encode())
    with tarfile.open(path, "w:gz") as archive:
        add(archive, vader.INNER, inner.getvalue())
    return path


def test_sentences_of_one_review_and_equal_texts_stay_together(tmp_path: Path) -> None:
    lines = [f"{number // 3}_{number % 3}\t{number % 7 - 3}\ttext {number} &amp; é" for number in range(300)]
    lines += [f"{200 + number}_1\t0.1\tsame" for number in range(20)]
    splits = vader.extract("amazon", make_sdist(tmp_path / "x.tar.gz", lines))
    assert sum(map(len, splits.values())) == 320
    numbers = {
        split: {int(text.split()[1]) // 3 for text, _ in members if text != "same"} for split, members in splits.items()
    }
    assert not any(one & other for one, other in itertools.combinations(numbers.values(), 2))
    assert sum("same" in {text for text, _ in members} for members in splits.values()) == 1
    assert ("text 0 & é", -3.0) in itertools.chain(*splits.values())


def test_classes_are_cut_at_half_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [-4, -0.6, -0.5, -0.49, 0, 0.49, 0.5, 4]
    lines = [f"{number}\t{score}\ttext {number}" for number, score in enumerate(scores * 5)]
    sdist = make_sdist(tmp_path / "x.tar.gz", lines)
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    monkeypatch.setattr(prepared, "fetch", lambda package: sdist)
    classes, numbers = Vader(part="news"), Vader(part="news", target="score")
    assert (classes.labels, numbers.labels) == (("negative", "neutral", "positive"), None)
    for split in classes.splits:
        for (text, label), (same, score) in zip(classes.examples(split), numbers.examples(split), strict=True):
            assert text == same
            assert score == pytest.approx(scores[int(text.split()[1]) % 8])
            assert label == (0 if score <= -0.5 else 2 if score >= 0.5 else 1)
    assert len(Vader(part="all").examples("train")) == 4 * len(classes.examples("train"))
    assert classes.fingerprint() != numbers.fingerprint()


@pytest.mark.parametrize(("part", "size"), [("movies", 10_605), ("tweets", 4_200), ("amazon", 3_708), ("news", 5_190)])
def test_the_real_texts_are_as_many_as_published(part: str, size: int, fetched: Callable[[Package], Path]) -> None:
    splits = vader.extract(part, fetched(vader.PACKAGE))
    examples = list(itertools.chain(*splits.values()))
    assert len(examples) == size
    assert all(-4 <= score <= 4 and text for text, score in examples)
    assert not any("â\x80" in text or "&amp;" in text for text, _ in examples)  # decoded once and rightly
    assert [len(splits[split]) / size for split in ("valid", "test")] == pytest.approx([0.1, 0.1], abs=0.01)
    texts = [{text for text, _ in members} for members in splits.values()]
    assert not any(one & other for one, other in itertools.combinations(texts, 2))


def test_wrong_keys_are_named() -> None:
    with pytest.raises(UserError, match=r"'tweet'; did you mean 'tweets'\? valid: all, amazon"):
        Vader(part="tweet")
