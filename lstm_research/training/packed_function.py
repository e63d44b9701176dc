"""A function of several trials as one compiled program, with the numbers in which they differ as an argument."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from lstm_research.common.errors import UserError
from lstm_research.training.packed_program import TracedProgram

AXIS = "trial"
# What the caches of a CPU core hold, about.
_CACHE = 4 * 2**20


class OutOfMemoryError(UserError):
    """A device has not the memory for a pack; the message says which `--pack` may do."""


class PackedFunction:
    """A function of trials that are alike, as one program over their stacked arguments.

    Args:
      name: see `Member`.
      template: the program of one of the trials.
    """

    def __init__(self, name: str, template: TracedProgram):
        self._name = name
        self._template = template
        self._lifted: set[int] = set()
        self._compiled: dict[Any, Any] = {}

    def numbers(self, programs: Sequence[TracedProgram]) -> dict[int, np.ndarray]:
        """Returns the numbers of trials, one row a trial; numbers that are new among them become arguments too.

        Raises:
          UserError: a program differs in more than numbers.
        """
        for program in programs:
            if not self._template.is_like(program):
                raise UserError(
                    "trials that were alike are not so on a batch of another shape; train them with --pack=1"
                )
            new = self._template.differences(program) - self._lifted
            if new:
                self._lifted |= new
                self._compiled.clear()
        return {index: np.stack([program.numbers[index] for program in programs]) for index in sorted(self._lifted)}

    def compiled(self, mesh: Any, numbers: Mapping[int, Any], arguments: tuple, shared: Sequence[bool]) -> Any:
        """Returns what runs the function of every trial, given the numbers and such arguments.

        Args:
          mesh: the devices that the trials are divided among; None for one device.
          numbers: see the method.
          arguments: which trials it is run for, as a mask; then those of the function.
          shared: for each argument of the function, whether all trials have the same; otherwise they are stacked.

        Raises:
          OutOfMemoryError: the device has not the memory for so many trials.
        """
        key = (mesh, tuple(shared), shapes_of((numbers, arguments)))
        if key not in self._compiled:
            self._compiled[key] = self._compile(mesh, numbers, arguments, shared)
        return self._compiled[key]

    def _compile(self, mesh: Any, numbers: Mapping[int, Any], arguments: tuple, shared: Sequence[bool]) -> Any:
        updates = self._name == "update"
        size = len(arguments[0])
        rows = size if mesh is None else size // mesh.size
        at_once = self.at_once(rows)
        common = (False, False, *shared)

        def one(numbers: Mapping[int, Any], active: Any, *arguments: Any) -> Any:
            result = self._template.run(numbers, *arguments)
            if updates and rows > 1:  # a turn of one trial is not taken at all where it is not active
                state = jax.tree.map(lambda new, old: jnp.where(active, new, old), result[0], arguments[0])
                return state, result[1]
            return result

        def of_all(*arguments: Any) -> Any:
            stacked = [each for each, same in zip(arguments, common, strict=True) if not same]

            def of_one(part: list[Any]) -> Any:
                own = iter(part)
                return one(*(each if same else next(own) for each, same in zip(arguments, common, strict=True)))

            if rows == 1:  # what `vmap` makes of products is slower
                return jax.tree.map(lambda x: x[None], of_one(jax.tree.map(lambda x: x[0], stacked)))
            if at_once == rows:
                return jax.vmap(of_one)(stacked)
            return jax.lax.map(of_one, stacked, batch_size=at_once if at_once > 1 else None)

        function = of_all
        if mesh is not None:
            of_trials = PartitionSpec(AXIS)
            specs = tuple(PartitionSpec() if same else of_trials for same in common)
            function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=of_trials, check_vma=False)
        lowered = jax.jit(function, donate_argnums=(2,) if updates else ()).lower(numbers, *arguments)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            raise out_of_memory(error, size) from error
        _check_memory(compiled, size)
        return compiled

    def at_once(self, rows: int) -> int:
        """Returns how many of a device's trials are best computed at once, a divisor of their number.

        A CPU gains by this what calls of small operations cost, as long as weights and what the loops keep stay in its
        cache, and loses several times as much when they do not.
        """
        if jax.default_backend() != "cpu":
            return rows
        most = max(1, _CACHE // max(1, self._template.size))
        return max(count for count in range(1, min(most, rows) + 1) if rows % count == 0)


def out_of_memory(error: Exception, size: int) -> Exception:
    """Returns what to raise for an error of the device: one line, if it is out of memory."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return error
    return OutOfMemoryError(f"{size} trials do not fit in the memory of the device; try --pack={max(1, size // 2)}")


def _check_memory(compiled: Any, size: int) -> None:
    """Raises an `OutOfMemoryError` if what a program needs beside its arguments is more than the device has left."""
    analysis, device = compiled.memory_analysis(), jax.local_devices()[0]
    if analysis is None:
        return
    needed = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    statistics = device.memory_stats()
    room = statistics["bytes_limit"] - statistics["bytes_in_use"] if statistics is not None else _host_memory()
    if needed > room:
        fits = max(1, int(size * room / needed))
        raise OutOfMemoryError(
            f"{size} trials need {needed / 2**30:.1f} GiB more than is in use, and {room / 2**30:.1f} GiB are left; "
            f"try --pack={fits}"
        )


def _host_memory() -> float:
    """Returns the bytes that programs may still ask for, without bound where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def shapes_of(tree: PyTree) -> Any:
    """Returns what of a tree of arrays a compiled program depends on, to compare and to hash."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((jnp.shape(leaf), str(leaf.dtype)) for leaf in leaves)
