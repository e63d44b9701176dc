"""Subwords and bytes: exact round trips of any text, the same vocabulary from the same text, and clear refusals."""

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Bytes, ByteVocabulary, Subwords, SubwordVocabulary, from_json

ALPHABET = "abcdefg  éß\U0001f600日本語。,.'-\u0301\t\r\u2028\u00a0"
RECIPES = [
    Subwords(size=60, character_coverage=1.0),
    Subwords(size=60, character_coverage=1.0, model_type="bpe"),
    Bytes(),
]


def random_texts(count: int, alphabet: str = ALPHABET + "\n", seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(alphabet), rng.integers(0, 40))) for _ in range(count)]


def sentences(count: int) -> str:
    """Lines of words that are put together from the same few syllables."""
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(["lo", "wer", "new", "est", "wi", "de"], rng.integers(1, 4))) for _ in range(60)]
    return "".join(" ".join(rng.choice(words, rng.integers(1, 9))) + "\n" for _ in range(count))


def corpus() -> list[str]:
    return ["\n".join(random_texts(200)) + ALPHABET * 3, "\n", ""]


def names(recipe: object) -> str:
    return type(recipe).__name__ + getattr(recipe, "model_type", "")


@pytest.mark.parametrize("recipe", RECIPES, ids=names)
def test_any_text_goes_there_and_back(recipe: Subwords | Bytes) -> None:
    vocabulary = recipe.fit(corpus())
    for text in ["", " ", "  a", "a  ", "\n", "\n\n", " \n ", *random_texts(300, seed=1)]:
        ids = vocabulary.encode(text)
        assert ids.dtype == np.int32
        assert vocabulary.decode(ids) == text
        assert not vocabulary.unknown_symbols(text)
        assert (ids == vocabulary.end_id).sum() == text.count("\n")


@pytest.mark.parametrize("recipe", RECIPES, ids=names)
def test_lines_and_documents(recipe: Subwords | Bytes) -> None:
    vocabulary = recipe.fit(corpus())
    lines = ["a b c", "", "cab 日本"]
    expected = [i for line in lines for i in (*vocabulary.encode_line(line).tolist(), vocabulary.end_id)]
    assert vocabulary.encode("\n".join(lines) + "\n").tolist() == expected
    assert vocabulary.encode_line("").tolist() == []
    assert vocabulary.encode_line("a\nb").tolist() == vocabulary.encode("a b").tolist()
    assert all(vocabulary.decode(vocabulary.encode_line(line)) == line for line in lines)
    assert vocabulary.encode_document("a\n").tolist() == vocabulary.encode("a\n").tolist()


@pytest.mark.parametrize("recipe", RECIPES, ids=names)
def test_the_same_text_gives_the_same_vocabulary(recipe: Subwords | Bytes) -> None:
    one, other = recipe.fit(corpus()), recipe.fit(iter(corpus()))
    assert one.to_json() == other.to_json()
    read = from_json(one.to_json())
    assert read == one
    assert type(read) is type(one)
    assert read.symbols == one.symbols
    for text in random_texts(50, seed=2):
        np.testing.assert_array_equal(read.encode(text), one.encode(text))


def test_bytes_are_bytes() -> None:
    vocabulary = ByteVocabulary()
    assert len(vocabulary) == 256
    assert vocabulary.encode("é\n").tolist() == [0xC3, 0xA9, 10]
    assert vocabulary.end_id == 10
    everything = np.random.default_rng(0).integers(0, 256, 5000)
    np.testing.assert_array_equal(vocabulary.encode(vocabulary.decode(everything)), everything)
    assert all(symbol.isprintable() for symbol in vocabulary.symbols)


