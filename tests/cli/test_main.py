"""The program itself: its entry points, exit codes, pipes, help, and what importing the package does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lstm_research.cli.main import COMMANDS
from lstm_research.models import CELLS

SCRIPT = Path(sys.executable).parent / "lstm-research"
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": ""}


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a line in a shell; `lstm-research` there is the installed script."""
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=folder, env=ENVIRONMENT | {"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not SCRIPT.exists(), reason="the package is not installed as a whole")
def test_script_and_module_are_the_same(trained: Path) -> None:
    results = [
        shell(f"{program} evaluate --workdir=runs/characters --json", trained)
        for program in ("lstm-research", f"{sys.executable} -m lstm_research")
    ]
    for result in results:
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
    assert results[0].stdout == results[1].stdout


def test_mistake_in_a_process_of_its_own(project: Path) -> None:
    line = f"{sys.executable} -m lstm_research train --config=recipe.py --workdir=runs/new"
    result = shell(f"{line} --config.model.cell.name=lstmm", project)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "lstm-research: error: unknown model.cell.name 'lstmm'; did you mean 'lstm' or 'nog_lstm' or 'nig_lstm'? "
        f"valid: {', '.join(sorted(CELLS))}\n"
    )
    assert not (project / "runs").exists()


def test_a_reader_that_has_seen_enough(trained: Path) -> None:
    predict = f"{sys.executable} -m lstm_research predict --workdir=runs/characters --length=40000"
    result = shell(f"{predict} | head -c 20", trained)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout) == 20
    result = shell(f"{sys.executable} -m lstm_research --help | true", trained)
    assert (result.returncode, result.stderr) == (0, "")


def test_usage(command: Any) -> None:
    for arguments, code in (([], 2), (["--help"], 0), (["-h"], 0), (["help"], 0)):
        result = command(*arguments)
        assert result.code == code
        assert result.err == ""
        assert all(name in result.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, command: Any) -> None:
    result = command(name, "--help")
    assert result.code == 0
    assert result.err == ""
    assert f"lstm-research {name}" in result.out
    assert "--config" in result.out or "--workdir" in result.out


def test_unknown_command(command: Any) -> None:
    result = command("trian")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "lstm-research: error: unknown command 'trian'; did you mean 'train'? "
        "valid: benchmark, data, evaluate, export, predict, report, sweep, train\n"
    )


def test_interrupted(command: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_research.training.experiment import Experiment

    def interrupt(config: Any, files: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "from_config", interrupt)
    result = command("train", "--config=recipe.py", "--workdir=runs/new")
    assert result.code == 130
    assert result.err.strip() == ""


IMPORTS = """
import pkgutil, importlib, sys
from absl import flags
before = set(flags.FLAGS)
import lstm_research
for module in pkgutil.walk_packages(lstm_research.__path__, "lstm_research."):
    if module.name != "lstm_research.__main__":
        importlib.import_module(module.name)
ours = [name for name in set(flags.FLAGS) - before
        if str(flags.FLAGS.find_module_defining_flag(name)).startswith("lstm_research")]
assert not ours, ours
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
from pathlib import Path
lstm_research.training.metrics.TensorBoard(Path("tb")).close()  # its writer would load PyTorch
assert "torch" not in sys.modules
"""

CELL_ALONE = """
import sys
import jax
import lstm_research.models as models

cell = models.LSTM(hidden_size=4)
params = cell.init(jax.random.key(0), 3)
carry, ys = models.unroll(cell, params, jax.numpy.ones((5, 2, 3)))
assert ys.shape == (5, 2, 4) and carry.h.shape == (2, 4)
heavy = {"tensorflow", "tensorflow_datasets", "grain", "orbax", "ml_collections", "tensorboardX", "optax", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
ours = {name.split(".")[1] for name in sys.modules if name.startswith("lstm_research.")}
assert ours <= {"common", "models"}, ours
if "absl.flags" in sys.modules:
    flags = sys.modules["absl.flags"].FLAGS
    other = {flags.find_module_defining_flag(name) for name in flags}
    assert all(str(name).startswith("absl") for name in other), other
"""


@pytest.mark.parametrize("program", [IMPORTS, CELL_ALONE], ids=["all modules", "a cell alone"])
def test_imports(program: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
