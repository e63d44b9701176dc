"""Shallow fusion: what a language model adds to a transcript is what it says of the text, by symbol or by word."""

import functools
import time

import jax
import numpy as np
import pytest
from flax import nnx
from toy_speech import alignments, draw

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Bytes, CharacterVocabulary, WordVocabulary
from lstm_research.decoding.ctc import CTCBeamSearch
from lstm_research.decoding.fusion import make_fusion
from lstm_research.models.cells import GRU
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import functional

RECOGNISER = CharacterVocabulary(["\n", " ", "a", "b"])
CHARACTERS = CharacterVocabulary(["b", "\n", "z", "a", " "])
WORDS = WordVocabulary(["<unk>", "<eos>", "a", "ab", "ba"])
WEIGHT, BONUS = 0.7, 0.3


@functools.cache
def make_language_model(vocabulary):
    """A random language model, as `make_fusion` takes it."""
    model = LanguageModel(len(vocabulary), cell=GRU(8), embedding_size=4, rngs=nnx.Rngs(0))
    apply, params = functional(model)
    params = jax.tree.map(lambda p: 3 * np.random.default_rng(p.size).normal(size=p.shape).astype("f4"), params)
    return jax.jit(lambda params, carry, tokens: apply(params, tokens, carry)), params, model.initial_carry(1)


@functools.cache
def fuse(language_vocabulary, vocabulary=RECOGNISER, blank_id=0, weight=WEIGHT):
    return make_fusion(
        *make_language_model(language_vocabulary),
        language_vocabulary,
        vocabulary,
        blank_id=blank_id,
        weight=weight,
        length_bonus=BONUS,
    )


def log_prob(vocabulary, symbols):
    """Of whole sentences: of each symbol and the end, read at once."""
    predict, params, carry = make_language_model(vocabulary)
    symbols = [vocabulary.end_id, *symbols, vocabulary.end_id]
    _, logits = predict(params, carry, np.array(symbols[:-1])[:, None])
    log_probs = np.asarray(jax.nn.log_softmax(logits[:, 0]), np.float64)
    return log_probs[np.arange(len(symbols) - 1), symbols[1:]].sum()


def total(fusion, text, vocabulary=RECOGNISER):
    """What a fusion adds to a transcript, symbol by symbol."""
    state, gained = fusion.initial(), 0.0
    for symbol in vocabulary.encode(text):
        gained += fusion.scores([state])[0, symbol]
        (state,) = fusion.extend([state], np.array([symbol]))
    return gained + fusion.end([state])[0]


@pytest.mark.parametrize("text", ["", "a", "ab ba", "bb  a "])
def test_characters_are_priced_one_by_one(text):
    expected = WEIGHT * log_prob(CHARACTERS, CHARACTERS.encode(text)) + BONUS * len(text)
    assert total(fuse(CHARACTERS), text) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("text", ["", "a", "ab ba", "bb a", " ab  ba ", "abab"])
def test_words_are_priced_where_they_end(text):
    expected = WEIGHT * log_prob(WORDS, WORDS.encode(text)) + BONUS * len(text.split())
    assert total(fuse(WORDS), text) == pytest.approx(expected, abs=1e-4)


def test_only_the_space_after_a_word_has_a_price():
    fusion = fuse(WORDS)
    states = [fusion.initial()]
    assert not fusion.scores(states).any()
    for letter in "ab":
        states = fusion.extend(states, RECOGNISER.encode(letter))
        assert np.flatnonzero(fusion.scores(states)[0]).tolist() == [RECOGNISER.ids[" "]]


def test_words_that_the_language_model_cuts_or_lowers_or_refuses():
    vocabulary = WordVocabulary(["<unk>", "<eos>", "do", "n't", "go"], lower_case=True, tokenizer="punctuation")
    recogniser = CharacterVocabulary(sorted(set("\nDon't go")))
    blank_id = recogniser.ids["\n"]
    text = "Don't go"
    expected = WEIGHT * log_prob(vocabulary, vocabulary.encode(text)) + BONUS * 2
    assert len(vocabulary.encode(text)) == 3
    assert total(fuse(vocabulary, recogniser, blank_id), text, recogniser) == pytest.approx(expected, abs=1e-4)
    strict = WordVocabulary(["<unk>", "<eos>", "go"], on_unknown="error")
    expected = WEIGHT * log_prob(strict, [0, 2]) + BONUS * 2
    assert total(fuse(strict, recogniser, blank_id), "on go", recogniser) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("vocabulary", [CHARACTERS, WORDS], ids=["characters", "words"])
