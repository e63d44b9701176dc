"""Words of a transcript have the times of exactly the symbols that they are made of, whatever symbols are."""

from typing import Any

import numpy as np
import pytest

from lstm_research.data.vocabulary import Bytes, Characters, Subwords, Words
from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.text import printable
from lstm_research.decoding.transcripts import Transcript, Word, transcribed

TEXT = "to be or not to be that is the question\nbeets are not the best of bees\n" * 3
VOCABULARIES = {
    "characters": Characters(unknown="replace").fit([TEXT]),
    "words": Words().fit([TEXT]),
    "subwords": Subwords(size=22).fit([TEXT]),
    "bytes": Bytes().fit([TEXT]),
}
SOME_BYTES = [*b"ab \n", 0xC3, 0xFF]  # of which several are never one character


def draw(kind: str, seed: int, num: int) -> Labelling:
    rng = np.random.default_rng(seed)
    symbols = rng.choice(SOME_BYTES if kind == "bytes" else len(VOCABULARIES[kind]), num)
    return Labelling(tuple(symbols.tolist()), tuple(rng.integers(0, 50, num).tolist()), -1.5)


def prefix_by_prefix(labelling: Labelling, vocabulary: Any, step_seconds: float) -> Transcript:
    """The same by definition: a symbol is what it adds to the text of those before it."""
    symbols, steps = labelling.symbols, labelling.frames
    text = vocabulary.decode(symbols)
    ends = [len(vocabulary.decode(symbols[: count + 1])) for count in range(len(symbols))]
    words, position = [], 0
    for word in text.split():
        first = text.index(word, position)
        position = first + len(word)
        places = zip(steps, [0, *ends], ends, strict=False)
        inside = [step for step, begin, end in places if begin < position and end > first]
        words.append(Word(printable(word), min(inside) * step_seconds, (max(inside) + 1) * step_seconds))
    return Transcript(printable(text), labelling.score, tuple(words), symbols, steps)


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_times_are_those_of_the_symbols_of_each_word(kind: str) -> None:
    vocabulary = VOCABULARIES[kind]
    for seed in range(60):
        labelling = draw(kind, seed, seed)
        assert transcribed(labelling, vocabulary, 0.02) == prefix_by_prefix(labelling, vocabulary, 0.02)


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_a_long_transcript_is_described(kind: str) -> None:
    labelling = draw(kind, 0, 20_000)
    found = transcribed(labelling, VOCABULARIES[kind], 1.0)
    assert [word.text for word in found.words] == found.text.split()
    assert len(found.words) > 100


def test_a_letter_is_heard_until_its_last_byte() -> None:
    symbols = tuple("á bé€".encode())
    found = transcribed(Labelling(symbols, (1, 2, 3, 4, 5, 9, 11, 12, 15), 0.0), VOCABULARIES["bytes"], 1.0)
    assert found.words == (Word("á", 1, 3), Word("bé€", 4, 16))


def test_bytes_that_are_no_text_can_be_written() -> None:
    found = transcribed(Labelling((0xC3, *b"b ", 0xA1), (0, 1, 2, 3), 0.0), VOCABULARIES["bytes"], 1.0)
    assert found.text == "\ufffdb \ufffd"
    assert found.words == (Word("\ufffdb", 0, 2), Word("\ufffd", 3, 4))
    assert found.text.encode()
