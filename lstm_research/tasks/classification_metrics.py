"""What the predictions of a classifier or a regression are worth, from sums that add up over batches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Float, Int

NUM_BINS = 15
"""Of the calibration error, as in Guo et al."""

NUM_RESAMPLES = 1000
"""Of the bootstrap."""


def confusion_sums(
    labels: Int[Array, "B"], predicted: Int[Array, "B"], weights: Float[Array, "B"], num_classes: int
) -> Float[Array, "C C"]:
    """Returns how many examples of each class (row) were taken for each class (column)."""
    return jnp.zeros((num_classes, num_classes)).at[labels, predicted].add(weights)


def calibration_sums(
    logits: Float[Array, "B C"], labels: Int[Array, "B"], weights: Float[Array, "B"]
) -> Float[Array, "bins 3"]:
    """Returns for each bin of confidence the number of examples, their summed confidence, and how many are right."""
    probabilities = jax.nn.softmax(logits)
    confidence = probabilities.max(axis=-1)
    correct = probabilities.argmax(axis=-1) == labels
    bins = jnp.clip(jnp.ceil(confidence * NUM_BINS).astype(jnp.int32) - 1, 0, NUM_BINS - 1)
    rows = jnp.stack([jnp.ones_like(confidence), confidence, correct.astype(confidence.dtype)], axis=-1)
    return jnp.zeros((NUM_BINS, 3)).at[bins].add(rows * weights[:, None])


def moment_sums(
    targets: Float[Array, "B"], predictions: Float[Array, "B"], weights: Float[Array, "B"]
) -> Float[Array, "5"]:
    """Returns the weighted sums of y, p, y², p² and y p: all that a correlation needs."""
    y, p = targets, predictions
    return jnp.stack([y, p, y * y, p * p, y * p]) @ weights


def calibration_error(bins: Float[np.ndarray, "bins 3"]) -> float:
    """Returns the expected calibration error from the sums of `calibration_sums`.

        ECE = Σ_m (n_m / n) |accuracy_m - confidence_m|        over 15 bins ((m-1)/15, m/15] of the confidence

    The confidence is the probability of the predicted class. Guo, Pleiss, Sun and Weinberger, "On Calibration of
    Modern Neural Networks", 2017.
    """
    return float(np.abs(bins[:, 2] - bins[:, 1]).sum() / bins[:, 0].sum())


def pearson(moments: Float[np.ndarray, "5"], count: float) -> float:
    """Returns the correlation from the sums of `moment_sums`; 0 where one side does not vary."""
    y, p, yy, pp, yp = moments / count
    spread = max(yy - y * y, 0.0) * max(pp - p * p, 0.0)
    return float((yp - y * p) / math.sqrt(spread)) if spread > 0 else 0.0


def classification_metrics(confusion: Float[np.ndarray, "C C"]) -> dict[str, float]:
    """Returns accuracy and macro F1 of a confusion matrix.

    Macro F1 is the mean of 2 tp / (2 tp + fp + fn) over the classes that occur among labels or predictions.

    Args:
      confusion: true classes in rows, predicted ones in columns.
    """
    true_positives = np.diagonal(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)  # 2 tp + fp + fn
    f1 = 2 * true_positives / np.maximum(occurrences, 1)
    return {
        "accuracy": float(true_positives.sum() / confusion.sum()),
        "macro_f1": float(f1.sum() / (occurrences > 0).sum()),
    }


def bootstrap_intervals(confusion: Float[np.ndarray, "C C"]) -> dict[str, float]:
    """Returns the ends of 95 % intervals of accuracy and macro F1: `accuracy_low`, `accuracy_high` and so on.

    They are those of the percentile bootstrap (Efron, 1979). Examples drawn with replacement have a confusion matrix
    whose cells are of a multinomial distribution, so the matrix is drawn, with a fixed seed.
    """
    generator, (rows, columns) = np.random.default_rng(0), np.nonzero(confusion)
    cells = confusion[rows, columns]
    resampled: dict[str, list[float]] = {}
    for _ in range(NUM_RESAMPLES):  # one by one: with many classes a thousand matrices would be much memory
        draw = np.zeros(confusion.shape)
        draw[rows, columns] = generator.multinomial(round(cells.sum()), cells / cells.sum())
        for name, value in classification_metrics(draw).items():
            resampled.setdefault(name, []).append(value)
    ends: dict[str, float] = {}
    for name, values in resampled.items():
        low, high = np.percentile(values, [2.5, 97.5])
        ends |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return ends


def confusion_table(confusion: Float[np.ndarray, "C C"], labels: Sequence[str]) -> str:
    """Returns a confusion matrix as text, true classes in rows."""
    cells = [["", *labels]] + [
        [label, *(f"{count:.0f}" for count in row)] for label, row in zip(labels, confusion, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(lines) + "\n"


def report(sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
    """Returns the metrics of `TextClassification` from its sums; numbers are means, arrays what is made of them."""
    metrics = {name: float(total / count) for name, (total, count) in sums.items() if np.ndim(total) == 0}
    if "confusion" in sums:
        metrics |= classification_metrics(sums["confusion"][0])
        metrics["calibration_error"] = calibration_error(sums["calibration"][0])
    if "moments" in sums:
        metrics["pearson"] = pearson(*sums["moments"])
    return metrics
