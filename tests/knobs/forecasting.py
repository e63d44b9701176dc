"""The keys of a forecaster's config that are its own."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows
from lstm_research.data.series.datasets import ORIGINS, SERIES_DATASETS
from lstm_research.models.forecaster import FORECASTERS
from lstm_research.models.layers.distributions import DISTRIBUTIONS
from lstm_research.tasks.forecasting import Forecasting

CELL = {"name": "lstm", "hidden_size": 4}
BASE: Config = {
    "seed": 0,
    "dataset": {"name": "csv_series", "path": "series.csv", "target_columns": ["a", "b"]},
    "vocabulary": {},
    "task": {"name": "forecasting", "batch_size": 2, "history": 6, "horizon": 3, "eval_batch_size": 2, "season": 4},
    "model": {"name": "direct", "cell": CELL, "distribution": {"name": "point"}, "dropout": {}},
    **TRAINING,
}
DEEPAR = {"name": "deepar", "cell": CELL, "distribution": {"name": "student_t"}, "dropout": {}}
ENCODER_DECODER = {"name": "encoder_decoder", "cell": CELL, "distribution": {"name": "gaussian"}, "dropout": {}}
CONTEXT: dict[str, Config] = {
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    **{f"dataset[{name}]": {"dataset": {"name": name}} for name in ORIGINS},
    "dataset[csv_series].frequency": {"dataset.gaps": "fill"},
    "dataset[csv_series].gaps": {"dataset.path": "gaps.csv", "dataset.gaps": "fill"},
    "task[forecasting].num_samples": {"model": DEEPAR, "task.num_samples": 2},
    "model[direct].patch_stride": {"model.patch_length": 2},
    "model[encoder_decoder]": {"model": ENCODER_DECODER},
    "model[deepar]": {"model": DEEPAR, "task.num_samples": 2},
    "model.distribution[quantiles]": {"model.distribution": {"name": "quantiles"}},
}
OF_ALL_MODELS = {
    "num_layers": 2,
    "channels": "mixed",
    "normalization": "none",
    "identify_variables": True,
    "dtype": "bfloat16",
    "param_dtype": "bfloat16",
    "engine": Refused("warp"),
    "remat": True,
    "cell": {"name": "gru", "hidden_size": 4},
    "distribution": {"name": "quantiles"},
    "dropout": {"input_rate": 0.5},
}
KNOBS: dict[str, Any] = {
    **DROPOUT,
    **NUM_PARAMS,
    "dataset.name": {"name": "sunspots"},
    **{f"dataset[{name}].calendar": ["month"] for name in ORIGINS},
    **{
        f"dataset[{name}].targets": [origin.columns[-1]] if len(origin.columns) > 1 else Refused("no_such_variable")
        for name, origin in ORIGINS.items()
    },
    **rows(
        "dataset[csv_series].", {"path": "other_series.csv", "time_column": "other_time", "target_columns": ["a", "c"]}
    ),
    **rows("dataset[csv_series].", {"known_columns": ["price"], "static_columns": ["size"], "id_column": "shop"}),
    **rows("dataset[csv_series].", {"calendar": ["hour"], "frequency": "30min", "time_format": "%d.%m.%Y"}),
    **rows("dataset[csv_series].", {"gaps": "refuse", "valid": 0.3, "test": 0.3, "delimiter": ";"}),
    "task.name": Refused("another_task"),
    **rows("task[forecasting].", {"batch_size": 3, "history": 5, "horizon": 2, "eval_batch_size": 3}),
    **rows("task[forecasting].", {"eval_stride": 2, "season": 3, "num_samples": 5}),
    "model.name": Refused("another_model"),
    **rows("model[direct].", OF_ALL_MODELS | {"patch_length": 2, "patch_stride": 1, "linear": True}),
    **rows("model[encoder_decoder].", OF_ALL_MODELS),
    **rows("model[deepar].", OF_ALL_MODELS | {"lags": [1, 2]}),
    "model.distribution.name": {"name": "gaussian"},
    "model.distribution[point].error": "mae",
    "model.distribution[quantiles].levels": [0.1, 0.5, 0.9],
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (SERIES_DATASETS, set()),
        "task": ({"forecasting": Forecasting}, {"dataset", "vocabulary", "model", "files"}),
        "model": (FORECASTERS, {"sizes", "rngs"}),
        "model.distribution": (DISTRIBUTIONS, set()),
    },
    refuses_data=(
        "model.dropout.embedding_rate",  # there are no words
        *(f"dataset[csv_series].{key}" for key in ("time_format", "gaps", "delimiter")),
    ),
)
