"""The Mogrifier LSTM."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells.activations import sigmoid
from lstm_research.models.cells.base import Product, apply, dense
from lstm_research.models.cells.initializers import init_gates
from lstm_research.models.cells.lstm import LSTM


@dataclasses.dataclass(frozen=True)
class MogrifierLSTM(LSTM):
    """An LSTM whose input and hidden state gate each other in turn before they enter it.

        x ← 2σ(h Qₖ)*x    in round k = 1, 3, 5, ...
        h ← 2σ(x Qₖ)*h    in round k = 2, 4, 6, ...

    and then the equations of `LSTM` with these x and h (the memory is not gated). Melis, Kočiský and Blunsom,
    "Mogrifier LSTM", 2020, which has the letter R for Qₖ in even rounds. Without rounds it is an `LSTM`.

    Parameters: those of `LSTM`, and for each round k, counted from 1, `mogrifier_{k}_kernel` Qₖ, `[P, D]` for odd and
    `[D, P]` for even k (P is H without projection). With a rank R, Qₖ is a product of `mogrifier_{k}_left_kernel`
    `[P or D, R]` and `mogrifier_{k}_right_kernel` `[R, D or P]`.

    Attributes:
      hidden_size: H; this and further options are those of `LSTM`. `input_initializer` draws Qₖ and its factors too.
      rounds: how often x or h is gated.
      rank: R; None for a Qₖ of full rank, in one matrix.

    Raises:
      UserError: options that exclude each other.
    """

    rounds: int = 5
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise UserError(f"rounds must be at least 0, got {self.rounds}")
        if self.rank is not None and self.rank < 1:
            raise UserError(f"rank must be at least 1, or None, got {self.rank}")
        if self.rank is not None and self.rounds == 0:
            raise UserError("rank needs rounds; set rounds, or leave rank out")

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Cell.init`."""
        params = super().init(key, input_size, dtype)
        draw = functools.partial(init_gates, self.input_initializer, num_gates=1, dtype=dtype)
        for k in range(1, self.rounds + 1):
            rows, columns = (self.output_size, input_size) if k % 2 else (input_size, self.output_size)
            left_key, right_key = jax.random.split(jax.random.fold_in(key, 4 + k))
            if self.rank is None:
                params[f"mogrifier_{k}_kernel"] = draw(left_key, rows, columns)
            else:
                params[f"mogrifier_{k}_left_kernel"] = draw(left_key, rows, self.rank)
                params[f"mogrifier_{k}_right_kernel"] = draw(right_key, self.rank, columns)
        return params

    @property
    def additive(self) -> bool:
        """See `GatedCell.additive`."""
        return False

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        """Returns the inputs as they are, for h gates them before they enter the input weights."""
        return xs

    def advance(
        self,
        params: Params,
        carry: Any,
        z: Float[Array, "*batch D"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Any, Float[Array, "*batch P"]]:
        """See `Cell.advance`; the mask is on h before the first round."""
        x, h = z, carry.h if recurrent_mask is None else carry.h * recurrent_mask
        for k in range(1, self.rounds + 1):
            a = h if k % 2 else x
            for name in [f"mogrifier_{k}"] if self.rank is None else [f"mogrifier_{k}_left", f"mogrifier_{k}_right"]:
                a = product(_multiply_by(f"{name}_kernel"), params, a)
            x, h = (2 * sigmoid(a) * x, h) if k % 2 else (x, 2 * sigmoid(a) * h)
        z = product(super().project, params, x)
        return self._complete(params, carry, z, product(self.mix, params, carry._replace(h=h)), product)


@functools.cache
def _multiply_by(name: str) -> Callable[[Params, Array], Array]:
    """Returns the product with the kernel of this name."""
    return lambda params, operand: dense(operand, params[name])
