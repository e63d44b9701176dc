"""The programs in `experiments/launch`: those that need no other machine do what they say."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from knobs.files import write_files
from test_knobs import TABLES
from test_resume import CACHE, RECIPE

from lstm_research.training.metrics import read_metrics

LAUNCH = Path(__file__).parents[1] / "experiments" / "launch"
TRAIN = f"{shlex.quote(sys.executable)} -m lstm_research train"
# Stands for `train`: writes what it was given, and ends as the first file that appears says.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
number = [each for each in sys.argv if each.startswith("--process_id")] or ["alone"]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
given = {"flags": sys.argv[1:], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "xla": os.environ.get("XLA_FLAGS")}
Path(number[0] + ".tmp").write_text(json.dumps(given))
os.rename(number[0] + ".tmp", number[0] + ".json")
if "--wait" in sys.argv:
    time.sleep(20)
sys.exit(3 if "--fail" in sys.argv and "1" in number[0] else 0)
"""


def launch(script: str, *arguments: str, train: str = TRAIN, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "DEVICES")}
    return subprocess.Popen(
        [str(LAUNCH / script), *arguments],
        env=clean | {"TRAIN": train} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stand_in(folder: Path) -> str:
    (folder / "train.py").write_text(STAND_IN)
    return f"{shlex.quote(sys.executable)} train.py"


@pytest.fixture
def recipe(folder: Path) -> list[str]:
    """The flags that train a small language model on files of the folder."""
    write_files()
    config = json.loads(json.dumps(TABLES["language_modelling"].base))
    config["training"] |= {"num_steps": 6}
    Path("config.json").write_text(json.dumps(config))
    Path("recipe.py").write_text(RECIPE)
    return ["--config=recipe.py", "--workdir=run"]


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_is_well_formed_and_says_how_it_is_used(script: str) -> None:
    subprocess.run(["bash", "-n", str(LAUNCH / script)], check=True)
    process = launch(script)
    assert "usage: " in process.communicate(timeout=30)[1]
    assert process.returncode == 2


def given(name: str) -> Any:
    return json.loads(Path(f"{name}.json").read_text())


def test_every_process_has_its_number_and_its_gpu(stand_in: str) -> None:
    process = launch("gpus.sh", "each", "--workdir=a b", train=stand_in, CUDA_VISIBLE_DEVICES="4,7")
    process.communicate(timeout=30)
    assert process.returncode == 0
    first, second = (given(f"--process_id={index}") for index in range(2))
    assert (first["gpus"], second["gpus"]) == ("4", "7")
    assert first["flags"][0] == "--workdir=a b"
    assert "--num_processes=2" in first["flags"]
    assert first["flags"][1:3] == second["flags"][1:3]  # the address, too
    assert "--xla_gpu_deterministic_ops=true" in first["xla"]


@pytest.mark.parametrize("visible", [{}, {"CUDA_VISIBLE_DEVICES": ""}])
def test_no_gpu_is_one_line(visible: dict[str, str], folder: Path) -> None:
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # as without a driver
    (folder / "nvidia-smi").chmod(0o755)
    process = launch("gpus.sh", "each", "--workdir=run", **visible, PATH=f"{folder}:{os.environ['PATH']}")
    (line,) = process.communicate(timeout=30)[1].splitlines()
    assert "no GPU: neither nvidia-smi nor CUDA_VISIBLE_DEVICES names one" in line
    assert process.returncode == 2


def test_the_cluster_of_ray_is_one_that_it_accepts() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(util.prepare_config(yaml.safe_load((LAUNCH / "ray_cluster.yaml").read_text())))


def test_one_process_has_all_gpus(stand_in: str) -> None:
    process = launch("gpus.sh", "one", "--workdir=run", train=stand_in, CUDA_VISIBLE_DEVICES="4,7")
    process.communicate(timeout=30)
    assert (process.returncode, given("alone")["gpus"], given("alone")["flags"]) == (0, "4,7", ["--workdir=run"])


def test_the_exit_code_is_that_of_the_one_that_failed(stand_in: str) -> None:
    process = launch("local.sh", "3", "--fail", train=stand_in)
    process.communicate(timeout=30)
    assert process.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_processes(stand_in: str, number: signal.Signals) -> None:
    process = launch("local.sh", "2", "--wait", train=stand_in)
    wait_for([Path(f"--process_id={index}.json") for index in range(2)])
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 143


def wait_for(paths: Sequence[Path], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.02)


def test_two_processes_on_cpus(recipe: list[str]) -> None:
    process = launch("local.sh", "2", *recipe, JAX_PLATFORMS="cpu", **CACHE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [line["step"] for line in read_metrics(Path("run/metrics.jsonl"))][-1] == 6


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program `slurm.py`."""
    pytest.importorskip("submitit")
    import cloudpickle

    spec = importlib.util.spec_from_file_location("launch_slurm", LAUNCH / "slurm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "launch_slurm", module)
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)  # as of a program that was started by its name
    return module


def test_what_slurm_is_asked_for(slurm: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"srun": "", "sbatch": 'cp "$1" asked\necho Submitted batch job 12'}.items():
        Path(name).write_text(f"#!/bin/sh\n{text}\n")
        Path(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    submitted = []
    training = slurm.Training
    monkeypatch.setattr(slurm, "Training", lambda flags: submitted.append(flags) or training(flags))
    arguments = ["--nodes=2", "--gpus=4", "--hours=1.5", "--partition=gpu", "--logs=logs", "--", "--workdir=run"]
    assert slurm.main(arguments) == 0
    assert submitted == [["--workdir=run", "--distributed"]]
    asked = Path("asked").read_text()
    for option in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "time=90", "partition=gpu", "signal=USR2@120"):
        assert f"#SBATCH --{option}\n" in asked


def test_no_slurm_is_one_line(
    slurm: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(SystemExit, match="2"):
        slurm.main(["--", "--workdir=run"])
    assert 'error: Could not detect "srun"' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # submitit's process, other than this one, has no JAX
def test_a_job_hands_on_what_preempts_it(slurm: Any, stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def start_and_signal(command: Sequence[str], **options: Any) -> Any:
        process = start([*shlex.split(stand_in), "--wait"], **options)
        wait_for([Path("alone.json")])
        process.send_signal(signal.SIGUSR2)  # which is for submitit, and comes to every process on some clusters
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return process

    monkeypatch.setattr(slurm.subprocess, "Popen", start_and_signal)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit does
    try:
        with pytest.raises(RuntimeError, match="told to stop, and saved"):
            slurm.Training(["--workdir=run"])()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.whole  # jobs of sweeps that are queued again are tested in any case
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # submitit leaves its own files to the garbage collection
def test_slurm_queues_again_what_ran_out_of_time(
    slurm: Any, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CACHE.items():
        monkeypatch.setenv(name, value)
    submit = slurm.submitit.AutoExecutor.submit

    def submit_and_interrupt(self: Any, function: Any) -> Any:
        job = submit(self, function)
        wait_for([Path("run/metrics.jsonl")])
        training = json.loads(Path("run/environment.json").read_text())["process"]
        status = Path(f"/proc/{training}/status").read_text()
        os.kill(int(re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)[1]), signal.SIGUSR2)  # type: ignore[index]
        return job

    monkeypatch.setattr(slurm.submitit.AutoExecutor, "submit", submit_and_interrupt)
    flags = [*recipe, "--config.training.num_steps=400"]
    assert slurm.main(["--executor=local", "--logs=logs", "--hours=0.1", "--", *flags]) == 0
    assert json.loads(Path("run/status.json").read_text())["state"] == "finished"
    assert "going on from step" in Path("run/train.log").read_text()
