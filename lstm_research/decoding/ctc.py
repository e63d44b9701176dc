"""Decoding of connectionist temporal classification: greedy, prefix beam search with a language model, alignment.

The model says at every frame how likely each symbol is, and the blank. A labelling's alignments are the sequences with
one symbol or blank a frame that give it when repetitions are merged and then blanks removed; its probability is their
sum. Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification", 2006.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lstm_research.common.errors import UserError
from lstm_research.decoding.fusion import Fusion, refuse_fusion
from lstm_research.decoding.prefixes import Labelling, Prefixes, best_indices, check_beam


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTCGreedy:
    """Takes the most likely symbol or blank at every frame: the labelling of the one best alignment."""

    def __call__(
        self, log_probs: Float[np.ndarray, "T V"], *, blank_id: int, fusion: Fusion | None = None
    ) -> list[Labelling]:
        """Returns the labelling in a list; its score is the log-probability of the alignment.

        A symbol's frame is that of its spike: where it is most likely, of the frames that were merged into it.

        Args:
          log_probs: of an utterance, normalised.
          blank_id: the number of the blank.
          fusion: must be None.

        Raises:
          UserError: there is a language model, which only a beam search can ask.
        """
        refuse_fusion(fusion)
        path = np.argmax(log_probs, axis=1)
        highest = np.max(log_probs, axis=1, initial=-np.inf)
        starts = np.flatnonzero(np.diff(path, prepend=-1))
        ends = np.append(starts[1:], len(path))[: len(starts)]
        runs = [(s, e) for s, e in zip(starts, ends, strict=True) if path[s] != blank_id]
        frames = tuple(int(start + np.argmax(highest[start:end])) for start, end in runs)
        return [Labelling(tuple(int(path[frame]) for frame in frames), frames, float(highest.sum()))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTCBeamSearch:
    """Keeps at every frame the `beam_size` prefixes with the best scores.

    The score of a prefix y is log P(y) + fusion(y), where P(y) is the sum over all alignments of the frames so far with
    y, and fusion what a language model adds (`lstm_research.decoding.fusion`). An alignment of y that ends in the blank
    and one that ends in y's last symbol go on differently, so their sums are kept apart. Graves, "Supervised Sequence
    Labelling with Recurrent Neural Networks", 2012, section 7.5; Hannun, Maas, Jurafsky and Ng, "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014. In float64. A beam that holds
    all prefixes makes the search exact.

    Attributes:
      beam_size: prefixes that are kept.
      num_best: how many labellings to return, at most `beam_size`.
      min_log_prob: symbols with a log-probability below it at a frame begin nothing there; None to try all.
    """

    beam_size: int = 16
    num_best: int = 1
    min_log_prob: float | None = None

    def __post_init__(self) -> None:
        check_beam(self.beam_size, self.num_best)
        if self.min_log_prob is not None and not self.min_log_prob < 0:
            raise UserError(f"min_log_prob must be below 0, got {self.min_log_prob}")

    def __call__(
        self, log_probs: Float[np.ndarray, "T V"], *, blank_id: int, fusion: Fusion | None = None
    ) -> list[Labelling]:
        """Returns the labellings with the best scores, the best first; a symbol's frame is its spike in `ctc_align`.

        Args:
          log_probs: of an utterance, normalised.
          blank_id: the number of the blank.
          fusion: the language model that shares in the search.
        """
        log_probs = log_probs.astype(np.float64)
        V = log_probs.shape[1]
        prefixes = Prefixes()
        beam = np.zeros(1, int)  # the prefixes' numbers
        last = np.array([blank_id])  # their last symbols
        blanks, others = (
            np.zeros(1),
            np.full(1, -np.inf),
        )  # log P of the alignments that end in the blank, and in `last`
        fused = np.zeros(1)  # what the language model has added
        states: list[Any] = [] if fusion is None else [fusion.initial()]
        for frame in log_probs:
            totals = np.logaddexp(blanks, others)
            stay_blanks = totals + frame[blank_id]
            stay_others = others + frame[last]
            longer = totals[:, None] + frame
            rows = np.arange(len(beam))
            longer[rows, last] = blanks + frame[last]  # without a blank between them, equal symbols are merged
            longer[:, blank_id] = -np.inf
            if self.min_log_prob is not None:
                longer[:, frame < self.min_log_prob] = -np.inf
            row_of = dict(zip(beam.tolist(), rows.tolist(), strict=True))
            for row, prefix in enumerate(beam.tolist()):  # what a prefix becomes may be in the beam already
                parent = row_of.get(prefixes.parent(prefix))
                if parent is not None:
                    stay_others[row] = np.logaddexp(stay_others[row], longer[parent, last[row]])
                    longer[parent, last[row]] = -np.inf
            gains = np.zeros((1, V)) if fusion is None else fusion.scores(states)
            scores = [np.logaddexp(stay_blanks, stay_others) + fused, (longer + fused[:, None] + gains).ravel()]
            best = best_indices(np.concatenate(scores), self.beam_size)
            stays = best < len(beam)
            rows, symbols = np.where(stays, best, (best - len(beam)) // V), (best - len(beam)) % V
            if fusion is not None:
                added = fusion.extend([states[row] for row in rows[~stays]], symbols[~stays])
                new_states = iter(added)
                states = [states[row] if stay else next(new_states) for row, stay in zip(rows, stays, strict=True)]
            fused = fused[rows] + np.where(stays, 0, np.broadcast_to(gains, longer.shape)[rows, symbols])
            blanks = np.where(stays, stay_blanks[rows], -np.inf)
            others = np.where(stays, stay_others[rows], longer[rows, symbols])
            last = np.where(stays, last[rows], symbols)
            beam = np.array(
                [
                    beam[row] if stay else prefixes.child(int(beam[row]), int(symbol))
                    for row, symbol, stay in zip(rows, symbols, stays, strict=True)
                ]
            )
        totals = np.logaddexp(blanks, others) + fused + (0 if fusion is None else fusion.end(states))
        found = []
        for index in best_indices(totals, self.num_best):
            symbols = prefixes.read(int(beam[index]))
            ranges = ctc_align(log_probs, symbols, blank_id=blank_id)
            frames = tuple(int(s + np.argmax(log_probs[s:e, v])) for (s, e), v in zip(ranges, symbols, strict=True))
            found.append(Labelling(symbols, frames, float(totals[index])))
        return found


CTCDecoder = CTCGreedy | CTCBeamSearch

CTC_DECODERS: Mapping[str, type[CTCDecoder]] = {"greedy": CTCGreedy, "beam": CTCBeamSearch}
"""Every decoder of CTC by the name that configs use."""


def ctc_align(log_probs: Float[np.ndarray, "T V"], symbols: Sequence[int], *, blank_id: int) -> Int[np.ndarray, "U 2"]:
    """Returns the first frame of each symbol and the frame after its last, in the most likely alignment (Viterbi).

    Args:
      log_probs: of an utterance.
      symbols: a labelling.
      blank_id: the number of the blank.

    Raises:
      ValueError: the labelling needs more frames than there are.
    """
    # States: the blank before the first symbol, the symbol, the blank after it, and so on.
    states = np.full(2 * len(symbols) + 1, blank_id)
    states[1::2] = symbols
    can_skip = np.zeros(len(states), bool)  # a blank, from another symbol
    can_skip[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[0] = 0  # before the first frame, from where the first symbol is one step away
    sources = np.zeros((len(log_probs), len(states)), int)
    for t, frame in enumerate(log_probs):
        moves = np.full((3, len(states)), -np.inf)  # from the state itself, the one before, the one before that
        moves[0], moves[1, 1:] = best, best[:-1]
        moves[2, 2:] = np.where(can_skip[2:], best[:-2], -np.inf)
        sources[t] = np.argmax(moves, axis=0)
        best = np.max(moves, axis=0) + frame[states]
    state = len(states) - 1 if len(states) == 1 or best[-1] >= best[-2] else len(states) - 2
    if best[state] == -np.inf:
        raise ValueError(f"{len(symbols)} symbols have no alignment with {len(log_probs)} frames")
    ranges = np.zeros((len(symbols), 2), int)
    for t in reversed(range(len(log_probs))):
        if state % 2:
            ranges[state // 2, 0] = t
            ranges[state // 2, 1] = max(ranges[state // 2, 1], t + 1)
        state -= sources[t, state]
    return ranges
