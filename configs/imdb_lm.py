"""A language model of all IMDB reviews, for classifiers of film reviews to start from.

    lstm-research train --config=configs/imdb_lm.py --workdir=runs/imdb_lm
    lstm-research train --config=configs/imdb_lm.py:further --workdir=runs/imdb_lm_further
    lstm-research train --config=configs/sentiment.py:warm_start --workdir=runs/warm

Dai and Le, "Semi-supervised Sequence Learning", 2015; Howard and Ruder, "Universal Language Model Fine-tuning for Text
Classification", 2018. The texts are those of the training split alone: 5.5 million words, lower-cased, with the 30,000
most frequent ones. One LSTM layer and an adaptive softmax (Grave et al., 2017) get over them twice in a quarter of an
hour; `further` goes on from there, over them five times more, which is what a warm start needs.

Cost: 17 minutes on 2 CPU cores; `further` 91 minutes beside other work, which 10 steps a second on quiet cores halve.
Expected: perplexity 131.7 (validation) and 132.6 (test), then 105.3 and 105.9.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import unknown

VARIANTS = ("", "further")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS[1:])
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "imdb_reviews"}
    config.vocabulary = {"name": "words", "max_size": 30000, "lower_case": True, "tokenizer": "punctuation"}
    config.task = {"name": "language_modelling", "batch_size": 20, "unroll_length": 50}
    config.model = {
        "name": "language_model",
        "embedding_size": 128,
        "cell": {"name": "lstm", "hidden_size": 256},
        "num_layers": 1,
        "softmax": {"name": "adaptive", "cutoffs": (2000, 10000)},
        "dropout": {"embedding_rate": 0.05, "input_rate": 0.1, "output_rate": 0.1},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
    }
    config.training = {"num_steps": 10000, "log_every": 500, "eval_every": 2500, "checkpoint_every": 1000}
    if variant == "further":
        config.seed = 1  # another order of the reviews
        config.optimizer.learning_rate = 1e-3
        config.training.update(num_steps=30000, eval_every=5000, init_from="runs/imdb_lm")
    return config
