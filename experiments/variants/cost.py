"""Measures what a training step of each run of this study costs: time, the variants of a task in turn, and memory.

python experiments/variants/cost.py --runs=runs/variants

Writes `cost.csv`: milliseconds a step (the median of rounds), and the memory that the compiled step needs beside its
arguments. Give the machine nothing else to do meanwhile.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

from lstm_research.training.experiment import Experiment

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # as `study.py` has it, of which runs.py is a part
from variants.runs import GROUPS  # noqa: E402

ROUNDS, STEPS = 7, 5


class Step:
    """The compiled training step of a run, from its first state, on its first batch."""

    def __init__(self, workdir: Path):
        experiment = Experiment.from_config(json.loads((workdir / "config.json").read_text()))
        self._state = experiment.init_state()
        self._batch: Any = jax.device_put(next(iter(experiment.train_iterator(0))))
        self._run = experiment.train_step.lower(self._state, self._batch).compile()
        self.memory: int = self._run.memory_analysis().temp_size_in_bytes

    def milliseconds(self) -> float:
        """Returns the time of one of a few steps."""
        start = time.perf_counter()
        for _ in range(STEPS):
            self._state, metrics = self._run(self._state, self._batch)
        jax.block_until_ready(metrics)
        return 1e3 * (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measures the runs that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    folder = parser.parse_args().runs
    rows = []
    for task, runs in GROUPS.items():
        workdirs = {run.name: run.workdir(run.seeds[0], folder) for run in runs}
        steps = {name: Step(workdir) for name, workdir in workdirs.items() if (workdir / "config.json").exists()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                times[name].append(step.milliseconds())
        for name, step in steps.items():
            row = {"group": task, "name": name, "milliseconds": round(statistics.median(times[name][1:]), 2)}
            rows.append(row | {"mebibytes": round(step.memory / 2**20, 1)})
            print(*rows[-1].values(), sep="\t", flush=True)
    if not rows:
        parser.error(f"--runs: {folder} holds no run of this study")
    with (HERE / "cost.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
