"""Files of word vectors, in every form they come in, and what is wrong with some."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.vectors import read_vectors
from lstm_research.data.vocabulary import Vocabulary, Words, WordVocabulary

VOCABULARY = Words().fit(["the cat sat on the mät . 3 nan\n"])
WORDS = ("the", "dog", "mät", "THE", "3", ".", "cat")


def table(words: tuple[str, ...] = WORDS, width: int = 4) -> dict[str, np.ndarray]:
    return dict(zip(words, np.random.default_rng(0).normal(size=(len(words), width)).astype(np.float32), strict=True))


def write(path: Path, vectors: dict[str, np.ndarray], *, header: str = "", end: str = "\n", space: str = " ") -> str:
    lines = [space.join([word, *map(str, vector.tolist())]) + end for word, vector in vectors.items()]
    path.write_bytes((header + "".join(lines)).encode())
    return str(path)


def check(path: str, expected: dict[str, np.ndarray], vocabulary: Vocabulary = VOCABULARY) -> None:
    ids, vectors = read_vectors(path, vocabulary, 4)
    assert [vocabulary.symbols[index] for index in ids] == sorted(expected, key=vocabulary.ids.__getitem__)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [expected[vocabulary.symbols[index]] for index in ids])


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"header": "7 4\n"},
        {"header": "\ufeff7 4\n"},
        {"header": "\ufeff"},
        {"end": " \n"},
        {"end": "\r\n"},
        {"space": "\t"},
        {"header": "7 4\r\n", "end": " \r\n"},
        {"end": "\n\n"},
    ],
)
def test_vectors_of_known_words_are_read(tmp_path: Path, form: dict[str, str]) -> None:
    vectors = table()
    path = write(tmp_path / "vectors.txt", vectors, **form)
    check(path, {word: vectors[word] for word in ("the", "mät", "3", ".", "cat")})


def test_words_may_have_spaces(tmp_path: Path) -> None:
    vectors = table((". . .", "cat", "at the", "sat 3", "the"))
    vocabulary = WordVocabulary(["<unk>", "<eos>", ". . .", "sat 3", "the"])
    check(write(tmp_path / "v", vectors), {word: vectors[word] for word in (". . .", "sat 3", "the")}, vocabulary)


def test_a_word_that_is_a_number_begins_a_file(tmp_path: Path) -> None:
    vectors = table(("3", "nan", "the"))
    check(write(tmp_path / "v", vectors), vectors)


def test_the_first_vector_of_a_word_counts(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_text("the 1 2 3 4\ncat 0 0 0 0\nthe 5 6 7 8\n")
    check(str(path), {"the": np.arange(1, 5), "cat": np.zeros(4)})


def test_bytes_that_are_not_text_do_no_harm_in_other_words(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"the 1 2 3 4\n\xff\xfe\x85 0 0 0 0\n\xc2\xa0 1 1 1 1\ncat 5 6 7 8")
    check(str(path), {"the": np.arange(1, 5), "cat": np.arange(5, 9)})


@pytest.mark.parametrize("header", ["", "7 3\n"])
def test_another_width_is_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "v", table(width=3), header=header)
    with pytest.raises(
        UserError, match=r"v has vectors of width 3, but model.embedding_size is 4; set .*size=3"
    ) as info:
        read_vectors(path, VOCABULARY, 4)
    assert path in str(info.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the 1 2 3 4\ncat 1 2 3\nmat 1 2 3 4\n", 2),
        ("2 4\nthe 1 2 3 4\ncat 1 2 x 4\n", 3),
        ("dog 1 2 3 4\n\ndog 1 2\n", 3),
        ("dog 1 2 3 4\nthe 1 2 nan 4\n", 2),
        ("2 4\nthe \x00\x01\x02\n", 2),
        ("<!DOCTYPE html>\nthe 1 2 3 4\n", 1),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, number: int) -> None:
    (tmp_path / "v").write_text(text)
    with pytest.raises(UserError, match=rf"v, line {number}: not a word and 4 numbers"):
        read_vectors(str(tmp_path / "v"), VOCABULARY, 4)


def test_missing_incomplete_and_useless_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the vectors in .*no such file"):
        read_vectors(str(tmp_path / "none"), VOCABULARY, 4)
    path = write(tmp_path / "v", table(), header="9 4\n")
    with pytest.raises(UserError, match="is incomplete: its first line says 9 words, but 7 follow"):
        read_vectors(path, VOCABULARY, 4)
    with pytest.raises(UserError, match="not one of the 3 words"):
        read_vectors(write(tmp_path / "v", table()), WordVocabulary(["<unk>", "<eos>", "x"]), 4)
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="not one of"):
        read_vectors(str(tmp_path / "empty"), VOCABULARY, 4)


def test_a_file_is_not_held_in_memory(tmp_path: Path) -> None:
    vector = " ".join(["0.25"] * 4)
    with (tmp_path / "v").open("w") as file:
        file.writelines(f"word{index} {vector}\n" for index in range(30_000))
        file.write(f"cat {vector}\n")
    tracemalloc.start()
    check(str(tmp_path / "v"), {"cat": np.full(4, 0.25)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000 < (tmp_path / "v").stat().st_size
