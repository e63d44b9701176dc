"""The sentiment of sentences and reviews: a bidirectional LSTM, pooled by maximum and attention.

    lstm-research train --config=configs/sentiment.py --workdir=runs/rotten_tomatoes
    lstm-research train --config=configs/sentiment.py:imdb --workdir=runs/imdb
    lstm-research train --config=configs/sentiment.py:vader --workdir=runs/vader
    lstm-research train --config=configs/sentiment.py:vader_score --workdir=runs/vader_score
    lstm-research train --config=configs/sentiment.py:csv --workdir=runs/mine --config.dataset.train=train.csv

Data: Rotten Tomatoes sentences (default) or IMDB reviews, negative or positive; VADER's snippets, negative, neutral or
positive, or their mean human score; your own table with the columns text and label (other names:
`--config.dataset.text_column`), any number of classes, from which validation and test texts are cut.

Less of a model, beside any of the data, as in `configs/sentiment.py:imdb,forward,last`:

    lstm-research train --config=configs/sentiment.py:forward --workdir=runs/forward   # reads in one direction
    lstm-research train --config=configs/sentiment.py:last --workdir=runs/last         # pools the last states alone

From the weights of a language model, `training.init_from`; all at once, or layer by layer from the top and with smaller
rates below (`optimizer.unfreeze_steps`, `optimizer.layer_decay`):

    lstm-research train --config=configs/imdb_lm.py --workdir=runs/imdb_lm
    lstm-research train --config=configs/imdb_lm.py:further --workdir=runs/imdb_lm_further
    lstm-research train --config=configs/sentiment.py:warm_start --workdir=runs/warm
    lstm-research train --config=configs/sentiment.py:imdb,warm_start,forward --workdir=runs/imdb_warm

What keeps so few texts from being learnt by heart: dropout of whole words, of inputs (locked), of recurrent weights and
of most of what is pooled, smoothed labels, small batches, and an average of the weights.

    lstm-research predict --workdir=runs/rotten_tomatoes --text="a gripping , funny film"
    lstm-research predict --workdir=runs/rotten_tomatoes --input=reviews.csv --attention_html=attention.html

Cost: 40 seconds on 2 CPU cores (Rotten Tomatoes); 7 to 9 minutes on 2 cores that two trainings shared (`imdb`).
Expected: test accuracy 0.782, 0.798 and 0.794 on Rotten Tomatoes (seeds 0 to 2; validation 0.769, 0.781, 0.778); 0.891,
0.878 and 0.874 on IMDB (validation 0.863, 0.864, 0.864). `imdb,warm_start,forward` after 800 steps: 0.888, 0.894 and
0.891 (validation 0.880, 0.884, 0.880), 1.2 points more than from scratch in equal steps. `experiments/text_tasks` has
the comparisons, also of `forward` and `last`; the other variants are not measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

DATASETS = ("rotten_tomatoes", "imdb", "vader", "vader_score", "csv")
MODELS = ("forward", "last", "warm_start")
VARIANTS = ("", *DATASETS[1:], *MODELS)


def get_config(variant: str = "") -> ConfigDict:
    parts = variant.split(",") if variant else []
    for part in parts:
        if part not in DATASETS + MODELS:
            raise unknown("variant", part, DATASETS + MODELS)
    datasets = [part for part in parts if part in DATASETS]
    if len(datasets) > 1:
        raise UserError(f"variant {variant!r} names {len(datasets)} datasets; name one")
    dataset = datasets[0] if datasets else "rotten_tomatoes"

    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "rotten_tomatoes"}
    config.vocabulary = {"name": "words", "min_count": 2}
    config.task = {
        "name": "text_classification",
        "batch_size": 25,
        "max_length": 64,
        "truncate": True,
        "bucket_boundaries": (20, 32),
        "label_smoothing": 0.1,
    }
    config.model = {
        "name": "classifier",
        "embedding_size": 256,
        "cell": {"name": "lstm", "hidden_size": 96},
        "num_layers": 1,
        "bidirectional": "forward" not in parts,
        "pooling": ("last",) if "last" in parts else ("max", "attention"),
        "pooled_rate": 0.7,
        "dropout": {"embedding_rate": 0.4, "input_rate": 0.4, "weight_rate": 0.3, "locked": True},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": 1600,
        "log_every": 200,
        "eval_every": 200,
        "checkpoint_every": 800,
        "average_decay": 0.995,
        "metric": "accuracy",
    }
    if dataset == "imdb":
        config.dataset = {"name": "imdb"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "max_size": 30000}
        config.task.update(batch_size=50, max_length=400, bucket_boundaries=(150, 250))
        config.model.update(embedding_size=128, pooled_rate=0.5)
        config.model.dropout.update(embedding_rate=0.3, input_rate=0.3, weight_rate=0.0)
        config.training.update(num_steps=1200, checkpoint_every=400, average_decay=0.99)
    elif dataset in ("vader", "vader_score"):
        config.dataset = {"name": "vader", "part": "all"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "min_count": 2}
        config.task.max_length = 100
        config.training.update(num_steps=2400, eval_every=400)
        if dataset == "vader_score":
            config.dataset.target = "score"
            config.task.label_smoothing = 0.0
            config.training.metric = "pearson"
    elif dataset == "csv":
        config.dataset = {"name": "csv", "train": "train.csv"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "min_count": 2}
        config.task.update(max_length=400, bucket_boundaries=(20, 50, 100, 200))
    if "warm_start" in parts:  # the sizes and the vocabulary of configs/imdb_lm.py
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "max_size": 30000}
        config.model.update(embedding_size=128, pooled_rate=0.5)
        if "last" not in parts:
            config.model.pooling = ("last", "max", "mean")
        config.model.cell.hidden_size = 256
        config.model.dropout.update(embedding_rate=0.1, input_rate=0.2, weight_rate=0.0)
        config.optimizer.learning_rate = 1e-3
        config.training.init_from = "runs/imdb_lm_further"
    return config
