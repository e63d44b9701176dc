"""What is measured: a recurrent layer of some library, ready to run forward and backward."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MEASURES = ("forward", "forward_backward")
"""What is timed. The backward pass is that of sum(ys²), to the parameters and to the inputs."""

Arrays = Sequence[Any]


class Shape(NamedTuple):
    """The sizes of a layer and its inputs `[time, batch, input_size]`."""

    batch: int
    time: int
    input_size: int
    hidden_size: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


class Label(NamedTuple):
    """What an entry is; entries of one cell and dtype are compared."""

    library: str
    cell: str
    engine: str | None
    noise: str
    dtype: str

    @property
    def name(self) -> str:
        """A short name, unique in one benchmark."""
        parts = [self.cell, self.engine] if self.engine else [self.library, self.cell]
        if self.noise != "none":
            parts.append(self.noise)
        if self.dtype != "float32":
            parts.append(self.dtype)
        return " ".join(map(str, parts))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
      label: what it is.
      run: by measure: does the work, waits until it is done, and returns the outputs, or the
        gradients, that of the inputs first.
      read: turns one returned array into a NumPy array.
      device: where it runs.
      compile_seconds: by measure, from the Python function to the program; None for a library that does not compile.
      temporary_bytes: by measure, the memory that the program takes beside its arguments and results; None where the
        library or the device does not say.
      engine_taken: the engine that ours ran on, which "auto" picks.
    """

    label: Label
    run: Mapping[str, Callable[[], Arrays]]
    read: Callable[[Any], np.ndarray]
    device: str
    compile_seconds: Mapping[str, float] | None = None
    temporary_bytes: Mapping[str, int] | None = None
    engine_taken: str | None = None

    def check(self, shape: Shape, output_size: int) -> None:
        """Runs the entry once, so that what is timed is known to work.

        Raises:
          RuntimeError: outputs of another shape, a value or gradient that is not finite, or no gradient.
        """
        (ys,) = (self.read(array) for array in self.run["forward"]())
        wanted = (shape.time, shape.batch, output_size)
        if ys.shape not in (wanted, (shape.batch, shape.time, output_size)):
            raise RuntimeError(f"{self.label.name} at {shape}: outputs of the shape {ys.shape}, not {wanted}")
        gradients = [self.read(array) for array in self.run["forward_backward"]()]
        if not all(np.isfinite(array).all() for array in [ys, *gradients]):
            raise RuntimeError(f"{self.label.name} at {shape}: outputs or gradients that are not finite")
        if not (gradients[0].any() and any(array.any() for array in gradients[1:])):  # the inputs' comes first
            raise RuntimeError(f"{self.label.name} at {shape}: no gradient of the inputs or of the parameters")


def make_jax_entry(
    label: Label, function: Callable[..., jax.Array], params: Any, xs: jax.Array, *constants: Any
) -> Entry:
    """Compiles a layer of any library that is made of JAX.

    Args:
      label: what it is.
      function: `(params, xs, *constants) -> ys`.
      params: a pytree of arrays.
      xs: the inputs.
      *constants: further arguments, which no gradient is taken of.
    """

    def forward(xs: jax.Array, params: Any, *constants: Any) -> list[jax.Array]:
        return [function(params, xs, *constants)]

    def forward_backward(xs: jax.Array, params: Any, *constants: Any) -> list[jax.Array]:
        def loss(xs: jax.Array, params: Any) -> jax.Array:
            return jnp.sum(function(params, xs, *constants) ** 2)

        return jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(xs, params))

    functions = dict(zip(MEASURES, (forward, forward_backward), strict=True))
    return compile_entry(label, functions, xs, params, *constants)


def compile_entry(label: Label, functions: Mapping[str, Callable[..., Arrays]], *arguments: Any) -> Entry:
    """Compiles the function of each measure for these arguments."""
    run, seconds, temporary = {}, {}, {}
    for measure, function in functions.items():
        jax.clear_caches()  # what an entry before this one has traced must not shorten this one's compilation
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        seconds[measure] = time.perf_counter() - start
        analysis = compiled.memory_analysis()
        if analysis is not None:
            temporary[measure] = int(analysis.temp_size_in_bytes)
        run[measure] = _waiting(compiled, *arguments)
    return Entry(
        label,
        run,
        read=lambda array: np.asarray(array, np.float32),
        device=jax.devices()[0].device_kind,
        compile_seconds=seconds,
        temporary_bytes=temporary or None,
    )


def _waiting(compiled: Callable[..., Any], *arguments: Any) -> Callable[[], Arrays]:
    return lambda: jax.block_until_ready(compiled(*arguments))


@contextmanager
def compiling_anew() -> Iterator[None]:
    """While entered, programs are compiled rather than read from JAX's cache on disk, if the user has one."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    try:
        jax.jit(lambda x: x + 1).lower(1.0).compile()  # the compiler starts up
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)


def measure(entries: Sequence[Entry], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Times entries in turn: each round measures every entry once, so that a disturbance hits all alike.

    Every measurement follows an untimed call of the same entry, after which caches and thread pools are its own: as in
    training, where a layer follows itself. A measurement lasts at least 20 ms, over several calls if need be.

    Returns:
      By entry name and measure, the seconds of one call in each round.
    """
    jobs = [
        (entry.label.name, measure, run, _calls_per_measurement(run))
        for entry in entries
        for measure, run in entry.run.items()
    ]
    seconds: dict[str, dict[str, list[float]]] = {entry.label.name: {m: [] for m in entry.run} for entry in entries}
    for _ in range(repeats):
        for name, measure, run, calls in jobs:
            run()
            seconds[name][measure].append(_seconds(run, calls))
    return seconds


def _calls_per_measurement(run: Callable[[], Any], least_seconds: float = 0.02) -> int:
    run()
    return max(1, round(least_seconds / max(_seconds(run, 1), 1e-6)))


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Returns the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))
