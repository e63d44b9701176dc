"""One recurrent layer: a cell with its parameters, through time."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells import Cell
from lstm_research.models.layers.dropout import DropoutRates, recurrent_masks, split_key, weight_drop
from lstm_research.models.recurrence import ENGINES, unroll


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
        # What `unroll` would refuse is refused here already, before any data is fetched.
        if engine != "auto" and engine not in ENGINES:
            raise unknown("engine", engine, [*ENGINES, "auto"])
        if self.rates.zoneout_c_rate > 0 and "c" not in self.initial_carry(1)._fields:
            raise UserError(
                f"model.dropout.zoneout_c_rate needs a cell with a memory c, which {type(cell).__name__} has not; "
                "set it to 0, or use zoneout_h_rate"
            )

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
