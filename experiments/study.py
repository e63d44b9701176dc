"""Runs the comparisons of a study one after another, and writes what came out to its `results.csv`.

Their configs go to its `configs.json`, see `frozen.py`.

    python experiments/study.py text_tasks --runs=runs/text_tasks sentiment translation
    python experiments/study.py text_tasks --runs=runs/text_tasks --collect

A study is a folder beside this file; its `runs.py` lists them by group. Every run is one `lstm-research train`; one
that is finished is left alone, one that was stopped goes on.
"""

import argparse
import csv
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frozen import write_configs

from lstm_research.training.metrics import read_metrics

HERE = Path(__file__).parent
ROOT = HERE.parent


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


def collect(groups: Mapping[str, Sequence[Run]], runs: Path, results: Path) -> None:
    """Writes a line for every finished run; leaves what is there alone if there is none."""
    rows: list[dict[str, Any]] = []
    workdirs: dict[str, Path] = {}
    for group, members in groups.items():
        for run in members:
            for seed in run.seeds:
                metrics = run.workdir(seed, runs) / "metrics.jsonl"
                lines = read_metrics(metrics) if metrics.exists() else []
                if not lines or lines[-1]["split"] != "test":
                    continue
                workdirs.setdefault(run.name, run.workdir(seed, runs))
                status = json.loads((run.workdir(seed, runs) / "status.json").read_text())
                training = max(line["seconds"] for line in lines if line["split"] != "test")
                test = {key: value for key, value in lines[-1].items() if key not in ("split", "seconds")}
                rows.append(
                    {"group": group, "name": run.name, "seed": seed, "seconds": round(training, 1)}
                    | {f"valid_{status['best']['metric']}": status["best"]["value"], **test}
                )
    if not rows:
        print(f"no finished run of this study in {runs}; {results.name} stays as it is, check --runs", file=sys.stderr)
        sys.exit(2)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with results.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    write_configs(results.parent, workdirs, runs)
    print(f"{len(rows)} finished runs in {results}")


def main() -> None:
    """Runs the groups that are named."""
    studies = sorted(path.parent.name for path in HERE.glob("*/runs.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=studies, help="which study")
    parser.add_argument("groups", nargs="*", help="what to run of it")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--collect", action="store_true", help="only collect results")
    arguments = parser.parse_intermixed_args()  # groups may stand after --runs
    groups: Mapping[str, Sequence[Run]] = importlib.import_module(f"{arguments.study}.runs").GROUPS
    for group in arguments.groups:
        if group not in groups:
            parser.error(f"{arguments.study} has no group {group!r}; valid: {', '.join(groups)}")
    results = HERE / arguments.study / "results.csv"
    for group in [] if arguments.collect else arguments.groups:
        for run in groups[group]:
            for seed in run.seeds:
                command = run.command(seed, arguments.runs.absolute())
                print("lstm-research", *command, flush=True)
                code = subprocess.run(
                    [sys.executable, "-m", "lstm_research", *command], check=False, cwd=ROOT
                ).returncode
                if code:  # it has said why
                    sys.exit(code)
        collect(groups, arguments.runs, results)
    if arguments.collect or not arguments.groups:
        collect(groups, arguments.runs, results)


if __name__ == "__main__":
    main()
