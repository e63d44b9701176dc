"""`training.init_from`: a model that starts from the weights of another one, as a user runs it."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lstm_research.training.metrics import read_metrics
from lstm_research.training.trained_run import TrainedRun
from lstm_research.training.weights import load_weights

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSIFIER = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({
        "seed": 0,
        "dataset": {"name": "csv", "train": "train.csv", "valid": "train.csv", "test": "train.csv"},
        "vocabulary": {"name": "words"},
        "task": {"name": "text_classification", "batch_size": 2, "max_length": 9},
        "model": {
            "name": "classifier",
            "embedding_size": 8,
            "cell": {"name": "lstm", "hidden_size": 8},
            "pooling": ("last", "max"),
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "training": {
            "num_steps": 8, "log_every": 4, "eval_every": 4, "checkpoint_every": 4, "init_from": "runs/words",
        },
    })
"""


@pytest.fixture
def classifier(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a classifier's recipe and data, and a finished language model, `runs/words`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "runs/words", "runs/words")
    Path("classifier.py").write_text(CLASSIFIER)
    Path("text.txt").write_text("to be or not to be\n" * 400)
    Path("train.csv").write_text("text,label\nto be,yes\nnot to be,no\nthat is the question,no\nor to be,yes\n")
    return tmp_path


def train(command: Any, workdir: str, *overrides: str) -> Any:
    return command("train", "--config=classifier.py", f"--workdir={workdir}", *overrides)


def test_it_starts_from_the_weights_and_the_vocabulary(command: Any, classifier: Path) -> None:
    # So small a rate that nothing moves: what is kept at the end is what it started from.
    result = train(command, "runs/still", "--config.optimizer.learning_rate=1e-30")
    assert result.code == 0, result
    assert "weights taken over: embedding, stack.layer_0" in result.out
    source = load_weights(Path("runs/words/best/model.safetensors"))[0]
    run = TrainedRun.load("runs/still")
    np.testing.assert_array_equal(run.params["embedding"]["table"], source["embedding"]["table"])
    for name, weight in source["stack"]["layer_0"]["params"].items():
        np.testing.assert_array_equal(run.params["stack"]["layer_0"]["params"][name], weight)
    assert Path("runs/still/vocabulary.json").read_bytes() == Path("runs/words/vocabulary.json").read_bytes()


def test_a_run_that_was_stopped_goes_on_without_its_source(command: Any, classifier: Path) -> None:
    assert train(command, "runs/whole").code == 0
    assert train(command, "runs/parts", "--config.training.num_steps=4").code == 0
    shutil.rmtree("runs/words")
    result = train(command, "runs/parts", "--overwrite_config")
    assert result.code == 0, result
    whole, parts = (Path(f"runs/{name}/best/model.safetensors").read_bytes() for name in ("whole", "parts"))
    losses = [
        [line["loss"] for line in read_metrics(Path(f"runs/{name}/metrics.jsonl")) if line["split"] == "train"]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]
    assert load_weights(Path("runs/whole/best/model.safetensors"))[1]["step"] == "8"
    assert len(whole) == len(parts)
    left, right = (load_weights(Path(f"runs/{name}/best/model.safetensors"))[0] for name in ("whole", "parts"))
    np.testing.assert_array_equal(left["output"]["kernel"], right["output"]["kernel"])


WRONG = {
    "--config.training.init_from=runs/none": "training.init_from: no workdir at runs/none",
    "--config.model.embedding_size=4": "training.init_from: embedding.table is [10, 4] in this model",
    "--config.vocabulary.name=characters": "vocabulary.name is 'characters', and the run in training.init_from",
    "--config.model.cell.name=gru": "training.init_from: model.cell.name is 'gru' here and 'lstm' in that run",
    "--config.model.cell.name=capped_lstm": "model.cell.input_gate is 'capped' here and 'free' in that run",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_does_not_fit_is_one_line(command: Any, classifier: Path, override: str) -> None:
    result = train(command, "runs/new", override)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert WRONG[override] in result.err
    assert not Path("runs/new").exists()


def train_language_model(command: Any, workdir: str, *overrides: str) -> Any:
    return command(
        "train", f"--config={CONFIGS / 'word_lm.py'}:files", f"--workdir={workdir}",
        *(f"--config.dataset.{split}=text.txt" for split in ("train", "valid", "test")),
        "--config.model.embedding_size=8", "--config.model.cell.hidden_size=8", "--config.model.num_layers=1",
        "--config.task.batch_size=2", "--config.task.unroll_length=5", "--config.training.num_steps=2",
        "--config.training.init_from=runs/words", *overrides,
    )  # fmt: skip


def test_a_language_model_goes_on_from_another(command: Any, classifier: Path) -> None:
    Path("text.txt").write_text("to be or not to be unheard\n" * 20)
    result = train_language_model(command, "runs/still", "--config.optimizer.learning_rate=1e-30")
    assert result.code == 0, result
    assert "weights taken over" in result.out
    assert Path("runs/still/vocabulary.json").read_bytes() == Path("runs/words/vocabulary.json").read_bytes()
    source, own = (load_weights(Path(f"runs/{name}/best/model.safetensors"))[0] for name in ("words", "still"))
    jax.tree.map(np.testing.assert_array_equal, own, source)


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "--config.model.tied=True": "training.init_from: output.bias is nothing in this model and [10] in that",
        "--config.vocabulary.name=characters": "vocabulary.name is 'characters', and the run in training.init_from",
    }.items(),
)
def test_a_language_model_of_another_kind_is_one_line(
    command: Any, classifier: Path, override: str, message: str
) -> None:
    result = train_language_model(command, "runs/new", override)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert message in result.err
    assert not Path("runs/new").exists()
