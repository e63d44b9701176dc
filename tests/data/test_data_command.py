"""`lstm-research data`, in processes of its own because flags are global."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

PROGRAM = """
import sys
from absl import app
from lstm_research.cli import data
from lstm_research.common.errors import UserError

def main(argv):
    try:
        data.main(["data", *argv[1:]])
    except UserError as error:
        sys.exit(f"error: {error}")

data.define_flags()
app.run(main)
"""

CONFIG = """
from ml_collections import ConfigDict

def get_config(variant=""):
    files = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "valid.txt"}
    task = {"name": "language_modelling", "batch_size": 4, "unroll_length": 8, "eval_batch_size": 2}
    model = {"name": "language_model", "embedding_size": 4, "cell": {"name": "lstm", "hidden_size": 4}}
    return ConfigDict({
        "seed": 0,
        "dataset": files,
        "vocabulary": {"name": "characters"},
        "task": task,
        "model": model,
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "training": {"num_steps": 1},
    })
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "train.txt").write_text("[bold]abcdefgh\n" * 20)
    (tmp_path / "valid.txt").write_text("abcdefgh\n" * 10)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_list_names_every_dataset_and_fetches_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTM_RESEARCH_DATA", str(folder / "data"))
    result = run(folder, "list")
    assert result.returncode == 0, result.stderr
    for part in ("shakespeare", "tiny", "all", "1,132,189", "public domain", "text_files", "text_file", "no"):
        assert part in result.stdout
    for part in ("rotten_tomatoes", "25,000", "tweets", "en-ja", "CC BY 2.0", "csv", "parallel_files", "tfds:NAME"):
        assert part in result.stdout
    assert not (folder / "data").exists()


def test_prepare_reads_everything_and_says_what_there_is(folder: Path) -> None:
    result = run(folder, "prepare", "--config=config.py")
    assert result.returncode == 0, result.stderr
    assert "train: 1 document, 300 characters" in result.stdout
    assert "sha256" in result.stdout
    assert result.stderr == ""


def test_show_prints_examples_and_windows(folder: Path) -> None:
    result = run(folder, "show", "--config=config.py", "--num=2")
    assert result.returncode == 0, result.stderr
    assert "vocabulary: 13 characters" in result.stdout
    assert "9 an epoch" in result.stdout
    assert result.stdout.count("batch 0, row") == 2
    result = run(folder, "show", "--config=config.py", "--split=valid", "--config.vocabulary.name=words", "--num=1")
    assert result.returncode == 0, result.stderr
    assert "100.00" not in result.stdout.split("valid")[0]
    assert "50.00 %" in result.stdout  # no word of the validation text is in the training text; ends of lines are


CLASSIFICATION = {
    "dataset": {"name": "csv", "train": "t.csv", "valid": "t.csv", "test": "t.csv"},
    "task": {"name": "text_classification", "batch_size": 2, "max_length": 4, "truncate": True},
    "model": {"name": "classifier", "embedding_size": 4, "cell": {"name": "lstm", "hidden_size": 4}},
}
TRANSLATION = {
    "dataset": {"name": "tsv", "train": "t.tsv", "valid": "t.tsv", "test": "t.tsv"},
    "task": {"name": "translation", "batch_size": 2, "max_length": 9, "decoder": {"name": "greedy"}},
    "model": {
        "name": "seq2seq",
        "attention": {"name": "general"},
        "embedding_size": 4,
        "cell": {"name": "lstm", "hidden_size": 4},
    },
}


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        (CLASSIFICATION, ("vocabulary: 8 words", "1 of 2", "4 tokens, label good", "0 tokens, label bad", "a b c d\n")),
        (TRANSLATION, ("source vocabulary: 6 words", "train source", "3 and 3 tokens", "a b b\n→ c d\n")),
    ],
)
def test_show_prints_what_other_tasks_get(folder: Path, sections: dict[str, Any], parts: tuple[str, ...]) -> None:
    (folder / "t.csv").write_text('text,label\n"a b c d e f",good\n,bad\n')
    (folder / "t.tsv").write_text("a b b\tc d\na\tc\n")
    config = (folder / "config.py").read_text().replace("return ConfigDict(", "config = (")
    config += f"    return ConfigDict(config | {sections} | {{'vocabulary': {{'name': 'words'}}}})\n"
    (folder / "config.py").write_text(config)
    result = run(folder, "show", "--config=config.py")
    assert result.returncode == 0, result.stderr
    for part in parts:
        assert part in result.stdout
    assert run(folder, "prepare", "--config=config.py").returncode == 0


