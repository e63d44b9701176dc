"""The features that a config names: what depends on what, and what a wrong config gets."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.models.layers.features import FEATURES, Features, Statistics
from lstm_research.models.layers.spectrogram import log_mel

RATE = 8_000
rng = np.random.default_rng(0)
WAVES = [rng.integers(-8000, 8000, length).astype(np.int16) for length in (900, 1300, 100, 2500, 1299, 900)]
GIVEN = [rng.normal(size=(length, 3)).astype(np.float32) for length in (9, 1, 4, 30)]


def make(name: str = "log_mel", **keys: Any) -> Features:
    given = name == "given"
    if not given:
        keys = {"num_mels": 12, "frame_seconds": 0.02} | keys
    rates = {"sample_rate": None if given else RATE, "num_features": 3 if given else None}
    return build(FEATURES, {"name": name, **keys}, where="task.features", **rates)


ALL = {
    "log_mel": {"stack": 3, "stride": 2},
    "mfcc": {"deltas": 2, "num_coefficients": 5},
    "given": {"deltas": 1, "stack": 2, "stride": 2},
}


def with_garbage(signals: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """A batch of signals with something behind their ends, and their lengths."""
    lengths = np.array([len(signal) for signal in signals])
    batch = np.full((len(signals), lengths.max() + 300, *signals[0].shape[1:]), 5000, signals[0].dtype)
    for row, signal in zip(batch, signals, strict=True):
        row[: len(signal)] = signal
    return jnp.asarray(batch), jnp.asarray(lengths)


@pytest.mark.parametrize("name", ALL)
def test_an_utterance_does_not_depend_on_its_batch(name: str) -> None:
    features = make(name, **ALL[name])
    signals = GIVEN if name == "given" else WAVES
    together, reverse = features.extract(signals), features.extract(signals[::-1])
    batch, frames = jax.jit(features)(*with_garbage(signals))
    for signal, got, other, row, length in zip(signals, together, reversed(reverse), batch, frames, strict=True):
        assert got.shape == (features.num_frames(len(signal)), features.size) == (length, row.shape[1])
        np.testing.assert_allclose(got, other, atol=1e-5)
        np.testing.assert_allclose(row[: len(got)], got, atol=2e-4)
        assert (row[len(got) :] == 0).all()
    np.testing.assert_allclose(features.extract(signals[1:2])[0], together[1], atol=2e-4)


def test_log_mel_features_are_those_of_the_function() -> None:
    options = {"frame_length": 160, "hop_length": 80, "num_mels": 12, "scale": "htk"}
    expected = log_mel(jnp.asarray(WAVES[1], jnp.float32) / 32768, sample_rate=RATE, **options)
    got = make(normalize="none", scale="htk").extract(WAVES)[1]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    normalized = make(scale="htk").extract(WAVES)[1]
    np.testing.assert_allclose(normalized, (got - got.mean(0)) / got.std(0), atol=1e-3)
    assert make(scale="htk").extract([]) == []


@pytest.mark.parametrize("name", ["log_mel", "mfcc", "given"])
def test_frames_of_a_stream_are_those_of_the_recording(name: str) -> None:
    features = make(name, normalize="global", stack=3, stride=2, **{"num_coefficients": 5} if name == "mfcc" else {})
    assert features.streaming
    signals = GIVEN if name == "given" else WAVES
    statistics = features.fit(signals)
    (whole,) = features.extract(signals[-1:], statistics)
    num_whole = (len(signals[-1]) - features.extent) // features.shift + 1
    assert 0 < num_whole <= len(whole)
    begins = features.shift * np.arange(num_whole)
    pieces = np.array([signals[-1][begin : begin + features.extent] for begin in begins])
    xs, lengths = features(jnp.asarray(pieces), jnp.full(num_whole, features.extent), statistics)
    assert (lengths >= 1).all()
    np.testing.assert_allclose(xs[:, 0], whole[:num_whole], atol=1e-4)
    assert not dataclasses.replace(features, normalize="utterance").streaming
    assert not dataclasses.replace(features, deltas=1).streaming


def test_global_normalisation_is_over_all_frames() -> None:
    features = make(normalize="global", deltas=1)
    statistics = features.fit(WAVES)
    assert statistics is not None
    frames = np.concatenate(features.extract(WAVES, statistics))
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-4)
    assert Statistics(*map(tuple, (statistics.mean, statistics.deviation))) == statistics
    assert make().fit(WAVES) is None
    with pytest.raises(ValueError, match="needs the statistics of the training data"):
        features.extract(WAVES)


def test_speed_changes_the_number_of_frames_and_not_the_padding() -> None:
    features = make(normalize="none")
    faster = features.extract(WAVES, speed=1.25)
    batch, _ = jax.jit(functools.partial(features, speed=1.25))(*with_garbage(WAVES))
    for wave, got, row in zip(WAVES, faster, batch, strict=True):
        assert len(got) == features.num_frames(-(-len(wave) * 4 // 5))
        np.testing.assert_allclose(row[: len(got)], got, atol=1e-3)
    with pytest.raises(UserError, match="needs waveforms"):
        make("given").extract(GIVEN, speed=1.1)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("log_mel", {"n_fft": 100}, "task.features.n_fft=100 is less than the 160 samples of a frame"),
        ("log_mel", {"num_mels": 200}, "task.features: num_mels=200 filters are too many"),
        ("mfcc", {"num_coefficients": 13}, "num_coefficients must be 1 to 12"),
        ("log_mel", {"hop_seconds": 0.0}, "hop_seconds is less than a sample"),
        ("log_mel", {"hop_seconds": float("inf")}, "task.features.hop_seconds must be at least 0 and finite, got inf"),
        ("mfcc", {"frame_seconds": float("nan")}, "task.features.frame_seconds must be at least 0 and finite, got nan"),
        ("log_mel", {"f_max": 5000.0}, "task.features: the mel bands must lie between 0 Hz"),
        ("mfcc", {"deltas": 3}, "deltas must be 0, 1 or 2"),
        ("given", {"stack": 0}, "task.features.stack must be at least 1"),
        ("given", {"num_mels": 3}, "task.features.num_mels"),
        ("log_mels", {}, "did you mean 'log_mel'"),
    ],
)
def test_wrong_keys_get_one_line(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make(name, **keys)
    assert "\n" not in str(error.value)


def test_waveforms_and_ready_made_features_are_told_apart() -> None:
    with pytest.raises(UserError, match=r"ready-made features and no waveforms; set task\.features\.name='given'"):
        FEATURES["mfcc"](sample_rate=None, num_features=13)
    with pytest.raises(UserError, match="waveforms and no features; name log_mel or mfcc"):
        FEATURES["given"](sample_rate=8_000, num_features=None)
    assert dataclasses.replace(make("given"), num_features=7).size == 7
