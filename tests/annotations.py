"""The annotations of the package, shapes among them, are checked while the tests run."""

from collections.abc import Callable
from typing import Any

import jaxtyping

_jaxtyped = jaxtyping.jaxtyped


def check_annotations() -> None:
    """Has all that modules and classes of the package define checked; call it before any of them is imported.

    A function inside of another one is defined anew at every call, and to give it a check costs more than the call.
    """
    jaxtyping.jaxtyped = _jaxtyped_unless_inside  # what the hook below has every function decorated with
    jaxtyping.install_import_hook("lstm_research", "beartype.beartype")


def _jaxtyped_unless_inside(*, typechecker: Any) -> Callable[[Any], Any]:
    check = _jaxtyped(typechecker=typechecker)
    return lambda defined: defined if "<locals>" in defined.__qualname__ else check(defined)
