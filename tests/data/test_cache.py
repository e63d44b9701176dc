"""Things are made once, whole, or not at all."""

import collections
import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import cache
from lstm_research.data.cache import data_dir, prepare_once


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_the_folder_is_the_variable_or_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("LSTM_RESEARCH_DATA")
    assert data_dir().name == "lstm_research"


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(path: Path) -> None:
        calls.append(path)
        path.mkdir()
        (path / "data").write_text("x")

    for _ in range(2):
        assert prepare_once(tmp_path / "deep" / "set", make) == tmp_path / "deep" / "set"
    assert len(calls) == 1
    assert visible(tmp_path / "deep") == ["set"]
    assert (tmp_path / "deep" / "set" / "data").read_text() == "x"


def test_a_failed_preparation_leaves_nothing(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepare_once(tmp_path / "set", make)
    assert visible(tmp_path) == []


def _slow(path: Path) -> None:
    path.mkdir()
    (path / "half").write_text("half")
    time.sleep(60)


def test_a_killed_preparation_leaves_nothing_that_looks_prepared(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=prepare_once, args=(tmp_path / "set", _slow))
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.making-*/set/half")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "set").exists()
    prepare_once(tmp_path / "set", lambda path: path.write_text("whole") and None)
    assert (tmp_path / "set").read_text() == "whole"
    assert visible(tmp_path) == ["set"]  # and what the killed one left is gone


def _count(path: Path) -> None:
    with (path.parent.parent / "calls").open("a") as file:
        file.write("made\n")
    time.sleep(0.2)
    path.write_text("x")


def test_of_several_processes_one_prepares(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_once, args=(tmp_path / "set", _count)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "calls").read_text() == "made\n"


def test_too_little_room_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000_000, 95_000_000, 5_000_000))
    with pytest.raises(UserError, match=r"no room on disk: .* needs about 20.0 MB and 5.0 MB are free") as error:
        prepare_once(tmp_path / "set", lambda path: pytest.fail("started"), needed_bytes=20_000_000)
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Failed to write record: No space left on device"),
    ],
)
def test_a_disk_that_fills_up_is_said(tmp_path: Path, raised: Exception) -> None:
    def make(path: Path) -> None:
        path.write_text("half")
        raise raised

    with pytest.raises(UserError, match=f"no room on disk.*{cache.VARIABLE}") as error:
        prepare_once(tmp_path / "set", make)
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write in"):
        prepare_once(tmp_path / "file" / "set", Path.touch)


def test_other_errors_are_not_dressed_up(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(FileNotFoundError):
        prepare_once(tmp_path / "set", make)
