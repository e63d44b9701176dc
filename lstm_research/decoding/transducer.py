"""Decoding of the recurrent neural network transducer: greedy, also of a stream, and beam search.

At every frame the model writes any number of symbols, each knowing those before it, and then the blank, which goes on
to the next frame. The decoders let it write at most `max_symbols` at a frame: what is searched are all alignments
within that limit. Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Bool, Float, Int, Params
from lstm_research.common.errors import UserError
from lstm_research.decoding.fusion import Fusion, refuse_fusion
from lstm_research.decoding.prefixes import Labelling, Prefixes, best_indices, check_beam, step_rows

Predict = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`(params, symbols [B], state) -> (state, predicted [B, J])`; the blank and None before the first symbol."""

Join = Callable[[Any, Any, Any], Any]
"""`(params, encoded [B, J], predicted [B, J]) -> log_probs [B, V]`, normalised."""


class Written(NamedTuple):
    """What has been written so far; all arrays have the batch axis first.

    Attributes:
      state: of the prediction network.
      predicted: what the joint network reads of it.
      log_probs: of the alignment.
    """

    state: Any
    predicted: Float[Array, "B J"]
    log_probs: Float[Array, "B"]


def begin(predict: Predict, params: Params, batch_size: int, *, blank_id: int) -> Written:
    """Returns the state of the greedy search before the first frame."""
    state, predicted = predict(params, jnp.full((batch_size,), blank_id, "int32"), None)
    return Written(state, predicted, jnp.zeros((batch_size,), jnp.promote_types(predicted.dtype, "float32")))


def write_greedily(
    predict: Predict,
    join: Join,
    params: Params,
    written: Written,
    encoded: Float[Array, "T B J"],
    lengths: Int[Array, "B"],
    *,
    blank_id: int,
    max_symbols: int,
) -> tuple[Written, Int[Array, "T B M"]]:
    """Takes at every step the most likely symbol or blank; two calls on two halves of a stream equal one on the whole.

    Args:
      predict: the prediction network.
      join: the joint network.
      params: of both.
      written: from `begin`, or of the call before.
      encoded: the next frames.
      lengths: how many of them are valid.
      blank_id: the number of the blank.
      max_symbols: M, symbols that can be written at a frame; then the blank is all that is left.

    Returns:
      What has been written after these frames, and the symbols of each frame, filled up with the blank.
    """

    def frame(written: Written, inputs: tuple[Array, Array]) -> tuple[Written, Array]:
        t, x = inputs

        def body(loop: tuple[Array, Array, Written, Array]) -> tuple[Array, Array, Written, Array]:
            count, active, written, symbols = loop
            log_probs = join(params, x, written.predicted)
            allowed = (count < max_symbols) | (jnp.arange(log_probs.shape[-1]) == blank_id)
            best = jnp.argmax(jnp.where(allowed, log_probs, -jnp.inf), axis=-1).astype("int32")
            gained = jnp.take_along_axis(log_probs, best[:, None], axis=-1)[:, 0]
            total = written.log_probs + jnp.where(active, gained, 0)
            active &= best != blank_id
            longer = Written(*predict(params, best, written.state), total)
            symbols = symbols.at[:, count].set(jnp.where(active, best, blank_id), mode="drop")
            return count + 1, active, _select(active, longer, written._replace(log_probs=total)), symbols

        symbols = jnp.full((len(x), max_symbols), blank_id, "int32")
        start = (jnp.zeros((), "int32"), t < lengths, written, symbols)
        _, _, written, symbols = jax.lax.while_loop(lambda loop: jnp.any(loop[1]), body, start)
        return written, symbols

    return jax.lax.scan(frame, written, (jnp.arange(len(encoded)), encoded))


