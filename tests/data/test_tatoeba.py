"""Tatoeba: the extraction on a made-up table, and the real pairs."""

import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import tatoeba
from lstm_research.data.packages import Package
from lstm_research.data.parallel_text import PARALLEL_DATASETS, Tatoeba

TABLE = """\
1\tあ\tHello!\t-\tHallo!\tBonjour\u202f!\t-\t-\t-
2\tい\tHello!\t-\t-\tSalut  !\t-\t-\tyomi
3\tあ\tHello!\tHoi\tHallo!\tBonjour\u202f!\t-\t-\t-
4\tう\tBye.\t-\t-\tCafe\u0301\t-\tHej\t-
5\tえ\t-\t-\t-\tRien\t-\t-\t-
"""


def test_pairs_are_distinct_and_normalised(tmp_path: Path) -> None:
    sdist = tmp_path / "x.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        information = tarfile.TarInfo(tatoeba.TABLE)
        information.size = len(TABLE.encode())
        archive.addfile(information, io.BytesIO(TABLE.encode()))
    assert tatoeba.read_pairs(sdist, "en", "fr") == [("Hello!", "Bonjour !"), ("Hello!", "Salut !"), ("Bye.", "Café")]
    assert tatoeba.read_pairs(sdist, "en", "de") == [("Hello!", "Hallo!")]
    assert tatoeba.read_pairs(sdist, "ja", "sv") == [("う", "Hej")]


@pytest.mark.parametrize(
    ("part", "size"), [("en-fr", 34_914 - 5), ("en-de", 38_524), ("en-es", 30_279), ("en-ja", 203_308)]
)
def test_there_are_as_many_real_pairs_as_there_should_be(
    part: str, size: int, fetched: Callable[[Package], Path]
) -> None:
    pairs = tatoeba.read_pairs(fetched(tatoeba.PACKAGE), *part.split("-"))
    assert len(pairs) == len(set(pairs))
    assert len(pairs) == size  # five differ from another one by a narrow space alone


def test_no_real_sentence_is_on_two_sides(fetched: Callable[[Package], Path]) -> None:
    splits = tatoeba.extract("en-fr", fetched(tatoeba.PACKAGE))
    for split in ("valid", "test"):
        assert len({pair.source for pair in splits[split]}) in range(1250, 1260)
    for one, other in itertools.combinations(splits.values(), 2):
        for side in (0, 1):
            assert not {pair[side] for pair in one} & {pair[side] for pair in other}


@pytest.fixture(scope="module")
def both(fetched: Callable[[Package], Path]) -> tuple[Tatoeba, Tatoeba]:
    fetched(tatoeba.PACKAGE)
    return Tatoeba("en", "fr"), Tatoeba("fr", "en")


def test_both_directions_have_the_same_pairs(both: tuple[Tatoeba, Tatoeba]) -> None:
    forth, back = both
    assert (forth.languages, back.languages) == (("en", "fr"), ("fr", "en"))
    assert forth.part == back.part
    for split in forth.splits:
        pairs = {(source, target) for source, targets in forth.examples(split) for target in targets}
        assert pairs == {(target, source) for source, targets in back.examples(split) for target in targets}
    assert forth.fingerprint() != back.fingerprint()


def test_held_out_sentences_have_all_their_references(both: tuple[Tatoeba, Tatoeba]) -> None:
    examples = both[0].examples("test")
    assert len({source for source, _ in examples}) == len(examples)
    assert max(len(references) for _, references in examples) > 1
    assert all(len(references) == 1 for _, references in both[0].examples("train"))


def test_wrong_languages_are_named() -> None:
    with pytest.raises(UserError, match=r"unknown language dataset\.target 'jp'"):
        PARALLEL_DATASETS["tatoeba"](source="en", target="jp")
    with pytest.raises(UserError, match="are both 'fr'"):
        Tatoeba("fr", "fr")
