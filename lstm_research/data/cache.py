"""The folder of fetched packages and prepared datasets, and how a thing gets into it exactly once and whole."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

from lstm_research.common.disk import check_room, is_out_of_room
from lstm_research.common.errors import UserError

VARIABLE = "LSTM_RESEARCH_DATA"
_OTHER_DISK = f"make room or set ${VARIABLE} to a folder on another disk"


def data_dir() -> Path:
    """Returns the folder of all fetched and prepared data: $LSTM_RESEARCH_DATA, or one in the user's cache folder."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("lstm_research"))


def prepare_once(path: Path, make: Callable[[Path], None], *, needed_bytes: int = 0) -> Path:
    """Makes the file or folder `path`, unless it is there, and returns it.

    Of several processes one makes it and the others wait. `make` works in a temporary folder beside `path`, and the
    result is renamed into place when it is whole: a killed process leaves nothing that looks prepared.

    Args:
      path: what is to exist afterwards, under `data_dir()` or elsewhere.
      make: creates the file or folder at the path it is given, which has the same name as `path`.
      needed_bytes: free space to ask for before starting.

    Returns:
      `path`.

    Raises:
      UserError: there is no room, or the folder cannot be written.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.parent / f".{path.name}.lock"):
            if path.exists():  # another process made it while this one waited
                return path
            _remove_leftovers(path)
            check_room(path.parent, needed_bytes, path.name, _OTHER_DISK)
            with tempfile.TemporaryDirectory(prefix=_prefix(path), dir=path.parent) as folder:
                made = Path(folder) / path.name
                make(made)
                os.replace(made, path)
    except Exception as error:
        explained = _explain(error, path.parent)
        if explained is None:
            raise
        raise explained from error
    return path


def _prefix(path: Path) -> str:
    return f".{path.name}.making-"


def _remove_leftovers(path: Path) -> None:
    """Removes what killed processes left; the caller holds the lock, so nobody is at work on it."""
    for leftover in path.parent.glob(f"{_prefix(path)}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _explain(error: Exception, folder: Path) -> UserError | None:
    """Returns the `UserError` for what a user can correct (a full disk, a folder without permission), or None."""
    if isinstance(error, UserError):
        return None
    if is_out_of_room(error):
        return UserError(f"no room on disk: {folder}; {_OTHER_DISK}")
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        reason = os.strerror(code).lower()
        return UserError(f"cannot write in {folder} ({reason}); set ${VARIABLE} to a folder that can be written")
    return None
