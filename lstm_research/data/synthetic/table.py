"""Generated sequences as a table, for people and for plots."""

import csv
import io
from typing import Any

import numpy as np

from lstm_research.data.synthetic.base import Examples


def as_table(examples: Examples, outputs: np.ndarray | None = None) -> str:
    """Returns sequences as CSV, one step a line.

    The columns are `example`, `step`, `input_0` and so on, `target_0` and so on, empty where no answer counts, and
    `output_0` and so on. Answers that are classes are one column of the classes' numbers.

    Args:
      examples: the sequences.
      outputs: a model's answers: classes `[N, T]` or values `[N, T, O]`; None for a table without.
    """
    counted = examples.weights > 0
    targets = np.where(counted if examples.targets.ndim == 2 else counted[..., None], examples.targets, np.nan)
    arrays = {"input": examples.inputs, "target": targets} | ({} if outputs is None else {"output": outputs})
    columns = {name: array if array.ndim == 3 else array[..., None] for name, array in arrays.items()}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = (f"{name}_{index}" for name, array in columns.items() for index in range(array.shape[-1]))
    writer.writerow(["example", "step", *names])
    for example, length in enumerate(examples.lengths):
        for step in range(length):
            values = np.concatenate([array[example, step] for array in columns.values()])
            writer.writerow([example, step, *map(_number, values)])
    return table.getvalue()


def _number(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
