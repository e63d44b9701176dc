"""Text from a language model, piece by piece."""

import re
from collections.abc import Iterable, Iterator
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


def _decoded(chunks: Iterable[np.ndarray], vocabulary: Any, prompts: np.ndarray) -> Iterator[list[str]]:
    """Yields the text that each chunk adds; the whole is the text that all symbols have at once.

    What is new is decoded after the last symbol before, which decides whether a space or the end of a line comes first.
    The beginning of a character waits for the rest of it. What never becomes a character shows as U+FFFD.
    """
    last = prompts[:, -1:].tolist()
    waiting: list[list[int]] = [[] for _ in last]

    def text(row: int, new: list[int]) -> str:
        before, last[row] = last[row], (last[row] + new)[-1:]
        return printable(vocabulary.decode(before + new)[len(vocabulary.decode(before)) :])

    for chunk in chunks:
        pieces = []
        for row, symbols in enumerate(chunk.tolist()):
            symbols = waiting[row] + symbols
            cut = len(symbols) - vocabulary.incomplete(symbols)
            waiting[row] = symbols[cut:]
            pieces.append(text(row, symbols[:cut]))
        yield pieces
    if any(waiting):
        yield [text(row, rest) for row, rest in enumerate(waiting)]
