"""Errors a user can correct. The command line prints their message as one line and exits with code 2."""

import difflib
import math
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a flag or a file. The message is one line: what is wrong, where, and the way out."""


def nearest(name: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to `count` of the valid names that resemble `name`, the closest first."""
    return difflib.get_close_matches(name, list(valid), n=count, cutoff=0.6)


def unknown(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """Returns the error for a name that is not in a table, with the nearest ones and all valid ones."""
    names = sorted(valid)
    close = nearest(str(name), names)
    hint = f"; did you mean {' or '.join(repr(n) for n in close)}?" if close else ";"
    return UserError(f"unknown {kind} {name!r}{hint} valid: {', '.join(names)}")


def check_at_least(low: int, where: str, **values: int | float) -> None:
    """Raises a `UserError` for a value below `low`, or one that is not finite; `where` is the section of the keys."""
    for name, value in values.items():
        if not low <= value < math.inf:
            raise UserError(f"{where}.{name} must be at least {low} and finite, got {value}")


def check_flags(low: int, **values: int | None) -> None:
    """Raises a `UserError` for a flag below `low`; None is one that was left out."""
    for name, value in values.items():
        if value is not None and value < low:
            raise UserError(f"--{name} must be at least {low}, got {value}")
