"""One recurrent layer: a cell with its parameters, through time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers.dropout import DropoutRates, recurrent_masks, split_key, weight_drop
from lstm_research.models.recurrence import unroll
from lstm_research.models.recurrence.engines import check_engine
from lstm_research.models.recurrence.observe import observer


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
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Makes the layer.

        Args:
          cell: which cell.
          input_size: D.
          rates: of the noise on state and weights.
          engine: see `lstm_research.models.unroll`.
          remat: keeps the input alone, and computes the rest again on the way back, which costs time and saves memory.
          dtype: of the products with kernels, that of the inputs if None. States and sums are in float32 at least.
          param_dtype: of the parameters.
          rngs: draws the parameters.
        """
        self.cell = cell
        self.rates = rates or DropoutRates()
        self.engine = engine
        self.remat = remat
        self.dtype = dtype
        self.params = nnx.Dict({k: nnx.Param(v) for k, v in cell.init(rngs.params(), input_size, param_dtype).items()})
        # What `unroll` would refuse is refused here already, before any data is fetched.
        check_engine(engine)
        if self.rates.zoneout_c_rate > 0 and "c" not in cell.carry_sizes:
            raise UserError(
                f"model.dropout.zoneout_c_rate needs a cell with a memory c, which {type(cell).__name__} has not; "
                "set it to 0, or use zoneout_h_rate"
            )

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.cell.output_size

    def initial_carry(self, batch_size: int, dtype: Any = jnp.float32) -> Any:
        """Returns the state before the first step, `[B, H]` arrays, in float32 at least."""
        return self.cell.initial_carry(self._cell_params(dtype), (batch_size,), jnp.promote_types(dtype, "float32"))

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
          xs: the inputs.
          carry: the state before the first step.
          lengths: valid steps of each sequence.
          resets: where the state starts anew.
          reverse: reads from the last valid step to the first.
          key: the random key of the dropout; None in evaluation.

        Returns:
          The carry after the last step, and the outputs.
        """

        def run(xs: Array, carry: Any) -> tuple[Any, Array]:
            weight_key, state_key = split_key(key, 2)
            params = weight_drop(weight_key, self.cell, self._cell_params(xs.dtype), self.rates.weight_rate)
            T, B = xs.shape[:2]
            masks = recurrent_masks(state_key, self.rates, self.cell, (T, B))
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

        return self.rematerialized(run)(xs, carry)

    def rematerialized(self, run: Callable[[Array, Any], tuple[Any, Array]]) -> Callable[..., tuple[Any, Array]]:
        """Returns what does the same; with `remat` it keeps nothing for the way back but what it is given."""
        # What is observed leaves the function by another way than its result.
        return jax.checkpoint(run) if self.remat and observer() is None else run

    def step(self, x: Float[Array, "B D"], carry: Any = None) -> tuple[Any, Float[Array, "B H"]]:
        """Reads one step of a stream, in evaluation: no dropout, and zoneout by its expectation.

        Args:
          x: the input of the step.
          carry: the state before it; the initial one if None.

        Returns:
          The carry after the step, and the output.
        """
        carry, ys = self(x[None], carry)
        return carry, ys[0]

    def _cell_params(self, dtype: DTypeLike) -> dict[str, Array]:
        """Returns the kernels in the dtype of the products, and all else in that of the state."""
        dtype = self.dtype or dtype
        state_dtype = jnp.promote_types(dtype, "float32")
        if not jnp.issubdtype(dtype, jnp.floating):  # counts and flags are numbers to a kernel
            dtype = state_dtype
        return {
            name: param[...].astype(dtype if name.endswith("kernel") else state_dtype)
            for name, param in self.params.items()
        }