def _select(chosen: Bool[Array, "B"], new: Any, old: Any) -> Any:
    """Returns the rows of `new` that are chosen, and else those of `old`."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransducerGreedy:
    """Takes at every step the most likely symbol or blank.

    Attributes:
      max_symbols: symbols that can be written at a frame.
    """

    max_symbols: int = 8

    def __post_init__(self) -> None:
        _check_max_symbols(self.max_symbols)

    def make(self, predict: Predict, join: Join, *, blank_id: int) -> "Recognise":
        """Returns the decoder; keep it, for it holds what is compiled.

        Returns:
          A function of the parameters, encoded frames [T, B, J], how many of them are valid [B], and a `Fusion`, which
          must be None here. For each utterance it returns the labelling in a list; its score is the log-probability of
          the alignment.
        """

        @jax.jit
        def write(params: Params, encoded: Array, lengths: Array) -> tuple[Written, Array]:
            written = begin(predict, params, encoded.shape[1], blank_id=blank_id)
            options: dict[str, int] = {"blank_id": blank_id, "max_symbols": self.max_symbols}
            return write_greedily(predict, join, params, written, encoded, lengths, **options)

        def recognise(params: Params, encoded: Any, lengths: Any, fusion: Fusion | None = None) -> Any:
            refuse_fusion(fusion)
            written, symbols = jax.device_get(write(params, encoded, lengths))
            return [
                [Labelling(*read_symbols(symbols[:, row], blank_id), score=float(written.log_probs[row]))]
                for row in range(symbols.shape[1])
            ]

        return recognise


def read_symbols(symbols: Int[np.ndarray, "T M"], blank_id: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the symbols of an utterance from what `write_greedily` returned, and the frame of each."""
    frames, rows = np.nonzero(symbols != blank_id)
    return tuple(symbols[frames, rows].tolist()), tuple(frames.tolist())


Recognise = Callable[..., list[list[Labelling]]]
"""`(params, encoded [T, B, J], lengths [B], fusion=None)`; for each utterance its labellings, the best first."""


class _Hypothesis(NamedTuple):
    """A prefix at some point of a frame."""

    prefix: int
    log_prob: float  # summed over alignments
    frames: tuple[int, ...]  # of the most likely of these
    peak: float  # and its log-probability, as far as it is known


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransducerBeamSearch:
    """Keeps at every frame the `beam_size` prefixes with the best scores.

    The score of a prefix y is log P(y) + fusion(y), where P(y) is the sum over its alignments with the frames so far,
    and fusion what a language model adds. At a frame, the prefixes of the frame before are prolonged by 0, 1, ...
    `max_symbols` symbols, the best `beam_size` each time, and every one of them can then go on by the blank; equal
    prefixes are merged there. No more symbols are tried once none of the prefixes that would be prolonged is as good as
    `beam_size` that have gone on. Graves, 2012, with the order of Saon, Tüske and Audhkhasi, "Alignment-Length
    Synchronous Decoding for RNN Transducer", 2020 (their time-synchronous search). A beam that holds all prefixes makes
    the search exact.

    Attributes:
      beam_size: prefixes that are kept.
      num_best: how many labellings to return, at most `beam_size`.
      max_symbols: symbols that can be written at a frame.
    """

    beam_size: int = 8
    num_best: int = 1
    max_symbols: int = 8

    def __post_init__(self) -> None:
        check_beam(self.beam_size, self.num_best)
        _check_max_symbols(self.max_symbols)

    def make(self, predict: Predict, join: Join, *, blank_id: int) -> Recognise:
        """Returns the decoder; keep it, for it holds what is compiled. See `TransducerGreedy.make`."""
        jitted_join = jax.jit(join)
        jitted_predict = jax.jit(predict)
        first = jax.jit(lambda params: predict(params, jnp.full((1,), blank_id, "int32"), None))

        def recognise(params: Params, encoded: Any, lengths: Any, fusion: Fusion | None = None) -> Any:
            start = jax.tree.map(lambda leaf: leaf[0], jax.device_get(first(params)))
            steps = functools.partial(jitted_join, params), functools.partial(jitted_predict, params)
            return [
                _Search(self, blank_id, *steps, fusion).run(start, np.asarray(encoded)[:length, row])
                for row, length in enumerate(np.asarray(lengths).tolist())
            ]

        return recognise


