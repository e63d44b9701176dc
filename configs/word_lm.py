"""A word language model of two LSTM layers, on Shakespeare's 38 plays or on your own text files.

    lstm-research train --config=configs/word_lm.py --workdir=runs/word_lm
    lstm-research train --config=configs/word_lm.py:files --workdir=runs/ptb \
        --config.dataset.train=ptb.train.txt --config.dataset.valid=ptb.valid.txt --config.dataset.test=ptb.test.txt

The conventions are those of the Penn Treebank files: words between white space, an <eos> at each line's end, <unk> for
rare words, perplexity over all tokens but the first of each document. Two layers as in Zaremba, Sutskever and Vinyals
(2014); tied weights, locked and embedding dropout and weight-drop as in Merity, Keskar and Socher (2018).

Cost: 4000 steps at about 7 a second on 2 CPU cores. Measured half-way only (step 2000, seed 0): validation perplexity
110.5.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import unknown

VARIANTS = ("", "files")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS[1:])
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "shakespeare", "part": "all"}
    config.vocabulary = {"name": "words", "max_size": 10000, "lower_case": True}
    if variant == "files":
        config.dataset = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"}
        config.vocabulary = {"name": "words"}
    config.task = {"name": "language_modelling", "batch_size": 20, "unroll_length": 35}
    config.model = {
        "name": "language_model",
        "embedding_size": 256,
        "cell": {"name": "lstm", "hidden_size": 256},
        "num_layers": 2,
        "tied": True,
        "dropout": {
            "embedding_rate": 0.1,
            "input_rate": 0.4,
            "layer_rate": 0.25,
            "output_rate": 0.4,
            "weight_rate": 0.3,
            "locked": True,
        },
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 200},
        "clip_norm": 0.25,
        "weight_decay": 0.05,
    }
    config.training = {"num_steps": 4000, "log_every": 200, "eval_every": 1000, "checkpoint_every": 1000}
    return config
