"""What a cell lets be seen of a step: its gates, for whoever asks."""

import contextlib
import contextvars
from collections.abc import Iterator

from lstm_research.common.arrays import Array

_SEEN: contextvars.ContextVar[dict[str, Array] | None] = contextvars.ContextVar("seen", default=None)


def observed(name: str, value: Array) -> Array:
    """Returns `value`, and shows it under `name` to whoever observes; nobody does in training, where it costs nothing.

    Args:
      name: as in the cell's equations: "input gate", "candidate". What is called a gate is between 0 and 1.
      value: what is computed.
    """
    seen = _SEEN.get()
    if seen is not None:
        seen[name] = value
    return value


@contextlib.contextmanager
def observing() -> Iterator[dict[str, Array]]:
    """Gives a dict that fills with what cells show inside of the context; the arrays belong to the caller's trace."""
    seen: dict[str, Array] = {}
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)
