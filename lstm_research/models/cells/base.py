"""What a cell is: the interface that every engine in `lstm_research.models.recurrence` relies on."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells.initializers import Initializer, get_initializer, init_gates

Carry = Any
"""A NamedTuple of arrays `[*batch, size]`. The field that feeds the recurrent weights is called `h`."""


class HiddenCarry(NamedTuple):
    """State of a cell that has no memory besides its hidden state."""

    h: Float[Array, "*batch H"]


Product = Callable[[Callable[[Params, Any], Array], Params, Any], Array]
"""`(function, params, operand) -> function(params, operand)`, where `function` is linear in the kernels it reads."""


def apply(function: Callable[[Params, Any], Array], params: Params, operand: Any) -> Array:
    """The plain `Product`: `function(params, operand)`."""
    return function(params, operand)


def dense(operand: Float[Array, "*any D"], kernel: Float[Array, "D N"]) -> Float[Array, "*any N"]:
    """Returns `operand @ kernel`, summed in float32 at least.

    A kernel in half precision makes the product one of half precision, whatever the operand's dtype: that is mixed
    precision, with float32 states between bfloat16 products.
    """
    if jnp.finfo(kernel.dtype).bits < 32:
        operand = operand.astype(kernel.dtype)
    sum_dtype = jnp.promote_types(jnp.result_type(operand, kernel), "float32")
    return jnp.matmul(operand, kernel, preferred_element_type=sum_dtype)


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """One step of one recurrent layer: a hashable description with pure methods and no arrays inside.

    Parameters are a plain dict. Those whose names end in "kernel" are the large weights; `step` reads them in products
    only (see there). A large weight of another name has the right gradient, but engines add it up step by step.

    Attributes:
      hidden_size: H, the number of hidden units.
      input_initializer: of each gate's block of the input weights.
      recurrent_initializer: of each gate's block of the recurrent weights.
      learned_initial_state: whether the state before the first step is a parameter, `initial_h` (and `initial_c`,
        ...), which starts at zeros, instead of zeros for good.

    Raises:
      UserError: a choice is a number that is not finite, or an unknown name.
    """

    hidden_size: int
    input_initializer: Initializer = "lecun_normal"
    recurrent_initializer: Initializer = "orthogonal"
    learned_initial_state: bool = False

    carry_type: ClassVar[Any]
    """The NamedTuple of the state."""
    num_gates: ClassVar[int]
    """G, the number of blocks of H columns in the weights."""
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_kernel",)
    """The parameters that weight-drop (DropConnect on the recurrent weights) acts on."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "step" in vars(cls):
            raise TypeError(f"{cls.__name__} overrides step, which engines do not call; override advance")

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {self.hidden_size}")
        get_initializer(self.input_initializer)
        get_initializer(self.recurrent_initializer)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{field.name} must be finite, got {value}")

    def __str__(self) -> str:
        """Returns the class and the choices that are not the defaults."""
        chosen = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(chosen)})"

    @property
    def carry_sizes(self) -> dict[str, int]:
        """The number of features of each field of the carry."""
        return dict.fromkeys(self.carry_type._fields, self.hidden_size)

    @property
    def output_size(self) -> int:
        """P, the number of features of the hidden state and of the output `y`."""
        return self.carry_sizes["h"]

    def init(self, key: PRNGKeyArray, input_size: int, dtype: DTypeLike = "float32") -> Params:
        """Draws the parameters.

        Args:
          key: the random key.
          input_size: D, the number of input features.
          dtype: of the parameters.

        Returns:
          `input_kernel` `[D, GH]`, `recurrent_kernel` `[P, GH]` (P is H but for projected cells), `bias` `[GH]` of
          zeros, and `initial_<field>` if the initial state is learned; the class docstring says
          what a cell adds, and the order of its gates.
        """
        input_key, recurrent_key = jax.random.split(key)
        H, G, P = self.hidden_size, self.num_gates, self.output_size
        params = {
            "input_kernel": init_gates(self.input_initializer, input_key, input_size, H, G, dtype),
            "recurrent_kernel": init_gates(self.recurrent_initializer, recurrent_key, P, H, G, dtype),
            "bias": jnp.zeros((G * H,), dtype),
        }
        if self.learned_initial_state:
            for field, size in self.carry_sizes.items():
                params[f"initial_{field}"] = jnp.zeros((size,), dtype)
        return params

    def initial_carry(self, params: Params, batch_shape: tuple[int, ...], dtype: DTypeLike = "float32") -> Carry:
        """Returns the carry before the first step.

        Args:
          params: the cell's parameters, which hold the initial state if it is learned.
          batch_shape: leading axes of the carry.
          dtype: of the carry.
        """
        # A buffer of its own for every field, so that all can be donated.
        arrays = {field: jnp.zeros((*batch_shape, size), dtype) for field, size in self.carry_sizes.items()}
        if self.learned_initial_state:
            arrays = {field: array + params[f"initial_{field}"].astype(dtype) for field, array in arrays.items()}
        return self.carry_type(**arrays)

    def project(self, params: Params, xs: Float[Array, "*any D"]) -> Float[Array, "*any N"]:
        """Returns what a step needs of its input: z = x W + b, the input pre-activations of all gates side by side.

        It knows no carry, so an engine applies it to a whole sequence as one matrix product; works for any leading
        axes.
        """
        return dense(xs, params["input_kernel"]) + params["bias"]

    @abc.abstractmethod
    def advance(
        self,
        params: Params,
        carry: Carry,
        z: Float[Array, "*batch N"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Carry, Float[Array, "*batch P"]]:
        """Does what `step` does, from the projected input z on; see there for the arguments."""

    def step(
        self,
        params: Params,
        carry: Carry,
        x: Float[Array, "*batch D"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Carry, Float[Array, "*batch P"]]:
        """Advances by one step of time, with the signature of a `jax.lax.scan` body.

        Args:
          params: the cell's parameters.
          carry: the carry before the step.
          x: the input of the step.
          recurrent_mask: a dropout mask (already scaled) on the hidden state where it enters the recurrent weights,
            and only there: what the cell keeps of its state is not dropped.
          product: does every product with a kernel: `product(function, params, operand)` gives what
            `function(params, operand)` gives. Engines pass one that puts the kernels' gradients off until after the
            loop over time; so a cell reads its kernels nowhere else, and `function` works for any leading axes.

        Returns:
          The carry after the step, in the dtype of the carry before it, and the output.
        """
        return self.advance(params, carry, product(self.project, params, x), recurrent_mask, product)

    def finish(self, old: Carry, new: Carry, y: Array) -> tuple[Carry, Array]:
        """Returns `new` and `y` in the dtype of `old`: the arithmetic of a step may end in a wider one."""
        return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), new, old), y.astype(old.h.dtype)


