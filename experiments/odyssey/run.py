"""Runs the sweeps of this study, one for each task; the same command goes on.

python experiments/odyssey/run.py --runs=runs/odyssey
python experiments/odyssey/run.py --runs=runs/odyssey --tasks language -- --pack=6
python experiments/odyssey/run.py --runs=runs/odyssey_gpu --gpu
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# What all variants share: the recipe and what is overridden in it.
TASKS: dict[str, tuple[str, dict[str, object]]] = {
    "language": (
        "quickstart.py",
        {
            "model.num_params": 60_000,
            "model.embedding_size": 32,
            "training.num_steps": 800,
            "training.eval_every": 200,
            "training.checkpoint_every": 400,
        },
    ),
    "speech": (
        "speech.py:forward",
        {
            "model.num_params": 40_000,
            "model.num_layers": 1,
            "training.num_steps": 400,
            "training.checkpoint_every": 400,
            "training.metric": "loss",
        },
    ),
    "sentiment": (
        "sentiment.py:forward",
        {
            "model.embedding_size": 32,
            "model.num_params": 340_000,
            "training.num_steps": 800,
            "training.checkpoint_every": 400,
            "training.metric": "loss",
        },
    ),
    "order": (
        "synthetic.py:temporal_order,rnn",  # which leaves chrono initialisation out: not every variant can have it
        {
            "dataset.length": 50,
            "model.num_params": 6000,
            "training.num_steps": 1500,
            "training.eval_every": 500,
        },
    ),
}
# What differs with --gpu, beside the number of draws.
ON_A_GPU: dict[str, dict[str, object]] = {
    "language": {
        "model.num_params": 1_000_000,
        "model.embedding_size": 64,
        "training.num_steps": 5000,
        "training.eval_every": 1000,
        "training.checkpoint_every": 1000,
    },
    "speech": {"model.num_params": 400_000, "training.num_steps": 3000, "training.checkpoint_every": 1000},
    "sentiment": {"model.num_params": 400_000, "training.num_steps": 1600},
    "order": {"dataset.length": 100, "model.num_params": 20_000, "training.num_steps": 10_000},
}


def command(task: str, folder: Path, gpu: bool) -> list[str]:
    """Returns the command of a task's sweep."""
    config, overrides = TASKS[task]
    overrides = {"model.cell.hidden_size": None} | overrides | (ON_A_GPU[task] if gpu else {})
    sweep = HERE / ("sweep_gpu.py" if gpu else "sweep.py")
    flags = [f"--sweep={sweep}", f"--workdir={folder}", "--engine=packed"]
    return [
        "sweep",
        f"--config=configs/{config}",
        *(f"--config.{key}={value}" for key, value in overrides.items()),
        *flags,
    ]


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the sweeps")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="all if left out")
    parser.add_argument("--gpu", action="store_true", help="the size for a GPU: 200 draws, larger models, more steps")
    parser.add_argument("flags", nargs="*", help="further flags of `lstm-research sweep`, after --")
    arguments = parser.parse_args()
    for task in arguments.tasks:
        words = [*command(task, arguments.runs.absolute() / task, arguments.gpu), *arguments.flags]
        print("lstm-research", *words, flush=True)
        code = subprocess.run([sys.executable, "-m", "lstm_research", *words], check=False, cwd=ROOT).returncode
        if code:  # it has said why
            sys.exit(code)


if __name__ == "__main__":
    main()
