"""What a cell is: the interface that every engine in `lstm_research.models.recurrence` relies on."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray

Carry = Any
"""A NamedTuple of arrays `[*batch, H]`. The field that feeds the recurrent weights is called `h`."""


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """One step of one recurrent layer: a hashable description with pure methods and no arrays inside.

    Attributes:
      hidden_size: H, the number of hidden units.
    """

    hidden_size: int

    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_kernel",)
    """The parameters that weight-drop (DropConnect on the recurrent weights) acts on."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {self.hidden_size}")

    @property
    def output_size(self) -> int:
        """The number of features of the output `y`."""
        return self.hidden_size

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """Draws the parameters.

        Args:
          key: the random key.
          input_size: D, the number of input features.
          dtype: of the parameters.

        Returns:
          A dict of arrays; the class docstring gives its layout.
        """

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

    @abc.abstractmethod
    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any GH"]:
        """Returns z, the input pre-activations of all gates side by side; works for any leading axes."""

    @abc.abstractmethod
    def mix(self, params: Params, carry: Carry) -> Float[Array, "*batch GH"]:
        """Returns r, the recurrent pre-activations of all gates side by side; works for any leading axes."""

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


def tree_dtype(*trees: Any) -> jax.numpy.dtype:
    """Returns the dtype in which arithmetic on all arrays of the trees ends."""
    return jax.numpy.result_type(*jax.tree.leaves(trees))