def test_only_the_beginning_of_a_character_is_incomplete() -> None:
    vocabulary = ByteVocabulary()
    for character in "aé日\U0001f600":
        data = list(character.encode())
        assert [vocabulary.incomplete([97, *data[:n]]) for n in range(len(data))] == list(range(len(data)))
        assert vocabulary.incomplete(data) == 0
    assert vocabulary.incomplete([0xC3, 0x61]) == vocabulary.incomplete([0xA9, 0xFF]) == 0  # nothing can complete these
    assert vocabulary.incomplete([]) == 0


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_subwords_are_pieces_of_words(model_type: str) -> None:
    text = sentences(100)
    vocabulary = Subwords(size=40, model_type=model_type).fit([text])
    assert len(vocabulary) == 40
    assert vocabulary.symbols[:2] == ("<unk>", "<eos>")
    assert vocabulary.end_id == 1
    assert any(piece.startswith("▁") and len(piece) > 2 for piece in vocabulary.symbols)
    assert len(vocabulary.encode(text)) < len(text) / 2
    assert vocabulary.encode_document(text.rstrip("\n")).tolist() == vocabulary.encode(text).tolist()
    assert vocabulary.decode(vocabulary.encode("<eos> <unk>")).count("\n") == 0  # a word, not the symbol


def test_characters_outside_are_replaced_or_named() -> None:
    text = sentences(100)
    vocabulary = Subwords(size=20).fit([text])
    for sentence in ("low zow", "newer", "日 wide", "low\udce2", "w\ud800"):
        ids = vocabulary.encode(sentence)
        outside = vocabulary.unknown_symbols(sentence)
        assert bool(vocabulary.count_unknown(ids)) == bool(outside)
        assert len(outside) == sum(character in "z日\udce2\ud800" for character in sentence)
        expected = "".join(character if character in "lowernstid " else "\ufffd" for character in sentence)
        assert vocabulary.decode(ids) == expected
    rare = Subwords(size=20, character_coverage=0.98).fit([text + "z" * (len(text) // 100)])
    assert rare.unknown_symbols("low z") == ["z"]
    strict = Subwords(size=20, unknown="error").fit([text])
    assert strict.encode("wide\n").tolist() == vocabulary.encode("wide\n").tolist()
    with pytest.raises(UserError, match=r"subwords outside the vocabulary of 20: 'z', '日'; "):
        strict.encode("low z日z")


def test_lower_case() -> None:
    vocabulary = Subwords(size=20, lower_case=True).fit([sentences(100).title()])
    assert vocabulary.decode(vocabulary.encode("LOW nEwest")) == "low newest"
    assert from_json(vocabulary.to_json()).encode("NEW").tolist() == vocabulary.encode("new").tolist()


def test_a_long_line_is_learnt_from() -> None:
    line = sentences(1000).replace("\n", " ")
    assert len(line) > 10_000
    assert not Subwords(size=20).fit(["a\n", line]).unknown_symbols(line)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_text_that_does_not_fit_the_size_is_refused(model_type: str) -> None:
    text = [sentences(100)]
    with pytest.raises(
        UserError, match=r"vocabulary\.size=5000 is too large .* at most \d+ subwords; lower it"
    ) as info:
        Subwords(size=5000, model_type=model_type).fit(text)
    most = int(str(info.value).split("at most ")[1].split()[0])
    assert len(Subwords(size=most, model_type=model_type).fit(text)) == most
    with pytest.raises(UserError, match=r"vocabulary\.size=5 is too small .* at least 13, or lower .*coverage"):
        Subwords(size=5, model_type=model_type).fit(text)
    with pytest.raises(UserError, match="no line"):
        Subwords(size=5, model_type=model_type).fit(["", "\n\n"])


def test_wrong_choices_and_damaged_files_are_refused() -> None:
    with pytest.raises(UserError, match=r"vocabulary\.size"):
        Subwords(size=3)
    for coverage in (0.97, 1.1):
        with pytest.raises(UserError, match=r"vocabulary\.character_coverage"):
            Subwords(character_coverage=coverage)
    saved = Subwords(size=20).fit([sentences(100)])
    assert isinstance(saved, SubwordVocabulary)
    for damaged in ("", "AAAA", "not base64!", saved.model[: len(saved.model) // 8 * 4]):
        with pytest.raises(UserError, match=r"vocabulary"):
            from_json(saved.to_json().replace(saved.model, damaged))
