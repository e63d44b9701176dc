"""Writing files: what is a file is replaced as a whole, what is none is written to."""

import os
import threading
from pathlib import Path

import pytest

from lstm_research.training.files import write_atomically


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("old", b"new"):
        write_atomically(path, content)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    write_atomically(path, "text")
    reader.join(10)
    assert read == ["text"]
    assert path.is_fifo()


def test_a_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as info:
        write_atomically(tmp_path, "text")
    assert info.value.filename == str(tmp_path) or info.value.filename == tmp_path
    assert not list(tmp_path.parent.glob(".*.tmp"))
