"""`lstm-research data show --config`: sizes and the first batch, exactly as the model gets them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstm_research.data.dataset import SPLITS
from lstm_research.training.experiment import Experiment


def show_batches(console: Console, config: Any, dataset: Any, split: str, num: int) -> None:
    """Prints the sizes of all splits and rows of a split's first batch.

    Args:
      console: where to.
      config: of the run.
      dataset: of the config.
      split: whose rows are printed.
      num: how many.
    """
    task: Any = Experiment.from_config(config).task
    batch = (task.train_batches(config.seed) if split == "train" else task.eval_batches(split))[0]
    console.print(dataset.describe(), markup=False, highlight=False)
    for name, vocabulary in _vocabularies(task).items():
        console.print(f"{name}: {len(vocabulary):,} {vocabulary.kind}", highlight=False)
    for note in task.notes:
        console.print(note, markup=False, highlight=False)
    if "history" in batch:
        console.print(_origins(task))
    else:
        console.print(_windows(task, dataset, config.seed) if "resets" in batch else _lengths(task))
    rows = {"resets": _window_rows, "history": _series_rows, "labels": _labelled_rows, "source": _translation_rows}
    describe = next(function for key, function in rows.items() if key in batch)
    for row, (title, text) in zip(range(num), describe(task, batch), strict=False):
        console.rule(Text(f"{split}, batch 0, row {row}, {title}"), align="left")
        console.print(text, markup=False, highlight=False, emoji=False)


def _vocabularies(task: Any) -> dict[str, Any]:
    """Returns the vocabularies of a task by what to call them."""
    if hasattr(task, "vocabulary"):
        return {"vocabulary": task.vocabulary}
    if hasattr(task, "scaler"):
        return {}
    return {"source vocabulary": task.source_vocabulary, "target vocabulary": task.target_vocabulary}


def _windows(task: Any, dataset: Any, seed: int) -> Table:
    """The documents, tokens and windows of a language model."""
    windows = {"train": task.train_batches(seed), **{split: task.eval_batches(split) for split in SPLITS[1:]}}
    table = Table("split", "documents", "characters", "tokens", "unknown", "batch × window", "windows")
    for split, cut in windows.items():
        texts, tokens = dataset.documents(split), cut.stream.tokens
        table.add_row(
            split,
            f"{len(texts):,}",
            f"{sum(map(len, texts)):,}",
            f"{len(tokens):,}",
            f"{100 * task.vocabulary.count_unknown(tokens) / len(tokens):.2f} %",
            f"{cut.batch_size} × {cut.unroll_length}",
            f"{cut.windows_per_epoch:,} an epoch" if split == "train" else f"{len(cut):,}",
        )
    return table


def _lengths(task: Any) -> Table:
    """The examples, their lengths in tokens, and how much of the batches is padding."""
    table = Table("split", "examples", "tokens", "mean length", "longest", "padding", "batches")
    for split in SPLITS:
        batches = task.eval_batches(split)
        lengths: dict[str, list[int]] = {}
        padded: dict[str, int] = {}
        for batch in batches:
            for side, (array, found) in _sequences(batch).items():
                lengths.setdefault(side, []).extend(found)
                padded[side] = padded.get(side, 0) + len(found) * array.shape[1]
        for side, found in lengths.items():
            table.add_row(
                " ".join([split, side]).strip(),
                f"{len(found):,}",
                f"{sum(found):,}",
                f"{np.mean(found):.1f}",
                f"{max(found):,}",
                f"{100 - 100 * sum(found) / padded[side]:.0f} %",
                f"{len(batches):,}",
            )
    return table


def _sequences(batch: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, list[int]]]:
    """The token arrays of a batch and the lengths of their valid rows, by side."""
    weights = batch["weights"]
    if "labels" in batch:
        return {"": (batch["tokens"], batch["lengths"][weights > 0].tolist())}
    valid = weights.any(axis=1)
    targets = (weights > 0).sum(axis=1)
    return {
        "source": (batch["source"], batch["source_lengths"][valid].tolist()),
        "target": (batch["targets"], targets[valid].tolist()),
    }


def _origins(task: Any) -> Table:
    """The windows of series."""
    table = Table("split", "windows", "history", "horizon", "variables", "batches")
    for split in SPLITS:
        batches = task.eval_batches(split)
        sizes = len(batches.order), task.history, task.horizon, len(task.scaler.targets), len(batches)
        table.add_row(split, *(f"{size:,}" for size in sizes))
    return table


def _series_rows(task: Any, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    def numbers(values: np.ndarray, observed: np.ndarray) -> str:
        return " ".join(f"{x:.3g}" if seen else "NA" for x, seen in zip(values, observed, strict=True))

    sides = ("history", "history_observed"), ("targets", "weights")
    for row in range(len(batch["window"])):
        (past, seen), (future, counts) = ((batch[name][row] for name in side) for side in sides)
        yield (
            f"window {batch['window'][row]}, scaled, around its origin",
            "\n".join(
                f"{name}: ... {numbers(past[-6:, v], seen[-6:, v])} → {numbers(future[:6, v], counts[:6, v])} ..."
                for v, name in enumerate(task.scaler.targets)
            ),
        )


def _window_rows(task: Any, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    for tokens, weights in zip(batch["inputs"], batch["weights"], strict=True):
        yield f"the inputs of {int(weights.sum())} counted targets", task.vocabulary.decode(tokens)


def _labelled_rows(task: Any, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    names = task.labels.names
    for tokens, length, label in zip(batch["tokens"], batch["lengths"], batch["labels"], strict=True):
        what = f"{label:.3g} (standardised)" if names is None else names[label]
        yield f"{length} tokens, label {what}", task.vocabulary.decode(tokens[:length])


def _translation_rows(task: Any, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    source, target = (list(_vocabularies(task).values()) * 2)[:2]
    for row, length in enumerate(batch["source_lengths"]):
        num = int((batch["weights"][row] > 0).sum())
        texts = (source.decode(batch["source"][row, :length]), target.decode(batch["targets"][row, :num]))
        yield f"{length} and {num} tokens", "\n→ ".join(text.rstrip("\n") for text in texts)
