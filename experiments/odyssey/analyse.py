"""Compares the variants of this study: `results.csv`, `ranking.png`, and the tables of its README on standard output.

python experiments/odyssey/analyse.py --runs=runs/odyssey
python experiments/odyssey/analyse.py --runs=runs/odyssey_gpu --output=runs/odyssey_gpu
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from run import TASKS
from scipy import stats
from sweep import VARIANTS

from lstm_research.analysis.figures import save_figure
from lstm_research.sweeps.importance import importances
from lstm_research.sweeps.results import Sweep, read_sweep
from lstm_research.sweeps.trial import FINISHED, Trial

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from frozen import write_configs  # noqa: E402

VANILLA = VARIANTS[0]
NAME = "model.cell.name"
# The part of a variant's trials that it is judged by; the paper takes the best tenth of 200.
BEST = 0.25


class Row(NamedTuple):
    """A trial: the variant, which of the draws it has, and its losses; NaN if it diverged."""

    variant: str
    draw: int
    trial: Trial
    valid: float
    test: float


def read_rows(sweep: Sweep) -> list[Row]:
    """Returns the trials of a sweep that are over."""
    rows = []
    for trial in sweep.trials:
        if trial.is_over:
            finished = trial.state == FINISHED and trial.value is not None
            valid, test = (trial.value, trial.test.get("loss", np.nan)) if finished else (np.nan, np.nan)
            draws = sum(point[NAME] == VANILLA for point in sweep.definition.points or ())
            rows.append(Row(trial.overrides[NAME], trial.number % draws, trial, float(valid), float(test)))
    return rows


def best_of(rows: list[Row], variant: str) -> list[float]:
    """Returns the test losses of the best part of a variant's trials, chosen by validation."""
    own = sorted((row.valid, row.test) for row in rows if row.variant == variant and np.isfinite(row.valid))
    count = max(2, round(BEST * sum(row.variant == variant for row in rows)))
    return [test for _, test in own[:count]]


def losses_by_draw(rows: list[Row]) -> tuple[list[str], np.ndarray]:
    """Returns the variants, and their validation losses `(draw, variant)`; a diverged trial is worse than any other."""
    variants = [name for name in VARIANTS if any(row.variant == name for row in rows)]
    losses = np.full((1 + max(row.draw for row in rows), len(variants)), np.inf)
    for row in rows:
        losses[row.draw, variants.index(row.variant)] = np.inf if np.isnan(row.valid) else row.valid
    return variants, losses


def print_ranking(task: str, rows: list[Row]) -> None:
    """Prints the table of a task, the best variant first."""
    print(f"\n| {task} | best | best quarter | Welch's p | mean rank | better on | Wilcoxon's p | diverged |")
    print("| --- " * 8 + "|")
    variants, losses = losses_by_draw(rows)
    ranks = stats.rankdata(losses, axis=1).mean(0)
    lines = []
    for variant, own, rank in zip(variants, losses.T, ranks, strict=True):
        best = best_of(rows, variant)
        welch = better = wilcoxon = ""
        if variant != VANILLA:
            vanilla = losses[:, variants.index(VANILLA)]
            both = np.isfinite(own) & np.isfinite(vanilla)
            welch = f"{stats.ttest_ind(best, best_of(rows, VANILLA), equal_var=False).pvalue:.3f}"
            better = f"{(own < vanilla)[both].sum()} of {both.sum()}"
            wilcoxon = f"{stats.wilcoxon(own[both], vanilla[both]).pvalue:.4f}"
        measured = f"{min(best):.4f} | {np.mean(best):.4f} | {welch} | {rank:.1f} | {better} | {wilcoxon}"
        lines.append((float(np.mean(best)), f"| {variant} | {measured} | {np.isinf(own).sum()} |"))
    print("\n".join(line for _, line in sorted(lines)))
    print(f"\nFriedman's test of equal ranks: p = {stats.friedmanchisquare(*losses.T).pvalue:.2g}")


def print_importance(by_task: dict[str, list[Row]]) -> None:
    """Prints the share of the variance of the validation loss that each key explains.

    It is that of the trials' ranks: of the losses, a few trials that all but diverged would be all the variance.
    """
    print("\n| share of the variance | " + " | ".join(by_task) + " |")
    print("| --- " * (len(by_task) + 1) + "|")
    shares = {}
    for task, rows in by_task.items():
        ranks = stats.rankdata([np.inf if np.isnan(row.valid) else row.valid for row in rows])
        shares[task] = importances([(row.trial.overrides, rank) for row, rank in zip(rows, ranks, strict=True)])
    for key in dict.fromkeys(key for each in shares.values() for key in each):
        print(f"| `{key}` | " + " | ".join(f"{100 * each.get(key, 0):.0f} %" for each in shares.values()) + " |")


def write_results(by_task: dict[str, list[Row]], path: Path) -> None:
    """Writes a line for every trial."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        keys = list(next(iter(by_task.values()))[0].trial.overrides)
        writer.writerow(["task", "draw", *keys, "state", "valid_loss", "test_loss", "seconds"])
        for task, rows in by_task.items():
            for row in rows:
                values = [row.trial.overrides[key] for key in keys]
                writer.writerow([task, row.draw, *values, row.trial.state, row.valid, row.test, row.trial.seconds])


def draw_ranking(by_task: dict[str, list[Row]], path: Path) -> None:
    """Draws the validation loss of every trial, and the median, by variant."""
    figure = Figure(figsize=(4.5 * len(by_task), 3.6), layout="constrained")
    for axes, (task, rows) in zip(figure.subplots(1, len(by_task), squeeze=False)[0], by_task.items(), strict=True):
        variants, losses = losses_by_draw(rows)
        for x, values in enumerate(losses.T):
            axes.plot(np.full(len(values), x), values, ".", color="#3b82c4", alpha=0.6)
            axes.plot([x - 0.3, x + 0.3], [np.median(values)] * 2, color="#e0792b")
        axes.set_xticks(range(len(variants)), [name.removesuffix("_lstm") for name in variants], rotation=60)
        axes.set_title(task, fontsize=10)
        axes.set_yscale("log")
        axes.set_ylabel("validation loss")
        axes.grid(alpha=0.3)
    save_figure(figure, path, "the figure")


def main() -> None:
    """Reads what is there of the sweeps, and compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the sweeps")
    parser.add_argument(
        "--output", type=Path, default=HERE, help="the folder to write to, this study's own if left out"
    )
    arguments = parser.parse_args()
    runs, output = arguments.runs, arguments.output
    by_task = {task: read_rows(read_sweep(runs / task)) for task in TASKS if (runs / task / "sweep.json").exists()}
    by_task = {task: rows for task, rows in by_task.items() if rows}
    if not by_task:
        parser.error(f"--runs: {runs} holds no sweep of {', '.join(TASKS)} with a trial that is over")
    output.mkdir(parents=True, exist_ok=True)
    write_results(by_task, output / "results.csv")
    write_configs(output, {task: rows[0].trial.workdir for task, rows in by_task.items()}, runs)
    draw_ranking(by_task, output / "ranking.png")
    for task, rows in by_task.items():
        print_ranking(task, rows)
    print_importance(by_task)


if __name__ == "__main__":
    main()