class _Search:
    """A beam search of one utterance."""

    def __init__(self, options: TransducerBeamSearch, blank_id: int, join: Any, predict: Any, fusion: Fusion | None):
        self.options, self.blank_id, self.join, self.predict, self.fusion = options, blank_id, join, predict, fusion
        self.prefixes = Prefixes()
        self.known: dict[
            int, tuple[Any, Any]
        ] = {}  # of a prefix the prediction network's state, and what is read of it
        self.fused: dict[int, tuple[float, Any]] = {}  # what the language model adds to it, and its state

    def run(self, start: tuple[Any, Any], encoded: np.ndarray) -> list[Labelling]:
        self.known[0] = start
        self.fused[0] = (0.0, None if self.fusion is None else self.fusion.initial())
        beam = [_Hypothesis(0, 0.0, (), 0.0)]
        for t, x in enumerate(encoded):
            beam = self._frame(t, x, beam)
            alive = {each.prefix for each in beam}
            self.known = {prefix: value for prefix, value in self.known.items() if prefix in alive}
            self.fused = {prefix: value for prefix, value in self.fused.items() if prefix in alive}
        totals = np.array([each.log_prob + self.fused[each.prefix][0] for each in beam])
        if self.fusion is not None:
            totals += self.fusion.end([self.fused[each.prefix][1] for each in beam])
        best = [(float(totals[index]), beam[index]) for index in best_indices(totals, self.options.num_best)]
        return [Labelling(self.prefixes.read(each.prefix), each.frames, score) for score, each in best]

    def _frame(self, t: int, x: np.ndarray, level: list[_Hypothesis]) -> list[_Hypothesis]:
        """Returns the beam after a frame."""
        gone: dict[int, _Hypothesis] = {}
        K = self.options.beam_size
        for count in range(self.options.max_symbols + 1):
            predicted = [self.known[each.prefix][1] for each in level]
            log_probs = np.stack(step_rows(self.join, K, [x] * len(level), predicted)).astype(np.float64)
            for each, row in zip(level, log_probs, strict=True):
                by = row[self.blank_id]
                _merge(gone, each._replace(log_prob=each.log_prob + by, peak=each.peak + by))
            if count == self.options.max_symbols:
                break
            level = self._longer(t, level, log_probs)
            scores = sorted((self._score(each) for each in gone.values()), reverse=True)
            if not level or (len(scores) >= K and max(map(self._score, level)) < scores[K - 1]):
                break
        found = list(gone.values())
        return [found[index] for index in best_indices(np.array([self._score(each) for each in found]), K)]

    def _longer(self, t: int, level: list[_Hypothesis], log_probs: np.ndarray) -> list[_Hypothesis]:
        """Returns the best prefixes with one more symbol."""
        scores = np.array([self._score(each) for each in level])[:, None] + log_probs
        scores[:, self.blank_id] = -np.inf
        states = [self.fused[each.prefix][1] for each in level]
        gains = np.zeros_like(scores) if self.fusion is None else self.fusion.scores(states)
        best = best_indices((scores + gains).ravel(), self.options.beam_size)
        rows, symbols = np.unravel_index(best, scores.shape)
        result, new = [], {}
        for row, symbol in zip(rows.tolist(), symbols.tolist(), strict=True):
            before, by = level[row], log_probs[row, symbol]
            prefix = self.prefixes.child(before.prefix, symbol)
            result.append(_Hypothesis(prefix, before.log_prob + by, (*before.frames, t), before.peak + by))
            if prefix not in self.known:
                new[prefix] = (before.prefix, row, symbol)
        if new:
            self._know(new, gains)
        return result

    def _know(self, new: dict[int, tuple[int, int, int]], gains: np.ndarray) -> None:
        """Keeps the states of prefixes that were not known, by the prefix before, its row in `gains`, the symbol."""
        parents, rows, symbols = zip(*new.values(), strict=True)
        inputs = [np.int32(symbol) for symbol in symbols], [self.known[parent][0] for parent in parents]
        self.known |= zip(new, step_rows(self.predict, self.options.beam_size, *inputs), strict=True)
        states: list[Any] = [None] * len(new)
        if self.fusion is not None:
            states = self.fusion.extend([self.fused[parent][1] for parent in parents], np.array(symbols))
        for prefix, parent, row, symbol, state in zip(new, parents, rows, symbols, states, strict=True):
            self.fused[prefix] = (self.fused[parent][0] + float(gains[row, symbol]), state)

    def _score(self, each: _Hypothesis) -> float:
        return each.log_prob + self.fused[each.prefix][0]


def _merge(gone: dict[int, _Hypothesis], new: _Hypothesis) -> None:
    """Adds a hypothesis to those that have gone on by the blank."""
    old = gone.setdefault(new.prefix, new)
    if old is not new:
        likelier = new if new.peak > old.peak else old
        gone[new.prefix] = likelier._replace(log_prob=float(np.logaddexp(old.log_prob, new.log_prob)))


def _check_max_symbols(max_symbols: int) -> None:
    if max_symbols < 1:
        raise UserError(f"max_symbols must be at least 1, got {max_symbols}")


TransducerDecoder = TransducerGreedy | TransducerBeamSearch

TRANSDUCER_DECODERS: Mapping[str, type[TransducerDecoder]] = {"greedy": TransducerGreedy, "beam": TransducerBeamSearch}
"""Every decoder of the transducer by the name that configs use."""
