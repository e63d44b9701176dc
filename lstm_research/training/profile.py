"""A trace of some steps of a run, for the profiler of TensorBoard, XProf or Perfetto."""

import contextlib
import re
from pathlib import Path
from typing import Any

import jax

from lstm_research.common.errors import UserError


def read_steps(text: str) -> tuple[int, int]:
    """Reads the value of the flag `--profile`, N..M.

    Raises:
      UserError: it is no range of steps.
    """
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile must be N..M, the first and the last step to trace, from 1 on; got {text!r}")
    return int(match[1]), int(match[2])


class StepProfile:
    """Writes the trace of steps N to M of a run; step k is the k-th update.

    What a run does between these steps, such as logging, is in the trace as well. The first step that a process makes
    compiles the program: trace later ones.

    Args:
      folder: where the trace is written.
      steps: N and M; None traces nothing.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder = folder
        self._steps = steps
        self._tracing = False

    def step(self, step: int) -> contextlib.AbstractContextManager[Any]:
        """Returns the context in which a step is to be made; begins the trace if it is the first of it."""
        if self._steps is None or not self._steps[0] <= step <= self._steps[1]:
            return contextlib.nullcontext()
        if not self._tracing:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def made(self, step: int, metrics: Any) -> None:
        """Ends the trace if a step was the last of it, once the device has made it."""
        if self._tracing and self._steps is not None and step >= self._steps[1]:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Ends the trace, if one was begun."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
