"""Several processes that train one run: joining them, what the first one does for all, and ending together.

Every process runs the same program on the same batches, and only the first touches the workdir; so all come to the same
decisions, except for what only one of them can know. That is what is exchanged here: whether all could begin, what the
first one found in the workdir, and signals that any of them got.
"""

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from lstm_research.common.errors import UserError
from lstm_research.training.stopping import StopSignals

Result = TypeVar("Result")

# How long a process waits for the first one to start, and then for all others.
_WAIT_SECONDS = 300.0
# After this time without a sign of life a process counts as dead. A connection that is closed is noticed at once.
_HEARTBEAT_SECONDS = 20
# How often, in steps or batches of an evaluation, processes exchange whether a signal came. They look at what came of
# it the next time, when it is there without waiting; so a run stops within twice as many steps.
_STEPS_BETWEEN_EXCHANGES = 4
# How long the first process waits for the others to end by themselves: when it ends, they are aborted.
_GRACE_SECONDS = 2.0
# In these many bytes a process says whether it could begin.
_REPORT_BYTES = 4096
# What the libraries say when a connection between processes breaks: of the CPU, of NVIDIA GPUs, and of JAX itself.
_SIGNS_OF_LOSS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "coordination service")


class LostProcessError(Exception):
    """Another process ended, or cannot be reached any more."""