class GatedCell(Cell):
    """A cell in three parts, with one product of the state per step.

    `project` is the input side, `mix` the state side, and both are linear in the kernels. `update` reads no kernel: it
    is elementwise, but for means over features as in layer normalisation.
    """

    @property
    def additive(self) -> bool:
        """Whether `update` reads z and r through z + r alone, so that an engine may keep one array for the two."""
        return False

    def mix(self, params: Params, carry: Carry) -> Float[Array, "*batch GH"]:
        """Returns r = h U, the recurrent pre-activations of all gates side by side; works for any leading axes."""
        return dense(carry.h, params["recurrent_kernel"])

    @abc.abstractmethod
    def update(
        self, params: Params, carry: Carry, z: Float[Array, "*batch GH"], r: Float[Array, "*batch GH"]
    ) -> tuple[Carry, Float[Array, "*batch P"]]:
        """Returns the next carry and the output from the pre-activations."""

    def advance(
        self,
        params: Params,
        carry: Carry,
        z: Float[Array, "*batch GH"],
        recurrent_mask: Float[Array, "*#batch P"] | None = None,
        product: Product = apply,
    ) -> tuple[Carry, Float[Array, "*batch P"]]:
        """See `Cell.advance`: `update(params, carry, z, mix(params, carry))`."""
        mixed = carry if recurrent_mask is None else carry._replace(h=carry.h * recurrent_mask)
        return self.finish(carry, *self.update(params, carry, z, product(self.mix, params, mixed)))


def tree_dtype(*trees: Any) -> jnp.dtype:
    """Returns the dtype in which arithmetic on all arrays of the trees ends."""
    return jnp.result_type(*jax.tree.leaves(trees))
