"""Files that are whole or absent: atomic writes, and what to say when the disk is full."""

import errno
import os
import shutil
from pathlib import Path

from lstm_research.common.errors import UserError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replaces `path` by a file with this content; a process killed at any instant leaves the old one or the new one.

    Args:
      path: the file; its folder is made if missing.
      data: the content; text is encoded as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One fixed temporary name: what a killed writer leaves is overwritten by the next one instead of piling up.
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def out_of_room(folder: Path) -> UserError:
    """Returns the error for a disk that filled up while a run was writing to `folder`."""
    return UserError(f"no room left on the disk of {folder}; free some and start again: the last checkpoint is intact")


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Raises a `UserError` unless the disk of `folder` (which need not exist yet) has `needed` bytes free."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"no room on the disk of {folder}: {purpose} need about {_megabytes(needed)}, {_megabytes(free)} are free"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
