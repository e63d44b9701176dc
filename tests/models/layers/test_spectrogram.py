"""Mel spectrograms and cepstra against librosa, and speed perturbation against sine waves."""

from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from lstm_research.models.layers import frames, spectrogram

RATE = 16_000


def speech_like(num: int = 12_000) -> np.ndarray:
    """Harmonics of a gliding tone that swell and fade, and some noise."""
    rng = np.random.default_rng(0)
    seconds = np.arange(num) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(3 * seconds)) / RATE
    voice = sum(np.sin(k * phase + k) / k for k in range(1, 30))
    return 0.2 * voice * np.abs(np.sin(5 * seconds)) + 0.003 * rng.normal(size=num)


CASES: dict[str, dict[str, Any]] = {
    "slaney": {"frame_length": 400, "hop_length": 160, "num_mels": 80},
    "htk": {"frame_length": 400, "hop_length": 100, "num_mels": 23, "n_fft": 512, "scale": "htk", "window": "hamming"},
    "odd": {"frame_length": 401, "hop_length": 160, "num_mels": 40, "n_fft": 401},
    "bands": {"frame_length": 256, "hop_length": 128, "num_mels": 30, "n_fft": 1024, "f_min": 60.0, "f_max": 7600.0},
}


def with_librosa(waveform: np.ndarray, case: dict[str, Any]) -> np.ndarray:
    """The power in mel bands [D, T], in float64."""
    n_fft, length = case.get("n_fft", 512), case["frame_length"]
    htk = case.get("scale") == "htk"
    # librosa puts a frame in the middle of the transform's samples.
    padded = np.pad(waveform, ((n_fft - length) // 2, n_fft - length - (n_fft - length) // 2))
    return librosa.feature.melspectrogram(
        y=padded,
        sr=RATE,
        n_fft=n_fft,
        win_length=length,
        hop_length=case["hop_length"],
        window=case.get("window", "hann"),
        center=False,
        power=2.0,
        n_mels=case["num_mels"],
        fmin=case.get("f_min", 0.0),
        fmax=case.get("f_max"),
        htk=htk,
        norm=None if htk else "slaney",
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_log_mel_and_cepstra_are_those_of_librosa(case: dict[str, Any]) -> None:
    waveform = speech_like()
    expected = with_librosa(waveform, case)
    got = spectrogram.log_mel(jnp.asarray(waveform, jnp.float32), sample_rate=RATE, **case)
    np.testing.assert_allclose(got, np.log(np.maximum(expected, 1e-10)).T, atol=1e-4, rtol=0)
    decibels = librosa.power_to_db(expected, amin=1e-10, top_db=None)
    cepstra = librosa.feature.mfcc(S=decibels, n_mfcc=13).T * np.log(10) / 10
    np.testing.assert_allclose(
        spectrogram.cepstrum(got, 13), cepstra, atol=3e-4, rtol=0
    )  # sums of up to 80 of what agrees to 1e-4


def test_differences_are_those_of_librosa_away_from_the_ends() -> None:
    xs = np.random.default_rng(1).normal(size=(1, 20, 3))
    for width in (1, 2, 4):
        got = frames.deltas(jnp.asarray(xs, jnp.float32), jnp.array([20]), width)[0]
        expected = librosa.feature.delta(xs[0], width=2 * width + 1, axis=0)
        np.testing.assert_allclose(got[width:-width], expected[width:-width], atol=1e-6)


def test_silence_is_the_floor_and_what_is_too_short_has_no_frame() -> None:
    options = {"sample_rate": RATE, "frame_length": 64, "hop_length": 32, "num_mels": 5}
    assert (spectrogram.log_mel(jnp.zeros(64), **options) == np.log(np.float32(1e-10))).all()
    assert spectrogram.log_mel(jnp.zeros((2, 63)), **options).shape == (2, 0, 5)
    for length in (0, 63, 64, 95, 96):
        num = sum(begin + 64 <= length for begin in range(0, 200, 32))
        assert spectrogram.num_windows(length, 64, 32) == num
        assert spectrogram.log_mel(jnp.zeros(length), **options).shape == (num, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_fft": 32}, "n_fft=32 is less than the 64 samples of a frame"),
        ({"f_max": 8001.0}, "half the sample rate, 8000 Hz"),
        ({"f_min": 500.0, "f_max": 400.0}, "f_min=500"),
        ({"num_mels": 60}, "filters are too many for n_fft=64 .*; lower num_mels or raise n_fft"),
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any], message: str) -> None:
    options = {"sample_rate": RATE, "frame_length": 64, "hop_length": 32, "num_mels": 5} | wrong
    with pytest.raises(ValueError, match=message):
        spectrogram.log_mel(jnp.zeros(100), **options)


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25, 2.0])
def test_a_faster_sine_wave_has_a_higher_pitch(factor: float) -> None:
    places = np.arange(3000) / RATE
    pitches = np.array([300.0, 1000.0, 3100.0])
    waves = np.sin(2 * np.pi * pitches[:, None] * places + 0.3)
    faster = np.asarray(spectrogram.speed_perturb(jnp.asarray(waves, jnp.float32), factor))
    num = -(-3000 * 100 // round(factor * 100))
    assert faster.shape == (3, num)
    assert spectrogram.perturbed_lengths(np.array([3000, 0]), factor).tolist() == [num, 0]
    expected = np.sin(2 * np.pi * factor * pitches[:, None] * np.arange(num) / RATE + 0.3)
    np.testing.assert_allclose(faster[:, 50:-50], expected[:, 50:-50], atol=2e-3)


def test_speed_perturbation_leaves_out_what_it_cannot_hold_and_1_is_nothing() -> None:
    wave = jnp.sin(2 * jnp.pi * 7_700 * jnp.arange(3000) / RATE)
    assert jnp.abs(spectrogram.speed_perturb(wave, 1.25)[50:-50]).max() < 0.02
    assert (spectrogram.speed_perturb(wave, 1.0) == wave).all()
    with pytest.raises(ValueError, match="must be above 0"):
        spectrogram.speed_perturb(wave, 0.0)


def test_a_row_does_not_depend_on_the_others_and_gradients_flow() -> None:
    waves = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 500)), jnp.float32)
    options = {"sample_rate": RATE, "frame_length": 64, "hop_length": 32, "num_mels": 5}
    both = spectrogram.log_mel(spectrogram.speed_perturb(waves, 0.9), **options)
    one = spectrogram.log_mel(spectrogram.speed_perturb(waves[1, 2], 0.9), **options)
    np.testing.assert_allclose(both[1, 2], one, atol=1e-5)
    gradient = jax.grad(lambda wave: spectrogram.log_mel(wave, **options)[3].sum())(waves[0, 0])
    assert (np.flatnonzero(gradient) // 32).tolist()[0] == 3  # frame 3 knows samples 96 to 159 alone
    assert np.flatnonzero(gradient).max() == 159
