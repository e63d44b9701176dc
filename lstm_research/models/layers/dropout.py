"""The dropout family. Every mask is drawn outside the loop over time, so that any engine can run the loop."""

import dataclasses
from collections.abc import Collection

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.recurrence import RecurrentMasks


@dataclasses.dataclass(frozen=True)
class DropoutRates:
    """Which noise a recurrent model is trained with; each rate is the share that is dropped, 0 for none.

    Attributes:
      input_rate: on the input of the first layer.
      layer_rate: between the layers of a stack.
      output_rate: on the output of the last layer.
      embedding_rate: whole words of the embedding table. Gal and Ghahramani 2016.
      recurrent_rate: on the hidden state where it enters the recurrent weights, one mask for all steps. Gal and
        Ghahramani 2016.
      weight_rate: on the recurrent weights themselves (weight-drop, DropConnect). Merity, Keskar and Socher,
        "Regularizing and Optimizing LSTM Language Models", 2018.
      zoneout_c_rate: the share of the memory that is kept from the step before. Krueger et al. 2017.
      zoneout_h_rate: the same for the hidden state.
      locked: input, layer and output dropout use one mask for all steps of a sequence ("locked" or variational
        dropout) instead of a new one at each step.
    """

    input_rate: float = 0.0
    layer_rate: float = 0.0
    output_rate: float = 0.0
    embedding_rate: float = 0.0
    recurrent_rate: float = 0.0
    weight_rate: float = 0.0
    zoneout_c_rate: float = 0.0
    zoneout_h_rate: float = 0.0
    locked: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            rate = getattr(self, field.name)
            if field.name != "locked" and not 0 <= rate < 1:
                raise UserError(f"model.dropout.{field.name} must be at least 0 and below 1, got {rate}")

    def on_features(self, key: PRNGKeyArray | None, xs: Float[Array, "T B D"], rate: float) -> Float[Array, "T B D"]:
        """Returns `xs` with dropout, locked over time or not; unchanged without a key."""
        return dropout(key, xs, rate, shared_axes=(0,) if self.locked else ())


def dropout(
    key: PRNGKeyArray | None, x: Float[Array, "*any"], rate: float, *, shared_axes: Collection[int] = ()
) -> Float[Array, "*any"]:
    """Zeroes a share of the entries and scales the others by 1/(1 - rate).

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.

    Args:
      key: the random key; None (evaluation) returns `x` unchanged.
      x: any array.
      rate: the share that is dropped.
      shared_axes: axes along which one mask is used for all entries: the time axis gives locked dropout, the feature
        axis of an embedding table drops whole words.
    """
    if key is None or rate == 0:
        return x
    shape = tuple(1 if axis in shared_axes else size for axis, size in enumerate(x.shape))
    return x * dropout_mask(key, rate, shape, x.dtype)


def dropout_mask(key: PRNGKeyArray, rate: float, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Returns a mask of 0 (with probability `rate`) and 1/(1 - rate)."""
    return jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / jnp.asarray(1 - rate, dtype)


def weight_drop(key: PRNGKeyArray | None, cell: Cell, params: Params, rate: float) -> Params:
    """Returns the cell's parameters with dropout on its recurrent weights; unchanged without a key."""
    if key is None or rate == 0:
        return params
    keys = jax.random.split(key, len(cell.recurrent_weights))
    return params | {name: dropout(k, params[name], rate) for k, name in zip(keys, cell.recurrent_weights, strict=True)}


def recurrent_masks(
    key: PRNGKeyArray | None, rates: DropoutRates, cell: Cell, steps: tuple[int, int], dtype: DTypeLike = "float32"
) -> RecurrentMasks:
    """Draws the masks on the state of one layer.

    Args:
      key: the random key; None (evaluation) gives no dropout, and zoneout by its expectation.
      rates: of which the recurrent and the zoneout rates are used.
      cell: whose state it is.
      steps: (T, B).
      dtype: of the masks that are numbers; `unroll` casts them to that of the state.
    """
    T, B = steps
    sizes = cell.carry_sizes

    def zoneout_mask(key: PRNGKeyArray | None, rate: float, field: str) -> Array | None:
        if rate == 0:
            return None
        if key is None:
            return jnp.full((T, 1, 1), rate, dtype)
        return _draw_booleans(key, rate, (T, B, sizes[field]))

    dropout_key, c_key, h_key = (None, None, None) if key is None else jax.random.split(key, 3)
    return RecurrentMasks(
        dropout=dropout_mask(dropout_key, rates.recurrent_rate, (B, sizes["h"]), dtype)
        if dropout_key is not None and rates.recurrent_rate > 0
        else None,
        zoneout_c=zoneout_mask(c_key, rates.zoneout_c_rate, "c"),
        zoneout_h=zoneout_mask(h_key, rates.zoneout_h_rate, "h"),
    )


def _draw_booleans(key: PRNGKeyArray, rate: float, shape: tuple[int, ...]) -> Bool[Array, "*any"]:
    """Returns booleans that are True with probability `rate`, rounded to a multiple of 2^-16 that is neither 0 nor 1.

    Two of them come from the 32 random bits that `jax.random.bernoulli` takes for one: on a CPU these draws are most of
    what zoneout costs.
    """
    *leading, size = shape
    bits = jax.random.bits(key, (*leading, (size + 1) // 2), "uint32")
    threshold = min(max(round(rate * 2**16), 1), 2**16 - 1)
    return jnp.concatenate([(bits & 0xFFFF) < threshold, (bits >> 16) < threshold], axis=-1)[..., :size]


def split_key(key: PRNGKeyArray | None, count: int) -> list[PRNGKeyArray | None]:
    """Splits a key, where None (evaluation) splits into Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))
