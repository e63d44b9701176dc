"""Shallow fusion: a language model that shares in a search, symbol by symbol or word by word.

    fusion(y) = Σ_i (weight · log p(y_i | y_1 ... y_{i-1}) + length_bonus)

over the units of y (symbols, or words), the end among them, which gets no bonus. Gulcehre et al., "On Using Monolingual
Corpora in Neural Machine Translation", 2015; the bonus makes up for the language model's price of every unit: Hannun et
al., "First-Pass Large Vocabulary Continuous Speech Recognition", 2014.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.decoding.prefixes import step_rows
from lstm_research.decoding.sampling import Predict


@runtime_checkable
class Fusion(Protocol):
    """What a search asks. A state is whatever belongs to one prefix; a search keeps it and hands it back."""

    def initial(self) -> Any:
        """Returns the state of the empty prefix."""

    def scores(self, states: Sequence[Any]) -> Float[np.ndarray, "N V"]:
        """Returns what each symbol of the recogniser would add to each prefix; what stands for the blank is ignored."""

    def extend(self, states: Sequence[Any], symbols: Int[np.ndarray, "N"]) -> list[Any]:
        """Returns the states of the prefixes with one more symbol each."""

    def end(self, states: Sequence[Any]) -> Float[np.ndarray, "N"]:
        """Returns what each prefix gets as a whole transcript."""


def refuse_fusion(fusion: Fusion | None) -> None:
    """Raises a `UserError` if there is a language model, for a decoder that cannot ask it."""
    if fusion is not None:
        raise UserError("greedy decoding asks no language model; use the decoder beam, or leave the model out")


class _Reading(NamedTuple):
    """The language model after some text."""

    carry: Any  # one row
    log_probs: Any  # of its next symbol, [W]


class _Reader:
    """The language model on single rows of text."""

    batch_size = 16
    """Rows that it reads together."""

    def __init__(self, predict: Predict, params: Params, carry: Any, end_id: int):
        def step(carry: Any, symbols: Any) -> _Reading:
            carry, logits = predict(params, carry, symbols[None])
            return _Reading(carry, jax.nn.log_softmax(logits[0].astype(jnp.promote_types(logits.dtype, "float32"))))

        self._step = jax.jit(step)
        row = jax.tree.map(lambda leaf: leaf[0], jax.device_get(carry))
        self.start = step_rows(self._step, self.batch_size, [row], [np.int32(end_id)])[0]

    def read(self, readings: Sequence[_Reading], texts: Sequence[Sequence[int]]) -> tuple[list[_Reading], list[float]]:
        """Returns the readings after more symbols, perhaps none, and the symbols' log-probabilities."""
        result, totals = list(readings), [0.0] * len(readings)
        for position in range(max(map(len, texts), default=0)):
            rows = [row for row, text in enumerate(texts) if position < len(text)]
            symbols = [np.int32(texts[row][position]) for row in rows]
            for row, symbol in zip(rows, symbols, strict=True):
                totals[row] += float(result[row].log_probs[symbol])
            stepped = step_rows(self._step, self.batch_size, [result[row].carry for row in rows], symbols)
            for row, reading in zip(rows, stepped, strict=True):
                result[row] = reading
        return result, totals


@dataclasses.dataclass(frozen=True)
class SymbolFusion:
    """A language model over the recogniser's own symbols: characters with characters, words with words.

    Attributes:
      reader: the language model.
      ids: its number of each symbol of the recogniser; the end's where the blank stands, and -1 of the recogniser's
        `<unk>` if it has none: that is never written then.
      end_id: its number of the end.
      weight: of its log-probabilities.
      length_bonus: for every symbol.
    """

    reader: _Reader
    ids: Int[np.ndarray, "V"]
    end_id: int
    weight: float
    length_bonus: float

    def initial(self) -> _Reading:
        """See `Fusion`."""
        return self.reader.start

    def scores(self, states: Sequence[_Reading]) -> Float[np.ndarray, "N V"]:
        """See `Fusion`."""
        log_probs = np.stack([state.log_probs[self.ids] for state in states]).astype(np.float64)
        return self.weight * np.where(self.ids < 0, -np.inf, log_probs) + self.length_bonus

    def extend(self, states: Sequence[_Reading], symbols: Int[np.ndarray, "N"]) -> list[_Reading]:
        """See `Fusion`."""
        return self.reader.read(states, [[int(self.ids[symbol])] for symbol in symbols])[0]

    def end(self, states: Sequence[_Reading]) -> Float[np.ndarray, "N"]:
        """See `Fusion`."""
        return self.weight * np.array([float(state.log_probs[self.end_id]) for state in states])


class _Word(NamedTuple):
    """A prefix: the language model after its whole words, and the letters that follow."""

    reading: _Reading
    letters: str
    score: float  # of the letters as a word


