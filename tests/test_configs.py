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

from lstm_research.data.vocabulary import Bytes, Characters, Subwords, Words
from lstm_research.tasks import TASKS
from lstm_research.tasks.text_classification import Labels
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics

CONFIGS = Path(__file__).parents[1] / "configs"
GOLDEN = Path(__file__).parent / "golden"


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
# What takes seconds is run of every recipe as it is, and with --whole of its variants too.
each_recipe_and_whole_variants = pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*case, marks=[pytest.mark.whole] if case[1] else []) for case in cases()]
)


def get_config(name: str, variant: str) -> ConfigDict:
    """Returns a recipe's config, as `--config=NAME.py:VARIANT` does."""
    get: Any = recipe(name).get_config
    return get(variant) if variant else get()


def vocabulary_size(config: ConfigDict) -> int:
    """Stands in for the number of symbols, which the data decides: mostly a prime, so that no other size is like it."""
    if (config.vocabulary.get("max_size") or 0) > 10000:
        return 29989
    return {"characters": 67, "words": 9973, "subwords": 1999, "bytes": 256}[config.vocabulary.name]


def make_vocabulary(config: ConfigDict) -> bytes:
    """Returns a vocabulary of that size, as a run stores it."""
    name, size = config.vocabulary.name, vocabulary_size(config)
    symbols = list(map(chr, range(0x4E00, 0x4E00 + size)))
    vocabulary: Any
    if name == "words":
        vocabulary = Words().fit([" ".join(symbols[:-2])])  # <unk> and <eos> come on top
    elif name == "characters":
        vocabulary = Characters().fit(["".join(symbols)])
    elif name == "subwords":  # the pieces are as many characters, which all occur
        text = "\n".join(" ".join(symbols[i] + symbols[i + 1] for i in range(j, j + 3)) for j in range(size - 400))
        vocabulary = Subwords(size=size, character_coverage=1.0).fit([text])
    else:
        vocabulary = Bytes().fit([""])
    assert len(vocabulary) == size
    return vocabulary.to_json().encode()


def stored_files(config: ConfigDict) -> dict[str, bytes]:
    """Returns what stands for the files that a run of this config stores."""
    files = dict.fromkeys(TASKS[config.task.name].file_names, make_vocabulary(config)) | {"dataset.json": b"{}"}
    if config.task.name == "text_classification":
        scores = config.dataset.get("target") == "score"
        files["labels.json"] = Labels(None if scores else ("negative", "positive")).to_json().encode()
    return files


def batch_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a training batch, the longest there is."""
    task = config.task
    B, T = task.batch_size, task.get("max_length", task.get("unroll_length"))
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "language_modelling": {
            "inputs": ((B, T), np.int32),
            "targets": ((B, T), np.int32),
            "resets": ((B, T), np.bool_),
            "weights": ((B, T), np.float32),
        },
        "text_classification": {
            "tokens": ((B, T), np.int32),
            "lengths": ((B,), np.int32),
            "labels": ((B,), np.float32 if config.dataset.get("target") == "score" else np.int32),
            "weights": ((B,), np.float32),
        },
        "translation": {
            "source": ((B, T), np.int32),
            "source_lengths": ((B,), np.int32),
            "inputs": ((B, T), np.int32),
            "targets": ((B, T), np.int32),
            "weights": ((B, T), np.float32),
        },
    }[task.name]
    if task.get("unroll_deviation") is not None:
        shapes["lengths"] = ((B,), np.int32)
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}


def abstract(config: ConfigDict) -> tuple[Experiment, Any]:
    """Builds an experiment at full size without data, and its state without arrays."""
    experiment = Experiment.from_config(config, files=stored_files(config))
    return experiment, jax.eval_shape(experiment.init_state)


@each_recipe
def test_golden(name: str, variant: str) -> None:
    config = get_config(name, variant)
    size = vocabulary_size(config)
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


@each_recipe_and_whole_variants
def test_train_step_lowers_for_accelerators(name: str, variant: str) -> None:
    config = get_config(name, variant)
    experiment, state = abstract(config)
    exported = jax.export.export(experiment.train_step, platforms=("tpu", "cuda"))(state, batch_shapes(config))
    assert exported.platforms == ("tpu", "cuda")
    # The state that comes out is of the kind that went in.
    new_state, metrics = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new_state)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)
    ]
    assert {"loss", "gradient_norm", "learning_rate"} <= metrics.keys()


SENTENCES = "To be or not to be,\nthat is the question.\n"


def shrink(config: ConfigDict) -> None:
    """Makes the recipe small, and takes its data from files that this writes to the current folder."""
    config.training.update(num_steps=2, init_from=None)
    config.task.update(batch_size=4)
    model = config.model
    with model.ignore_type(), model.cell.ignore_type(), model.unlocked():
        if "num_params" in model:
            model.num_params = 20_000
        else:
            model.embedding_size = 16
            model.cell.hidden_size = 16
        if "last_hidden_size" in model:
            model.last_hidden_size = 16
        if "latent_size" in model.get("softmax", {}):
            model.softmax.latent_size = 16
        if "cutoffs" in model.get("softmax", {}):
            model.softmax.cutoffs = (4, 8)
    if config.vocabulary.name == "subwords":
        config.vocabulary.size = 20
    for split in ("train", "valid", "test"):
        Path(f"{split}.txt").write_text(SENTENCES * 4)
    if config.task.name == "language_modelling":
        config.task.unroll_length = 10 if config.task.get("unroll_deviation") else 8
        config.dataset = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"}
    elif config.task.name == "text_classification":
        rows = [f"to be {text},{label}" for text, label in zip("abcdefgh", "01011010", strict=True)]
        Path("train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        target = config.dataset.get("target", "classes")
        config.dataset = {"name": "csv", **dict.fromkeys(("train", "valid", "test"), "train.csv"), "target": target}
    else:
        splits = ("train", "valid", "test")
        config.dataset = {"name": "parallel_files"} | {
            f"{split}_{side}": f"{split}.txt" for split in splits for side in ("source", "target")
        }


@each_recipe_and_whole_variants
def test_trains_two_steps(name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = get_config(name, variant)
    # Of the recipe all but the sizes that cost time, and the data where it would have to be fetched.
    shrink(config)
    assert run(Experiment.from_config(config), tmp_path / "run") == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (2, "valid"), (2, "test")]
    assert all(0 < line["loss"] < 15 for line in lines)


@each_recipe
def test_docstring_states_command_cost_and_result(name: str, variant: str) -> None:
    text = recipe(name).__doc__ or ""
    assert f"lstm-research train --config=configs/{name}.py" in text
    assert not variant or f"--config=configs/{name}.py:{variant}" in text
