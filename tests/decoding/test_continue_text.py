"""Text that is written piece by piece is the text that all symbols have at once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Bytes, Characters, Subwords, Vocabulary, Words
from lstm_research.decoding.sampling import Sampler
from lstm_research.decoding.text import _decoded, continue_text

TEXT = "the cat — naïve  and 日本 \U0001f600 — sat, on \n\nthe mat\n it's  a  cat\n" * 3
RECIPES: dict[str, Any] = {
    "characters": Characters(unknown="replace"),
    "bytes": Bytes(),
    "words": Words(),
    "punctuation": Words(tokenizer="punctuation"),
    "unigram": Subwords(size=25, character_coverage=1.0),
    "bpe": Subwords(size=25, character_coverage=1.0, model_type="bpe"),
}


def printable(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


def cut(symbols: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    first = 0
    while first < symbols.shape[1]:
        length = int(rng.integers(1, 6))
        yield symbols[:, first : first + length]
        first += length


def written(vocabulary: Vocabulary, prompts: np.ndarray, symbols: np.ndarray, rng: np.random.Generator) -> list[str]:
    pieces = list(_decoded(cut(symbols, rng), vocabulary, prompts))
    return ["".join(row) for row in zip(*pieces, strict=True)]


@pytest.mark.parametrize("name", RECIPES)
def test_pieces_are_the_whole_text(name: str) -> None:
    vocabulary = RECIPES[name].fit([TEXT])
    rng = np.random.default_rng(0)
    for text in ("the cat", "naïve  日本\n", "\n", "a \U0001f600"):
        prompts = np.tile(vocabulary.encode(text), (3, 1))
        for _ in range(20):
            symbols = rng.integers(0, len(vocabulary), (3, 40))
            expected = [vocabulary.decode(np.concatenate(both)) for both in zip(prompts, symbols, strict=True)]
            start = len(vocabulary.decode(prompts[0]))
            assert written(vocabulary, prompts, symbols, rng) == [printable(row[start:]) for row in expected]


@pytest.mark.parametrize("name", RECIPES)
def test_a_text_is_written_as_it_is(name: str) -> None:
    vocabulary = RECIPES[name].fit([TEXT])
    symbols = vocabulary.encode(TEXT)
    text = vocabulary.decode(symbols)
    assert (text == TEXT) == (vocabulary.kind != "words")
    prompt = vocabulary.decode(symbols[:1])
    for seed in range(5):
        pieces = written(vocabulary, symbols[None, :1], symbols[None, 1:], np.random.default_rng(seed))
        assert [prompt + piece for piece in pieces] == [text]


def test_a_character_is_not_torn() -> None:
    vocabulary = Bytes().fit([])
    symbols = np.frombuffer("é日\U0001f600".encode(), np.uint8).astype(np.int32)[None]
    pieces = [piece for (piece,) in _decoded(iter(symbols.T[:, :, None]), vocabulary, np.array([[97]]))]
    assert pieces == ["", "é", "", "", "日", "", "", "", "\U0001f600"]
    unfinished = [piece for (piece,) in _decoded(iter([symbols[:, :1]]), vocabulary, np.array([[97]]))]
    assert unfinished == ["", "\ufffd"]


def follow(vocabulary: Vocabulary, text: str) -> Callable[..., Any]:
    """A model that writes `text` over and over, whatever it has read; the carry counts the symbols."""
    symbols = jnp.asarray(vocabulary.encode(text))

    def predict(params: Any, carry: Any, tokens: Any) -> tuple[Any, Any]:
        number = carry + jnp.arange(1, 1 + len(tokens))[:, None]  # [T, B]
        return carry + len(tokens), 9.0 * jax.nn.one_hot(symbols[number % len(symbols)], len(vocabulary))

    return predict


@pytest.mark.parametrize("name", RECIPES)
def test_continue_text(name: str) -> None:
    vocabulary = RECIPES[name].fit([TEXT])
    symbols = vocabulary.encode(TEXT)
    prompt = vocabulary.decode(symbols[:5])
    assert vocabulary.encode(prompt).tolist() == symbols[:5].tolist()
    pieces = continue_text(
        follow(vocabulary, TEXT),
        {},
        jnp.zeros(2, jnp.int32),
        vocabulary,
        prompt,
        length=len(symbols) - 5,
        sampler=Sampler(temperature=0.0),
        seed=0,
    )
    assert ["".join(row) for row in zip(*pieces, strict=True)] == [vocabulary.decode(symbols)[len(prompt) :]] * 2


@pytest.mark.parametrize(
    ("prompt", "length", "message"),
    [("", 3, "the prompt is empty"), ("the Ω", 3, "outside the vocabulary: 'Ω'"), ("the", 0, "at least 1")],
)
def test_wrong_prompts_are_refused(prompt: str, length: int, message: str) -> None:
    vocabulary = RECIPES["bpe"].fit([TEXT])
    with pytest.raises(UserError, match=message):
        continue_text(
            follow(vocabulary, TEXT),
            {},
            jnp.zeros(1, jnp.int32),
            vocabulary,
            prompt,
            length=length,
            sampler=Sampler(),
            seed=0,
        )
