"""`lstm-research report`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_writes_into_the_workdir(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs" / "one")
    result = command("report", "--workdir=runs/one")
    assert (result.code, result.out, result.err) == (0, "wrote runs/one/report.html\n", "")
    assert Path("runs/one/report.html").read_text().startswith("<!DOCTYPE html>")


def test_compares_runs(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs", project / "runs")
    result = command("report", "--workdir=runs/characters", "--workdir=runs/words", "--output=new/both.html")
    assert (result.code, result.out, result.err) == (0, "wrote new/both.html\n", "")
    assert "2 runs compared" in Path("new/both.html").read_text()
    assert not list(Path("runs").rglob("report.html"))


def test_refuses(refused: Callable[..., str], trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs", project / "runs")
    both = ("--workdir=runs/characters", "--workdir=runs/words")
    assert "--workdir=FOLDER" in refused("report")
    assert "--output=FILE.html" in refused("report", *both)
    assert "twice" in refused("report", both[0], both[0], "--output=x.html")
    assert "only flags, got runs" in refused("report", "runs")
    assert "no workdir at nowhere" in refused("report", "--workdir=nowhere")
    (project / "sweep").mkdir()
    (project / "sweep" / "sweep.json").touch()
    assert "sweep is a sweep, which has a page of its own" in refused(
        "report", both[0], "--workdir=sweep", "--output=x"
    )
    # Before anything is computed.
    assert "--output: runs is a folder; give the name of a file" in refused("report", both[0], "--output=runs")
    assert "cannot be written, since" in refused("report", both[0], "--output=recipe.py/x.html")
