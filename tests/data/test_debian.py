"""Debian packages, made here, and an apt-get that is a script: nothing leaves the machine."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.cache import data_dir
from lstm_research.data.debian import DebianPackages, check_count, fetch_debian, path_of, read_files

TWO = DebianPackages("spoken", ("sounds", "sounds-cs"), 1000)


@pytest.fixture(autouse=True)
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debian_package: Callable[..., Path]) -> Path:
    """A folder of packages, and an apt-get before any other on the path that copies them from there."""
    folder = tmp_path / "mirror"
    debian_package(folder / "sounds_1.0-2_all.deb", "1.0-2", {"usr/share/a.txt": b"a", "usr/b.lua": b"b" * 1001})
    debian_package(folder / "sounds-cs_1.1_all.deb", "1.1", {"usr/share/cs/c.ogg": b"c"}, "gz")
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path / "data"))
    set_apt(tmp_path, monkeypatch, f'for name; do :; done; cp {folder}/"$name"_*.deb . 2>/dev/null || {{ ' + NOT_FOUND)
    return folder


NOT_FOUND = 'echo "E: Unable to locate package $name" >&2; exit 100; }'


def set_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(f"#!/bin/sh\n{script}\n")
    apt.chmod(0o755)
    if str(apt.parent) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{apt.parent}{os.pathsep}{os.environ['PATH']}")


def refused(packages: DebianPackages = TWO) -> str:
    with pytest.raises(UserError) as error:
        fetch_debian(packages)
    assert "\n" not in str(error.value)
    assert not list(data_dir().rglob("*making*"))
    return str(error.value)


def test_packages_are_fetched_once_and_their_files_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TWO.version == "of Debian"
    debs = fetch_debian(TWO)
    assert debs == (path_of("sounds"), path_of("sounds-cs"))
    assert TWO.version == "of Debian, 1.0-2 and 1.1"
    assert read_files(debs, lambda path: True) == {
        "usr/share/a.txt": b"a",
        "usr/b.lua": b"b" * 1001,
        "usr/share/cs/c.ogg": b"c",
    }
    assert read_files(debs, lambda path: path.endswith(".ogg")) == {"usr/share/cs/c.ogg": b"c"}
    set_apt(tmp_path, monkeypatch, "exit 1")
    assert fetch_debian(TWO) == debs


def test_without_apt_a_file_can_be_placed_by_hand(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    message = refused()
    assert message.startswith("dataset 'spoken' needs the Debian package sounds, and this machine has no apt-get; ")
    assert f"apt-get download sounds, and place the file as {path_of('sounds')}" in message
    for name in TWO.names:
        next(mirror.glob(f"{name}_*")).rename(path_of(name))
    assert len(read_files(fetch_debian(TWO), lambda path: True)) == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "E: Unable to locate package sounds",
            "apt finds no such package; have the list of packages renewed with: apt",
        ),
        ("E: Failed to fetch http://x/sounds.deb  404  Not Found [IP: 1]", "apt finds no such package"),
        (
            "E: Failed to fetch http://x/sounds.deb  Temporary failure resolving 'x'",
            "no network: dataset 'spoken' needs",
        ),
        ("E: Failed to fetch http://x/sounds.deb  Could not connect to x:80 (0.0.0.0)", "no network: "),
        (
            "E: You don't have enough free space\nE: Write error - write (28: No space left on device)",
            "no room on disk",
        ),
        (
            "W: noise\nE: The method driver /x could not be found.",
            r"(E: The method driver /x could not be found.); get",
        ),
        ("", "(no message)"),
    ],
)
def test_what_apt_says_becomes_one_line(
    said: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_apt(tmp_path, monkeypatch, f'cat >&2 <<"END"\n{said}\nEND\nexit 100')
    assert message in refused()


def test_no_room_is_said() -> None:
    assert "no room on disk" in refused(DebianPackages("spoken", ("sounds",), 10**18))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>", "not an archive"),
        (b"!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n", "there is no data.tar in it"),
        (
            b"!<arch>\ndata.tar.xz     0           0     0     100644  8         `\n12345678",
            "Input format not supported",
        ),
        (b"!<arch>\ndata.tar.gz     0           0     0     100644  8         `\n12345678", "Not a gzipped file"),
        (
            b"!<arch>\ndata.tar.zst    0           0     0     100644  8         `\n12345678",
            "data.tar.zst is not packed as",
        ),
        (b"!<arch>\ndata.tar.xz     0           0     0     100644  x         `\n12345678", "invalid literal"),
    ],
)
def test_a_damaged_package_is_named(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(data)
    with pytest.raises(UserError, match="delete it to fetch it again") as error:
        read_files((path,), lambda path: True)
    assert reason in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("packing", ["xz", "gz"])
@pytest.mark.parametrize("damage", [slice(1500, None), slice(900, 950)], ids=["cut", "zeroed"])
def test_damage_behind_the_first_block_is_seen(
    packing: str, damage: slice, tmp_path: Path, debian_package: Callable[..., Path]
) -> None:
    noise = random.Random(0)
    files = {f"usr/{name}": noise.randbytes(1000) for name in "abc"}
    path = debian_package(tmp_path / "x_1_all.deb", "1", files, packing)
    assert read_files((path,), lambda path: True) == files
    data = bytearray(path.read_bytes())
    data[damage] = b"" if damage.stop is None else bytes(50)
    path.write_bytes(data)
    with pytest.raises(UserError, match="delete it to fetch it again"):
        read_files((path,), lambda path: False)


def test_too_little_content_is_refused_with_the_version() -> None:
    fetch_debian(TWO)
    check_count(TWO, "utterances", 10, 10)
    with pytest.raises(
        UserError, match=r"sounds and sounds-cs \(of Debian, 1.0-2 and 1.1\) has 9 utterances, .* 10 are"
    ):
        check_count(TWO, "utterances", 9, 10)
