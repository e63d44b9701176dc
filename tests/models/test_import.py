"""The public interface: what it exports, and what importing it costs and loads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from lstm_research import models
from lstm_research.models import cells, layers, recurrence

ROOT = Path(__file__).parent.parent.parent

IMPORT = "from lstm_research.models import LSTM, unroll"
# As they are called where they are imported; absl stands for its flags too.
FOREIGN = (
    "absl",
    "flax",
    "grain",
    "ml_collections",
    "optax",
    "orbax",
    "tensorflow",
    "tensorflow_datasets",
    "tensorstore",
)
MEASURE = f"""
import time
import jax, flax
begin = time.perf_counter()
{IMPORT}
print(time.perf_counter() - begin)
"""


def run(code):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=300).stdout


@pytest.mark.parametrize("module", ["lstm_research.models", "lstm_research.models.interop"])
def test_cells_load_nothing_of_data_training_or_commands(module):
    code = f"import {module}, sys; {IMPORT}; print(*sys.modules)"
    loaded = set(run(code).split())
    assert "lstm_research.models.cells.lstm" in loaded
    assert sorted({name.split(".")[0] for name in loaded} & set(FOREIGN)) == []
    ours = {name.split(".")[1] for name in loaded if name.startswith("lstm_research.")}
    assert ours == {"common", "models"}


def test_layers_load_neither_data_nor_checkpoints_nor_partners():
    code = "import sys; from lstm_research.models import RecurrentStack, functional, interop; print(*sys.modules)"
    roots = {name.split(".")[0] for name in run(code).split()}
    partners = {"haiku", "equinox", "keras", "onnx", "onnxruntime", "torch"}
    assert roots & {"grain", "orbax", "tensorflow", "tensorflow_datasets", "tensorstore", *partners} == set()


def test_importing_takes_under_half_a_second_beyond_jax_and_flax():
    # The best of a few, because what else the machine does only adds.
    seconds = []
    while len(seconds) < 5 and min(seconds, default=1) >= 0.5:
        seconds.append(float(run(MEASURE)))
    assert min(seconds) < 0.5


def test_every_exported_name_is_there_and_documented():
    for name in models.__all__:
        assert getattr(models, name) is not None
    assert set(models.__all__) <= set(dir(models))
    assert re.findall(r"`(\w+)`", models.__doc__) != []
    carries = {name for name in models.__all__ if name.endswith("Carry")}
    documented = set(re.findall(r"`(\w+)`", models.__doc__))
    assert set(models.__all__) - carries - documented == set()


def test_every_cell_layer_and_engine_is_exported():
    """So that a new one is not forgotten."""
    assert set(cells.__all__) | set(layers.__all__) | set(recurrence.__all__) == set(models.__all__)
    for name in layers.__all__:
        assert getattr(models, name) is getattr(layers, name)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"module 'lstm_research\.models' has no attribute 'LSTMs'"):
        models.LSTMs


def test_types_are_packaged():
    names = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "lstm_research/py.typed" in names
    assert "lstm_research/models/interop/__init__.py" in names
