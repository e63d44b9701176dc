"""Files that are whole or absent: atomic writes, and what to say when the disk is full."""

import os
from pathlib import Path

from lstm_research.common.errors import UserError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replaces `path` by a file with this content; a process killed at any instant leaves the old one or the new one.

    Args:
      path: the file; its folder is made if missing. A link stays, and what it leads to is replaced; what is no file,
        like a pipe or /dev/null, is written to.
      data: the content; text is encoded as UTF-8.
    """
    content = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            file.write(content)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # One fixed temporary name: what a killed writer leaves is overwritten by the next one instead of piling up.
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
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


def out_of_room(folder: Path) -> UserError:
    """Returns the error for a disk that filled up while a run was writing to `folder`."""
    return UserError(f"no room left on the disk of {folder}; free some and start again: the last checkpoint is intact")
