"""The keys of a generated problem's config that are its own."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows
from lstm_research.data.synthetic import SYNTHETIC_DATASETS
from lstm_research.tasks.synthetic import MODELS, Synthetic

BASE: Config = {
    "seed": 0,
    "dataset": {"name": "adding", "length": 6, "num_examples": 6},
    "vocabulary": {},
    "task": {"name": "synthetic", "batch_size": 2, "eval_batch_size": 4},
    "model": {
        "name": "sequence_model",
        "cell": {"name": "lstm", "hidden_size": 4},
        "num_layers": 1,
        "dropout": {},
    },
    **TRAINING,
}
# The smallest of every dataset.
SMALL: dict[str, Config] = {
    "copy": {"length": 3, "copy_length": 4},
    "digits": {"length": 64},
    "embedded_reber": {"length": 20},
    "even_pairs": {"length": 12},
    "mackey_glass": {"length": 8},
    "modular_arithmetic": {"length": 7},
    "noisy_sequence": {"length": 10},
    "parity": {"length": 12},
    "spike_delays": {"length": 30, "min_interval": 2},
    "temporal_order": {"length": 12},
    "timed_spikes": {"length": 30, "min_interval": 2},
}
CONTEXT: dict[str, Config] = {
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    **{
        f"dataset[{name}]": {
            "dataset": {"name": name, **choices, **({} if name == "digits" else {"num_examples": 6})},
        }
        for name, choices in SMALL.items()
    },
    "dataset[adding].original": {"dataset.length": 12},
    **{
        f"model[sequence_model].{key}": {"model.num_layers": 2}
        for key in ("highway", "residual", "skip", "last_hidden_size")
    },
    "model[sequence_model].merge": {"model.bidirectional": True},
}
OF_LANGUAGE = {"length": 13, "min_length": 5, "test_length": 15, "num_examples": 5}
OF_SPIKES = {"length": 31, "min_interval": 3, "max_offset": 2, "num_examples": 5}
KNOBS: dict[str, Any] = {
    **DROPOUT,
    **NUM_PARAMS,
    "dataset.name": {"name": "parity", "length": 12, "num_examples": 6},
    **rows("dataset[adding].", {"length": 7, "original": True, "num_examples": 5}),
    **rows("dataset[copy].", {"length": 4, "num_symbols": 3, "copy_length": 5, "num_examples": 5}),
    **rows("dataset[digits].", {"length": 65, "unit": "row", "permuted": True}),
    **rows("dataset[embedded_reber].", {"length": 21, "loop_rate": 0.9, "num_examples": 5}),
    **rows("dataset[even_pairs].", OF_LANGUAGE),
    **rows("dataset[mackey_glass].", {"length": 9, "delay": 18, "horizon": 1, "interval": 5, "num_examples": 5}),
    **rows("dataset[modular_arithmetic].", OF_LANGUAGE | {"length": 9, "modulus": 3}),
    **rows("dataset[noisy_sequence].", {"length": 11, "signal_length": 1, "noisy_signal": True, "num_examples": 5}),
    **rows("dataset[parity].", OF_LANGUAGE),
    **rows("dataset[spike_delays].", OF_SPIKES),
    **rows("dataset[temporal_order].", {"length": 13, "num_relevant": 3, "num_examples": 5}),
    **rows("dataset[timed_spikes].", OF_SPIKES),
    "task.name": Refused("another_task"),
    **rows("task[synthetic].", {"batch_size": 3, "eval_batch_size": 3}),
    "model.name": Refused("another_model"),
    **rows("model[sequence_model].", {"embedding_size": 3, "num_layers": 2, "residual": True, "last_hidden_size": 3}),
    **rows("model[sequence_model].", {"highway": True, "skip": True, "skip_output": True, "bidirectional": True}),
    **rows("model[sequence_model].", {"merge": "sum", "engine": Refused("warp"), "remat": True}),
    **rows("model[sequence_model].", {"dtype": "bfloat16", "param_dtype": "bfloat16"}),
    "model[sequence_model].cell": {"name": "gru", "hidden_size": 4},
    "model[sequence_model].dropout": {"input_rate": 0.5},
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (SYNTHETIC_DATASETS, set()),
        "task": ({"synthetic": Synthetic}, {"dataset", "vocabulary", "model", "files"}),
        "model": (MODELS, {"input_size", "num_outputs", "rngs"}),
    },
    refuses_data=("model.dropout.embedding_rate",),  # there are no words
)
