"""Runs the comparisons of this folder one after another, and writes what came out to `results.csv`.

    python experiments/text_tasks/run.py --runs=runs/text_tasks sentiment translation
    python experiments/text_tasks/run.py --runs=runs/text_tasks --collect

Every run is one `lstm-research train`; one that is finished is left alone, one that was stopped goes on.
"""

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lstm_research.training.metrics import read_metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe with overrides, for some seeds."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    def command(self, seed: int, runs: Path) -> list[str]:
        """Returns the command of one seed."""
        overrides = [f"--config.{each}" for each in (f"seed={seed}", *self.overrides)]
        # A run may start from another one's weights: {runs} is where that lies.
        overrides = [each.replace("{runs}", str(runs)) for each in overrides]
        return ["train", f"--config=configs/{self.config}", f"--workdir={self.workdir(seed, runs)}", *overrides]

    def workdir(self, seed: int, runs: Path) -> Path:
        """Returns the folder of one seed."""
        return runs / f"{self.name}-{seed}"


SHORT = ("training.num_steps=2000",)
# The model of Dai and Le, "Semi-supervised Sequence Learning", 2015; the same with more pooling.
LAST, POOLED = "sentiment.py:imdb,warm_start,forward,last", "sentiment.py:imdb,warm_start,forward"
FURTHER = "training.init_from={runs}/imdb-lm-further-1"
# The rates that the recipes have from scratch.
SCRATCH = (
    "training.init_from=None",
    "optimizer.learning_rate=2e-3",
    "model.dropout.embedding_rate=0.3",
    "model.dropout.input_rate=0.3",
)
RT_SCRATCH = (
    "training.init_from=None",
    "optimizer.learning_rate=2e-3",
    "model.pooled_rate=0.7",
    "model.dropout.embedding_rate=0.4",
    "model.dropout.input_rate=0.4",
    "model.dropout.weight_rate=0.3",
)

GROUPS: dict[str, list[Run]] = {
    "sentiment": [
        # Seeds 0 to 2 were looked at while the recipe was made, the others after that.
        Run("rt-bidirectional-max-attention", "sentiment.py", seeds=(0, 1, 2, 3, 4, 5)),
        Run("rt-forward-max-attention", "sentiment.py:forward"),
        Run("rt-bidirectional-last", "sentiment.py:last"),
        Run("rt-forward-last", "sentiment.py:forward,last"),
    ],
    "imdb": [Run("imdb", "sentiment.py:imdb")],
    # As many steps as take about nine minutes on 2 quiet CPU cores with each of the two recipes.
    "language_models": [
        Run("word-lm", "word_lm.py", ("dataset.max_documents=1000", "training.num_steps=4000")),
        Run("awd-lstm", "awd_lstm.py", ("dataset.max_documents=1000", "training.num_steps=2000")),
    ],
    "warm_start": [
        Run("imdb-lm", "imdb_lm.py", seeds=(0,)),
        Run("imdb-last-warm", LAST, ("training.num_steps=800", "training.init_from={runs}/imdb-lm-0")),
        Run("imdb-last-scratch", LAST, ("training.num_steps=800", "training.init_from=None")),
        Run("imdb-lm-further", "imdb_lm.py:further", ("training.init_from={runs}/imdb-lm-0",), seeds=(1,)),
        Run("imdb-warm", POOLED, ("training.num_steps=800", FURTHER)),
        Run("imdb-scratch", POOLED, ("training.num_steps=800", *SCRATCH)),
        Run("rt-warm", "sentiment.py:warm_start", (FURTHER,)),
        Run("rt-scratch", "sentiment.py:warm_start", RT_SCRATCH),
    ],
    "translation": [Run("en-fr", "translation.py", seeds=(0,))],
    # What attention is worth, in runs of less than a third of the recipe's length.
    "attention": [
        Run("en-fr-2000-attention", "translation.py", SHORT),
        Run("en-fr-2000-no-attention", "translation.py:no_attention", SHORT),
    ],
    "japanese": [Run("ja-en", "translation.py:ja-en", seeds=(0,))],
}


def collect(runs: Path) -> None:
    """Writes a line for every finished run; leaves what is there alone if there is none."""
    rows: list[dict[str, Any]] = []
    for group, members in GROUPS.items():
        for run in members:
            for seed in run.seeds:
                metrics = run.workdir(seed, runs) / "metrics.jsonl"
                lines = read_metrics(metrics) if metrics.exists() else []
                if not lines or lines[-1]["split"] != "test":
                    continue
                status = json.loads((run.workdir(seed, runs) / "status.json").read_text())
                training = max(line["seconds"] for line in lines if line["split"] != "test")
                test = {key: value for key, value in lines[-1].items() if key not in ("split", "seconds")}
                rows.append(
                    {"group": group, "name": run.name, "seed": seed, "seconds": round(training, 1)}
                    | {f"valid_{status['best']['metric']}": status["best"]["value"], **test}
                )
    if not rows:
        print(f"no finished run of this study in {runs}; results.csv stays as it is, check --runs", file=sys.stderr)
        sys.exit(2)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} finished runs in {HERE / 'results.csv'}")


def main() -> None:
    """Runs the groups that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], help="what to run")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--collect", action="store_true", help="only collect results")
    arguments = parser.parse_args()
    for group in [] if arguments.collect else arguments.groups:
        for run in GROUPS[group]:
            for seed in run.seeds:
                command = run.command(seed, arguments.runs.absolute())
                print("lstm-research", *command, flush=True)
                subprocess.run([sys.executable, "-m", "lstm_research", *command], check=True, cwd=ROOT)
        collect(arguments.runs)
    if arguments.collect or not arguments.groups:
        collect(arguments.runs)


if __name__ == "__main__":
    main()
