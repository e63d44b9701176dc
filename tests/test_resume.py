"""In every task a process that is killed and started again ends with the same bytes as a run that never was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from knobs.files import write_files
from test_knobs import TABLES

from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics

RECIPE = """
import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(json.loads(Path("config.json").read_text()))
"""
TRAINING = {"num_steps": 450, "log_every": 25, "eval_every": 75, "checkpoint_every": 50, "average_decay": 0.9}
# With a carry, with batches by length, and with what is decoded; the others with --whole.
SAMPLE = ("language_modelling", "speech_recognition")
LINES = 10  # of `metrics.jsonl`, that are there when it is killed
# What one process has compiled, the next ones need not.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": "cache",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}
# Of the noise and of the order of the data, so that a wrong key or position shows.
DROPOUT = {"input_rate": 0.2, "weight_rate": 0.1}


def start(workdir: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **CACHE}
    command = [sys.executable, "-m", "lstm_research", "train", "--config=recipe.py", f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def lines(workdir: str) -> list[dict[str, Any]]:
    found = read_metrics(Path(workdir) / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task in SAMPLE else pytest.mark.whole) for task in TABLES]
)
def test_killed_and_resumed_is_never_killed(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    write_files()
    config = json.loads(json.dumps(TABLES[task].base))
    config["training"] |= TRAINING
    config["model"]["dropout"] = DROPOUT
    Path("config.json").write_text(json.dumps(config))
    Path("recipe.py").write_text(RECIPE)
    process, end = start("killed"), time.monotonic() + 120
    metrics = Path("killed/metrics.jsonl")
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= LINES):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert run(Experiment.from_config(config), tmp_path / "whole") == 0
    assert start("killed").wait(120) == 0
    assert lines("killed") == lines("whole")
    assert {line["split"] for line in lines("whole")} == {"train", "valid", "test"}
    for name in ("best/model.safetensors", "status.json"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()
