"""Text from a language model, piece by piece."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.decoding.sampling import Predict, Sampler, generate

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python writes a byte that is not UTF-8


def continue_text(
    predict: Predict,
    params: Params,
    carry: Any,
    vocabulary: Any,
    prompt: str,
    *,
    length: int,
    sampler: Sampler,
    seed: int,
) -> Iterator[list[str]]:
    """Continues a prompt.

    Args:
      predict: `(params, carry, tokens [T, B]) -> (carry, logits [T, B, V])`.
      params: of the model.
      carry: the initial state, with as many rows as continuations are wanted.
      vocabulary: encodes the prompt and decodes what is written.
      prompt: text to begin with; at least one symbol.
      length: how many symbols to write.
      sampler: how a symbol is drawn.
      seed: of the draws.

    Returns:
      An iterator that gives, for each continuation, the text written since the last time.

    Raises:
      UserError: a length below 1, an empty prompt, or one with symbols outside the vocabulary. A prompt is never
        replaced by `<unk>` in silence.
    """
    if length < 1:
        raise UserError(f"length must be at least 1, got {length}")
    if outside := vocabulary.unknown_symbols(prompt):
        raise UserError(
            f"the prompt has {vocabulary.kind} outside the vocabulary: {', '.join(map(repr, outside))}; leave them out"
        )
    tokens = vocabulary.encode(prompt)
    if len(tokens) == 0:
        raise UserError("the prompt is empty; give at least one symbol")
    num_samples = len(jax.tree.leaves(carry)[0])
    prompts = np.tile(tokens, (num_samples, 1))
    chunks = generate(predict, params, carry, prompts, sampler=sampler, key=jax.random.key(seed), length=length)
    return _decoded(chunks, vocabulary, prompts)


def printable(text: str) -> str:
    """Returns what a model wrote as text that can be printed and stored: U+FFFD for bytes that are not UTF-8."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class RunningText:
    """The text of symbols that come bit by bit, each decoded once; the whole is the text that all have at once.

    What is new is decoded after the last symbol before, which decides whether a space or the end of a line comes first.
    The beginning of a character waits for the rest of it. What never becomes a character shows as U+FFFD.
    """

    def __init__(self, vocabulary: Any, before: Sequence[int] = ()):
        """Begins after some symbols, which are not part of the text."""
        self._vocabulary = vocabulary
        self._last = list(before[-1:])
        self._waiting: list[int] = []

    def read(self, symbols: Sequence[int]) -> str:
        """Returns the text that further symbols add."""
        known = [*self._waiting, *symbols]
        cut = len(known) - self._vocabulary.incomplete(known)
        self._waiting = known[cut:]
        return self._decode(known[:cut])

    def end(self) -> str:
        """Returns the text of what still waits."""
        waiting, self._waiting = self._waiting, []
        return self._decode(waiting)

    def _decode(self, symbols: list[int]) -> str:
        before, self._last = self._last, (self._last + symbols)[-1:]
        decode = self._vocabulary.decode
        return printable(decode(before + symbols)[len(decode(before)) :])


def _decoded(chunks: Iterable[np.ndarray], vocabulary: Any, prompts: np.ndarray) -> Iterator[list[str]]:
    """Yields the text that each chunk adds to each prompt."""
    texts = [RunningText(vocabulary, prompt) for prompt in prompts.tolist()]
    for chunk in chunks:
        yield [text.read(symbols) for text, symbols in zip(texts, chunk.tolist(), strict=True)]
    rest = [text.end() for text in texts]
    if any(rest):
        yield rest
