"""Where commands write."""

import os
from pathlib import Path

from lstm_research.common.errors import UserError


def check_place(flag: str, path: Path) -> None:
    """Raises a `UserError` if a file cannot be written; before minutes are spent on what belongs there."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir():
        raise UserError(f"--{flag}: {path} is a folder; give the name of a file")
    if not folder.is_dir():
        raise UserError(f"--{flag}: {path} cannot be written, since {folder} is no folder; give another place")
    # A file is replaced, which needs its folder; a pipe is written to.
    if not os.access(path if path.exists() and not path.is_file() else folder, os.W_OK):
        raise UserError(f"--{flag}: {path} cannot be written; give another place, or permission there")
