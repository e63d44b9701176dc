"""Sound files become waveforms of one channel, one rate and 16 bits."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lstm_research.common.errors import UserError
from lstm_research.data.speech.audio import change_rate, decode, read_audio

SAMPLES = np.random.default_rng(0).integers(-32768, 32767, 1000).astype(np.int16)


def encode(samples: np.ndarray, form: str = "wav", rate: int = 8_000, **keys: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, **keys)
    return file.getvalue()


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_samples_of_16_bits_come_back_as_they_are(form: str) -> None:
    audio = decode(encode(SAMPLES, form), 8_000)
    assert audio.signal.dtype == np.int16
    np.testing.assert_array_equal(audio.signal, SAMPLES)
    assert (audio.sample_rate, audio.num_channels) == (8_000, 1)


def test_channels_become_their_mean_and_what_is_too_loud_is_clipped() -> None:
    audio = decode(encode(np.stack([SAMPLES, np.zeros_like(SAMPLES)], axis=1)), 8_000)
    assert audio.num_channels == 2
    np.testing.assert_allclose(audio.signal, SAMPLES / 2, atol=1)
    loud = decode(encode(np.array([0.5, 3.0, -3.0]), subtype="FLOAT"), 8_000)
    assert loud.signal.tolist() == [16384, 32767, -32768]


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_a_tone_keeps_its_pitch_at_another_rate(rate: int, sound: Callable[..., bytes]) -> None:
    audio = decode(sound(440.0, rate=rate, form="wav"), 16_000)
    assert len(audio.signal) == 8000
    assert audio.sample_rate == rate
    expected = 16384 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)
    np.testing.assert_allclose(audio.signal[200:-200], expected[200:-200], atol=100)
    half = change_rate(audio.signal, 16_000, 8_000)
    np.testing.assert_allclose(half[200:-200], expected[::2][200:-200], atol=150)


def test_what_the_lower_rate_cannot_hold_is_taken_out(sound: Callable[..., bytes]) -> None:
    assert np.abs(decode(sound(6_000.0, rate=16_000, form="wav"), 8_000).signal[200:-200]).max() < 100


NO_SOUND = [
    ("text.wav", b"hello", r"text.wav cannot be read as sound \(.*\); give a whole wav, flac or ogg file"),
    ("x.raw", b"hello", r"x.raw cannot be read as sound"),
    ("none.wav", encode(np.zeros(0, np.int16)), r"none.wav cannot be read as sound \(it has no samples\)"),
    ("nan.wav", encode(np.array([0.0, np.nan]), subtype="FLOAT"), r"samples that are no finite number"),
    ("cut.wav", encode(SAMPLES)[:-500], r"cut.wav .*cut short: its header promises 500 bytes more than there are"),
    ("cut.flac", encode(SAMPLES, "flac")[:-500], r"cut.flac cannot be read as sound \(damaged, or cut short\)"),
    ("scale.wav", encode(SAMPLES / 1.0, subtype="FLOAT"), r"scale.wav .*samples up to 32.*full scale must be 1"),
    ("folder", None, r"list.csv line 2: there is no sound file .*folder"),
    ("~nobody_of_this_name/a.wav", None, r"list.csv line 2: there is no sound file ~nobody_of_this_name/a.wav"),
    ("a" * 5000, None, r"list.csv line 2: there is no sound file"),
]


# Named by their files: what a sound file holds is another for every second in which it was written.
@pytest.mark.parametrize(("name", "data", "message"), NO_SOUND, ids=[name[:10] for name, *_ in NO_SOUND])
def test_what_is_no_sound_gets_one_line(name: str, data: bytes | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_audio(name if name.startswith("~") else tmp_path / name, 8_000, "list.csv line 2")
    assert str(error.value).startswith("list.csv line 2: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFF000])
def test_a_header_that_was_written_before_the_length_was_known_promises_nothing(stated: int) -> None:
    data = bytearray(encode(SAMPLES))
    data[40:44] = stated.to_bytes(4, "little")
    assert len(decode(bytes(data), 8_000).signal) == len(SAMPLES)


def test_chunks_before_and_behind_the_sound_are_no_sound() -> None:
    data = encode(SAMPLES)
    odd = b"note" + (3).to_bytes(4, "little") + b"abc\0"
    data = data[:4] + (len(data) - 8 + 2 * len(odd)).to_bytes(4, "little") + data[8:36] + odd + data[36:] + odd
    np.testing.assert_array_equal(decode(data, 8_000).signal, SAMPLES)