@contextlib.contextmanager
def joined(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> Iterator[None]:
    """While entered, this process is one of several that train together. To be entered before a device is touched.

    Args:
      coordinator_address: host and port of the first process, where all meet; None, like the next two, takes what the
        environment says (SLURM, Open MPI, TPU).
      num_processes: how many there are.
      process_id: which of them this is, from 0.

    Raises:
      UserError: the environment does not say it, or process 0 cannot be reached.
    """
    # Of signals the run takes care by itself, see `SharedStopSignals`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator_address is not None:
        _check_address(coordinator_address, first=process_id == 0)
    # JAX would abort with a message that speaks of a process that died.
    impatience = threading.Timer(_WAIT_SECONDS, _give_up)
    impatience.daemon = True
    impatience.start()
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            initialization_timeout=2 * math.ceil(_WAIT_SECONDS),
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise UserError(
            "--distributed: nothing in the environment tells of a cluster (SLURM, Open MPI, TPU); give "
            f"--coordinator_address, --num_processes and --process_id ({_first_line(error)})"
        ) from error
    finally:
        impatience.cancel()
    try:
        yield
        jax.distributed.shutdown()  # waits for the others
    except Exception as error:
        _leave(lost_process(error))
    except KeyboardInterrupt as error:
        _leave(error)


def _check_address(address: str, *, first: bool) -> None:
    """Raises a `UserError` unless the first process can listen at an address, or another one finds it there soon."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator_address must be HOST:PORT, got {address!r}")
    if first:
        try:
            socket.create_server(("", int(port))).close()  # JAX would only log it, and then crash
        except OSError as error:
            raise UserError(
                f"--coordinator_address={address}: process 0 cannot use this port here ({error.strerror}); give all "
                "processes another one"
            ) from error
        return
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"--coordinator_address={address}: no process 0 there within {_WAIT_SECONDS:.0f} seconds "
                    f"({error.strerror or error}); start all processes at about the same time"
                ) from error
            time.sleep(0.5)


def _give_up() -> None:
    _print_error(
        f"not all processes came within {_WAIT_SECONDS:.0f} seconds; start all of them at about the same time, with "
        "one --num_processes, and each with its own --process_id"
    )
    os._exit(2)


def _leave(error: Exception | KeyboardInterrupt) -> NoReturn:
    """Ends this process at once: the usual way would wait for processes that may be gone, or that go on."""
    if isinstance(error, UserError | OSError | LostProcessError):
        _print_error(str(error))
    elif not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
    sys.stdout.flush()
    if is_first():
        time.sleep(_GRACE_SECONDS)
    if isinstance(error, KeyboardInterrupt):
        os._exit(128 + signal.SIGINT)
    os._exit(2 if isinstance(error, UserError | OSError) else 1)


def _print_error(text: str) -> None:
    print(f"lstm-research: error: {' '.join(text.split())}", file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this is the process that writes; the only one is."""
    return jax.process_index() == 0


def on_first(compute: Callable[[], tuple[Any, PyTree]], template: PyTree) -> tuple[Any, PyTree]:
    """Computes something on the first process and returns it on all.

    Args:
      compute: returns something that JSON can hold, and a tree of arrays. Called on the first process only.
      template: a tree of arrays, or of their shapes, with the structure, shapes and types of that tree.

    Raises:
      UserError: `compute` raised it, on all processes.
    """
    if jax.process_count() == 1:
        return compute()
    found: dict[str, Any] = {}
    arrays, failure = template, None
    if is_first():
        try:
            result, arrays = compute()
            found = {"result": result}
        except Exception as error:
            # The others must not wait for what will not come.
            failure, found = error, {"error": str(error) or type(error).__name__}
    found = json.loads(_broadcast_bytes(json.dumps(found).encode()))
    if failure is not None:
        raise failure
    if "error" in found:
        raise UserError(found["error"])
    return found["result"], jax.tree.map(_broadcast, arrays)


def on_all(compute: Callable[[], Result], describe: Callable[[Result], Mapping[str, str]]) -> Result:
    """Computes something on every process, so that either all go on from there or none.

    Args:
      compute: what each process does by itself.
      describe: names what has to be the same on all, with a short text of each.

    Raises:
      UserError: `compute` raised it on one of the processes, or the results differ.
    """
    if jax.process_count() == 1:
        return compute()
    failure: Exception | None = None
    try:
        result = compute()
        report: dict[str, Any] = dict(describe(result))
    except Exception as error:
        # The others must not wait for what will not come.
        failure, report = error, {"error": (str(error) or type(error).__name__)[:500]}
    content = np.frombuffer(json.dumps(report, ensure_ascii=False).encode().ljust(_REPORT_BYTES), np.uint8)
    reports = [json.loads(each.tobytes()) for each in multihost_utils.process_allgather(content)]
    if failure is not None:
        raise failure
    for index, other in enumerate(reports):
        if "error" in other:
            raise UserError(f"process {index}: {other['error']}")
    for index, other in enumerate(reports):
        if differing := [name for name in other if other[name] != reports[0].get(name)]:
            raise UserError(
                f"process {index} was started with another {' and another '.join(differing)} than process 0; start all "
                "with the same flags and the same data"
            )
    return result


def same_on_all(values: dict[str, float]) -> dict[str, float]:
    """Returns the numbers of the first process: others' might differ in the last bits, and then decide otherwise."""
    if jax.process_count() == 1 or not values:
        return values
    numbers = _broadcast(np.array(list(values.values()), np.float64))
    return dict(zip(values, map(float, numbers), strict=True))


def whole(tree: PyTree) -> PyTree:
    """Returns a tree of arrays, each of which this process has all of; all processes have to call it alike."""

    def gather(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather, tree)


class SharedStopSignals(StopSignals):
    """Signals that any process got, known to all at the same step."""

    def __init__(self) -> None:
        super().__init__()
        self._polls = 0
        self._exchange: jax.Array | None = None
        self._agreed: str | None = None
        mesh = Mesh(np.array(jax.devices()), ("device",))
        self._one_each = NamedSharding(mesh, PartitionSpec("device"))
        self._highest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def poll(self) -> str | None:
        """Returns the signal that all agree to have got, or None; all processes have to ask equally often."""
        if self._agreed is None and self._polls % _STEPS_BETWEEN_EXCHANGES == 0:
            number = 0 if self._exchange is None else int(self._exchange)
            if number:
                self._agreed = self.requested = signal.Signals(number).name
            mine = np.array([signal.Signals[self.requested].value if self.requested else 0], np.int32)
            each = jax.make_array_from_callback((jax.device_count(),), self._one_each, lambda _: mine)
            self._exchange = self._highest(each)
        self._polls += 1
        return self._agreed


def stop_signals() -> StopSignals:
    """Returns what notes the signals of this run's processes."""
    return StopSignals() if jax.process_count() == 1 else SharedStopSignals()


def lost_process(error: Exception) -> Exception:
    """Returns the error that a step of several processes ended with; a `LostProcessError` if another one is gone."""
    text = str(error)
    if jax.process_count() == 1 or not isinstance(error, jax.errors.JaxRuntimeError | ValueError):
        return error
    if not any(sign in text for sign in _SIGNS_OF_LOSS):
        return error
    return LostProcessError(
        f"process {jax.process_index()} of {jax.process_count()} lost the others ({_first_line(error)}): one of them "
        "has ended; start all of them again, they go on from the newest checkpoint"
    )


def _broadcast(leaf: Any) -> np.ndarray | jax.Array:
    """Returns an array of the first process; byte by byte, for a sum would not keep every bit of a number."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _broadcast(jax.random.key_data(leaf) if is_first() else jax.eval_shape(jax.random.key_data, leaf))
        return jax.random.wrap_key_data(jnp.asarray(data))
    array = np.ascontiguousarray(leaf) if is_first() else np.zeros(leaf.shape, leaf.dtype)
    return _broadcast_raw(array.reshape(-1).view(np.uint8)).view(array.dtype).reshape(leaf.shape)


def _broadcast_bytes(content: bytes) -> bytes:
    length = _broadcast_raw(np.frombuffer(np.int64(len(content)).tobytes(), np.uint8)).view(np.int64)[0]
    buffer = np.zeros(length, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(content, np.uint8)
    return _broadcast_raw(buffer).tobytes()


def _broadcast_raw(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(multihost_utils.broadcast_one_to_all(data)) if data.size else data


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
