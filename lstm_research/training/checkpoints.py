"""Checkpoints: a whole training state by step, verified when restored.

Orbax writes the arrays and makes a step appear only when it is whole. This file adds what it lacks: a digest of the
content, the way back to an older checkpoint when the newest is damaged, and one line for a state that does not fit.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from lstm_research.common.errors import UserError
from lstm_research.training.files import sync_folder
from lstm_research.training.metrics import DivergedError
from lstm_research.training.parallel import place_like
from lstm_research.training.weights import content_digest, describe, fill, mismatch, named_leaves

Host = dict[str, Any]

# Of several processes one reads and writes. Otherwise orbax would wait there for the others, which do not come.
_OF_ONE_PROCESS = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


class _DamagedError(Exception):
    """A checkpoint cannot be read, or is not what was written."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: where they are kept, one folder a step. Damaged ones are moved to `damaged` beside it.
      keep: how many of the newest are kept.
      warn: takes one line about a damaged checkpoint.
      write: whether this process is the one that writes; another one only looks whether what it would save is finite.
    """

    def __init__(self, directory: Path, keep: int, warn: Callable[[str], None] = print, *, write: bool = True):
        self._directory = Path(directory).absolute()
        self._damaged = self._directory.parent / "damaged"
        self._keep = keep
        self._warn = warn
        self._write = write
        self._manager: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first."""
        if not self._directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._directory.iterdir() if entry.name.isdigit())

    def save(self, step: int, state: PyTree, host: Host) -> None:
        """Writes a checkpoint and returns when it is on the disk; then drops those beyond `keep`.

        Args:
          step: the number of updates made.
          state: a tree of arrays and typed PRNG keys with a part `params`, which must be finite.
          host: what the host remembers, in types that JSON has.

        Raises:
          DivergedError: a weight in `state.params` is not finite; nothing is written.
          FileExistsError: there is a checkpoint of this step.
        """
        leaves = named_leaves(state)
        arrays = {name: _to_numpy(leaf) for name, leaf in leaves.items()}
        for name, array in arrays.items():
            if name.startswith("params.") and jnp.issubdtype(array.dtype, jnp.inexact):
                finite = np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array)
                if not finite.all():
                    raise DivergedError(step, f"{name} holds {array[~finite].flat[0]}")
        if not self._write:
            return
        if step in self.steps():
            raise FileExistsError(f"there is a checkpoint of step {step} in {self._directory}")
        table = {name: describe(leaf) for name, leaf in leaves.items()}
        note = json.dumps({"host": host, "leaves": table}, sort_keys=True)
        record = {"note": note, "digest": content_digest(arrays, note)}
        # TensorStore has no arrays of size 0; their shape in the table of leaves says all about them.
        stored = {name: array for name, array in arrays.items() if array.size}
        manager = self._writer()
        items = ocp.args.Composite(state=ocp.args.StandardSave(stored), record=ocp.args.JsonSave(record))
        try:
            with _one_exception():
                saved = manager.save(step, args=items)
                manager.wait_until_finished()
        except Exception:
            # On a full disk this makes room to say so in the status and the log.
            self.close()
            self._clear_unfinished()
            raise
        if not saved:
            raise RuntimeError(f"orbax did not save step {step} in {self._directory}")
        sync_folder(self._directory)

    def restore_latest(self, template: PyTree) -> tuple[int, PyTree, Host] | None:
        """Returns step, state and host record of the newest whole checkpoint, or None if there is no checkpoint.

        Damaged checkpoints newer than that are reported and moved away, so that their steps can be saved again.

        Args:
          template: a state with the structure, types, shapes and shardings that are wanted.

        Raises:
          UserError: the checkpoint does not fit the template, or there are checkpoints but none is whole. Nothing is
            moved then.
        """
        damaged: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            try:
                state, host = self._restore(step, template)
            except _DamagedError as error:
                damaged.append((step, str(error)))
                continue
            for bad, reason in damaged:
                target = self._move_away(bad)
                self._warn(f"checkpoint of step {bad} is damaged ({reason}): moved to {target}, going on from {step}")
            return step, state, host
        if damaged:
            step, reason = damaged[0]
            raise UserError(
                f"no checkpoint in {self._directory} can be read (step {step}: {reason}); restore one from a copy, or "
                "move that folder away to start from step 0"
            )
        return None

    def restore(self, step: int, template: PyTree) -> tuple[PyTree, Host]:
        """Returns state and host record of one checkpoint.

        Raises:
          UserError: the checkpoint is damaged or does not fit the template.
        """
        try:
            return self._restore(step, template)
        except _DamagedError as error:
            raise UserError(f"checkpoint of step {step} in {self._directory} is damaged: {error}") from error

    def _restore(self, step: int, template: PyTree) -> tuple[PyTree, Host]:
        host, table, arrays = _read_verified(self._directory / str(step))
        wanted = named_leaves(template)
        difference = mismatch({name: describe(leaf) for name, leaf in wanted.items()}, table)
        if difference:
            raise UserError(
                f"checkpoint of step {step} in {self._directory} does not fit this config: {difference}; use the "
                "config it was made with, or a new workdir"
            )
        return fill(template, {name: _like(arrays[name], leaf) for name, leaf in wanted.items()}), host

    def _move_away(self, step: int) -> Path:
        self._damaged.mkdir(exist_ok=True)
        target, count = self._damaged / str(step), 0
        while target.exists():
            count += 1
            target = self._damaged / f"{step}.{count}"
        os.rename(self._directory / str(step), target)
        self.close()  # orbax remembers the steps it has seen
        return target

    def _writer(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._clear_unfinished()
            self._directory.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                create=False,
                enable_async_checkpointing=False,
                multiprocessing_options=_OF_ONE_PROCESS,
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager

    def _clear_unfinished(self) -> None:
        """Removes what a killed or failed writer left unfinished: it is of no use, and takes room."""
        for entry in self._directory.glob("*orbax-checkpoint-tmp*"):
            shutil.rmtree(entry, ignore_errors=True)

    def close(self) -> None:
        """Ends the threads of the writer."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None


def _read_verified(path: Path) -> tuple[Host, dict[str, str], dict[str, np.ndarray]]:
    """Returns host record, table of leaves and arrays of a checkpoint folder.

    Raises:
      _DamagedError: they cannot be read, or are not what was written.
    """
    try:
        with _one_exception(), _reader(ocp.JsonCheckpointHandler) as reader:
            record = reader.restore(path / "record")
        note = json.loads(record["note"])
        host, table = note["host"], note["leaves"]
        with _one_exception(), _reader(ocp.PyTreeCheckpointHandler) as reader:
            arrays = {name: np.asarray(array) for name, array in reader.restore(path / "state").items()}
        for name in table.keys() - arrays.keys():
            arrays[name] = _empty(table[name])
        intact = content_digest(arrays, record["note"]) == record["digest"]
    except MemoryError:
        raise
    except Exception as error:  # damage shows in as many ways as there are layers below
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _DamagedError(lines[0][:160]) from error
    if not intact:
        raise _DamagedError("its content does not match its digest")
    return host, table, arrays


def _reader(handler: Callable[..., Any]) -> ocp.Checkpointer:
    return ocp.Checkpointer(handler(multiprocessing_options=_OF_ONE_PROCESS), multiprocessing_options=_OF_ONE_PROCESS)


@contextlib.contextmanager
def _one_exception() -> Iterator[None]:
    """Keeps a failed read or write to its one exception.

    Orbax handles all arrays at once and closes its event loop when the first fails. Those that are still under way
    then find the loop closed, and Python would print a traceback for each. It also logs what it then raises.
    """
    logger = logging.getLogger("absl")

    def is_not_of_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or record.exc_info is None

    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and "loop is closed" in str(unraisable.exc_value)):
            before(unraisable)

    sys.unraisablehook = hook
    logger.addFilter(is_not_of_orbax)
    try:
        yield
    except Exception:
        time.sleep(0.2)  # until those have ended
        raise
    finally:
        sys.unraisablehook = before
        logger.removeFilter(is_not_of_orbax)


def _to_numpy(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    # A copy: on a CPU the view that JAX hands out would be the buffer that the next step may be given.
    return np.array(leaf, order="C")


def _like(array: np.ndarray, leaf: Any) -> Any:
    """Returns `array` as the kind of leaf that the template has, on its devices."""
    if not isinstance(leaf, jax.Array):
        return array
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        like = jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(leaf))
    else:
        like = jnp.array(array, dtype=leaf.dtype, copy=True)
    return place_like(like, leaf)


def _empty(described: str) -> np.ndarray:
    """Returns the array of size 0 that the table of leaves describes as, for example, `float32[0, 8]`."""
    name, _, shape = described.partition("[")
    array = np.zeros(json.loads("[" + shape), jnp.dtype(name))
    if array.size:
        raise ValueError(f"an array {described} is missing")
    return array
