"""A character language model in about a minute: one LSTM layer on tiny Shakespeare.

    lstm-research train --config=configs/quickstart.py --workdir=runs/quickstart

Cost: about 50 seconds on 2 CPU cores. Expected: 1.67 nats per character on the validation split (seed 0).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "shakespeare", "part": "tiny"}
    config.vocabulary = {"name": "characters"}
    config.task = {"name": "language_modelling", "batch_size": 32, "unroll_length": 64, "reset_rate": 0.01}
    config.model = {
        "name": "language_model",
        "embedding_size": 64,
        "cell": {"name": "lstm", "hidden_size": 256},
        "num_layers": 1,
        "dropout": {},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 4e-3,
        "schedule": {"name": "cosine", "warmup_steps": 50},
        "clip_norm": 1.0,
    }
    config.training = {"num_steps": 1500, "log_every": 100, "eval_every": 500, "checkpoint_every": 500}
    return config
