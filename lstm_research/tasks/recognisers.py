"""How each kind of acoustic model is decoded: from features of frames to labellings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Params
from lstm_research.common.errors import UserError
from lstm_research.decoding import DECODERS
from lstm_research.decoding.ctc import CTC_DECODERS
from lstm_research.decoding.fusion import Fusion
from lstm_research.decoding.hypotheses import sentence_keys
from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.transducer import TRANSDUCER_DECODERS

Apply = Callable[..., Any]
"""A model as a pure function, see `lstm_research.models.layers.functional`."""

Recognise = Callable[[Params, np.ndarray, np.ndarray, Fusion | None, np.ndarray, int], list[list[Labelling]]]
"""`(params, frames [B, T, D], lengths [B], fusion, indices [B], seed) -> labellings of each utterance, the best first`.

What a decoder draws for an utterance depends on the seed and on its index in the whole input, not on its batch. The
frames of a labelling are outputs of the encoder."""


class Recogniser(NamedTuple):
    """The decoders of a kind of model.

    Attributes:
      decoders: by the name that configs use.
      make: from a decoder, the model and the blank's number to what recognises; keep it, it holds what is compiled.
    """

    decoders: Mapping[str, Any]
    make: Callable[[Any, Apply, int], Recognise]


def ctc_log_probs(apply: Apply) -> Callable[..., Any]:
    """Returns the compiled function from parameters, frames and lengths to log-probabilities [S, B, V] and lengths."""

    @jax.jit
    def log_probs(params: Params, frames: Array, lengths: Array) -> tuple[Array, Array]:
        logits, lengths = apply(params, jnp.swapaxes(frames, 0, 1), lengths)
        return jax.nn.log_softmax(logits), lengths

    return log_probs


def _of_ctc(decoder: Any, apply: Apply, blank_id: int) -> Recognise:
    log_probs = ctc_log_probs(apply)

    def recognise(
        params: Params, frames: np.ndarray, lengths: np.ndarray, fusion: Fusion | None, indices: np.ndarray, seed: int
    ) -> Any:
        found, valid = jax.device_get(log_probs(params, frames, lengths))
        return [decoder(found[: valid[row], row], blank_id=blank_id, fusion=fusion) for row in range(found.shape[1])]

    return recognise


def _of_transducer(decoder: Any, apply: Apply, blank_id: int) -> Recognise:
    def predict(params: Params, symbols: Array, state: Any) -> Any:
        return apply(params, symbols, state, method="predict")

    def join(params: Params, encoded: Array, predicted: Array) -> Array:
        return apply(params, encoded, predicted, method="log_probs")

    @jax.jit
    def encode(params: Params, frames: Array, lengths: Array) -> Any:
        return apply(params, jnp.swapaxes(frames, 0, 1), lengths, method="encode")

    search = decoder.make(predict, join, blank_id=blank_id)

    def recognise(
        params: Params, frames: np.ndarray, lengths: np.ndarray, fusion: Fusion | None, indices: np.ndarray, seed: int
    ) -> Any:
        return search(params, *encode(params, frames, lengths), fusion)

    return recognise


def _of_attention(decoder: Any, apply: Apply, blank_id: int) -> Recognise:
    @jax.jit
    def encode(params: Params, frames: Array, lengths: Array) -> Any:
        return apply(params, jnp.swapaxes(frames, 0, 1), lengths, method="encode")

    def step(params: Params, state: Any, tokens: Array) -> Any:
        return apply(params, state, tokens, method="step")

    decode = decoder.make(step, blank_id)

    def recognise(
        params: Params, frames: np.ndarray, lengths: np.ndarray, fusion: Fusion | None, indices: np.ndarray, seed: int
    ) -> Any:
        if fusion is not None:
            raise UserError("a language model shares in the search of CTC and the transducer, and this run has neither")
        state, _ = encode(params, frames, lengths)
        found = jax.device_get(decode(params, state, state.memory.valid, sentence_keys(seed, indices)))
        result = []
        for row in range(len(frames)):
            labellings = []
            for index, length in enumerate(found.lengths[row].tolist()):
                if length:
                    symbols = tuple(found.tokens[row, index, : length - 1].tolist())
                    places = found.attention[row, index, : length - 1].argmax(axis=-1)
                    labellings.append(Labelling(symbols, tuple(places.tolist()), float(found.scores[row, index])))
            result.append(labellings)
        return result

    return recognise


RECOGNISERS: Mapping[str, Recogniser] = {
    "ctc": Recogniser(CTC_DECODERS, _of_ctc),
    "listen_attend_spell": Recogniser(DECODERS, _of_attention),
    "transducer": Recogniser(TRANSDUCER_DECODERS, _of_transducer),
}
"""By the name of the model."""
