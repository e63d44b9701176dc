"""What a cell is: the interface that every engine in `lstm_research.models.recurrence` relies on."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.models.cells.initializers import Initializer, get_initializer, init_gates

Carry = Any
"""A NamedTuple of arrays `[*batch, H]`. The field that feeds the recurrent weights is called `h`."""


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """One step of one recurrent layer: a hashable description with pure methods and no arrays inside.

    Attributes:
      hidden_size: H, the number of hidden units.
      input_initializer: of each gate's block of the input weights.
      recurrent_initializer: of each gate's block of the recurrent weights.
    """

    hidden_size: int
    input_initializer: Initializer = "lecun_normal"
    recurrent_initializer: Initializer = "orthogonal"

    num_gates: ClassVar[int]
    """G, the number of blocks of H columns in the weights."""
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_kernel",)
    """The parameters that weight-drop (DropConnect on the recurrent weights) acts on."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {self.hidden_size}")
        get_initializer(self.input_initializer)
        get_initializer(self.recurrent_initializer)

    @property
    def output_size(self) -> int:
        """The number of features of the output `y`."""
        return self.hidden_size

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """Draws the parameters.

        Args:
          key: the random key.
          input_size: D, the number of input features.
          dtype: of the parameters.

        Returns:
          `input_kernel` `[D, GH]`, `recurrent_kernel` `[H, GH]` and `bias` `[GH]` of zeros; the class docstring says
          what a cell adds, and the order of its gates.
        """
        input_key, recurrent_key = jax.random.split(key)
        H, G = self.hidden_size, self.num_gates
        return {
            "input_kernel": init_gates(self.input_initializer, input_key, input_size, H, G, dtype),
            "recurrent_kernel": init_gates(self.recurrent_initializer, recurrent_key, H, H, G, dtype),
            "bias": jnp.zeros((G * H,), dtype),
        }

    @abc.abstractmethod
    def initial_carry(self, params: Params, batch_shape: tuple[int, ...], dtype: DTypeLike = "float32") -> Carry:
        """Returns the carry before the first step.

        Args:
          params: the cell's parameters, for cells whose initial state is learned.
          batch_shape: leading axes of the carry.
          dtype: of the carry.
        """

    @abc.abstractmethod
    def step(
        self,
        params: Params,
        carry: Carry,
        x: Float[Array, "*batch D"],
        recurrent_mask: Float[Array, "*#batch H"] | None = None,
    ) -> tuple[Carry, Float[Array, "*batch H"]]:
        """Advances by one step of time, with the signature of a `jax.lax.scan` body.

        Args:
          params: the cell's parameters.
          carry: the carry before the step.
          x: the input of the step.
          recurrent_mask: a dropout mask (already scaled) on the hidden state where it enters the recurrent weights,
            and only there: what the cell keeps of its state is not dropped.

        Returns:
          The carry after the step, and the output.
        """


class GatedCell(Cell):
    """A cell in three parts, which the fast engines use one by one.

    `project` is the input side and knows no carry, so an engine applies it to a whole sequence as one matrix product.
    `mix` is the state side and linear in the large weights. `update` is elementwise and touches only small parameters
    (biases, peepholes).
    """

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any GH"]:
        """Returns z = x W, the input pre-activations of all gates side by side; works for any leading axes."""
        return xs @ params["input_kernel"]

    def mix(self, params: Params, carry: Carry) -> Float[Array, "*batch GH"]:
        """Returns r = h U, the recurrent pre-activations of all gates side by side; works for any leading axes."""
        return carry.h @ params["recurrent_kernel"]

    @abc.abstractmethod
    def update(
        self, params: Params, carry: Carry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[Carry, Float[Array, "*batch H"]]:
        """Returns the next carry and the output from the pre-activations."""

    def step(
        self,
        params: Params,
        carry: Carry,
        x: Float[Array, "*batch D"],
        recurrent_mask: Float[Array, "*#batch H"] | None = None,
    ) -> tuple[Carry, Float[Array, "*batch H"]]:
        """See `Cell.step`: `update(params, carry, project(params, x), mix(params, carry))`."""
        mixed = carry if recurrent_mask is None else carry._replace(h=carry.h * recurrent_mask)
        return self.update(params, carry, self.project(params, x), self.mix(params, mixed))


def tree_dtype(*trees: Any) -> jnp.dtype:
    """Returns the dtype in which arithmetic on all arrays of the trees ends."""
    return jnp.result_type(*jax.tree.leaves(trees))
