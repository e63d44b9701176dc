"""Forecasting: the next values of series, from what they have been and what is known in advance.

    lstm-research train --config=configs/forecasting.py --workdir=runs/etth1
    lstm-research train --config=configs/forecasting.py --workdir=runs/etth1_336 --config.task.horizon=336
    lstm-research train --config=configs/forecasting.py:csv --workdir=runs/mine --config.dataset.path=sales.csv

Data: ETTh1, seven variables, 96 hours from 96 hours, in the standard split (default); or one of

    --config=configs/forecasting.py:household_power    two days of a household's power, hour by hour
    --config=configs/forecasting.py:beijing            two days of fine dust and weather, with values missing
    --config=configs/forecasting.py:traffic            two days on San Francisco's roads
    --config=configs/forecasting.py:temperatures       two weeks of lowest and highest temperatures
    --config=configs/forecasting.py:peyton             four weeks of page views, with days missing
    --config=configs/forecasting.py:sunspots           two years of monthly numbers
    --config=configs/forecasting.py:csv                your own table, series.csv with the column time

Your table may have several series (`--config.dataset.id_column=shop`), columns that are known in advance
(`--config.dataset.known_columns="('price', 'holiday')"`), columns that are constant in a series, missing values and
missing rows (`--config.dataset.gaps=fill`), any frequency, business days among them. Calendar features are added by
`--config.dataset.calendar="('hour', 'weekday', 'business_day')"`.

A model and a distribution may stand beside the data, as in `configs/forecasting.py:traffic,deepar,gaussian`:

    --config=configs/forecasting.py:encoder_decoder      a decoder goes through the horizon; quantiles
    --config=configs/forecasting.py:deepar               step by step, by paths that are drawn; Student's t
    --config=configs/forecasting.py:point                single values; of the default model on ETTh1
    --config=configs/forecasting.py:gaussian
    --config=configs/forecasting.py:student_t
    --config=configs/forecasting.py:quantiles            of the default model on all other data
    --config=configs/forecasting.py:negative_binomial    of counts

The default model is direct: an LSTM reads patches of the history in the unit of its own window, one variable at a
time, and a linear map of its last state, beside one of the history itself, is the whole horizon. Every split but
training is forecast from rolling origins, `task.eval_stride` steps apart, which is a back-test. At its end a run says
what the last value, the season before and ridge regression would have done.

    lstm-research evaluate --workdir=runs/etth1 --split=test
    lstm-research predict --workdir=runs/mine --input=sales.csv --output=forecast.csv --plot=fan.png

A prediction's column `mean` is the median where the distribution is quantiles, but for DeepAR's paths.

Cost: 70 seconds on 2 busy CPU cores. Expected: mean squared error 0.372, 0.374, 0.372 on ETTh1's test split (seeds 0 to
2); the other data sets are in experiments/forecasting.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

# By dataset: its keys, history, horizon, training steps, steps between validations, season.
DATASETS = {
    "etth1": ({"name": "etth1"}, 96, 96, 1500, 100, None),
    "household_power": (
        {
            "name": "household_power",
            "targets": ("global_active_power",),
            "calendar": ("hour", "weekday", "day_of_year"),
        },
        *(168, 48, 2000, 250, 24),
    ),
    "beijing": ({"name": "beijing_air", "calendar": ("hour", "day_of_year")}, 168, 48, 2000, 250, 24),
    "traffic": ({"name": "sf_traffic", "calendar": ("hour", "weekday", "business_day")}, 168, 48, 2000, 250, 168),
    "temperatures": ({"name": "melbourne_temperatures", "calendar": ("day_of_year",)}, 56, 14, 1500, 100, 7),
    "peyton": ({"name": "peyton_manning", "calendar": ("weekday", "day_of_year")}, 112, 28, 1500, 100, 7),
    "sunspots": ({"name": "sunspots"}, 264, 24, 1000, 100, 132),
    "csv": ({"name": "csv_series", "path": "series.csv"}, 96, 24, 1500, 100, None),
}
MODELS = ("direct", "encoder_decoder", "deepar")
DISTRIBUTIONS = ("point", "gaussian", "student_t", "quantiles", "negative_binomial")
VARIANTS = ("", *list(DATASETS)[1:], *MODELS[1:], *DISTRIBUTIONS)


def get_config(variant: str = "") -> ConfigDict:
    parts = variant.split(",") if variant else []
    groups = {"datasets": tuple(DATASETS), "models": MODELS, "distributions": DISTRIBUTIONS}
    for part in parts:
        if part not in sum(groups.values(), ()):
            raise unknown("variant", part, sum(groups.values(), ()))
    named = {what: [part for part in parts if part in group] for what, group in groups.items()}
    for what, found in named.items():
        if len(found) > 1:
            raise UserError(f"variant {variant!r} names {len(found)} {what}; name one")
    dataset, model, distribution = (found[0] if found else "" for found in named.values())
    dataset, model = dataset or "etth1", model or "direct"
    by_model = {"direct": "point" if dataset == "etth1" else "quantiles"}
    by_model |= {"encoder_decoder": "quantiles", "deepar": "student_t"}
    distribution = distribution or by_model[model]

    data, history, horizon, num_steps, eval_every, season = DATASETS[dataset]
    config = ConfigDict()
    config.seed = 0
    config.dataset = data
    config.vocabulary = {}
    config.task = {
        "name": "forecasting",
        "batch_size": 32,
        "history": history,
        "horizon": horizon,
    }
    if season is not None:  # else it is that of the frequency
        config.task.season = season
    config.model = {
        "name": model,
        "cell": {"name": "lstm", "hidden_size": 64 if model != "direct" else 256},
        "distribution": {"name": distribution},
        "normalization": "mean" if distribution == "negative_binomial" else "last",
        "dropout": {"output_rate": 0.2 if model != "direct" else 0.5},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 1e-3 if model != "direct" else 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 50},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": num_steps,
        "log_every": 100,
        "eval_every": eval_every,
        "checkpoint_every": 500,
        "average_decay": 0.99,
        "metric": "mse" if distribution == "point" else "crps",
    }
    if distribution == "point":
        config.model.distribution.error = "huber"
    if model == "direct":
        config.model.update(linear=True, patch_length=24, patch_stride=12)
        if dataset in ("temperatures", "peyton"):
            config.model.update(patch_length=7, patch_stride=7)
    elif model == "deepar":
        # A path is drawn step by step, so fewer origins are forecast.
        config.task.update(num_samples=100, eval_stride=max(horizon // 2, 1))
        config.model.normalization = "mean" if distribution == "negative_binomial" else "standard"
        config.model.lags = (1, season or 24)
        config.training.update(eval_every=500)
    return config
