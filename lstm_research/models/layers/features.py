"""The features of speech that a config can name: from signals to what an acoustic model reads, computed once."""

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Float, Int
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.models.layers import frames
from lstm_research.models.layers.spectrogram import (
    MelScale,
    Window,
    cepstrum,
    fft_size,
    log_mel,
    mel_filterbank,
    num_windows,
    perturbed_lengths,
    speed_perturb,
)

_WHERE = "task.features"
_BATCH_VALUES = 2**21
"""The samples (or values of features) of a batch that is computed at once."""


class Statistics(NamedTuple):
    """Mean and standard deviation of every feature over all frames of the training data."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features(abc.ABC):
    """Features of the frames of an utterance, and what is done to them.

    In this order: differences beside them, normalisation, several frames as one.

    Attributes:
      sample_rate: of the signals, in Hz, where they are waveforms.
      num_features: of the signals' frames, where they are features.
      deltas: 1 for differences beside the features, 2 for differences of these as well; see `frames.deltas`.
      normalize: to mean 0 and variance 1 of every feature: "utterance", over each one; "global", over all training
        data; "none".
      stack: frames that become one, see `frames.stack_frames`.
      stride: frames from the begin of one such to that of the next.
    """

    sample_rate: int | None
    num_features: int | None
    deltas: int = 0
    normalize: Literal["utterance", "global", "none"] = "utterance"
    stack: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        check_at_least(1, _WHERE, stack=self.stack, stride=self.stride)
        if self.deltas not in (0, 1, 2):
            raise UserError(f"{_WHERE}.deltas must be 0, 1 or 2, got {self.deltas}")

    @property
    @abc.abstractmethod
    def num_bands(self) -> int:
        """Features of a frame before anything is done to them."""

    @property
    @abc.abstractmethod
    def span(self) -> tuple[int, int]:
        """Samples of a frame before anything is done to it, and from one to the next; of features 1 and 1."""

    @abc.abstractmethod
    def analyse(self, signals: Float[Array, "B ..."]) -> Float[Array, "B T D"]:
        """Returns the features of all frames that the signals have room for."""

    @property
    def size(self) -> int:
        """Features of a frame in the end."""
        return self.num_bands * (1 + self.deltas) * self.stack

    @property
    def extent(self) -> int:
        """Samples that a frame in the end is made of, but for differences and normalisation."""
        length, hop = self.span
        return length + (self.stack - 1) * hop

    @property
    def shift(self) -> int:
        """Samples from one frame in the end to the next."""
        return self.span[1] * self.stride

    @property
    def streaming(self) -> bool:
        """Whether frame t is made of nothing but the samples t · shift to t · shift + extent - 1."""
        return not self.deltas and self.normalize != "utterance"

    def num_frames(self, lengths: Any) -> Any:
        """Returns how many frames signals of these lengths (a number or an array) have in the end."""
        return -(-num_windows(lengths, *self.span) // self.stride)

    def __call__(
        self,
        signals: Float[Array, "B ..."] | Int[Array, "B samples"],
        lengths: Int[Array, "B"],
        statistics: Statistics | None = None,
        *,
        speed: float = 1.0,
    ) -> tuple[Float[Array, "B T D"], Int[Array, "B"]]:
        """Returns the features of a batch of signals, zero in padding, and their lengths.

        Args:
          signals: waveforms `[B, N]`, of which integers have 16 bits, or features `[B, N, D]`.
          lengths: of each.
          statistics: what `fit` returned, where `normalize` is "global".
          speed: how much faster waveforms are played, see `speed_perturb`.
        """
        if self.normalize == "global" and statistics is None:
            raise ValueError("global normalisation needs the statistics of the training data")
        if jnp.issubdtype(signals.dtype, jnp.integer):
            signals = signals.astype(jnp.float32) / 32768
        if speed != 1:
            if signals.ndim > 2:
                raise UserError("speed perturbation needs waveforms, and this dataset has ready-made features")
            signals = jnp.where(jnp.arange(signals.shape[1]) < lengths[:, None], signals, 0)
            signals, lengths = speed_perturb(signals, speed), perturbed_lengths(lengths, speed)
        lengths = num_windows(lengths, *self.span)
        parts = [self.analyse(signals)]
        for _ in range(self.deltas):
            parts.append(frames.deltas(parts[-1], lengths))
        xs = jnp.concatenate(parts, axis=-1)
        if self.normalize == "utterance":
            xs = frames.normalize_utterances(xs, lengths)
        elif self.normalize == "global":
            assert statistics is not None
            xs = frames.normalize(xs, lengths, *(jnp.asarray(each, xs.dtype) for each in statistics))
        return frames.stack_frames(xs, lengths, self.stack, self.stride)

    def fit(self, signals: Sequence[np.ndarray]) -> Statistics | None:
        """Returns the statistics of training data, where `normalize` is "global"."""
        if self.normalize != "global":
            return None
        xs = np.concatenate(dataclasses.replace(self, normalize="none", stack=1, stride=1).extract(signals))
        return Statistics(tuple(xs.mean(0, np.float64).tolist()), tuple(xs.std(0, np.float64).tolist()))

    def extract(
        self, signals: Sequence[np.ndarray], statistics: Statistics | None = None, *, speed: float = 1.0
    ) -> list[Float[np.ndarray, "T D"]]:
        """Returns the features of every signal: batches of similar length are computed at once.

        Args:
          signals: `[N]` or `[N, D]`, each of its own length.
          statistics: what `fit` returned.
          speed: see `__call__`.
        """
        features: list[Any] = [None] * len(signals)
        for members, length, num_rows in _batches(signals):
            batch = np.zeros((num_rows, length, *signals[members[0]].shape[1:]), signals[members[0]].dtype)
            lengths = np.zeros(num_rows, np.int32)
            for row, member in enumerate(members):
                lengths[row] = len(signals[member])
                batch[row, : lengths[row]] = signals[member]
            xs, lengths = jax.device_get(_compute(self, batch, lengths, statistics, speed))
            for row, member in enumerate(members):
                features[member] = xs[row, : lengths[row]].copy()  # else the whole batch would stay in memory
        return features


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _compute(features: Features, signals: Any, lengths: Any, statistics: Statistics | None, speed: float) -> Any:
    return features(signals, lengths, statistics, speed=speed)


def _batches(signals: Sequence[np.ndarray]) -> Iterator[tuple[list[int], int, int]]:
    """Yields signals of similar length by their numbers, the length to pad them to, and the rows of their batch.

    There are two lengths between a power of two and the next, so there are few programs to compile.
    """
    buckets: dict[int, list[int]] = {}
    for number, signal in enumerate(signals):
        length = math.ceil(2 ** (math.ceil(2 * math.log2(max(len(signal), 1))) / 2))
        buckets.setdefault(length, []).append(number)
    for length, members in buckets.items():
        values = length * math.prod(signals[members[0]].shape[1:])
        num_rows = min(1 << (len(members) - 1).bit_length(), max(1, _BATCH_VALUES // values))
        for first in range(0, len(members), num_rows):
            yield members[first : first + num_rows], length, num_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMel(Features):
    """Log-mel features of waveforms; see `log_mel`.

    Attributes:
      frame_seconds: length of a frame.
      hop_seconds: from one frame to the next.
      num_mels: mel bands.
      n_fft: points of the Fourier transform; None: the next power of two of a frame's samples.
      f_min: lower end of the lowest band, in Hz.
      f_max: upper end of the highest band, in Hz; None: half the sample rate.
      scale: of the filterbank: slaney or htk.
      window: the taper of a frame: hann or hamming.
    """

    frame_seconds: float = 0.025
    hop_seconds: float = 0.01
    num_mels: int = 80
    n_fft: int | None = None
    f_min: float = 0.0
    f_max: float | None = None
    scale: MelScale = "slaney"
    window: Window = "hann"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_rate is None:
            raise UserError(
                f"{_WHERE}.name: this dataset has ready-made features and no waveforms; set {_WHERE}.name='given'"
            )
        check_at_least(1, _WHERE, num_mels=self.num_mels)
        check_at_least(0, _WHERE, frame_seconds=self.frame_seconds, hop_seconds=self.hop_seconds)
        for key, samples in zip(("frame_seconds", "hop_seconds"), self.span, strict=True):
            if samples < 1:
                raise UserError(f"{_WHERE}.{key} is less than a sample of {self.sample_rate} Hz")
        options = self._options
        if options["n_fft"] < self.span[0]:
            raise UserError(f"{_WHERE}.n_fft={self.n_fft} is less than the {self.span[0]} samples of a frame")
        bands = ("sample_rate", "n_fft", "num_mels", "f_min", "f_max", "scale")
        mel_filterbank(**{key: options[key] for key in bands})  # impossible bands are refused now

    @property
    def span(self) -> tuple[int, int]:
        """Samples of a frame, and from one to the next."""
        assert self.sample_rate is not None
        return round(self.frame_seconds * self.sample_rate), round(self.hop_seconds * self.sample_rate)

    @property
    def num_bands(self) -> int:
        """Mel bands."""
        return self.num_mels

    @property
    def _options(self) -> dict[str, Any]:
        frame_length, hop_length = self.span
        return {
            "sample_rate": self.sample_rate,
            "frame_length": frame_length,
            "hop_length": hop_length,
            "num_mels": self.num_mels,
            "n_fft": fft_size(frame_length) if self.n_fft is None else self.n_fft,
            "f_min": self.f_min,
            "f_max": self.f_max,
            "scale": self.scale,
            "window": self.window,
        }

    def analyse(self, signals: Float[Array, "B ..."]) -> Float[Array, "B T D"]:
        """Returns log-mel features."""
        return log_mel(signals, **self._options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MFCC(LogMel):
    """Mel-frequency cepstral coefficients of waveforms; see `cepstrum`.

    Attributes:
      num_mels: mel bands that they are made of.
      num_coefficients: of a frame.
    """

    num_mels: int = 40
    num_coefficients: int = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_coefficients <= self.num_mels:
            raise UserError(
                f"{_WHERE}.num_coefficients must be 1 to {self.num_mels}, the number of mel bands, got "
                f"{self.num_coefficients}"
            )

    @property
    def num_bands(self) -> int:
        """Coefficients."""
        return self.num_coefficients

    def analyse(self, signals: Float[Array, "B ..."]) -> Float[Array, "B T D"]:
        """Returns the coefficients."""
        return cepstrum(super().analyse(signals), self.num_coefficients)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(Features):
    """The features that a dataset has ready-made."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_features is None:
            raise UserError(f"{_WHERE}.name: this dataset has waveforms and no features; name log_mel or mfcc")

    @property
    def span(self) -> tuple[int, int]:
        """One and one."""
        return 1, 1

    @property
    def num_bands(self) -> int:
        """Those of the dataset."""
        assert self.num_features is not None
        return self.num_features

    def analyse(self, signals: Float[Array, "B ..."]) -> Float[Array, "B T D"]:
        """Returns the features as they are."""
        return signals


FEATURES = {"log_mel": LogMel, "mfcc": MFCC, "given": Given}
"""The features of speech by the name that configs use."""
