"""A run on several devices: what of the state and of a batch lies where, and who divides the training step.

All devices of all processes are a mesh of `data` x `model`. Along `data` the rows of a batch and of the carry are
divided. Parameters, the optimiser's state and the average are whole on every device; with `model_axis` above 1 their
large kernels and tables are divided along `model`, see `model_spec`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.errors import UserError

DATA, MODEL = "data", "model"

# Below this many entries an array costs more to exchange the parts of than to keep whole.
_LARGE = 2**16


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The config's section `parallel`. It changes nothing that is computed, but for the last bits and "pmap"'s noise.

    Attributes:
      strategy: who divides the step. "jit": the compiler, from where the arrays lie; noise is that of one device.
        "pmap": one program a device, which sums gradients and metrics over the devices and draws its own noise
        (`jax.pmap`, which JAX itself now makes of `jax.jit` and `jax.shard_map`, as is done here).
      model_axis: among how many devices the large weights are divided; the others divide the batch.
    """

    strategy: Literal["jit", "pmap"] = "jit"
    model_axis: int = 1

    def __post_init__(self) -> None:
        if self.model_axis < 1:
            raise UserError(f"parallel.model_axis must be at least 1, got {self.model_axis}")
        if self.strategy == "pmap" and self.model_axis > 1:
            raise UserError(
                "parallel.strategy='pmap' keeps all weights on every device; set parallel.model_axis to 1, or "
                "parallel.strategy to 'jit'"
            )

    def own_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        """Returns, inside of a step, the key of what is drawn there: with "pmap" every device has one of its own."""
        return jax.random.fold_in(key, jax.lax.axis_index(DATA)) if self.strategy == "pmap" else key

    def total(self, tree: PyTree) -> PyTree:
        """Returns, inside of a step, what it computed from its rows summed over all rows."""
        return jax.lax.psum(tree, DATA) if self.strategy == "pmap" else tree

    def mean(self, value: Array) -> Array:
        """Returns, inside of a step, the mean over all rows of what is a mean over its rows."""
        return jax.lax.pmean(value, DATA) if self.strategy == "pmap" else value

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices.

        Raises:
          UserError: `model_axis` does not divide their number.
        """
        count = jax.device_count()
        if count % self.model_axis:
            raise UserError(
                f"parallel.model_axis = {self.model_axis} does not divide the number of devices, {count}; set it to "
                f"{_and(_divisors(count))}"
            )
        return jax.make_mesh(
            (count // self.model_axis, self.model_axis), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2
        )

    @property
    def is_trivial(self) -> bool:
        """Whether there is one device and nothing to be done."""
        return self.strategy == "jit" and self.mesh.size == 1

    def check(self, batch_size: int, accumulation_steps: int) -> None:
        """Raises a `UserError` unless a batch can be divided among the devices, and then in `accumulation_steps`."""
        size = self.mesh.shape[DATA]
        if batch_size % (size * accumulation_steps):
            each = size * accumulation_steps
            parts = f" x training.accumulation_steps = {accumulation_steps}" if accumulation_steps > 1 else ""
            below = batch_size // each * each
            fitting = _and([below, below + each] if below else [each])
            raise UserError(
                f"task.batch_size = {batch_size} cannot be divided evenly among {size} devices{parts}; set it to "
                f"{fitting}, or another multiple of {each}"
            )

    def compile(self, train_step: Callable[..., Any]) -> Any:
        """Returns the compiled `train_step(state, batch)`; the state that goes in is given up.

        The arrays are to lie where `place_state` and `place_batch` put them.
        """
        if self.is_trivial:
            return jax.jit(train_step, donate_argnums=0)
        if self.strategy == "pmap":

            def mapped(state: Any, batch: PyTree) -> Any:
                specs = _map_state(lambda *_: PartitionSpec(), lambda _: PartitionSpec(DATA), state)
                divided = jax.shard_map(
                    train_step,
                    mesh=self.mesh,
                    in_specs=(specs, PartitionSpec(DATA)),
                    out_specs=(specs, PartitionSpec()),
                    check_vma=False,
                )
                return divided(state, batch)

            return jax.jit(mapped, donate_argnums=0)

        def constrained(state: Any, batch: PyTree) -> Any:
            state, metrics = train_step(state, batch)
            # Otherwise the compiler may leave the state elsewhere, and the next step would be another program.
            state = jax.lax.with_sharding_constraint(state, self.state_shardings(state))
            return state, jax.lax.with_sharding_constraint(metrics, self._whole)

        return jax.jit(constrained, donate_argnums=0)

    def compile_evaluation(self, step: Callable[..., Any]) -> Any:
        """Returns the compiled `step(params, batch, carry) -> (metrics, carry)`."""
        if self.is_trivial:
            return jax.jit(step)

        def constrained(params: Params, batch: PyTree, carry: PyTree) -> Any:
            metrics, carry = step(params, batch, carry)
            carry = jax.lax.with_sharding_constraint(carry, jax.tree.map(self._rows, carry))
            return jax.lax.with_sharding_constraint(metrics, self._whole), carry

        return jax.jit(constrained)

    def place_state(self, state: Any) -> Any:
        """Returns a `TrainState` with its arrays where they belong."""
        return state if self.is_trivial else jax.tree.map(place, state, self.state_shardings(state))

    def place_params(self, params: Params) -> Params:
        """Returns parameters where they belong; once, and not for every batch, where they come from a file."""
        if self.is_trivial:
            return jax.device_put(params)
        return jax.tree_util.tree_map_with_path(lambda path, leaf: place(leaf, self._weights(path, leaf)), params)

    def place_batch(self, batch: PyTree) -> PyTree:
        """Returns a batch, or a carry, with its rows divided; whole on every device if they are not enough.

        Of several processes each puts its own rows on its own devices.
        """
        if self.is_trivial:
            return batch
        return jax.tree.map(lambda leaf: place(leaf, self._rows(leaf)), batch)

    def on_one_device(self, params: Params) -> Params:
        """Returns parameters as arrays of the first device of this process."""
        if self.is_trivial:
            return params
        return jax.tree.map(_on_one_device, params)

    def state_shardings(self, state: Any) -> Any:
        """Returns where the arrays of a `TrainState` belong."""
        return _map_state(self._weights, self._rows, state)

    @property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def _rows(self, leaf: Any) -> NamedSharding:
        divides = leaf.ndim and leaf.shape[0] % self.mesh.shape[DATA] == 0
        return NamedSharding(self.mesh, PartitionSpec(DATA)) if divides else self._whole

    def _weights(self, path: Any, leaf: Any) -> NamedSharding:
        name = str(getattr(path[-1], "key", "")) if path else ""
        return NamedSharding(self.mesh, model_spec(name, leaf.shape, self.model_axis))


def cut_rows(tree: PyTree, parts: int) -> PyTree:
    """Returns arrays `[B, ...]` as `[parts, B / parts, ...]`.

    Part k has the rows k, k + parts, ..., so that each of several devices has rows of every part, and none has to move.
    """
    return jax.tree.map(lambda x: x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def join_rows(tree: PyTree) -> PyTree:
    """Undoes `cut_rows`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def model_spec(name: str, shape: tuple[int, ...], model_axis: int) -> PartitionSpec:
    """Returns along which axis a parameter, and all that the optimiser keeps of it, is divided.

    A `*kernel` along its last axis, so that every device computes some of the gates or logits; a `*table` along its
    first, so that every device keeps some of the symbols; where `model_axis` does not divide that axis, along the
    other. What is small, has one axis only, or is not divisible, is whole on every device.

    Args:
      name: the last part of its name.
      shape: of the parameter.
      model_axis: among how many devices.
    """
    axes = {"kernel": (len(shape) - 1, 0), "table": (0, len(shape) - 1)}
    ending = next((ending for ending in axes if name.endswith(ending)), None)
    if model_axis == 1 or ending is None or len(shape) < 2 or np.prod(shape) < _LARGE:
        return PartitionSpec()
    for axis in axes[ending]:
        if shape[axis] % model_axis == 0:
            return PartitionSpec(*[None] * axis, MODEL)
    return PartitionSpec()


def place(leaf: Any, sharding: Any) -> jax.Array:
    """Returns an array, of which every process has all or its part already, on devices of perhaps several processes."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(place(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    if sharding.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def place_like(leaf: Any, template: jax.Array) -> jax.Array:
    """Returns an array placed as another, of which only the placement matters."""
    # An array bound to its devices where the template's was free would make the training step compile again.
    return place(leaf, template.sharding) if template.committed else jnp.asarray(leaf)


def _on_one_device(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    return jax.device_put(leaf, jax.local_devices()[0])


def _map_state(weights: Callable[[Any, Any], Any], rows: Callable[[Any], Any], state: Any) -> Any:
    """Maps `weights` over the names and arrays of a `TrainState`, and `rows` over its carry."""
    mapped = jax.tree_util.tree_map_with_path(weights, state._replace(carry=()))
    return mapped._replace(carry=jax.tree.map(rows, state.carry))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _and(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))