def test_recordings_are_listed_prepared_and_shown(folder: Path) -> None:
    for name, pitch in (("a", 300), ("b", 400)):
        tone = np.sin(2 * np.pi * pitch * np.arange(4000) / 8000)
        soundfile.write(folder / f"{name}.wav", np.stack([tone, tone], axis=1), 8_000)
    (folder / "list.csv").write_text("path,transcript\na.wav,[bold] one two\nb.wav,\n")
    files = dict.fromkeys(("train", "valid", "test"), "list.csv")
    sections = {"dataset": {"name": "manifest", **files}, "task": {"name": "speech_recognition"}}
    config = (folder / "config.py").read_text().replace("return ConfigDict(", "config = (")
    (folder / "config.py").write_text(config + f"    return ConfigDict(config | {sections})\n")
    result = run(folder, "prepare", "--config=config.py")
    assert result.returncode == 0, result.stderr
    assert "train: 2 utterances, 1 second, 3 words, 14 characters" in result.stdout
    assert "6 of 6 recordings have several channels and were mixed to one" in result.stdout
    assert "(from 8,000 Hz)" in result.stdout
    listed = run(folder, "list").stdout
    for part in ("connected_digits", "fillets", "asterisk_prompts", "Datasets for speech_recognition", "manifest"):
        assert part in listed


WRONG = {
    (): "say what to do: list, prepare, show",
    ("lst",): "did you mean 'list'",
    ("prepare",): "name a dataset",
    ("prepare", "shakespeare", "--config=config.py"): "one of the two",
    ("prepare", "shakespear"): "did you mean 'shakespeare'",
    ("prepare", "shakespeare:tinny"): "did you mean 'tiny'",
    ("prepare", "text_files"): "give --config",
    ("prepare", "tatoeba:en-jp"): "unknown language dataset.target 'jp'",
    ("show", "imdb", "rotten_tomatoes"): "data show takes one dataset, got 2",
    ("show", "--config=config.py", "--config.task.name=translaton"): "did you mean 'translation'",
    ("prepare", "--config=config.py", "--config.dataset.valid=gone.txt"): "dataset.valid: there is no file gone.txt",
    ("prepare", "--config=config.py", "--config.dataset.vaild=valid.txt"): "did you mean 'valid'",
    ("show", "--config=config.py", "--split=dev"): "unknown --split 'dev'",
    ("show", "--config=config.py", "--config.task.unroll_length=1000"): "split 'train' has 300 tokens",
}

# Forks once per command line, because importing takes longer than running.
EACH = """
import json, os
lines = json.loads(os.environ["LINES"])
for line in lines:
    child = os.fork()
    if not child:
        sys.argv = ["data", *line]  # where config flags look for overrides
        data.define_flags()
        app.run(main)
    os.waitpid(child, 0)
    print("---", file=sys.stderr, flush=True)
"""


def test_wrong_input_gets_one_line(folder: Path) -> None:
    program = PROGRAM.replace("data.define_flags()\napp.run(main)\n", "") + EACH
    environment = os.environ | {"LINES": json.dumps(list(WRONG))}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    said = result.stderr.split("---\n")[:-1]
    assert len(said) == len(WRONG)
    for line, (arguments, part) in zip(said, WRONG.items(), strict=True):
        assert line.startswith("error: "), arguments
        assert part in line
        assert line.count("\n") == 1
