"""Sentiment."""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

DATASETS = ("rotten_tomatoes", "imdb", "vader", "vader_score", "csv")
MODELS = ("forward", "last")
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
        "batch_size": 50,
        "max_length": 64,
        "truncate": True,
        "bucket_boundaries": (12, 20, 28, 40),
        "label_smoothing": 0.1,
    }
    config.model = {
        "name": "classifier",
        "embedding_size": 128,
        "cell": {"name": "lstm", "hidden_size": 96},
        "num_layers": 1,
        "bidirectional": "forward" not in parts,
        "pooling": ("last",) if "last" in parts else ("max", "attention"),
        "pooled_rate": 0.5,
        "dropout": {"embedding_rate": 0.2, "input_rate": 0.3, "locked": True},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 1e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": 800,
        "log_every": 100,
        "eval_every": 100,
        "checkpoint_every": 400,
        "average_decay": 0.99,
        "metric": "accuracy",
    }
    if dataset == "imdb":
        config.dataset = {"name": "imdb"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "max_size": 30000}
        config.task.update(max_length=400, bucket_boundaries=(100, 150, 200, 300))
        config.training.update(num_steps=2000, log_every=200, eval_every=400, checkpoint_every=1000)
    elif dataset in ("vader", "vader_score"):
        config.dataset = {"name": "vader", "part": "all"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "min_count": 2}
        config.task.max_length = 100
        config.training.update(num_steps=2000, eval_every=200, checkpoint_every=1000)
        if dataset == "vader_score":
            config.dataset.target = "score"
            config.task.label_smoothing = 0.0
            config.training.metric = "pearson"
    elif dataset == "csv":
        config.dataset = {"name": "csv", "train": "train.csv"}
        config.vocabulary = {"name": "words", "lower_case": True, "tokenizer": "punctuation", "min_count": 2}
        config.task.update(max_length=400, bucket_boundaries=(20, 50, 100, 200))
    return config
