"""SpecAugment: parts of the features of an utterance are hidden in training."""

import dataclasses

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.models.layers.frames import valid_frames


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Hides stretches of time and bands of frequencies: sets them to zero, the mean of normalised features.

    Of each utterance `num_time_masks` stretches of w frames are hidden, w drawn evenly from 0 to `max_time`, or to
    `max_time_fraction` of the utterance if that is less, and `num_frequency_masks` bands of 0 to `max_frequency`
    features; where they lie is drawn evenly as well. Park et al., "SpecAugment: A Simple Data Augmentation Method for
    Automatic Speech Recognition", 2019. Their time warp, which they find to help least, is left out.

    Attributes:
      num_time_masks: stretches of time.
      max_time: frames of a stretch at most.
      max_time_fraction: how much of an utterance a stretch may hide, from 0 to 1.
      num_frequency_masks: bands of frequencies.
      max_frequency: features of a band at most.
    """

    num_time_masks: int = 2
    max_time: int = 40
    max_time_fraction: float = 0.2
    num_frequency_masks: int = 2
    max_frequency: int = 15

    def __post_init__(self) -> None:
        check_at_least(0, "task.spec_augment", **dataclasses.asdict(self))
        if self.max_time_fraction > 1:
            raise UserError(f"task.spec_augment.max_time_fraction must be at most 1, got {self.max_time_fraction}")

    def __call__(
        self, key: PRNGKeyArray, xs: Float[Array, "B T D"], lengths: Int[Array, "B"], *, num_bands: int | None = None
    ) -> Float[Array, "B T D"]:
        """Returns features with parts set to zero.

        Args:
          key: draws what is hidden, in each utterance for itself.
          xs: features.
          lengths: frames of each utterance.
          num_bands: the features of one frame, of which differences and frames side by side are further ones: a band is
            hidden in all of them. None: all D.
        """
        num_bands = xs.shape[-1] if num_bands is None else num_bands
        time_key, band_key = jax.random.split(key)
        longest = jnp.minimum(self.max_time, jnp.floor(self.max_time_fraction * lengths).astype(lengths.dtype))
        times = _hidden(time_key, self.num_time_masks, longest, lengths, xs.shape[1])
        widest = jnp.full_like(lengths, min(self.max_frequency, num_bands))
        bands = _hidden(band_key, self.num_frequency_masks, widest, jnp.full_like(lengths, num_bands), num_bands)
        bands = jnp.tile(bands, (1, xs.shape[-1] // num_bands))
        seen = valid_frames(lengths, xs.shape[1]) & ~times[:, :, None] & ~bands[:, None, :]
        return jnp.where(seen, xs, 0)


def _hidden(key: PRNGKeyArray, num: int, widest: Int[Array, "B"], sizes: Int[Array, "B"], length: int) -> Array:
    """Returns which of `length` places are hidden `[B, length]`: stretches of 0 to `widest` of the first `sizes`."""
    width_key, first_key = jax.random.split(key)
    shape = (len(sizes), num)
    widths = jax.random.randint(width_key, shape, 0, widest[:, None] + 1)
    firsts = jax.random.randint(first_key, shape, 0, sizes[:, None] - widths + 1)
    places = jnp.arange(length)[:, None, None]
    return ((places >= firsts) & (places < firsts + widths)).any(axis=-1).T