@dataclasses.dataclass(frozen=True)
class WordFusion:
    """A language model over words for a recogniser of characters: a word has its price where it ends.

    Words that the language model does not have are its `<unk>`. Spaces without a word before them cost nothing.

    Attributes:
      reader: the language model.
      vocabulary: its words.
      symbols: the recogniser's.
      end_id: the language model's number of the end.
      weight: of its log-probabilities.
      length_bonus: for every word.
    """

    reader: _Reader
    vocabulary: Any
    symbols: Sequence[str]
    end_id: int
    weight: float
    length_bonus: float

    def initial(self) -> _Word:
        """See `Fusion`."""
        return _Word(self.reader.start, "", 0.0)

    def scores(self, states: Sequence[_Word]) -> Float[np.ndarray, "N V"]:
        """See `Fusion`."""
        result = np.zeros((len(states), len(self.symbols)))
        result[:, self._space] = [state.score for state in states]
        return result

    def extend(self, states: Sequence[_Word], symbols: Int[np.ndarray, "N"]) -> list[_Word]:
        """See `Fusion`."""
        ends = (symbols == self._space).tolist()
        readings = self._after(states, ends)
        letters = [
            "" if end else state.letters + self.symbols[symbol]
            for state, symbol, end in zip(states, symbols, ends, strict=True)
        ]
        texts = [self._ids(word) for word in letters]
        # The last symbol of a word is priced without reading it: most words are one symbol.
        before, prices = self.reader.read(readings, [text[:-1] for text in texts])
        scores = [
            self.weight * (price + float(reading.log_probs[text[-1]])) + self.length_bonus if text else 0.0
            for price, reading, text in zip(prices, before, texts, strict=True)
        ]
        return [_Word(*each) for each in zip(readings, letters, scores, strict=True)]

    def end(self, states: Sequence[_Word]) -> Float[np.ndarray, "N"]:
        """See `Fusion`."""
        readings = self._after(states, [True] * len(states))
        ends = np.array([float(reading.log_probs[self.end_id]) for reading in readings])
        return np.array([state.score for state in states]) + self.weight * ends

    @functools.cached_property
    def _space(self) -> int:
        return self.symbols.index(" ")

    def _ids(self, word: str) -> list[int]:
        if self.vocabulary.unknown_symbols(word):
            return [self.vocabulary.ids["<unk>"]]
        return [int(i) for i in self.vocabulary.encode(word)]

    def _after(self, states: Sequence[_Word], ends: Sequence[bool]) -> list[_Reading]:
        """Returns the language model after the words that end."""
        texts = [self._ids(state.letters) if end else [] for state, end in zip(states, ends, strict=True)]
        return self.reader.read([state.reading for state in states], texts)[0]


def make_fusion(
    predict: Predict,
    params: Params,
    carry: Any,
    language_vocabulary: Any,
    vocabulary: Any,
    *,
    blank_id: int,
    weight: float,
    length_bonus: float = 0.0,
) -> SymbolFusion | WordFusion:
    """Returns the fusion of a language model that was trained on sentences, one a line.

    A model over words shares in the search of a recogniser of characters word by word; otherwise every symbol of the
    recogniser must be one of the language model's, but for `<unk>`.

    Args:
      predict: `(params, carry, tokens [T, B]) -> (carry, logits [T, B, W])`.
      params: of the language model.
      carry: its initial state, of one row.
      language_vocabulary: its symbols.
      vocabulary: the recogniser's.
      blank_id: the recogniser's blank, which stands for no text.
      weight: of the language model, above 0.
      length_bonus: for every symbol or word that it prices.

    Raises:
      UserError: the language model lacks the end of a line or symbols of the recogniser, or has no word that it can
        write; a weight that is none.
    """
    if not 0 < weight < math.inf:
        raise UserError(f"the language model's weight must be above 0 and finite, got {weight}")
    if not math.isfinite(length_bonus):
        raise UserError(f"length_bonus must be finite, got {length_bonus}")
    kind, symbols = vocabulary.kind, vocabulary.symbols
    try:
        end_id = language_vocabulary.end_id
    except UserError as error:
        raise UserError(f"the language model was not trained on sentences, one a line: {error}") from error
    reader = _Reader(predict, params, carry, end_id)
    shared: dict[str, Any] = {"end_id": end_id, "weight": weight, "length_bonus": length_bonus}
    if language_vocabulary.kind == "words" and kind == "characters":
        if " " not in vocabulary.ids:
            raise UserError("a language model over words needs spaces, and the transcripts that were learnt have none")
        _compare_spelling(language_vocabulary, symbols)
        return WordFusion(reader, language_vocabulary, symbols, **shared)
    if language_vocabulary.kind != kind:
        raise UserError(
            f"a language model over {language_vocabulary.kind} cannot price the recogniser's {kind}; train one over "
            f"{kind}"
        )
    known = language_vocabulary.ids | {symbols[blank_id]: end_id}
    if missing := [symbol for symbol in symbols if symbol not in known and symbol != "<unk>"]:
        shown = ", ".join(map(repr, missing[:20])) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
        raise UserError(
            f"the language model lacks {kind} of the recogniser: {shown}; train it on text that is written like the "
            "transcripts"
        )
    return SymbolFusion(reader, np.array([known.get(symbol, -1) for symbol in symbols]), **shared)


def _compare_spelling(language_vocabulary: Any, symbols: Sequence[str]) -> None:
    """Says where words of the language model are written otherwise than the transcripts: it takes these for `<unk>`.

    Transcripts are not at hand here, but a recogniser has exactly their characters.

    Raises:
      UserError: the recogniser can write none of the words.
    """
    fold = str.lower if language_vocabulary.lower_case else str
    letters = {fold(symbol) for symbol in symbols if len(symbol) == 1 and not symbol.isspace()}
    words = [word for word in language_vocabulary.symbols if word not in ("<unk>", "<eos>")]
    foreign = [word for word in words if not letters.issuperset(word)]
    shown = ", ".join(map(repr, foreign[:3]))
    way_out = "train it on text that is written like the transcripts (case, signs)"
    if len(foreign) == len(words):
        raise UserError(
            f"the recogniser can write none of the {len(words):,} words of the language model ({shown}, ...); {way_out}"
        )
    if 2 * len(foreign) > len(words):
        logging.warning(
            "the recogniser cannot write %d of the %d words of the language model (%s, ...); %s",
            len(foreign),
            len(words),
            shown,
            way_out,
        )
    if strange := sorted(letters.difference(*words)):
        logging.warning(
            "no word of the language model has %s, so every word with one of them is <unk> to it; %s",
            ", ".join(map(repr, strange[:20])),
            way_out,
        )
