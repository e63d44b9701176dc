"""The sweep file: a Python file with `get_hyper` or `get_space`."""

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstm_research.common.errors import UserError
from lstm_research.sweeps.points import Hyper, Point, check_points
from lstm_research.sweeps.space import Parameter, Space, check_space


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """What a sweep file says.

    Attributes:
      text: of the file.
      points: the trials of `get_hyper`; None for a space.
      space: the parameters of `get_space`; None for points.
      num_trials: `NUM_TRIALS`, the budget of a space, if the file has it.
    """

    text: str
    points: tuple[Point, ...] | None = None
    space: tuple[Parameter, ...] | None = None
    num_trials: int | None = None


def read_sweep_file(path: Path) -> SweepFile:
    """Runs a sweep file and returns what it says.

    Raises:
      UserError: it cannot be read, or fails (with its line), or gives no valid points or space.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"cannot read the sweep file {path}: {reason}; give one with --sweep=FILE.py") from error
    names: dict[str, Any] = {"__name__": "sweep", "__file__": str(path)}
    _call(path, lambda: exec(compile(text, str(path), "exec"), names))
    given = [name for name in ("get_hyper", "get_space") if callable(names.get(name))]
    if len(given) != 1:
        found = "both of them" if given else "neither"
        raise UserError(f"sweep file {path}: give one function, get_hyper(hyper) or get_space(space); it has {found}")
    if given == ["get_hyper"]:
        if "NUM_TRIALS" in names:
            raise UserError(f"sweep file {path}: NUM_TRIALS is the budget of a space; points of get_hyper are all run")
        return SweepFile(text, points=_call(path, lambda: check_points(names["get_hyper"](Hyper()))))
    num_trials = names.get("NUM_TRIALS")
    if num_trials is not None and (not isinstance(num_trials, int) or num_trials < 1):
        raise UserError(f"sweep file {path}: NUM_TRIALS must be a number of trials, got {num_trials!r}")
    space = _call(path, lambda: check_space(names["get_space"](Space())))
    return SweepFile(text, space=space, num_trials=num_trials)


def _call(path: Path, function: Callable[[], Any]) -> Any:
    """Calls what runs code of the file; any error becomes one that names the line."""
    try:
        return function()
    except SyntaxError as error:
        raise UserError(f"sweep file {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"sweep file {path}{where}: {kind}{error}") from error
