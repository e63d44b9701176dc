"""A plain word language model: two LSTM layers with dropout, on text that comes along or on your own files.

    lstm-research train --config=configs/word_lm.py --workdir=runs/word_lm
    lstm-research train --config=configs/word_lm.py:bible --workdir=runs/bible
    lstm-research train --config=configs/word_lm.py:shakespeare --workdir=runs/shakespeare
    lstm-research train --config=configs/word_lm.py:files --workdir=runs/ptb \
        --config.dataset.train=ptb.train.txt --config.dataset.valid=ptb.valid.txt --config.dataset.test=ptb.test.txt

The default is 2,000 IMDB reviews (570,000 words), lower-cased, with the 10,000 most frequent words; the rest is <unk>.
`files` keeps the conventions of the Penn Treebank and WikiText files: words between white space, an <eos> at each
line's end, <unk> for rare words, perplexity over all tokens but the first of each document.

The model is that of Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization" (2014), in a size for 2
CPU cores, trained with Adam. `configs/awd_lstm.py` has the same data and a stronger recipe.

    lstm-research predict --workdir=runs/word_lm --prompt="the film is" --length=50 --temperature=0.8

Cost: 4000 steps, about 7 a second on 2 CPU cores. Expected with `--config.dataset.max_documents=1000`, seeds 0 to 2:
perplexity 157.0, 157.3 and 156.9 (validation), 161.6, 161.7 and 162.1 (test); with all 2,000 not measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import unknown

RAW = {"name": "words", "max_size": 10000, "lower_case": True, "tokenizer": "punctuation"}
FILES = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"}
DATA = {
    "": ({"name": "imdb_reviews", "max_documents": 2000}, RAW),
    "bible": ({"name": "bible"}, RAW),
    "shakespeare": ({"name": "shakespeare", "part": "all"}, RAW),
    "files": (FILES, {"name": "words"}),
}
VARIANTS = tuple(DATA)


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS[1:])
    config = ConfigDict()
    config.seed = 0
    config.dataset, config.vocabulary = DATA[variant]
    config.task = {"name": "language_modelling", "batch_size": 20, "unroll_length": 35}
    config.model = {
        "name": "language_model",
        "embedding_size": 256,
        "cell": {"name": "lstm", "hidden_size": 256},
        "num_layers": 2,
        "dropout": {"input_rate": 0.3, "layer_rate": 0.3, "output_rate": 0.3},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 200},
        "clip_norm": 1.0,
    }
    config.training = {"num_steps": 4000, "log_every": 200, "eval_every": 500, "checkpoint_every": 500}
    return config
