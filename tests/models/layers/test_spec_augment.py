"""SpecAugment: what is hidden, how much of it, and what never is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.models.layers.spec_augment import SpecAugment

NONE = {"num_time_masks": 0, "num_frequency_masks": 0}


def hide(
    lengths: list[int], size: int = 12, *, draws: int = 200, num_bands: int | None = None, **keys: Any
) -> np.ndarray:
    """Which features are hidden, of ones: [draws, B, T, D]."""
    xs = jnp.ones((len(lengths), max(lengths), size))
    augment = SpecAugment(**NONE | keys)
    call = jax.jit(jax.vmap(lambda key: augment(key, xs, jnp.array(lengths), num_bands=num_bands)))
    return np.asarray(call(jax.random.split(jax.random.key(0), draws))) == 0


def test_time_masks_are_limited_by_the_utterance_and_reach_everywhere() -> None:
    hidden = hide([40, 10, 3, 0], num_time_masks=1, max_time=6, max_time_fraction=0.4)
    times = hidden.all(axis=-1)
    assert (hidden == times[..., None]).all()  # all features of a frame, or none
    for row, (length, longest) in enumerate([(40, 6), (10, 4), (3, 1), (0, 0)]):
        assert times[:, row, length:].all()
        found = times[:, row, :length]
        counts = found.sum(axis=1)
        assert set(counts) == set(range(longest + 1))
        assert (np.diff(found, axis=1).sum(axis=1) <= 2).all()  # one stretch
        assert found.any(axis=0).all()  # no frame is safe


def test_several_masks_may_overlap_and_utterances_differ() -> None:
    hidden = hide([30, 30], num_time_masks=2, max_time=5, max_time_fraction=1.0).all(axis=-1)
    assert hidden.sum(axis=-1).max() > 5
    assert hidden.sum(axis=-1).max() <= 10
    assert (hidden[:, 0] != hidden[:, 1]).any(axis=-1).mean() > 0.9


def test_a_band_is_hidden_in_all_that_is_made_of_it() -> None:
    hidden = hide([5, 3], num_frequency_masks=1, max_frequency=3, num_bands=4)
    bands = hidden[:, :, 0].reshape(200, 2, 3, 4)
    assert (bands == bands[:, :, :1]).all()
    assert set(bands[:, :, 0].sum(axis=-1).ravel()) == {0, 1, 2, 3}
    assert bands.any(axis=(0, 1, 2)).all()
    assert (hidden[:, 0] == hidden[:, 0, :1]).all()
    assert (hide([4], num_frequency_masks=1, max_frequency=99).sum(axis=-1) <= 12).all()


def test_widths_are_drawn_evenly() -> None:
    widths = hide([50], draws=4000, num_time_masks=1, max_time=3, max_time_fraction=1.0)[:, 0].all(axis=-1).sum(axis=-1)
    np.testing.assert_allclose(np.bincount(widths) / 4000, 0.25, atol=0.03)


def test_what_is_not_hidden_is_not_changed_and_padding_is_zero() -> None:
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32).at[1, 3:].set(jnp.nan)
    lengths = jnp.array([6, 3])
    got = SpecAugment(**NONE)(jax.random.key(1), xs, lengths)
    np.testing.assert_array_equal(got, jnp.nan_to_num(xs))
    got = SpecAugment(max_time=2, max_time_fraction=1.0, max_frequency=1)(jax.random.key(1), xs, lengths)
    assert ((got == 0) | (got == xs)).all()
    again = SpecAugment(max_time=2, max_time_fraction=1.0, max_frequency=1)(
        jax.random.key(1), jnp.pad(xs, ((0, 0), (0, 5), (0, 0)), constant_values=9.0), lengths
    )
    np.testing.assert_array_equal(again[:, :6], got)  # padding draws nothing


@pytest.mark.parametrize("wrong", [{"num_time_masks": -1}, {"max_frequency": -2}, {"max_time_fraction": 1.5}])
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"task.spec_augment.{next(iter(wrong))} must be at "):
        SpecAugment(**wrong)
