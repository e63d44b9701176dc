"""Vocabularies: there and back, what lies outside, and saving."""

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import VOCABULARIES, Characters, Words, from_json

LINES = "the cat sat\non the mat\n"


def test_characters_are_sorted_and_distinct() -> None:
    vocabulary = Characters().fit(["cab\n", "bad"])
    assert vocabulary.symbols == ("\n", "a", "b", "c", "d")
    np.testing.assert_array_equal(vocabulary.encode("dab\n"), [4, 1, 2, 0])
    assert vocabulary.encode("dab").dtype == np.int32


@pytest.mark.parametrize("text", ["", "plain", "é日本\U0001f600 \n\t\r", "\u2028\x00x"])
def test_characters_go_there_and_back(text: str) -> None:
    vocabulary = Characters().fit(["abc", text, "plain"])
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_characters_outside_the_vocabulary_are_named() -> None:
    vocabulary = Characters().fit(["abc"])
    with pytest.raises(UserError, match=r"'é', '\U0001f600', '\\n'.*vocabulary.unknown=\"replace\"") as info:
        vocabulary.encode("aé\U0001f600\n")
    assert "\n" not in str(info.value)


def test_characters_outside_are_replaced_only_on_request() -> None:
    vocabulary = Characters(unknown="replace").fit(["abc"])
    ids = vocabulary.encode("aéc")
    np.testing.assert_array_equal(ids, [1, 0, 3])
    assert vocabulary.decode(ids) == "a\ufffdc"
    assert vocabulary.count_unknown(ids) == 1


def test_words_follow_the_treebank_conventions() -> None:
    vocabulary = Words().fit([LINES])
    assert vocabulary.symbols == ("<unk>", "<eos>", "the", "cat", "mat", "on", "sat")
    assert vocabulary.encode(LINES).tolist() == [2, 3, 6, 1, 5, 2, 4, 1]
    assert vocabulary.encode("the <unk> dog").tolist() == [2, 0, 0]
    assert vocabulary.decode(vocabulary.encode(LINES)) == LINES


def test_a_document_ends_in_the_end_of_line_but_a_prompt_does_not() -> None:
    vocabulary = Words().fit([LINES])
    assert vocabulary.encode("the cat").tolist() == [2, 3]
    assert vocabulary.encode_document("the cat").tolist() == [2, 3, 1]
    assert vocabulary.encode_document("the cat\n").tolist() == [2, 3, 1]
    assert vocabulary.encode("the\n\ncat").tolist() == [2, 1, 1, 3]


def test_special_words_in_the_text_are_not_counted_as_words() -> None:
    vocabulary = Words().fit(["a <unk> <unk> <eos> b\n"])
    assert vocabulary.symbols == ("<unk>", "<eos>", "a", "b")


def test_rare_words_are_left_out() -> None:
    assert Words(min_count=2).fit([LINES]).symbols == ("<unk>", "<eos>", "the")
    assert Words(max_size=4).fit([LINES]).symbols == ("<unk>", "<eos>", "the", "cat")
    assert len(Words(lower_case=True).fit(["The the THE\n"])) == 3


def test_words_outside_are_refused_on_request() -> None:
    vocabulary = Words(unknown="error").fit([LINES])
    assert vocabulary.encode("the <unk>").tolist() == [2, 0]
    with pytest.raises(UserError, match=r"words outside the vocabulary of 7: 'dög', 'ran'"):
        vocabulary.encode("the dög ran")
    assert vocabulary.unknown_symbols("the dög ran") == ["dög", "ran"]


def test_many_words_outside_make_one_short_line() -> None:
    with pytest.raises(UserError, match="and 80 more") as info:
        Words(unknown="error").fit([LINES]).encode(" ".join(f"w{i}" for i in range(100)))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "recipe", [Characters(), Characters(unknown="replace"), Words(), Words(lower_case=True, unknown="error")]
)
def test_a_vocabulary_is_saved_with_its_choices(recipe: Characters | Words) -> None:
    vocabulary = recipe.fit([LINES + "é “quoted” \\ \t"])
    read = from_json(vocabulary.to_json())
    assert read == vocabulary
    assert type(read) is type(vocabulary)
    assert read.encode(LINES).tolist() == vocabulary.encode(LINES).tolist()
    assert read != Characters().fit(["other"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "characters"}', '{"name": "bytes", "symbols": []}'])
def test_a_damaged_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        from_json(text)


def test_vocabularies_are_built_from_config() -> None:
    assert build(VOCABULARIES, {"name": "words", "min_count": 2}, where="vocabulary") == Words(min_count=2)
    with pytest.raises(UserError, match=r"vocabulary\.unknown must be one of"):
        build(VOCABULARIES, {"name": "characters", "unknown": "drop"}, where="vocabulary")
    with pytest.raises(UserError, match="min_count"):
        build(VOCABULARIES, {"name": "words", "min_count": 0}, where="vocabulary")
    with pytest.raises(UserError, match="max_size"):
        build(VOCABULARIES, {"name": "words", "max_size": 2}, where="vocabulary")
