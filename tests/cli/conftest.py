"""Commands in this process: starting one anew costs seconds for nothing but imports."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxtyping
import pytest
from absl import flags, logging

from lstm_research.cli.main import main

RECIPE = """
from ml_collections import ConfigDict

def get_config(variant=""):
    return ConfigDict({
        "seed": 0,
        "dataset": {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"},
        "vocabulary": {"name": "words"} if variant == "words" else {"name": "characters"},
        "task": {"name": "language_modelling", "batch_size": 4, "unroll_length": 4, "eval_batch_size": 2},
        "model": {
            "name": "language_model",
            "embedding_size": 8,
            "cell": {"name": "lstm", "hidden_size": 8},
            "dropout": {},
        },
        "optimizer": {"name": "adam", "learning_rate": 0.05, "schedule": {"name": "constant"}},
        "training": {"num_steps": 8, "log_every": 2, "eval_every": 4, "checkpoint_every": 4, "keep_checkpoints": 2},
    })
"""
TEXTS = {
    "train": "to be or not to be that is the question\n" * 8,
    "valid": "is the question not to be\nor that\n" * 2,
    "test": "that is to be or not\n" * 2,
}


class Result(NamedTuple):
    """What a user sees of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def write_project(folder: Path) -> None:
    """Writes a recipe and its three text files."""
    (folder / "recipe.py").write_text(RECIPE)
    for split, text in TEXTS.items():
        (folder / f"{split}.txt").write_text(text)


class _FreshFlags:
    """While entered, a command may define and parse flags; afterwards its flags are gone, those of libraries stay."""

    def __enter__(self) -> None:
        self._verbosity = logging.get_verbosity()

    def __exit__(self, *exc: object) -> None:
        for name in list(flags.FLAGS):
            module = str(flags.FLAGS.find_module_defining_flag(name))
            if module.startswith("lstm_research") or name.startswith("config."):
                delattr(flags.FLAGS, name)
            else:
                flags.FLAGS[name].unparse()
        flags.FLAGS.unparse_flags()
        logging.set_verbosity(self._verbosity)


def run_command(monkeypatch: pytest.MonkeyPatch, capfd: Any, *arguments: str) -> Result:
    """Runs `lstm-research` with these arguments and returns what it did."""
    capfd.readouterr()
    with monkeypatch.context() as patch, warnings.catch_warnings(), _FreshFlags():
        # How ml_collections loads a recipe; it has another way for the Python version that drops this one.
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        sys.modules.pop("config_config", None)  # a recipe would find what the one before it has defined
        patch.setattr(sys, "argv", ["lstm-research", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
    out, err = capfd.readouterr()
    return Result(int(end.value.code or 0), out, err)


@contextlib.contextmanager
def _as_in_production() -> Iterator[None]:
    """No check of annotations before the package's own checks; and programs that compile fast rather than run fast."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True)
def _production() -> Iterator[None]:
    with _as_in_production():
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process."""
    return lambda *arguments: run_command(monkeypatch, capfd, *arguments)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with a recipe and text files; nothing is cached in it."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def refused(command: Command, project: Path) -> Callable[..., str]:
    """Runs a command that must be refused: one line, exit code 2, nothing written. Returns the line."""

    def files() -> list[Path]:
        # Not the cache of downloads, which is no part of a run, nor what Python keeps of recipes.
        return [path for path in sorted(project.rglob("*")) if not {"data", "__pycache__"} & set(path.parts)]

    def run(*arguments: str) -> str:
        before = files()
        result = command(*arguments)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("lstm-research: error: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        assert files() == before
        return result.err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its texts and finished runs, `runs/characters` and `runs/words`; not to be changed."""
    from lstm_research.training.experiment import Experiment
    from lstm_research.training.loop import run

    folder = tmp_path_factory.mktemp("trained")
    write_project(folder)
    scope: dict[str, Any] = {}
    exec(RECIPE, scope)
    with _as_in_production(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for variant in ("characters", "words"):
            assert run(Experiment.from_config(scope["get_config"](variant)), Path("runs") / variant) == 0
    return folder


@pytest.fixture
def characters(trained: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The workdir of a finished run over characters, in the current folder."""
    monkeypatch.chdir(trained)
    return "runs/characters"


@pytest.fixture
def words(trained: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The workdir of a finished run over words, in the current folder."""
    monkeypatch.chdir(trained)
    return "runs/words"
