"""Sound files to waveforms: one channel, one sample rate, 16 bits."""

import io
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lstm_research.common.errors import UserError

LONGEST = 14
"""Seconds of the longest recording that the built-in datasets keep: a few others would make every batch wide."""

LOUDEST = 16
"""The peak of a file of floating-point samples, as a multiple of the full scale: above, it must have another scale."""

_UNKNOWN_SIZE = 0x7FFF0000
"""From here on, the size that a WAV file states is what programs write that do not know it, into a pipe."""


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
    file = find(path)
    if file is None or file.is_dir():
        raise UserError(f"{where}: there is no sound file {path}")
    try:
        return decode(file.read_bytes(), sample_rate)
    except OSError as error:
        raise UserError(f"{where}: cannot read {path} ({(error.strerror or str(error)).lower()})") from error
    except ValueError as error:
        raise UserError(
            f"{where}: {path} cannot be read as sound ({error}); give a whole wav, flac or ogg file"
        ) from error


def find(path: str | Path, folder: str | Path = "") -> Path | None:
    """Returns the path of a file or a folder, `~` being the user's own; None if there is none.

    Args:
      path: given by the user.
      folder: from which it is seen, unless it is absolute; if left out, the current one.
    """
    try:
        file = Path(os.path.expanduser(folder), os.path.expanduser(path))
        return file if file.exists() else None
    except OSError:  # a name that is too long
        return None


def decode(data: bytes, sample_rate: int) -> Audio:
    """Decodes the bytes of a sound file; see `read_audio`.

    Raises:
      ValueError: they are none, a WAV or FLAC file is cut short, there are no samples in it, or none that can be.
    """
    import soundfile  # loaded only where it is used

    fault = ""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            fault = "damaged, or cut short"
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, TypeError) as error:
        reason = fault or getattr(error, "error_string", "") or "unknown format"
        raise ValueError(reason.strip().rstrip(".").lower()) from error
    if missing := _missing_bytes(data):
        raise ValueError(f"it is cut short: its header promises {missing:,} bytes more than there are")
    if not samples.size:
        raise ValueError("it has no samples")
    if not np.isfinite(samples).all():
        raise ValueError("it has samples that are no finite number")
    if (peak := np.abs(samples).max()) > LOUDEST:
        raise ValueError(f"it has samples up to {peak:g}, and its full scale must be 1: divide them")
    return Audio(to_int16(resample(samples.mean(axis=1), rate, sample_rate)), rate, samples.shape[1])


def _missing_bytes(data: bytes) -> int:
    """Returns how many bytes of its sound a WAV file lacks, which libsndfile does not mind; of other files 0."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return 0
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"data":
            return max(0, place + size - len(data)) if size < _UNKNOWN_SIZE else 0
        place += size + size % 2
    return 0


def conversions(recordings: Sequence[Audio], sample_rate: int, wanted: str) -> tuple[str, ...]:
    """Returns what was done to recordings when they were read, in words.

    Args:
      recordings: as they were read.
      sample_rate: that was asked for.
      wanted: what asked for it.
    """
    mixed = sum(each.num_channels > 1 for each in recordings)
    resampled = [each.sample_rate for each in recordings if each.sample_rate != sample_rate]
    notes = []
    if mixed:
        notes.append(f"{mixed:,} of {len(recordings):,} recordings have several channels and were mixed to one")
    if resampled:
        rates = ", ".join(f"{rate:,}" for rate in sorted(set(resampled)))
        notes.append(
            f"{len(resampled):,} of {len(recordings):,} recordings have another sample rate than "
            f"{wanted}={sample_rate} and were resampled (from {rates} Hz)"
        )
    return tuple(notes)


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
