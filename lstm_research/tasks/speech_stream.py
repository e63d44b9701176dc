"""Recognition of a recording while it is being made."""

import functools
from typing import Any

import jax
import numpy as np

from lstm_research.common.arrays import Array, Params
from lstm_research.common.errors import UserError
from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.text import RunningText
from lstm_research.decoding.transcripts import Transcript
from lstm_research.decoding.transducer import begin, read_symbols, write_greedily
from lstm_research.tasks.speech_recognition import SpeechRecognition

STEPS = 8
"""Outputs of the encoder that are computed at once."""


class SpeechStream:
    """Recognises recordings piece by piece, one after the other, greedily, with a model that reads in one direction.

    The result does not depend on how a recording is divided, and is that of greedy decoding of the whole. What is
    compiled serves for all recordings, see `reset`.

    Attributes:
      symbols: what has been recognised so far.
      steps: for each of them the output of the encoder that stands for it.
      text: the symbols in words; the beginning of a character waits for the rest of it.
    """

    def __init__(self, task: SpeechRecognition, params: Params):
        """Begins a recording.

        Args:
          task: of a trained run.
          params: of the model.

        Raises:
          UserError: the model or its features need the whole recording.
        """
        if task.model_name not in ("ctc", "transducer"):
            raise UserError(
                "a model with attention on the whole recording cannot recognise a stream; train model.name='ctc' or "
                "'transducer'"
            )
        if task.bidirectional:
            raise UserError("a bidirectional model cannot read a stream, whose end it would need; train a forward one")
        if not task.features.streaming:
            raise UserError(
                "these features need the whole recording; train with task.features.deltas=0 and "
                "task.features.normalize='global' or 'none'"
            )
        self._task = task
        self._params = jax.device_put(params)
        self._is_transducer = task.model_name == "transducer"
        self._max_symbols = getattr(task.decoder, "max_symbols", 8)
        self._block = STEPS * task.reduction
        self.reset()

    def reset(self) -> None:
        """Begins another recording, and forgets the one before."""
        self.symbols: list[int] = []
        self.steps: list[int] = []
        self.text = ""
        self._running = RunningText(self._task.vocabulary)
        self._state = self._task.apply(self._params, 1, method="initial_state")
        if self._is_transducer:
            self._written = begin(self._predict, self._params, 1, blank_id=self._task.blank_id)
        self._last, self._peak = self._task.blank_id, -np.inf
        self._score = 0.0
        self._num_steps = 0
        self._waiting = np.zeros(0, np.int16)
        self._ended = False

    def push(self, signal: np.ndarray) -> str:
        """Reads the next piece of the recording, of any length; returns all that has been recognised so far."""
        if self._ended:
            raise ValueError("the recording has ended; reset() begins another")
        # A copy: the caller may use its buffer again for the next piece.
        self._waiting = np.concatenate([self._waiting, signal]) if len(self._waiting) else np.array(signal)
        features = self._task.features
        step = self._block * features.shift  # may be more than its frames are made of
        needed = max(step - features.shift + features.extent, step)
        while len(self._waiting) >= needed:
            self._read(self._waiting[:needed], self._block)
            self._waiting = self._waiting[step:]
        return self.text

    def end(self) -> Transcript:
        """Reads what is left; returns the transcript of the whole recording."""
        left = int(self._task.features.num_frames(len(self._waiting)))
        if left > 0:
            self._read(self._waiting, left)
        self._ended = True
        self.text += self._running.end()
        return self._task.describe(Labelling(tuple(self.symbols), tuple(self.steps), self._score))

    def _read(self, signal: np.ndarray, num_frames: int) -> None:
        """Reads whole frames, the last of a recording perhaps fewer than a block."""
        (frames,) = self._task.features.extract([signal], self._task.statistics)
        room = max(self._block, -(-num_frames // self._task.reduction) * self._task.reduction)
        padded = np.zeros((room, 1, frames.shape[1]), np.float32)
        padded[:num_frames, 0] = frames[:num_frames]
        outputs, self._state = self._step(self._params, self._state, padded, np.array([num_frames], np.int32))
        count, known = -(-num_frames // self._task.reduction), len(self.symbols)
        if self._is_transducer:
            self._written, symbols = self._write(self._params, self._written, outputs, np.array([count], np.int32))
            found, steps = read_symbols(np.asarray(symbols)[:, 0], self._task.blank_id)
            self.symbols += found
            self.steps += [self._num_steps + step for step in steps]
            self._score = float(self._written.log_probs[0])
        else:
            for step, log_probs in enumerate(np.asarray(outputs)[:count, 0], self._num_steps):
                self._spike(step, log_probs)
        self._num_steps += count
        self.text += self._running.read(self.symbols[known:])

    def _spike(self, step: int, log_probs: np.ndarray) -> None:
        """Takes the most likely symbol of one more step, as `CTCGreedy` does; its step is that of its peak."""
        symbol, highest = int(log_probs.argmax()), float(log_probs.max())
        if symbol != self._task.blank_id and symbol != self._last:
            self.symbols.append(symbol)
            self.steps.append(step)
            self._peak = highest
        elif symbol != self._task.blank_id and highest > self._peak:
            self.steps[-1], self._peak = step, highest
        self._last = symbol
        self._score += highest

    def _predict(self, params: Params, symbols: Array, state: Any) -> Any:
        return self._task.apply(params, symbols, state, method="predict")

    @functools.cached_property
    def _step(self) -> Any:
        """From parameters, state, frames and their number to outputs (log-probabilities, with CTC) and state."""

        def step(params: Params, state: Any, frames: Array, lengths: Array) -> tuple[Array, Any]:
            state, outputs = self._task.apply(params, state, frames, lengths, method="step")
            return outputs if self._is_transducer else jax.nn.log_softmax(outputs), state

        return jax.jit(step)

    @functools.cached_property
    def _write(self) -> Any:
        def join(params: Params, encoded: Array, predicted: Array) -> Array:
            return self._task.apply(params, encoded, predicted, method="log_probs")

        def write(params: Params, written: Any, encoded: Array, lengths: Array) -> Any:
            options = {"blank_id": self._task.blank_id, "max_symbols": self._max_symbols}
            return write_greedily(self._predict, join, params, written, encoded, lengths, **options)

        return jax.jit(write)
