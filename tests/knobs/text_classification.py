"""The keys of a classifier's config that are its own."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.tasks.text_classification import MODELS, TextClassification

BASE: Config = {
    "seed": 0,
    "dataset": {"name": "csv", "train": "train.csv", "valid": "valid.csv", "test": "valid.csv"},
    "vocabulary": {"name": "words"},
    "task": {"name": "text_classification", "batch_size": 2, "max_length": 6, "eval_batch_size": 2},
    "model": {
        "name": "classifier",
        "embedding_size": 4,
        "cell": {"name": "lstm", "hidden_size": 4},
        "num_layers": 1,
        "dropout": {},
    },
    **TRAINING,
}
TFDS = {"name": "tfds", "dataset": "one", "data_dir": "there"}
MANY = {"name": "csv", "train": "many.csv"}
CONTEXT: dict[str, Config] = {
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    "dataset[vader]": {"dataset": {"name": "vader"}},
    "dataset[tfds]": {"dataset": TFDS},
    "dataset[csv].valid_fraction": {"dataset": MANY},
    "dataset[csv].test_fraction": {"dataset": MANY},
    "dataset[csv].target": {"dataset.label_column": "other"},
    "task[text_classification].truncate": {"task.max_length": 2, "task.truncate": True},
    "model[classifier].highway": {"model.num_layers": 2},
    "model[classifier].residual": {"model.num_layers": 2},
    "model[classifier].skip": {"model.num_layers": 2},
    "model[classifier].last_hidden_size": {"model.num_layers": 2},
    "model[classifier].merge": {"model.bidirectional": True, "model.pooling": ["max"]},
}
KNOBS: dict[str, Any] = {
    **DROPOUT,
    **NUM_PARAMS,
    "dataset.name": {"name": "rotten_tomatoes"},
    **rows("dataset[csv].", {"train": "many.csv", "valid": "train.csv", "test": "train.csv", "delimiter": ";"}),
    **rows("dataset[csv].", {"valid_fraction": 0.3, "test_fraction": 0.3, "text_column": "other"}),
    **rows("dataset[csv].", {"label_column": "other", "target": "score"}),
    **rows("dataset[vader].", {"part": "movies", "target": "score"}),
    **rows("dataset[tfds].", {"dataset": "two", "data_dir": "here", "text_feature": "title", "label_feature": "star"}),
    **rows("dataset[tfds].", {"train": "test", "valid": "test", "test": "train"}),
    "task.name": Refused("another_task"),
    **rows("task[text_classification].", {"batch_size": 3, "max_length": 5, "eval_batch_size": 3, "truncate": False}),
    **rows("task[text_classification].", {"bucket_boundaries": [3], "label_smoothing": 0.5, "vectors": "vectors.txt"}),
    "model.name": Refused("another_model"),
    **rows("model[classifier].", {"embedding_size": 3, "num_layers": 2, "residual": True, "last_hidden_size": 3}),
    **rows("model[classifier].", {"highway": True, "skip": True, "skip_output": True, "bidirectional": True}),
    **rows("model[classifier].", {"merge": "sum", "pooling": ["mean"], "pooled_rate": 0.5}),
    **rows(
        "model[classifier].", {"dtype": "bfloat16", "param_dtype": "bfloat16", "engine": Refused("warp"), "remat": True}
    ),
    "model[classifier].cell": {"name": "gru", "hidden_size": 4},
    "model[classifier].dropout": {"input_rate": 0.5},
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (LABELLED_DATASETS, set()),
        "task": ({"text_classification": TextClassification}, {"dataset", "vocabulary", "model", "files"}),
        "model": (MODELS, {"vocabulary_size", "num_outputs", "rngs"}),
    },
    refuses_data=("dataset[csv].delimiter", "task[text_classification].truncate"),
)
