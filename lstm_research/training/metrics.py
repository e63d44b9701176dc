"""A run's numbers: `metrics.jsonl`, the source of truth, and its mirror for TensorBoard."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from lstm_research.common.errors import UserError
from lstm_research.training.files import sync_folder, write_atomically

Line = dict[str, Any]


class DivergedError(Exception):
    """Training left the finite numbers.

    Attributes:
      step: the training step that did it; step k is the k-th update, made on batch k - 1.
      what: what is not finite, and its value.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"diverged at step {step}: {what}")
        self.step = step
        self.what = what


class MetricSums:
    """Sums and counts of metrics, added in float64 one step after another; a sum may be an array.

    Adding in order makes the result independent of when the host looked, so a resumed run logs the same digits.

    Args:
      sums: (sum, count) by metric name to go on from.
      latest: names of metrics of which only the newest value is kept.
    """

    def __init__(self, sums: Mapping[str, Iterable[float]] | None = None, latest: Iterable[str] = ()):
        self._latest = frozenset(latest)
        self._sums: dict[str, tuple[Any, float]] = {}
        for name, (total, count) in (sums or {}).items():
            self._sums[name] = (float(total), float(count))

    def add(self, metrics: Mapping[str, tuple[Any, Any]]) -> None:
        """Adds the (sum, count) pairs of one step or batch."""
        for name, (total, count) in metrics.items():
            old = (0.0, 0.0) if name in self._latest else self._sums.get(name, (0.0, 0.0))
            total = np.asarray(total, np.float64) if np.ndim(total) else float(total)
            self._sums[name] = (old[0] + total, old[1] + float(count))

    def as_dict(self) -> dict[str, tuple[Any, float]]:
        """Returns (sum, count) by metric name."""
        return dict(self._sums)


class MetricsLog:
    """Appends lines to a `metrics.jsonl`; a line that `append` returned from survives a power cut.

    Args:
      path: the file; made at the first line.
    """

    def __init__(self, path: Path):
        self._path = path

    def append(self, line: Line) -> None:
        """Writes one line and waits until the disk has it. Numbers that JSON cannot hold become null."""
        data = (json.dumps({key: json_value(value) for key, value in line.items()}, allow_nan=False) + "\n").encode()
        new = not self._path.exists()
        with open(self._path, "ab", buffering=0) as file:
            start = file.tell()
            try:
                written = file.write(data)
                if written != len(data):
                    file.write(data[written:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # a full disk must not leave half a line
                raise
        if new:
            sync_folder(self._path.parent)

    def truncate(self, *, logged_step: int, evaluated_step: int) -> int:
        """Keeps the lines that a run at this point had written, and drops later ones, torn ones and test lines.

        Test lines go because they are written once, at the very end of a run.

        Args:
          logged_step: step of the newest train line to keep.
          evaluated_step: step of the newest valid line to keep.

        Returns:
          The number of dropped lines.
        """
        if not self._path.exists():
            return 0
        newest = {"train": logged_step, "valid": evaluated_step}
        old = self._path.read_bytes().splitlines(keepends=True)
        kept = []
        for raw in old:
            line = _parse(raw)
            if line is not None and line["step"] <= newest.get(line["split"], -1):
                kept.append(raw)
        if kept != old:
            write_atomically(self._path, b"".join(kept))
        return len(old) - len(kept)


def read_metrics(path: Path) -> list[Line]:
    """Returns the lines of a `metrics.jsonl`; a torn last line, as a killed run may leave, is left out.

    Raises:
      UserError: the file is missing, or a line before the last is damaged.
    """
    try:
        raw = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise UserError(f"no metrics at {path}; is its folder a workdir made by train?") from None
    lines = [_parse(line) for line in raw]
    if lines and lines[-1] is None:
        lines.pop()
    if None in lines:
        raise UserError(f"{path}:{lines.index(None) + 1} is not a metrics line")
    return [line for line in lines if line is not None]


@contextlib.contextmanager
def _torch_hidden() -> Iterator[None]:
    """Makes `import torch` fail: tensorboardX imports it, where it is installed, for nothing but an annotation.

    It takes longer to load than all else that a run imports. Nothing is hidden once somebody has imported it.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # how Python spells "not to be found"
    try:
        yield
    finally:
        del sys.modules["torch"]


class TensorBoard:
    """Mirrors metrics lines as scalars `<split>/<metric>` under one folder.

    Args:
      folder: where TensorBoard looks; made if missing.
      resumed_step: the restored step when a run goes on; TensorBoard then hides older values of later steps.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None):
        # Imported here because loading it takes longer than a short command (its protocol buffers) needs to run.
        with _torch_hidden():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2
            from tensorboardX.summary import scalar

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._scalar = event_pb2.Event, scalar
        # The synchronous writer: SummaryWriter's thread would swallow a full disk and lose lines when killed.
        # Its file names tell only the second; a restart in the same second must not overwrite the file before.
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns() % 10**9:09d}")
        if resumed_step is not None:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(step=resumed_step + 1, session_log=log))
        self._writer.flush()

    def append(self, line: Line) -> None:
        """Writes the numbers of a metrics line."""
        for name, value in line.items():
            if name not in ("step", "split", "seconds") and json_value(value) is not None:
                summary = self._scalar(f"{line['split']}/{name}", value)
                self._write(self._event(step=line["step"], summary=summary))
        self._writer.flush()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


def write_text(file: IO[str], text: str) -> None:
    """Appends a line of running text with the time of day."""
    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    file.flush()


def json_value(value: Any) -> Any:
    """Returns what stands for a value in JSON, which has no number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(raw: bytes) -> Line | None:
    """Returns a metrics line, or None for what is not a whole one."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    ok = isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("split"), str)
    return line if ok else None
