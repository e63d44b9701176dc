"""Recordings of the user's own, listed in a table with their transcripts."""

import hashlib
import json
import re
from pathlib import Path

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.delimited import Column, Row
from lstm_research.data.speech.audio import Audio, find, read_audio
from lstm_research.data.text_files import read_lines

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 80  # characters of a path


def read_json_lines(path: str, where: str, columns: dict[str, Column]) -> list[Row]:
    """Returns the rows of a file with one JSON object a line; blank lines are none.

    Args:
      path: the file's path.
      where: the config key that names the file, for messages.
      columns: the wanted keys of the objects, by the config keys that name them.

    Raises:
      UserError: a line is no such object, or a wanted key is not in it or holds no text that UTF-8 has.
    """
    rows = []
    for number, line in enumerate(read_lines(path, where), 1):
        if not line.strip():
            continue
        place = f"{where}: {path} line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON ({error})") from error
        if not isinstance(found, dict):
            raise UserError(f"{place} is no JSON object")
        for key, column in columns.items():
            if column not in found:
                raise unknown(f"column ({key}; columns in {place}):", column, found)
            if not isinstance(found[column], str):
                raise UserError(f"{place}: column {column!r} holds no text but {json.dumps(found[column])[:40]}")
            if half := _SURROGATE.search(found[column]):
                raise UserError(
                    f"{place}: column {column!r} has {half[0]!a}, which is half a character; write all of it"
                )
        rows.append(Row(tuple(found[column] for column in columns.values()), path, number))
    return rows


def sound_file(row: Row) -> Path:
    """Returns the path of the recording that a row names first: as seen from the table's folder, unless it is absolute.

    Raises:
      UserError: there is no such file.
    """
    name = row.values[0]
    path = find(name, Path(row.path).parent)
    if not name or path is None or not path.is_file():
        shown = repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "...")
        raise UserError(
            f"{row.path} line {row.line}: there is no sound file {shown}; paths (dataset.path_column) are relative to "
            "the folder of the table"
        )
    return path


def read_recording(row: Row, sample_rate: int) -> Audio:
    """Returns the recording that a row names first."""
    return read_audio(sound_file(row), sample_rate, f"{row.path} line {row.line}")


def content_hash(row: Row) -> str:
    """Returns the sha256 of the recording's file that a row names first, in hexadecimal."""
    path = sound_file(row)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{row.path} line {row.line}: cannot read {path} ({(error.strerror or '').lower()})") from error
