"""Training on several devices: the section `parallel`, and the checks that need a process with eight devices."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from fake_task import make_experiment
from jax.sharding import PartitionSpec

from lstm_research.common.build import build_section
from lstm_research.common.errors import UserError
from lstm_research.training.loop import run
from lstm_research.training.parallel import Parallel, model_spec
from lstm_research.training.workdir import config_differences, config_digest


def test_eight_devices(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, str(Path(__file__).with_name("eight_devices.py"))]
    if request.config.getoption("--whole"):
        command.append("--whole")
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("checked ") == 8


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("recurrent_kernel", (256, 1024), (None, "model")),
        ("input_kernel", (1024, 1023), ("model",)),  # 4 does not divide 1023
        ("kernel", (1023, 1023), ()),
        ("kernel", (2, 512, 512), (None, None, "model")),
        ("table", (10_000, 64), ("model",)),
        ("table", (10_001, 64), (None, "model")),
        ("table", (100, 64), ()),  # small
        ("bias", (2**20,), ()),
        ("peephole_kernel", (2**20,), ()),
    ],
)
def test_what_is_divided_among_the_devices_of_a_model(name: str, shape: tuple[int, ...], spec: tuple[str, ...]) -> None:
    assert model_spec(name, shape, 4) == PartitionSpec(*spec)
    assert model_spec(name, shape, 1) == PartitionSpec()


def test_one_device_is_left_alone() -> None:
    parallel = Parallel()
    leaf = jnp.ones(3)
    assert parallel.is_trivial
    for method in (parallel.place_batch, parallel.on_one_device):
        assert method({"a": leaf})["a"] is leaf


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"strategy": "pmapp"}, "parallel.strategy must be one of 'jit', 'pmap'"),
        ({"model_axis": 0}, "parallel.model_axis must be at least 1"),
        ({"axes": 2}, "parallel.axes of the section: .*model_axis, strategy"),
        ({"model_axis": 2, "strategy": "pmap"}, "'pmap' keeps all weights.*parallel.model_axis to 1"),
    ],
)
def test_refuses(section: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_section(Parallel, section, where="parallel")


def test_a_run_may_go_on_divided_in_another_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make_experiment(num_steps=8)
    digest = config_digest(experiment.config)
    assert run(experiment, tmp_path / "run") == 0
    longer = make_experiment(num_steps=8)
    longer.config.parallel = {"strategy": "jit", "model_axis": 1}
    assert config_digest(longer.config) == digest
    assert config_differences(experiment.config, longer.config) == []
    assert run(longer, tmp_path / "run") == 0
    assert "is finished at step 8" in capsys.readouterr().out
