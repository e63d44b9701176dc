"""What checks the annotations of the package while the tests run."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks what modules and classes define.

    A function inside of another one is defined anew at every call, and to give it a check costs more than the call.
    """
    return function if "<locals>" in function.__qualname__ else beartype(function)
