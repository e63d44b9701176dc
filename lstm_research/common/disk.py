"""Room on disk: asked for before writing, and recognised when it has run out."""

import errno
import os
import shutil
from pathlib import Path

from lstm_research.common.errors import UserError


def is_out_of_room(error: BaseException) -> bool:
    """Whether a full disk (or quota) is anywhere in the chain of causes of `error`.

    Libraries written in C++ report it only in the words of another exception type, so the words count too.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        text = str(current)
        if os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text:
            return True
        pending += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions
    return False


def check_room(folder: Path, needed: int, what: str, way_out: str) -> None:
    """Raises a `UserError` unless the disk of a folder has room.

    Args:
      folder: where something is to be written; it need not exist yet.
      needed: bytes.
      what: what needs them, for the message.
      way_out: what the user can do, for the message.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no room on disk: {what} in {folder} needs about {needed / 1e6:,.1f} MB and "
            f"{free / 1e6:,.1f} MB are free; {way_out}"
        )
