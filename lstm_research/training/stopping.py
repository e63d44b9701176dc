"""Asking a run to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, SIGTERM and SIGINT are only noted; the run saves and ends at the next step.

    Further signals change nothing, so they cannot break into the saving. What must end at once can be killed with
    SIGKILL: that never damages a run either.

    Attributes:
      requested: the name of the signal that came first, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        # Python allows handlers in the main thread only; a run in another thread cannot be asked to stop.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = self.requested or signal.Signals(number).name

    def poll(self) -> str | None:
        """Returns the name of the signal that asks the run to stop, or None."""
        return self.requested

    def should_stop(self) -> bool:
        """Whether the run is asked to stop."""
        return self.poll() is not None
