"""Small configs to pack. As a program it trains five of them as one: `python packed_trials.py FOLDER`."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = "To be or not to be that is the question\nWhether tis nobler in the mind to suffer\n"
CSV = "text,label\nto be,yes\nor not to be,no\nthat is the question,yes\nnot to sit,no\nto be it,yes\nwhether tis,no\n"
TRAINING = {"num_steps": 12, "log_every": 3, "eval_every": 6, "checkpoint_every": 5}


def language_model() -> dict[str, Any]:
    """A model with carry, noise of every kind and an average."""
    return {
        "seed": 0,
        "dataset": {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "valid.txt"},
        "vocabulary": {"name": "characters"},
        "task": {"name": "language_modelling", "batch_size": 3, "unroll_length": 6, "eval_batch_size": 2},
        "model": {
            "name": "language_model",
            "embedding_size": 6,
            "cell": {"name": "lstm", "hidden_size": 8},
            "num_layers": 1,
            "dropout": {"input_rate": 0.2},
        },
        "optimizer": {
            "name": "adam",
            "learning_rate": 0.01,
            "schedule": {"name": "cosine", "warmup_steps": 3},
            "clip_norm": 1.0,
        },
        "training": dict(TRAINING),
    }


def classifier() -> dict[str, Any]:
    """A model of texts of several lengths, in batches by length."""
    config = language_model()
    config["dataset"] = {"name": "csv", **dict.fromkeys(("train", "valid", "test"), "train.csv")}
    config["task"] = {
        "name": "text_classification",
        "batch_size": 2,
        "max_length": 32,
        "bucket_boundaries": (8, 16),
        "label_smoothing": 0.1,
    }
    config["model"] |= {"name": "classifier"}
    return config


def adding() -> dict[str, Any]:
    """A drawn problem."""
    config = language_model()
    config["dataset"] = {"name": "adding", "length": 8}
    config["vocabulary"] = {}
    config["task"] = {"name": "synthetic", "batch_size": 4}
    config["model"] = {
        "name": "sequence_model",
        "cell": {"name": "lstm", "hidden_size": 8},
        "num_layers": 1,
        "dropout": {},
    }
    return config


BASES = {"language_model": language_model, "classifier": classifier, "adding": adding}


def write_data(folder: Path) -> None:
    """Writes the files that the configs name."""
    (folder / "train.txt").write_text(TEXT * 3)
    (folder / "valid.txt").write_text(TEXT)
    (folder / "train.csv").write_text(CSV)


def trials(base: str, *changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns configs with some keys, by their dotted paths, set otherwise."""
    configs = []
    for change in changes:
        config = copy.deepcopy(BASES[base]())
        for path, value in change.items():
            *groups, key = path.split(".")
            section = config
            for group in groups:
                section = section.setdefault(group, {})
            section[key] = value
        configs.append(config)
    return configs


FIVE = [{"optimizer.learning_rate": 0.002 * (number + 1), "seed": number % 2} for number in range(5)]
"""What the trials of the program differ in."""

if __name__ == "__main__":
    from lstm_research.training.checkpoints import Checkpoints
    from lstm_research.training.packed import train_packed

    save = Checkpoints.save

    def announced_save(self: Checkpoints, step: int, *rest: Any) -> None:
        print(f"saving {step}", flush=True)
        save(self, step, *rest)

    Checkpoints.save = announced_save  # type: ignore[method-assign]
    outcomes = train_packed(trials("adding", *FIVE), [Path(sys.argv[1]) / str(number) for number in range(5)])
    sys.exit(max(outcome.code for outcome in outcomes))
