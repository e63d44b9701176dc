"""Trials packed into one program: each as if it had run alone."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.packed import Outcome, train_packed
from lstm_research.training.weights import load_weights

TEXT = "To be or not to be that is the question\nWhether tis nobler in the mind to suffer\n"
CSV = "text,label\nto be,yes\nor not to be,no\nthat is the question,yes\nnot to sit,no\nto be it,yes\nwhether tis,no\n"
TRAINING = {"num_steps": 12, "log_every": 3, "eval_every": 6, "checkpoint_every": 5}


def language_model() -> dict[str, Any]:
    """A model with carry, noise of every kind and an average."""
    return {
        "seed": 0,
        "dataset": {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "valid.txt"},
        "vocabulary": {"name": "characters"},
        "task": {"name": "language_modelling", "batch_size": 3, "unroll_length": 6, "eval_batch_size": 2},
        "model": {
            "name": "language_model",
            "embedding_size": 6,
            "cell": {"name": "lstm", "hidden_size": 8},
            "num_layers": 1,
            "dropout": {"input_rate": 0.2},
        },
        "optimizer": {
            "name": "adam",
            "learning_rate": 0.01,
            "schedule": {"name": "cosine", "warmup_steps": 3},
            "clip_norm": 1.0,
        },
        "training": dict(TRAINING),
    }


def classifier() -> dict[str, Any]:
    """A model of texts of several lengths, in batches by length."""
    config = language_model()
    config["dataset"] = {"name": "csv", **dict.fromkeys(("train", "valid", "test"), "train.csv")}
    config["task"] = {
        "name": "text_classification",
        "batch_size": 2,
        "max_length": 32,
        "bucket_boundaries": (8, 16),
        "label_smoothing": 0.1,
    }
    config["model"] |= {"name": "classifier"}
    return config


def adding() -> dict[str, Any]:
    """A drawn problem."""
    config = language_model()
    config["dataset"] = {"name": "adding", "length": 8}
    config["vocabulary"] = {}
    config["task"] = {"name": "synthetic", "batch_size": 4}
    config["model"] = {
        "name": "sequence_model",
        "cell": {"name": "lstm", "hidden_size": 8},
        "num_layers": 1,
        "dropout": {},
    }
    return config


BASES = {"language_model": language_model, "classifier": classifier, "adding": adding}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The current folder, with data."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("packed")
        patch.chdir(path)
        (path / "train.txt").write_text(TEXT * 3)
        (path / "valid.txt").write_text(TEXT)
        (path / "train.csv").write_text(CSV)
        yield path


def trials(base: str, *changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns configs with some keys, by their dotted paths, set otherwise."""
    configs = []
    for change in changes:
        config = copy.deepcopy(BASES[base]())
        for path, value in change.items():
            *groups, key = path.split(".")
            section = config
            for group in groups:
                section = section.setdefault(group, {})
            section[key] = value
        configs.append(config)
    return configs


def alone(config: dict[str, Any], workdir: Path) -> int:
    """Trains one config as `lstm-research train` does."""
    return run(Experiment.from_config(config), workdir, argv=[])


def lines(workdir: Path) -> list[dict[str, Any]]:
    """Returns what a run has logged, but for the time it took."""
    return [{**line, "seconds": None} for line in read_metrics(workdir / "metrics.jsonl")]


def numbers(value: Any) -> Any:
    """Returns nested content with every float as something that equals those close to it."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    return pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value


def assert_as_alone(packed: Path, separate: Path) -> None:
    """Checks that a run in a pack wrote what it would have written alone."""
    assert lines(packed) == [numbers(line) for line in lines(separate)]
    status = [json.loads((path / "status.json").read_text()) for path in (packed, separate)]
    assert status[0] == numbers(status[1])
    kept = [sorted(entry.name for entry in (path / "checkpoints").iterdir()) for path in (packed, separate)]
    assert kept[0] == kept[1]
    weights = [load_weights(path / "best/model.safetensors")[0] for path in (packed, separate)]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4), *weights)


NUMBERS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "learning rates": ("adding", [{"optimizer.learning_rate": rate} for rate in (1e-3, 3e-3, 0.01)]),
    "seeds": ("language_model", [{"seed": seed} for seed in range(3)]),
    "noise": (
        "language_model",
        [
            {"model.dropout": {"input_rate": r, "zoneout_h_rate": r, "recurrent_rate": r / 2, "weight_rate": r / 3}}
            for r in (0.1, 0.3, 0.5)
        ],
    ),
    "optimizer": (
        "classifier",
        [
            {
                "optimizer.b1": 0.9 - 0.1 * k,
                "optimizer.eps": 10.0 ** (k - 8),
                "optimizer.clip_norm": 0.1 * (k + 1),
                "optimizer.weight_decay": 0.01 * (k + 1),
                "optimizer.schedule.warmup_steps": 3 + k,
                "optimizer.schedule.final_fraction": 0.1 * k,
                "task.label_smoothing": 0.1 + 0.1 * k,
                "model.cell.forget_bias": float(k),
                "seed": k % 2,
            }
            for k in range(4)
        ],
    ),
    "what stops or changes a run on the way": (
        "adding",
        [
            {
                "optimizer.learning_rate": rate,
                "optimizer.schedule": {"name": "plateau", "factor": factor},
                "training": {**TRAINING, "eval_every": 2, "patience": 2, "num_steps": 16, "average_patience": 1},
            }
            for rate, factor in ((1e-9, 0.5), (0.003, 0.5), (0.5, 0.1))
        ],
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_trials_of_a_pack_are_as_if_alone(name: str, tmp_path: Path) -> None:
    base, changes = NUMBERS[name]
    configs = trials(base, *changes)
    workdirs = [tmp_path / f"packed{index}" for index in range(len(configs))]
    assert train_packed(configs, workdirs) == [Outcome(0)] * len(configs)
    for index, config in enumerate(configs):
        assert alone(config, tmp_path / f"alone{index}") == 0
        assert_as_alone(workdirs[index], tmp_path / f"alone{index}")
