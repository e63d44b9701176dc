"""Waveforms to mel spectrograms and cepstra, as pure functions.

What is made of waveforms is made for batches, so arrays here are batch-major, unlike inside models. A frame knows only
its own samples: frame t is made of samples t · hop to t · hop + frame_length - 1, nothing is padded at the ends, and so
features of a stream are those of the whole recording.
"""

import functools
import math
from fractions import Fraction
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import lax

from lstm_research.common.arrays import Array, Float

MelScale = Literal["slaney", "htk"]
Window = Literal["hann", "hamming"]
FLOOR = 1e-10
"""The least power that the logarithm is taken of; that of a sine wave of full scale is about (frame_length / 4)²."""


def num_windows(lengths: Any, window: int, hop: int) -> Any:
    """Returns how many windows lie within sequences: ⌊(length - window) / hop⌋ + 1.

    Args:
      lengths: of the sequences, a number or an array; one that is shorter than a window has none.
      window: length of a window.
      hop: from the begin of one to that of the next.
    """
    return (lengths >= window) * (1 + (lengths - window) // hop)


def log_mel(
    waveform: Float[Array, "*B samples"],
    *,
    sample_rate: int,
    frame_length: int,
    hop_length: int,
    num_mels: int,
    n_fft: int | None = None,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: MelScale = "slaney",
    window: Window = "hann",
) -> Float[Array, "*B T D"]:
    """Returns the logarithms of the power in mel bands, in nats.

        power_{t,k} = |Σ_n window_n x_{t · hop + n} exp(-2πi k n / n_fft)|²
        log_mel_{t,m} = log max(Σ_k filterbank_{k,m} power_{t,k}, 1e-10)

    Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition", 1980. It is
    librosa's `melspectrogram(center=False)` before the logarithm, where `n_fft` equals `frame_length`; where it is
    larger, librosa puts the frame in the middle of `n_fft` samples.

    Args:
      waveform: samples, the full scale being -1 to 1.
      sample_rate: in Hz.
      frame_length: samples of a frame.
      hop_length: samples from one frame to the next.
      num_mels: D, mel bands.
      n_fft: points of the Fourier transform, at least `frame_length`; None: the next power of two.
      f_min: lower end of the lowest band, in Hz.
      f_max: upper end of the highest band, in Hz; None: half the sample rate.
      scale: of the filterbank, see `mel_filterbank`.
      window: hann: 1/2 - 1/2 cos(2πn / frame_length); hamming: 0.54 - 0.46 cos(2πn / frame_length).

    Raises:
      ValueError: a number that cannot be.
    """
    n_fft = fft_size(frame_length) if n_fft is None else n_fft
    if n_fft < frame_length:
        raise ValueError(f"n_fft={n_fft} is less than the {frame_length} samples of a frame")
    filters = mel_filterbank(
        sample_rate=sample_rate, n_fft=n_fft, num_mels=num_mels, f_min=f_min, f_max=f_max, scale=scale
    )
    num = num_windows(waveform.shape[-1], frame_length, hop_length)
    if not num:
        return jnp.zeros((*waveform.shape[:-1], 0, num_mels), waveform.dtype)
    rest, share = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}[window]
    taper = rest - share * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)
    positions = hop_length * np.arange(num)[:, None] + np.arange(frame_length)
    spectrum = jnp.fft.rfft(waveform[..., positions] * taper.astype(waveform.dtype), n_fft)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # Some devices would multiply in less than the precision of the arrays.
    return jnp.log(jnp.maximum(jnp.matmul(power, filters.astype(power.dtype), precision="highest"), FLOOR))


def fft_size(frame_length: int) -> int:
    """Returns the next power of two."""
    return 1 << (frame_length - 1).bit_length()


