"""Every recipe in `configs/`, with each of its variants: what it builds, that it trains, that it compiles elsewhere.

What a recipe builds is kept in `tests/golden/`, so that a changed default shows in review. To renew these files:

    UPDATE_GOLDEN=1 python -m pytest tests/test_configs.py -k golden
"""

import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.export
import jaxtyping
import numpy as np
import pytest
from ml_collections import ConfigDict

from lstm_research.data.vocabulary import VOCABULARIES
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics

CONFIGS = Path(__file__).parents[1] / "configs"
GOLDEN = Path(__file__).parent / "golden"
# Stand in for the number of symbols, which the data decides: primes, so that no other size is mistaken for it.
VOCABULARY_SIZES = {"characters": 67, "words": 9973}


@functools.cache
def recipe(name: str) -> ModuleType:
    """Returns the module of a recipe."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases() -> list[tuple[str, str]]:
    """Returns all pairs of recipe and variant."""
    names = sorted(path.stem for path in CONFIGS.glob("*.py"))
    return [(name, variant) for name in names for variant in getattr(recipe(name), "VARIANTS", ("",))]


each_recipe = pytest.mark.parametrize(("name", "variant"), cases())


def get_config(name: str, variant: str) -> ConfigDict:
    """Returns a recipe's config, as `--config=NAME.py:VARIANT` does."""
    get: Any = recipe(name).get_config
    return get(variant) if variant else get()


def abstract(config: ConfigDict) -> tuple[Experiment, Any]:
    """Builds an experiment at full size without data, and its state without arrays."""
    size = VOCABULARY_SIZES[config.vocabulary.name]
    text = "".join(map(chr, range(0x4E00, 0x4E00 + size)))
    if config.vocabulary.name == "words":
        text = " ".join(text[:-2])  # <unk> and <eos> come on top
    vocabulary = VOCABULARIES[config.vocabulary.name]().fit([text])
    assert len(vocabulary) == size
    files = {"vocabulary.json": vocabulary.to_json().encode(), "dataset.json": b"{}"}
    experiment = Experiment.from_config(config, files=files)
    return experiment, jax.eval_shape(experiment.init_state)


@each_recipe
def test_golden(name: str, variant: str) -> None:
    config = get_config(name, variant)
    size = VOCABULARY_SIZES[config.vocabulary.name]
    params = abstract(config)[1].params
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="."): " ".join(
            [str(leaf.dtype), *("V" if length == size else str(length) for length in leaf.shape)]
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    found = json.dumps({"config": config.to_dict(), "parameters": shapes}, indent=1, sort_keys=True) + "\n"
    file = GOLDEN / f"{name}{'.' if variant else ''}{variant}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert file.exists(), f"no {file.name}: see the top of this file"
    assert found == file.read_text(), f"{file.name} is another: if that is meant, see the top of this file"


def test_no_golden_file_is_left_over() -> None:
    names = {f"{name}{'.' if variant else ''}{variant}.json" for name, variant in cases()}
    assert {path.name for path in GOLDEN.iterdir()} == names


@each_recipe
def test_train_step_lowers_for_accelerators(name: str, variant: str) -> None:
    config = get_config(name, variant)
    experiment, state = abstract(config)
    shape = (config.task.batch_size, config.task.unroll_length)
    dtypes = {"inputs": np.int32, "targets": np.int32, "resets": np.bool_, "weights": np.float32}
    batch = {key: jax.ShapeDtypeStruct(shape, dtype) for key, dtype in dtypes.items()}
    exported = jax.export.export(experiment.train_step, platforms=("tpu", "cuda"))(state, batch)
    assert exported.platforms == ("tpu", "cuda")
    # The state that comes out is of the kind that went in.
    new_state, metrics = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new_state)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)
    ]
    assert {"loss", "accuracy", "gradient_norm", "learning_rate"} <= metrics.keys()


@each_recipe
def test_trains_two_steps(name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = get_config(name, variant)
    # Of the recipe all but the sizes that cost time, and the data where it would have to be fetched.
    config.model.embedding_size = config.model.cell.hidden_size = 16
    config.task.update(batch_size=4, unroll_length=8)
    config.training.num_steps = 2
    for split in ("train", "valid", "test"):
        Path(f"{split}.txt").write_text("To be or not to be,\nthat is the question.\n" * 4)
    if config.dataset.name not in ("text_files", "text_file"):
        config.dataset = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"}
    assert run(Experiment.from_config(config), tmp_path / "run") == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (2, "valid"), (2, "test")]
    assert all(0 < line["loss"] < 10 for line in lines)


@each_recipe
def test_docstring_states_command_cost_and_result(name: str, variant: str) -> None:
    text = recipe(name).__doc__ or ""
    assert f"lstm-research train --config=configs/{name}.py" in text
    assert not variant or f"--config=configs/{name}.py:{variant}" in text
