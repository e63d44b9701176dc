"""One recurrent layer, read in one direction or in both."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, Float, Int, PRNGKeyArray
from lstm_research.common.errors import unknown
from lstm_research.models.cells import Cell
from lstm_research.models.layers.dropout import DropoutRates, recurrent_masks, split_key, weight_drop
from lstm_research.models.recurrence import unroll

Merge = Literal["concat", "sum", "mean"]
MERGES = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "mean": lambda forward, backward: (forward + backward) / 2,
    "sum": lambda forward, backward: forward + backward,
}


class Recurrent(nnx.Module):
    """A cell with its parameters.

    Attributes:
      cell: which cell.
      params: its parameters, under the names that its docstring gives.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        rngs: nnx.Rngs,
    ):
        self.cell = cell
        self.rates = rates or DropoutRates()
        self.engine = engine
        self.params = nnx.Dict({k: nnx.Param(v) for k, v in cell.init(rngs.params(), input_size).items()})

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.cell.output_size

    def initial_carry(self, batch_size: int, dtype: Any = jnp.float32) -> Any:
        """Returns the state before the first step, `[B, H]` arrays."""
        return self.cell.initial_carry(self._cell_params(dtype), (batch_size,), dtype)

    def __call__(
        self,
        xs: Float[Array, "T B D"],
        carry: Any = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        reverse: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Any, Float[Array, "T B H"]]:
        """Runs the layer; see `lstm_research.models.unroll` for the arguments.

        Args:
          xs: the inputs; the layer computes in their dtype.
          carry: the state before the first step.
          lengths: valid steps of each sequence.
          resets: where the state starts anew.
          reverse: reads from the last valid step to the first.
          key: the random key of the dropout; None in evaluation.

        Returns:
          The carry after the last step, and the outputs.
        """
        weight_key, state_key = split_key(key, 2)
        params = weight_drop(weight_key, self.cell, self._cell_params(xs.dtype), self.rates.weight_rate)
        T, B = xs.shape[:2]
        masks = recurrent_masks(state_key, self.rates, (T, B, self.cell.hidden_size), xs.dtype)
        return unroll(
            self.cell,
            params,
            xs,
            carry,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            masks=masks,
            engine=self.engine,
        )

    def _cell_params(self, dtype: Any) -> dict[str, Array]:
        return {name: param[...].astype(dtype) for name, param in self.params.items()}


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
        rngs: nnx.Rngs,
    ):
        if merge not in MERGES:
            raise unknown("merge", merge, MERGES)
        self.merge = merge
        self.forward = Recurrent(cell, input_size, rates=rates, engine=engine, rngs=rngs)
        self.backward = Recurrent(cell, input_size, rates=rates, engine=engine, rngs=rngs)

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
        ends = None if resets is None else jnp.roll(resets, -1, axis=0).at[-1].set(False)
        forward_carry, forward = self.forward(xs, forward_carry, lengths=lengths, resets=resets, key=forward_key)
        backward_carry, backward = self.backward(
            xs, backward_carry, lengths=lengths, resets=ends, reverse=True, key=backward_key
        )
        return (forward_carry, backward_carry), MERGES[self.merge](forward, backward)
