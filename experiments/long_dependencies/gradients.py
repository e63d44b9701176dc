"""Draws how far gradients reach in the runs of this study: before training, and with the best weights.

python experiments/long_dependencies/gradients.py --runs=runs/long_dependencies
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lstm_research.analysis.dynamics import ByLag, batch_of, first_jacobian, random_weights
from lstm_research.analysis.figures import save_figure
from lstm_research.training.trained_run import TrainedRun

PROBLEMS = {"adding": "adding, T = 400", "order": "temporal order, T = 200"}
CELLS = {"lstm": "#3b82c4", "rnn": "#e0792b"}
# Below this float32 has no numbers.
SMALLEST = 1e-38


def jacobians(runs: Path, name: str) -> list[tuple[ByLag, ByLag]]:
    """Returns for each finished seed ‖∂h_T/∂s_t‖ / √P by lag, of random weights and of the best ones."""
    found = []
    for workdir in sorted(runs.glob(f"{name}-[0-9]")):
        run = TrainedRun.load(workdir, "best")
        batch = batch_of(run.task)
        seed = int(workdir.name.rpartition("-")[2])
        found.append(
            (
                first_jacobian(run.task, batch, random_weights(run.task, seed)),
                first_jacobian(run.task, batch, run.params),
            )
        )
    return found


def draw(axes: Axes, by_cell: dict[str, list[ByLag]]) -> None:
    """Draws a line for every seed and field of the state; h is dashed where there is a c."""
    for cell, seeds in by_cell.items():
        for number, fields in enumerate(seeds):
            for field, norms in fields.items():
                style = "--" if field == "h" and "c" in fields else "-"
                label = None if number else f"{cell.upper()}, {field}"
                shown = np.where(norms > SMALLEST, norms, np.nan)
                axes.plot(np.arange(1, len(norms) + 1), shown, style, color=CELLS[cell], lw=1, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-20, 1e3)
    axes.grid(alpha=0.3)


def main() -> None:
    """Writes the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    arguments = parser.parse_args()
    names = [f"{problem}-{cell}" for problem in PROBLEMS for cell in CELLS]
    if missing := [name for name in names if not any(arguments.runs.glob(f"{name}-[0-9]"))]:
        parser.error(f"--runs: {arguments.runs} holds no run of {', '.join(missing)}")
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True, sharex="row")
    for row, (problem, title) in zip(panels, PROBLEMS.items(), strict=True):
        found = {cell: jacobians(arguments.runs, f"{problem}-{cell}") for cell in CELLS}
        for column, moment in enumerate(("before training", "best weights")):
            draw(row[column], {cell: [pair[column] for pair in pairs] for cell, pairs in found.items()})
            row[column].set_title(f"{title}: {moment}", fontsize=10)
            row[column].set_xlabel("steps before the end")
        row[0].set_ylabel("‖∂h_T/∂s_t‖ / √P")
    panels[0][0].legend(loc="lower left", fontsize=8)
    save_figure(figure, Path(__file__).with_name("gradients.png"), "the figure")


if __name__ == "__main__":
    main()
