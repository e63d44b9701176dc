"""Runs the sweeps of this study, one for each task; the same command goes on.

python experiments/odyssey/run.py --runs=runs/odyssey
python experiments/odyssey/run.py --runs=runs/odyssey --tasks=language -- --pack=32
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

SIZED = "--config.model.cell.hidden_size=None"
TASKS: dict[str, tuple[str, ...]] = {
    "language": (
        "--config=configs/quickstart.py",
        SIZED,
        "--config.model.num_params=60000",
        "--config.model.embedding_size=32",
        "--config.training.num_steps=800",
        "--config.training.eval_every=200",
        "--config.training.checkpoint_every=400",
    ),
    "speech": (
        "--config=configs/speech.py:forward",
        SIZED,
        "--config.model.num_params=40000",
        "--config.model.num_layers=1",
        "--config.training.num_steps=400",
        "--config.training.checkpoint_every=400",
        "--config.training.metric=loss",
    ),
    "sentiment": (
        "--config=configs/sentiment.py:forward",
        SIZED,
        "--config.model.embedding_size=32",
        "--config.model.num_params=340000",
        "--config.training.num_steps=800",
        "--config.training.checkpoint_every=400",
        "--config.training.metric=loss",
    ),
    "order": (
        "--config=configs/synthetic.py:temporal_order",
        SIZED,
        "--config.model.num_params=6000",
        "--config.model.cell.chrono_max_length=None",
        "--config.training.num_steps=1500",
        "--config.training.eval_every=500",
    ),
}


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the sweeps")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="all if left out")
    parser.add_argument("flags", nargs="*", help="further flags of `lstm-research sweep`, after --")
    arguments = parser.parse_args()
    for task in arguments.tasks:
        folder = arguments.runs.absolute() / task
        command = ["sweep", *TASKS[task], f"--sweep={HERE / 'sweep.py'}", f"--workdir={folder}", "--engine=packed"]
        print("lstm-research", *command, *arguments.flags, flush=True)
        code = subprocess.run(
            [sys.executable, "-m", "lstm_research", *command, *arguments.flags], check=False, cwd=ROOT
        ).returncode
        if code:  # it has said why
            sys.exit(code)


if __name__ == "__main__":
    main()
