"""Sound files to waveforms: one channel, one sample rate, 16 bits."""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lstm_research.common.errors import UserError

LONGEST = 14
"""Seconds of the longest recording that the built-in datasets keep: a few others would make every batch wide."""


class Audio(NamedTuple):
    """A decoded sound file.

    Attributes:
      signal: int16 [N], at the sample rate that was asked for; the mean of all channels.
      sample_rate: that the file has.
      num_channels: that the file has.
    """

    signal: Int[np.ndarray, "N"]
    sample_rate: int
    num_channels: int


def read_audio(path: str | Path, sample_rate: int, where: str) -> Audio:
    """Reads a sound file: wav, flac, ogg and what else libsndfile knows, whatever its name ends with.

    Args:
      path: of the file.
      sample_rate: wanted, in Hz; a file of another one is resampled.
      where: what names the file, for messages.

    Raises:
      UserError: the file is missing, cannot be read, or has no samples.
    """
    file = Path(path).expanduser()
    if file.is_dir() or not file.exists():
        raise UserError(f"{where}: there is no sound file {path}")
    try:
        return decode(file.read_bytes(), sample_rate)
    except OSError as error:
        raise UserError(f"{where}: cannot read {path} ({(error.strerror or str(error)).lower()})") from error
    except ValueError as error:
        raise UserError(f"{where}: {path} cannot be read as sound ({error}); give a wav, flac or ogg file") from error


def decode(data: bytes, sample_rate: int) -> Audio:
    """Decodes the bytes of a sound file; see `read_audio`.

    Raises:
      ValueError: they are none, or there are no samples in it.
    """
    import soundfile  # loaded only where it is used

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:
        reason = getattr(error, "error_string", "") or "unknown format"
        raise ValueError(reason.strip().rstrip(".").lower()) from error
    if not samples.size:
        raise ValueError("it has no samples")
    if not np.isfinite(samples).all():
        raise ValueError("it has samples that are no finite number")
    return Audio(to_int16(resample(samples.mean(axis=1), rate, sample_rate)), rate, samples.shape[1])


def resample(signal: Float[np.ndarray, "N"], rate: int, sample_rate: int) -> Float[np.ndarray, "M"]:
    """Returns a waveform at another sample rate, without what that cannot represent."""
    if rate == sample_rate:
        return signal
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, sample_rate)
    return resample_poly(signal, sample_rate // divisor, rate // divisor)


def change_rate(signal: Int[np.ndarray, "N"], rate: int, sample_rate: int) -> Int[np.ndarray, "M"]:
    """Returns a waveform in 16 bits at another sample rate."""
    return to_int16(resample(signal.astype(np.float32) / 32768, rate, sample_rate))


def to_int16(signal: Float[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Returns a waveform between -1 and 1 in 16 bits; what is louder is clipped."""
    return np.clip(np.rint(signal * 32768), -32768, 32767).astype(np.int16)


def utterance_features(features: Any) -> dict[str, Any]:
    """Returns the TFDS features of an `Utterance` with a waveform, given the module `tfds.features`."""
    signal = features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes")
    return {"name": features.Text(), "signal": signal, "transcript": features.Text()}