@functools.lru_cache(maxsize=32)
def mel_filterbank(
    *, sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float | None, scale: MelScale
) -> Float[np.ndarray, "K D"]:
    """Returns triangular filters over the K = ⌊n_fft / 2⌋ + 1 frequencies of a power spectrum, evenly spaced in mel.

        slaney  mel = 3 f / 200 below 1000 Hz, above 15 + 27 log(f / 1000) / log 6.4; the area of each filter is 1
        htk     mel = 2595 log10(1 + f / 700); the peak of each filter is 1

    Slaney, "Auditory Toolbox", 1998; Young et al., "The HTK Book".

    Args:
      sample_rate: in Hz.
      n_fft: points of the Fourier transform.
      num_mels: D, filters.
      f_min: lower end of the first filter, in Hz.
      f_max: upper end of the last filter, in Hz; None: half the sample rate.
      scale: see above.

    Raises:
      ValueError: a frequency that cannot be, or so many filters that one covers no frequency of the spectrum.
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"the mel bands must lie between 0 Hz and half the sample rate, {sample_rate / 2:g} Hz; got "
            f"f_min={f_min:g} and f_max={f_max:g}"
        )
    to_mel, to_hertz = _SCALES[scale]
    edges = to_hertz(np.linspace(to_mel(f_min), to_mel(f_max), num_mels + 2))
    frequencies = (np.arange(n_fft // 2 + 1) * sample_rate / n_fft)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    if not filters.any(axis=0).all():
        raise ValueError(
            f"num_mels={num_mels} filters are too many for n_fft={n_fft} at {sample_rate} Hz: filter "
            f"{int(filters.any(axis=0).argmin())} covers no frequency of the spectrum; lower num_mels or raise n_fft"
        )
    return filters * (2 / (edges[2:] - edges[:-2])) if scale == "slaney" else filters


def _slaney_to_mel(frequency: float) -> float:
    return 0.015 * frequency if frequency < 1000 else 15 + 27 * math.log(frequency / 1000) / math.log(6.4)


def _slaney_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel / 0.015, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


_SCALES: dict[str, Any] = {
    "slaney": (_slaney_to_mel, _slaney_to_hertz),
    "htk": (lambda frequency: 2595 * math.log10(1 + frequency / 700), lambda mel: 700 * (10 ** (mel / 2595) - 1)),
}


def cepstrum(log_mels: Float[Array, "*B T D"], num_coefficients: int) -> Float[Array, "*B T C"]:
    """Returns mel-frequency cepstral coefficients (MFCC): the orthonormal cosine transform of log-mel features.

        c_{t,k} = s_k Σ_m log_mel_{t,m} cos(π k (2m + 1) / 2D)        s_0 = √(1/D), else s_k = √(2/D)

    Davis and Mermelstein, 1980. librosa's `mfcc` takes decibels: its coefficients are 10 / log 10 times these.

    Args:
      log_mels: see `log_mel`.
      num_coefficients: C, of the lowest; at most D.
    """
    num_mels = log_mels.shape[-1]
    if not 1 <= num_coefficients <= num_mels:
        raise ValueError(f"num_coefficients must be 1 to {num_mels}, the number of mel bands, got {num_coefficients}")
    waves = np.cos(np.pi * np.arange(num_coefficients) * (2 * np.arange(num_mels)[:, None] + 1) / (2 * num_mels))
    waves *= np.where(np.arange(num_coefficients), np.sqrt(2 / num_mels), np.sqrt(1 / num_mels))
    return jnp.matmul(log_mels, waves.astype(log_mels.dtype), precision="highest")


def speed_perturb(waveform: Float[Array, "*B samples"], factor: float) -> Float[Array, "*B resampled"]:
    """Returns a waveform that is played faster by a factor: it is shorter, and its pitch higher.

        y(n) = x(factor · n)

    x between samples is what a windowed sinc makes of 16 zero crossings on either side, which also takes out what the
    result cannot hold. Beyond its ends x is 0. Ko, Peddinti, Povey and Khudanpur, "Audio Augmentation for Speech
    Recognition", 2015, with factors 0.9, 1 and 1.1.

    Args:
      waveform: samples.
      factor: near a fraction with a denominator of at most 100; above 1 is faster.

    Returns:
      `perturbed_lengths(samples, factor)` samples.
    """
    p, q = _ratio(factor)
    num = int(perturbed_lengths(waveform.shape[-1], factor))
    if not num or p == q:
        return waveform[..., :num]
    # Output m q + r is at the place m p + r p / q, so all outputs of one r are one convolution with stride p.
    cutoff = 0.95 * min(1, q / p)
    reach = math.ceil(16 / cutoff)
    taps = np.arange(-reach, p + reach + 1)
    places = taps - np.arange(q)[:, None] * p / q
    taper = np.where(np.abs(places) < reach, 0.5 + 0.5 * np.cos(np.pi * places / reach), 0)
    kernels = (cutoff * np.sinc(cutoff * places) * taper).astype(waveform.dtype)  # [q, taps]
    rows = -(-num // q)
    after = max(0, (rows - 1) * p + p + reach + 1 - waveform.shape[-1])
    flat = waveform.reshape((-1, 1, waveform.shape[-1]))
    phases = lax.conv_general_dilated(
        flat, jnp.asarray(kernels)[:, None], (p,), [(reach, after)], precision=lax.Precision.HIGHEST
    )
    outputs = jnp.swapaxes(phases[..., :rows], 1, 2).reshape((len(flat), rows * q))
    return outputs[:, :num].reshape((*waveform.shape[:-1], num))


def perturbed_lengths(lengths: Any, factor: float) -> Any:
    """Returns the lengths after `speed_perturb`: ⌈length / factor⌉."""
    p, q = _ratio(factor)
    return -(-lengths * q // p)


def _ratio(factor: float) -> tuple[int, int]:
    ratio = Fraction(factor).limit_denominator(100)
    if ratio <= 0:
        raise ValueError(f"a factor of speed must be above 0, got {factor}")
    return ratio.numerator, ratio.denominator
