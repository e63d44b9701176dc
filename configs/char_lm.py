"""A character language model of tiny Shakespeare, as good as 25 minutes on 2 CPU cores allow.

    lstm-research train --config=configs/char_lm.py --workdir=runs/char_lm

One LSTM layer, much noise (dropout on its output, DropConnect on its recurrent weights) and an average of the weights.

Cost: about 18 minutes on 2 CPU cores. Expected: 1.376 nats per character on the validation split (seed 0).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "shakespeare", "part": "tiny"}
    config.vocabulary = {"name": "characters"}
    config.task = {"name": "language_modelling", "batch_size": 32, "unroll_length": 64}
    config.model = {
        "name": "language_model",
        "embedding_size": 64,
        "cell": {"name": "lstm", "hidden_size": 512},
        "num_layers": 1,
        "dropout": {"output_rate": 0.5, "weight_rate": 0.3},
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 3e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
        "weight_decay": 0.05,
    }
    config.training = {
        "num_steps": 10000,
        "log_every": 200,
        "eval_every": 500,
        "checkpoint_every": 500,
        "average_decay": 0.999,
    }
    return config
