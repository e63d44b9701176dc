"""`lstm-research export`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file


def test_export_is_the_best_weights_with_their_config(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs")
    result = command("export", "--workdir=runs")
    assert result.code == 0, result.err
    assert result.err == ""
    written = result.out.split()
    assert written == [f"runs/export/{name}" for name in
                       ("model.safetensors", "config.json", "vocabulary.json", "dataset.json")]  # fmt: skip
    exported, best = load_file(written[0]), load_file("runs/best/model.safetensors")
    assert exported.keys() == best.keys()
    assert {"embedding.table", "stack.layer_0.params.input_kernel", "output.kernel"} <= exported.keys()
    for name, array in exported.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, best[name])
    with safe_open(written[0], framework="numpy") as file:
        metadata = file.metadata()
    config = json.loads(Path("runs/config.json").read_text())
    assert json.loads(metadata["config"]) == json.loads(Path("runs/export/config.json").read_text()) == config
    assert metadata["step"] == "8"
    assert metadata["config_digest"] == json.loads(Path("runs/status.json").read_text())["config_digest"]


def test_output_and_checkpoint(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs")
    for name, checkpoint in (("a/b", "4"), ("c", "latest")):
        result = command("export", "--workdir=runs", f"--output={name}", f"--checkpoint={checkpoint}")
        assert result.code == 0, result.err
    assert not Path("runs/export").exists()
    early, late, best = (load_file(f) for f in ("a/b/model.safetensors", "c/model.safetensors",
                                                "runs/best/model.safetensors"))  # fmt: skip
    np.testing.assert_array_equal(late["output.kernel"], best["output.kernel"])
    assert not np.array_equal(early["output.kernel"], best["output.kernel"])


def test_refuses_output(refused: Callable[..., str], trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs")
    assert "recipe.py: file exists" in refused("export", "--workdir=runs", "--output=recipe.py")
    assert "recipe.py/x: not a directory" in refused("export", "--workdir=runs", "--output=recipe.py/x")
