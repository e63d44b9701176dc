"""Reading the user's own files."""

import functools
import os
from pathlib import Path

from lstm_research.common.errors import UserError

Paths = str | tuple[str, ...]


def paths_of(given: Paths, where: str) -> tuple[str, ...]:
    """Returns the paths that a config key names.

    Raises:
      UserError: there are none.
    """
    paths = (given,) if isinstance(given, str) else tuple(given)
    if not paths or not all(paths):
        raise UserError(f"{where} names no file; give the path of a text file, or several")
    return paths


def read_lines(path: str, where: str, *, blank: bool = False) -> list[str]:
    """Returns the lines of a UTF-8 file without their ends (LF or CRLF); empty ones too, but none after the last.

    For the arguments see `read_text`.
    """
    lines = read_text(path, where, blank=blank).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def read_text(path: str, where: str, *, any_bytes: bool = False, blank: bool = False) -> str:
    """Returns the text of a UTF-8 file as it is, without a byte order mark. Line ends are not changed.

    Args:
      path: the file's path.
      where: the config key that names it, for messages.
      any_bytes: the file need not be UTF-8. Its text is all of its bytes; those that are no UTF-8 are lone surrogates,
        as Python's error handler "surrogateescape" has them.
      blank: it may be nothing but white space.

    Raises:
      UserError: the file is missing, empty, cannot be read or is not UTF-8 (the message has the byte offset).
    """
    check_file(path, where)
    file = Path(os.path.expanduser(path))
    text = _read(str(file), file.stat().st_mtime_ns, where, any_bytes)
    if not blank and not text.strip():
        raise UserError(f"{where}: {path} is empty or only white space; give a file with text")
    return text


@functools.lru_cache(maxsize=16)
def _read(path: str, modified: int, where: str, any_bytes: bool) -> str:
    """Reads a file once for as long as its time of modification stays the same."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot read {path} ({(error.strerror or str(error)).lower()})") from error
    try:
        text = data.decode("utf-8", "surrogateescape" if any_bytes else "strict")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise UserError(
            f"{where}: {path} is not UTF-8: byte 0x{byte:02x} at byte offset {error.start}; convert it to UTF-8"
        ) from error
    return text if any_bytes else text.removeprefix("\ufeff")


def check_file(path: str, where: str) -> None:
    """Raises a `UserError` unless `path` is a file with something in it."""
    file = Path(os.path.expanduser(path))
    if file.is_dir():
        raise UserError(f"{where}: {path} is a folder; give the path of a text file")
    if not file.exists():
        raise UserError(f"{where}: there is no file {path} (seen from {Path.cwd()})")
    if file.is_file() and not file.stat().st_size:
        raise UserError(f"{where}: {path} is empty; give a file with text")
