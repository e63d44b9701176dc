"""A language model of bytes, for enwik8 (the first 10^8 bytes of Wikipedia) or any other file.

    lstm-research train --config=configs/enwik8.py --workdir=runs/enwik8 --config.dataset.path=enwik8

The usual split: the first 90 million bytes for training, 5 million each for validation and test. The result to look at
is bits_per_byte, which publications call bits per character.

Cost: for a GPU. Expected: not measured. Published for a multiplicative LSTM 1.24 bits, AWD-LSTM 1.23.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "text_file", "path": "enwik8", "unit": "bytes"}
    config.vocabulary = {"name": "bytes"}
    config.task = {"name": "language_modelling", "batch_size": 64, "unroll_length": 200}
    config.model = {
        "name": "language_model",
        "embedding_size": 128,
        "cell": {"name": "lstm", "hidden_size": 1024},
        "num_layers": 2,
        "dropout": {"layer_rate": 0.1, "output_rate": 0.1, "weight_rate": 0.2, "locked": True},
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "schedule": {"name": "cosine", "warmup_steps": 500},
        "clip_norm": 1.0,
        "weight_decay": 0.01,
    }
    config.training = {
        "num_steps": 100_000,
        "log_every": 500,
        "eval_every": 5000,
        "checkpoint_every": 5000,
        "average_decay": 0.999,
    }
    return config
