"""Noise on the state of a recurrent layer, drawn before the loop over time and applied inside it."""

from typing import NamedTuple

import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, Float
from lstm_research.models.cells.base import Carry


class RecurrentMasks(NamedTuple):
    """Masks that `unroll` applies to the state; None leaves the state as it is.

    Attributes:
      dropout: `[B, H]` (one mask for all steps) or `[T, B, H]`: multiplies the hidden state where it enters the
        recurrent weights. Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks", 2016.
      zoneout_c: `[T, B, H]`, or anything that broadcasts to it: the share d of the old memory that is kept,
        c' ← d*c + (1 - d)*c'. True and False in training (a quarter of the memory of numbers), the rate itself in
        evaluation. Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017.
      zoneout_h: the same for the hidden state, which is also the output.
    """

    dropout: Float[Array, "*T B H"] | None = None
    zoneout_c: Float[Array, "T #B #H"] | Bool[Array, "T #B #H"] | None = None
    zoneout_h: Float[Array, "T #B #H"] | Bool[Array, "T #B #H"] | None = None

    @property
    def once(self) -> Float[Array, "#B #H"] | None:
        """The dropout mask that all steps share, if they do."""
        return self.dropout if self.dropout is not None and self.dropout.ndim == 2 else None

    @property
    def each(self) -> Float[Array, "T #B #H"] | None:
        """The dropout masks of the steps, if each has its own."""
        return None if self.once is not None else self.dropout


def zoneout(old: Carry, new: Carry, keep_c: Array | None, keep_h: Array | None) -> Carry:
    """Returns the carry after a step with the shares `keep_c` and `keep_h` of the old one kept."""
    if keep_c is not None:
        new = new._replace(c=_keep(keep_c, old.c, new.c))
    if keep_h is not None:
        new = new._replace(h=_keep(keep_h, old.h, new.h))
    return new


def _keep(share: Array, old: Array, new: Array) -> Array:
    return jnp.where(share, old, new) if share.dtype == bool else share * old + (1 - share) * new
