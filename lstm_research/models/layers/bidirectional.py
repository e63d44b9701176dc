"""Two recurrent layers that read in opposite directions."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.common.errors import unknown
from lstm_research.models.cells import Cell
from lstm_research.models.layers.dropout import DropoutRates, split_key
from lstm_research.models.layers.recurrent import Recurrent

Merge = Literal["concat", "sum", "mean"]
MERGES = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "mean": lambda forward, backward: (forward + backward) / 2,
    "sum": lambda forward, backward: forward + backward,
}


class Bidirectional(nnx.Module):
    """Two layers that read the sequence in opposite directions (Schuster and Paliwal, 1997).

    Attributes:
      forward: the layer that reads from first to last.
      backward: the layer that reads from last to first.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        merge: Merge = "concat",
        rates: DropoutRates | None = None,
        engine: str = "auto",
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        if merge not in MERGES:
            raise unknown("merge", merge, MERGES)
        self.merge = merge
        options: dict[str, Any] = {
            "rates": rates,
            "engine": engine,
            "remat": remat,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.forward = Recurrent(cell, input_size, **options, rngs=rngs)
        self.backward = Recurrent(cell, input_size, **options, rngs=rngs)

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.forward.output_size * (2 if self.merge == "concat" else 1)

    def initial_carry(self, batch_size: int, dtype: Any = jnp.float32) -> Any:
        """Returns the states of both directions before their first step."""
        return self.forward.initial_carry(batch_size, dtype), self.backward.initial_carry(batch_size, dtype)

    def __call__(
        self,
        xs: Float[Array, "T B D"],
        carry: Any = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Any, Float[Array, "T B H"]]:
        """Runs both directions.

        Args:
          xs: the inputs.
          carry: the pair of states before the first step of each direction.
          lengths: valid steps of each sequence.
          resets: where, in reading from first to last, a new piece begins. The backward direction begins anew at the
            last step of each piece, so that neither sees another piece.
          key: the random key of the dropout; None in evaluation.

        Returns:
          The pair of carries after the last step of each direction, and the merged outputs.
        """
        forward_key, backward_key = split_key(key, 2)
        forward_carry, backward_carry = (None, None) if carry is None else carry
        # A piece that begins at t + 1 ends at t, which is where the backward direction enters it.
        ends = None if resets is None else jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
        if ends is not None and lengths is not None:  # a piece that would begin in the padding ends nothing
            ends &= jnp.arange(1, len(ends) + 1)[:, None] < lengths
        forward_carry, forward = self.forward(xs, forward_carry, lengths=lengths, resets=resets, key=forward_key)
        backward_carry, backward = self.backward(
            xs, backward_carry, lengths=lengths, resets=ends, reverse=True, key=backward_key
        )
        return (forward_carry, backward_carry), MERGES[self.merge](forward, backward)
