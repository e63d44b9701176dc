"""Draws the errors of the runs of this study while they learned, and what those of seed 0 answer.

python experiments/timing/curves.py --runs=runs/timing
"""

import argparse
import csv
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lstm_research.analysis.figures import save_figure
from lstm_research.training.metrics import read_metrics

CELLS = {"peephole": ("peephole LSTM", "#3b82c4"), "plain": ("LSTM", "#e0792b")}


def draw_errors(axes: Axes, workdirs: dict[str, list[Path]]) -> None:
    """Draws a line for every seed: the validation error by step."""
    for cell, folders in workdirs.items():
        for number, folder in enumerate(folders):
            lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["split"] == "valid"]
            name, color = CELLS[cell]
            label = None if number else name
            axes.plot([line["step"] for line in lines], [line["mse"] for line in lines], color=color, label=label)
    axes.axhline(lines[-1]["baseline"], color="gray", linestyle=":", label="without memory")
    axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel("validation, squared error")
    axes.legend(fontsize=8)


def draw_answers(axes: Axes, cell: str, workdir: Path) -> None:
    """Draws the first test sequence: when the spikes were due, and what the best weights made."""
    with (workdir / "samples" / "answers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["example"] == "0"]
    steps = [int(row["step"]) for row in rows]
    name, color = CELLS[cell]
    axes.plot(steps, [float(row["target_0"]) for row in rows], color="black", lw=0.8, label="target")
    axes.plot(steps, [float(row["output_0"]) for row in rows], color=color, lw=1.2, label=name)
    axes.set_xlabel("step of a test sequence")
    axes.legend(fontsize=8, loc="upper left")


def main() -> None:
    """Writes the figure beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    runs = parser.parse_args().runs
    workdirs = {cell: sorted(runs.glob(f"{cell}-[0-9]")) for cell in CELLS}
    if missing := [cell for cell, folders in workdirs.items() if not folders]:
        parser.error(f"--runs: {runs} holds no run of {', '.join(missing)}")
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    draw_errors(left.subplots(), workdirs)
    for axes, (cell, folders) in zip(right.subplots(2, 1, sharex=True, sharey=True), workdirs.items(), strict=True):
        draw_answers(axes, cell, folders[0])
    save_figure(figure, Path(__file__).with_name("curves.png"), "the figure")


if __name__ == "__main__":
    main()
