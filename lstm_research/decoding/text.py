"""Text from a language model, piece by piece."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.decoding.sampling import Predict, Sampler, generate


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


def _decoded(chunks: Iterator[np.ndarray], vocabulary: Any, prompts: np.ndarray) -> Iterator[list[str]]:
    """Yields the text that each chunk adds: decoded after its last symbol before, as a word may need a space first."""
    last = prompts[:, -1:]
    for chunk in chunks:
        pieces = []
        for before, new in zip(last.tolist(), chunk.tolist(), strict=True):
            pieces.append(vocabulary.decode(before + new)[len(vocabulary.decode(before)) :])
        last = chunk[:, -1:]
        yield pieces
