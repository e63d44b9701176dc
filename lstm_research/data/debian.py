"""Debian packages as carriers of datasets: fetched with apt, read as archives, never installed.

A release of Debian has one version of a package and drops it for the next, so an exact version or a hash would make a
dataset impossible to get one day. Instead the version that was found is part of a dataset's description, what is in it
is counted (`check_count`), and the fingerprint that every run keeps tells whether two runs had the same data.
"""

import functools
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lstm_research.common.errors import UserError
from lstm_research.data.cache import prepare_once
from lstm_research.data.packages import packages_dir

# What apt says when it reaches no server, in lower case.
_NO_NETWORK = ("could not resolve", "temporary failure", "connect", "network is unreachable", "timed out")
_NOT_LISTED = ("unable to locate package", "no installation candidate", "can't find a source", "404  not found")


_UNPACK: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress}


@dataclass(frozen=True)
class DebianPackages:
    """Packages that carry a dataset together.

    Attributes:
      dataset: the dataset they carry, for messages.
      names: the packages' names.
      size: of all their files in bytes, about.
    """

    dataset: str
    names: tuple[str, ...]
    size: int

    @property
    def name(self) -> str:
        """All names."""
        return " and ".join(self.names)

    @property
    def version(self) -> str:
        """The versions of the fetched packages, in words."""
        paths = [path_of(name) for name in self.names]
        if not all(path.exists() for path in paths):
            return "of Debian"
        return f"of Debian, {' and '.join(dict.fromkeys(version_of(path) for path in paths))}"


def path_of(name: str) -> Path:
    """Returns where the file of a package is kept, and where a user may place it by hand."""
    return packages_dir() / "debian" / f"{name}.deb"


def fetch_debian(packages: DebianPackages) -> tuple[Path, ...]:
    """Returns the paths of the packages' files, downloaded unless they are there.

    Raises:
      UserError: this machine has no apt, no server can be reached, there is no such package, or no room on disk.
    """
    for name in packages.names:
        prepare_once(path_of(name), functools.partial(_download, packages, name), needed_bytes=2 * packages.size)
    return tuple(map(path_of, packages.names))


def _download(packages: DebianPackages, name: str, destination: Path) -> None:
    what = f"dataset {packages.dataset!r} needs the Debian package {name}"
    by_hand = f"get it on a Debian machine with: apt-get download {name}, and place the file as {path_of(name)}"
    command = shutil.which("apt-get")
    if command is None:
        raise UserError(f"{what}, and this machine has no apt-get; {by_hand}")
    folder = destination.parent / "download"
    folder.mkdir()
    # The messages are read below, so they must be in English.
    result = subprocess.run(
        [command, "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30", "download", name],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        check=False,
    )
    downloaded = list(folder.glob(f"{name}_*.deb"))
    if not result.returncode and downloaded:
        os.replace(downloaded[0], destination)
        return
    said = (result.stdout + result.stderr).lower()
    if "no space left" in said or "write error" in said:
        raise UserError(f"no room on disk: {what} in {packages_dir()}")
    if any(sign in said for sign in _NOT_LISTED):
        raise UserError(
            f"{what}, and apt finds no such package; have the list of packages renewed with: apt-get update "
            f"(as root), or {by_hand}"
        )
    if any(sign in said for sign in _NO_NETWORK):
        raise UserError(f"no network: {what}, and apt reaches no server; {by_hand}")
    lines = [line.strip() for line in result.stderr.splitlines() if line.startswith("E:")] or ["no message"]
    raise UserError(f"{what}, and apt-get could not download it ({lines[-1]}); {by_hand}")


def version_of(deb: Path) -> str:
    """Returns a package's version."""
    with _open(deb, "control.tar") as archive:
        (control,) = (member for member in archive if Path(member.name).name == "control")
        lines = archive.extractfile(control).read().decode("utf-8").splitlines()  # type: ignore[union-attr]
    return next(line.removeprefix("Version:").strip() for line in lines if line.startswith("Version:"))


def read_files(debs: tuple[Path, ...], wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Returns files of packages by their paths, as in `usr/share/doc/hello/copyright`.

    Args:
      debs: the packages' files.
      wanted: tells of a path whether its file is wanted.

    Raises:
      UserError: a package is damaged.
    """
    files = {}
    for deb in debs:
        with _open(deb, "data.tar") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if member.isfile() and wanted(path):
                    files[path] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return files


def check_count(packages: DebianPackages, what: str, found: int, least: int) -> None:
    """Raises a `UserError` if a package's content is not what it was made for.

    Args:
      packages: the packages.
      what: is counted.
      found: how many there are.
      least: how many there must be: not all, because another version may have some less.
    """
    if found < least:
        raise UserError(
            f"dataset {packages.dataset!r}: {packages.name} ({packages.version}) has {found:,} {what}, and at least "
            f"{least:,} are expected; place files of another version in {path_of('').parent}"
        )


def _open(deb: Path, begin: str) -> tarfile.TarFile:
    """Opens one of the two archives that a package's file consists of: an archive in the format of `ar`.

    It is unpacked as a whole, so that its checksum is read, and damage shows here.
    """
    try:
        with deb.open("rb") as file:
            if file.read(8) != b"!<arch>\n":
                raise ValueError("not an archive")
            while header := file.read(60):
                name, size = header[:16].decode("ascii").strip(), int(header[48:58])
                if name.startswith(begin):
                    packing = name.rstrip("/").removeprefix(begin)
                    if packing not in _UNPACK:
                        raise ValueError(f"{name} is not packed as Debian's own packages are: {', '.join(_UNPACK)}")
                    return tarfile.open(fileobj=io.BytesIO(_UNPACK[packing](file.read(size))), mode="r:")
                file.seek(size + size % 2, os.SEEK_CUR)  # members begin at even places
            raise ValueError(f"there is no {begin} in it")
    except (ValueError, EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{deb} cannot be read ({error}); delete it to fetch it again") from error