def test_a_wide_beam_with_a_language_model_equals_brute_force(vocabulary):
    log_probs, fusion = draw(1, 4, 4, scale=1.0), fuse(vocabulary)
    scores = {}
    for labelling, paths in alignments(log_probs, blank_id=0).items():
        text = RECOGNISER.decode(labelling)
        units = len(text) if vocabulary is CHARACTERS else len(text.split())
        language = WEIGHT * log_prob(vocabulary, vocabulary.encode(text)) + BONUS * units
        scores[labelling] = np.logaddexp.reduce([p for p, _ in paths]) + language
    found = CTCBeamSearch(beam_size=300, num_best=300)(log_probs, blank_id=0, fusion=fusion)
    assert {each.symbols for each in found} == set(scores)
    np.testing.assert_allclose([each.score for each in found], [scores[each.symbols] for each in found], atol=1e-4)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_a_recogniser_never_writes_unknown_symbols_that_the_language_model_lacks():
    recogniser = CharacterVocabulary(["<unk>", "\n", " ", "a", "b"], on_unknown="replace")
    fusion = fuse(CHARACTERS, recogniser, blank_id=1)
    state = fusion.initial()
    (scores,) = fusion.scores([state])
    np.testing.assert_allclose(scores[2:], fuse(CHARACTERS).scores([state])[0, 1:])
    assert scores[0] == -np.inf
    found = CTCBeamSearch(beam_size=300, num_best=300)(draw(2, 4, 5), blank_id=1, fusion=fusion)
    assert len(found) > 50
    assert all(0 not in each.symbols and np.isfinite(each.score) for each in found)
    both = CharacterVocabulary(["b", "\n", "z", "a", " ", "<unk>"], on_unknown="replace")
    priced = fuse(both, recogniser, blank_id=1)
    assert np.isfinite(priced.scores([priced.initial()])).all()


def test_states_do_not_depend_on_what_is_read_beside_them():
    for vocabulary in (CHARACTERS, WORDS):
        fusion = fuse(vocabulary)
        states = [fusion.initial()] * 20  # more than are read at once
        symbols = np.arange(20) % 3 + 1
        together = fusion.extend(states, symbols)
        for state, symbol in zip(together, symbols, strict=True):
            (alone,) = fusion.extend([fusion.initial()], np.array([symbol]))
            np.testing.assert_allclose(fusion.scores([state]), fusion.scores([alone]), atol=1e-5)
            np.testing.assert_allclose(fusion.end([state]), fusion.end([alone]), atol=1e-5)


def test_three_seconds_of_speech_take_less_than_one_with_a_language_model():
    recogniser = CharacterVocabulary(["\n", " ", *map(chr, range(97, 123))])
    fusion = fuse(recogniser, recogniser)
    log_probs = draw(0, 300, 28, scale=3.0)
    search = CTCBeamSearch(beam_size=16)
    search(log_probs[:5], blank_id=0, fusion=fusion)
    begin = time.process_time()
    (found,) = search(log_probs, blank_id=0, fusion=fusion)
    assert time.process_time() - begin < 1
    assert len(found.symbols) > 50


@pytest.mark.parametrize(
    ("language_vocabulary", "vocabulary", "message"),
    [
        (CharacterVocabulary(["\n", "a"]), RECOGNISER, "lacks characters of the recogniser: ' ', 'b'"),
        (CharacterVocabulary(["a", "b"]), RECOGNISER, "not trained on sentences.*no newline"),
        (Bytes().fit([]), RECOGNISER, "over bytes cannot price the recogniser's characters"),
        (WORDS, CharacterVocabulary(["\n", "a"]), "needs spaces"),
    ],
)
def test_language_models_that_do_not_fit_are_refused(language_vocabulary, vocabulary, message):
    with pytest.raises(UserError, match=message) as caught:
        fuse(language_vocabulary, vocabulary)
    assert "\n" not in str(caught.value)


def test_words_that_are_written_otherwise_than_transcripts_are_said(caplog):
    cased = WordVocabulary(["<unk>", "<eos>", "Aa", "B!", "ab"])
    fuse(cased)
    assert "cannot write 2 of the 3 words of the language model ('Aa', 'B!', ...)" in caplog.text
    caplog.clear()
    fuse(WORDS, CharacterVocabulary(["\n", " ", ".", "A", "a", "b"]))
    assert "no word of the language model has '.', 'A', so every word with one of them is <unk>" in caplog.text
    caplog.clear()
    lowered = WordVocabulary(["<unk>", "<eos>", "a", "b", "."], lower_case=True, tokenizer="punctuation")
    fuse(lowered, CharacterVocabulary(["\n", " ", ".", "A", "B", "a", "b"]))
    fuse(WORDS)
    assert not caplog.text
    with pytest.raises(
        UserError, match=r"can write none of the 2 words of the language model \('AB', 'A', ...\); train"
    ):
        fuse(WordVocabulary(["<unk>", "<eos>", "AB", "A"]))


def test_impossible_weights_are_refused():
    with pytest.raises(UserError, match="above 0"):
        fuse(CHARACTERS, weight=0.0)
    with pytest.raises(UserError, match="length_bonus"):
        make_fusion(
            *make_language_model(CHARACTERS), CHARACTERS, RECOGNISER, blank_id=0, weight=1.0, length_bonus=float("nan")
        )
