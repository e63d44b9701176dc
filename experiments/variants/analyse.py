"""Compares the variants of this study: `quality.png`, and the tables of its README on standard output.

python experiments/variants/analyse.py

Reads `results.csv` of `study.py` and `cost.csv` of `cost.py`.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from lstm_research.analysis.figures import save_figure

HERE = Path(__file__).parent
# What a task is judged by: the test metric's name, what a table calls it, and the factor between them.
METRICS = {
    "language": ("bits_per_character", "bits per character", 1.0),
    "sentiment": ("accuracy", "accuracy, %", 100.0),
    "translation": ("perplexity", "perplexity", 1.0),
    "speech": ("cer", "character error rate, %", 100.0),
    "forecasting": ("mse", "squared error", 1.0),
}


def read(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a table."""
    if not path.exists():
        print(f"there is no {path.name} yet; it is written by the commands in {HERE.name}/README.md", file=sys.stderr)
        sys.exit(2)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_variant(task: str, results: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Returns the test metric of each seed by variant."""
    metric, _, factor = METRICS[task.partition("_")[0]]
    found: dict[str, list[float]] = {}
    for row in results:
        if row["group"] == task:
            found.setdefault(row["name"].removeprefix(f"{task}-"), []).append(factor * float(row[metric]))
    return {name: np.array(values) for name, values in found.items()}


def half_width(values: np.ndarray) -> float:
    """Returns half the 95 % interval of the mean over seeds, by Student's t."""
    return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def main() -> None:
    """Writes what there is."""
    results, costs = read(HERE / "results.csv"), read(HERE / "cost.csv")
    cost = {row["name"]: (float(row["milliseconds"]), float(row["mebibytes"])) for row in costs}
    tasks = list(dict.fromkeys(row["group"] for row in results))
    figure = Figure(figsize=(4.2 * len(tasks), 3.6), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        variants = by_variant(task, results)
        title = METRICS[task.partition("_")[0]][1]
        print(f"\n| {task} | {title} | seeds | ms a step | MiB |\n| --- | --- | --- | --- | --- |")
        for x, (name, values) in enumerate(variants.items()):
            axes.plot(np.full(len(values), x), values, ".", color="#3b82c4", alpha=0.6)
            axes.errorbar(x, values.mean(), half_width(values), fmt="_", color="#e0792b", capsize=4)
            seeds = ", ".join(f"{value:.4g}" for value in values)
            milliseconds, mebibytes = cost[f"{task}-{name}"]
            mean = f"{values.mean():.4g} ± {half_width(values):.2g}"
            print(f"| {name} | {mean} | {seeds} | {milliseconds:.1f} | {mebibytes:.0f} |")
        axes.set_xticks(range(len(variants)), variants, rotation=60)
        axes.set_title(task, fontsize=10)
        axes.set_ylabel(f"test {title}")
        axes.grid(alpha=0.3)
    save_figure(figure, HERE / "quality.png", "the figure")


if __name__ == "__main__":
    main()
