"""What is done to frames of features: differences, several as one, mean and variance.

Arrays are batch-major, as in batches. Padding is never read, and is zero in what comes out.
"""

import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Bool, Float, Int


def valid_frames(lengths: Int[Array, "B"], num_frames: int) -> Bool[Array, "B T 1"]:
    """Returns which frames are no padding."""
    return (jnp.arange(num_frames) < lengths[:, None])[..., None]


def deltas(xs: Float[Array, "B T D"], lengths: Int[Array, "B"], width: int = 2) -> Float[Array, "B T D"]:
    """Returns how fast each feature changes, a regression over 2 · width + 1 frames.

        d_t = Σ_{n=1}^{width} n (x_{t+n} - x_{t-n}) / (2 Σ_{n=1}^{width} n²)

    with the first and the last frame of an utterance repeated beyond its ends (Young et al., "The HTK Book"). Away from
    the ends it is librosa's `delta`. A frame's result needs `width` frames after it.

    Args:
      xs: features.
      lengths: frames of each utterance.
      width: the largest n.
    """
    valid = valid_frames(lengths, xs.shape[1])
    last = jnp.maximum(lengths - 1, 0)[:, None]

    def shifted(offset: int) -> Array:
        places = jnp.clip(jnp.arange(xs.shape[1]) + offset, 0, last)
        return jnp.take_along_axis(xs, places[..., None], axis=1)

    weighted = sum((n * (shifted(n) - shifted(-n)) for n in range(1, width + 1)), jnp.zeros_like(xs))
    return jnp.where(valid, weighted / (2 * sum(n * n for n in range(1, width + 1))), 0)


def stack_frames(
    xs: Float[Array, "B T D"], lengths: Int[Array, "B"], stack: int, stride: int
) -> tuple[Float[Array, "B S E"], Int[Array, "B"]]:
    """Returns several frames side by side as one, and their new lengths ⌈length / stride⌉.

    Frame s is made of the frames s · stride to s · stride + stack - 1; those beyond an utterance's end are zero. Sak,
    Senior, Rao and Beaufays, "Fast and Accurate Recurrent Neural Network Acoustic Models for Speech Recognition", 2015
    (8 frames, every third).

    Args:
      xs: features.
      lengths: frames of each utterance.
      stack: frames that become one.
      stride: frames from the begin of one to that of the next.
    """
    num = -(-xs.shape[1] // stride)
    xs = jnp.where(valid_frames(lengths, xs.shape[1]), xs, 0)
    padded = jnp.pad(xs, ((0, 0), (0, stack + stride), (0, 0)))
    places = stride * np.arange(num)[:, None] + np.arange(stack)
    stacked, lengths = padded[:, places].reshape((len(xs), num, stack * xs.shape[2])), -(-lengths // stride)
    return jnp.where(valid_frames(lengths, num), stacked, 0), lengths


def normalize(
    xs: Float[Array, "B T D"],
    lengths: Int[Array, "B"],
    mean: Float[Array, "*B D"],
    deviation: Float[Array, "*B D"],
) -> Float[Array, "B T D"]:
    """Returns how many standard deviations features are from their mean; 0 for a feature that does not vary.

    Args:
      xs: features.
      lengths: frames of each utterance.
      mean: of each feature, `[D]` or `[B, 1, D]`.
      deviation: the standard deviation, likewise.
    """
    scaled = jnp.where(deviation > 1e-5, (xs - mean) / jnp.maximum(deviation, 1e-5), 0)
    return jnp.where(valid_frames(lengths, xs.shape[1]), scaled, 0)


def normalize_utterances(xs: Float[Array, "B T D"], lengths: Int[Array, "B"]) -> Float[Array, "B T D"]:
    """Returns features with mean 0 and variance 1 over the frames of each utterance; see `normalize`."""
    valid = valid_frames(lengths, xs.shape[1])
    num = jnp.maximum(lengths, 1)[:, None, None]
    mean = jnp.where(valid, xs, 0).sum(axis=1, keepdims=True) / num
    variance = jnp.where(valid, jnp.square(xs - mean), 0).sum(axis=1, keepdims=True) / num
    return normalize(xs, lengths, mean, jnp.sqrt(variance))
