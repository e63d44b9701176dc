"""Vocabularies: there and back, what lies outside, and saving."""

import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import VOCABULARIES, Bytes, Characters, Words, from_json, split_words

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


@pytest.mark.parametrize("recipe", [Characters(), Words(), Words(tokenizer="punctuation"), Bytes()])
def test_a_line_has_no_end_and_a_document_has_one_a_line(recipe: Characters | Words | Bytes) -> None:
    vocabulary = recipe.fit([LINES])
    expected = [i for line in LINES.splitlines() for i in (*vocabulary.encode_line(line).tolist(), vocabulary.end_id)]
    assert vocabulary.encode_document(LINES).tolist() == expected
    assert vocabulary.decode([vocabulary.end_id]) == "\n"
    assert vocabulary.encode_line("the\ncat").tolist() == vocabulary.encode("the cat").tolist()
    assert vocabulary.encode_line("").tolist() == []


def test_characters_without_newline_have_no_end() -> None:
    with pytest.raises(UserError, match="no newline"):
        Characters().fit(["abc"]).end_id


def test_words_and_punctuation_are_cut_apart() -> None:
    def cut(text: str) -> list[str]:
        (words,) = split_words(text, tokenizer="punctuation")
        return words

    assert cut("It's a film, isn't it?!") == ["It", "'s", "a", "film", ",", "is", "n't", "it", "?", "!"]
    assert cut("they've can't DON'T we’ll") == ["they", "'ve", "ca", "n't", "DO", "N'T", "we", "’ll"]
    assert cut("'so-called' rock 'n' roll") == ["'", "so", "-", "called", "'", "rock", "'", "n", "'", "roll"]
    assert cut("naïve 日本、3.5 ...") == ["naïve", "日本", "、", "3", ".", "5", ".", ".", "."]
    assert split_words("A b.\n\nC", tokenizer="punctuation", lower_case=True) == [["a", "b", "."], [], ["c"]]
    rng = np.random.default_rng(0)
    for _ in range(200):  # nothing but white space is lost
        text = "".join(rng.choice(list("anst' \t,.é日-_n’"), 30))
        assert "".join(cut(text)) == "".join(text.split())


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
    "recipe",
    [
        Characters(),
        Characters(unknown="replace"),
        Words(),
        Words(lower_case=True, unknown="error"),
        Words(tokenizer="punctuation"),
        Bytes(),
    ],
)
def test_a_vocabulary_is_saved_with_its_choices(recipe: Characters | Words | Bytes) -> None:
    vocabulary = recipe.fit([LINES + "é “quoted” \\ \t"])
    read = from_json(vocabulary.to_json())
    assert read == vocabulary
    assert type(read) is type(vocabulary)
    assert read.encode(LINES + "é \\").tolist() == vocabulary.encode(LINES + "é \\").tolist()
    assert read != Characters().fit(["other"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "characters"}', '{"name": "bytes", "symbols": []}'])
def test_a_damaged_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        from_json(text)


def test_a_vocabulary_of_words_from_before_tokenizers_is_read() -> None:
    text = '{"name": "words", "on_unknown": "replace", "symbols": ["<unk>", "<eos>", "a."], "lower_case": false}'
    assert from_json(text).encode("a.").tolist() == [2]


def test_vocabularies_are_built_from_config() -> None:
    assert build(VOCABULARIES, {"name": "words", "min_count": 2}, where="vocabulary") == Words(min_count=2)
    with pytest.raises(UserError, match=r"vocabulary\.unknown must be one of"):
        build(VOCABULARIES, {"name": "characters", "unknown": "drop"}, where="vocabulary")
    for text, most in (("a a b\n", 2), ("\n", 0)):
        with pytest.raises(UserError, match=rf"no word .* so often \(the most frequent: {most} times\)"):
            Words(min_count=3).fit([text])
    with pytest.raises(UserError, match="min_count"):
        build(VOCABULARIES, {"name": "words", "min_count": 0}, where="vocabulary")
    with pytest.raises(UserError, match="max_size"):
        build(VOCABULARIES, {"name": "words", "max_size": 2}, where="vocabulary")
