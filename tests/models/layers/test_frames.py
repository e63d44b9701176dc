"""What is done to frames, against loops over them; padding is never read."""

import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.layers import frames

LENGTHS = np.array([7, 1, 0, 4])
XS = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
for row, length in enumerate(LENGTHS):
    XS[row, length:] = np.nan


@pytest.mark.parametrize("width", [1, 2, 3])
def test_differences_are_a_regression_with_repeated_ends(width: int) -> None:
    expected = np.zeros_like(XS)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            for n in range(1, width + 1):
                ahead, behind = min(t + n, length - 1), max(t - n, 0)
                expected[row, t] += n * (XS[row, ahead] - XS[row, behind])
    expected /= 2 * sum(n * n for n in range(1, width + 1))
    np.testing.assert_allclose(frames.deltas(jnp.asarray(XS), jnp.asarray(LENGTHS), width), expected, atol=1e-6)
    line = jnp.broadcast_to(2.5 * jnp.arange(9.0)[:, None], (1, 9, 1))
    np.testing.assert_allclose(frames.deltas(line, jnp.array([9]), width)[0, width:-width], 2.5, rtol=1e-6)


@pytest.mark.parametrize(("stack", "stride"), [(1, 1), (3, 3), (3, 2), (2, 3), (9, 4)])
def test_several_frames_become_one(stack: int, stride: int) -> None:
    stacked, lengths = frames.stack_frames(jnp.asarray(XS), jnp.asarray(LENGTHS), stack, stride)
    assert lengths.tolist() == [-(-length // stride) for length in LENGTHS]
    assert stacked.shape == (4, -(-7 // stride), 3 * stack)
    expected = np.zeros(stacked.shape, np.float32)
    for row, length in enumerate(LENGTHS):
        for new in range(lengths[row]):
            for part in range(stack):
                if new * stride + part < length:
                    expected[row, new, 3 * part : 3 * part + 3] = XS[row, new * stride + part]
    np.testing.assert_array_equal(stacked, expected)


def test_each_utterance_has_mean_0_and_variance_1() -> None:
    xs = np.array(XS)
    xs[0, :, 2] = 5.0
    got = np.asarray(frames.normalize_utterances(jnp.asarray(xs), jnp.asarray(LENGTHS)))
    for row, length in enumerate(LENGTHS):
        assert (got[row, length:] == 0).all()
        if length:
            part = xs[row, :length].astype(np.float64)
            deviation = part.std(0)
            expected = np.where(deviation > 1e-5, (part - part.mean(0)) / np.maximum(deviation, 1e-5), 0)
            np.testing.assert_allclose(got[row, :length], expected, atol=1e-5)
    assert (got[0, :, 2] == 0).all()


def test_given_moments_scale_all_utterances_alike() -> None:
    mean, deviation = np.array([1.0, 2.0, 3.0], np.float32), np.array([0.5, 1.0, 4.0], np.float32)
    got = frames.normalize(jnp.asarray(XS), jnp.asarray(LENGTHS), jnp.asarray(mean), jnp.asarray(deviation))
    np.testing.assert_allclose(got[0], (XS[0] - mean) / deviation, rtol=1e-6)
    assert (got[2] == 0).all()
    assert (got[3, 4:] == 0).all()


def test_no_frame_at_all_is_legal() -> None:
    none, lengths = jnp.zeros((2, 0, 3)), jnp.zeros(2, jnp.int32)
    assert frames.deltas(none, lengths).shape == (2, 0, 3)
    assert frames.normalize_utterances(none, lengths).shape == (2, 0, 3)
    assert frames.stack_frames(none, lengths, 4, 2)[0].shape == (2, 0, 12)
