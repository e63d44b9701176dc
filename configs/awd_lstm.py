"""AWD-LSTM: a word language model with everything that keeps it from learning its text by heart.

Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", 2018: weight-drop, locked and embedding
dropout, activation regularisation, windows of variable length, tied weights, and gradient descent that begins to
average its weights when validation stops getting better (NT-ASGD).

    lstm-research train --config=configs/awd_lstm.py --workdir=runs/awd_lstm
    lstm-research train --config=configs/awd_lstm.py:bible --workdir=runs/bible
    lstm-research train --config=configs/awd_lstm.py:shakespeare --workdir=runs/shakespeare
    lstm-research train --config=configs/awd_lstm.py:files --workdir=runs/files \
        --config.dataset.train=train.txt --config.dataset.valid=valid.txt --config.dataset.test=test.txt
    lstm-research train --config=configs/awd_lstm.py:ptb --workdir=runs/ptb
    lstm-research train --config=configs/awd_lstm.py:wikitext2 --workdir=runs/wikitext2

The first four have the data of `configs/word_lm.py` and a size for 2 CPU cores. `ptb` and `wikitext2` have the
published sizes, rates and cache, for the usual files in the current folder; they are for a GPU.

Also with a neural cache and dynamic evaluation, whose numbers are best tuned on the validation split:

    lstm-research evaluate --workdir=runs/awd_lstm --split=test --neural_cache=2000,0.3,0.1 \
        --dynamic_evaluation=0.00005,0.0005

Cost: 4000 steps, about 3 a second on 2 CPU cores. Expected after 2000 with `--config.dataset.max_documents=1000`, seeds
0 to 2: perplexity 142.2, 139.1 and 145.6 (validation), 146.3, 143.7 and 150.9 (test; with the cache 137.2, 135.5 and
141.4, with dynamic evaluation 128.3, 128.0 and 129.1); the whole recipe is not measured. Published perplexities,
validation / test, of the authors' own code before finetuning: `ptb` 61.2 / 58.8, `wikitext2` 68.7 / 65.6; here not
measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import unknown

RAW = {"name": "words", "max_size": 10000, "lower_case": True, "tokenizer": "punctuation"}
WORDS = {"name": "words"}


def files(pattern: str) -> dict[str, str]:
    return {"name": "text_files"} | {split: pattern.format(split) for split in ("train", "valid", "test")}


DATA = {
    "": ({"name": "imdb_reviews", "max_documents": 2000}, RAW),
    "bible": ({"name": "bible"}, RAW),
    "shakespeare": ({"name": "shakespeare", "part": "all"}, RAW),
    "files": (files("{}.txt"), WORDS),
    "ptb": (files("ptb.{}.txt"), WORDS),
    "wikitext2": (files("wiki.{}.tokens"), WORDS),
}
VARIANTS = tuple(DATA)
# By variant: batch size, two dropout rates (input, between layers), the cache (window, theta, mixing), steps of an
# epoch, and epochs.
PUBLISHED = {
    "ptb": (20, (0.4, 0.25), (500, 1.0, 0.1), 680, 500),
    "wikitext2": (80, (0.65, 0.2), (3785, 0.662, 0.1279), 380, 750),
}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS[1:])
    config = ConfigDict()
    config.seed = 0
    config.dataset, config.vocabulary = DATA[variant]
    config.task = {
        "name": "language_modelling",
        "batch_size": 20,
        "unroll_length": 70,
        "unroll_deviation": 5.0,
        "short_rate": 0.05,
        "activation_regularization": 2.0,
        "temporal_activation_regularization": 1.0,
    }
    config.model = {
        "name": "language_model",
        "embedding_size": 256,
        "cell": {"name": "lstm", "hidden_size": 400},
        "num_layers": 2,
        "last_hidden_size": 256,
        "tied": True,
        "dropout": {
            "embedding_rate": 0.1,
            "input_rate": 0.3,
            "layer_rate": 0.2,
            "output_rate": 0.3,
            "weight_rate": 0.3,
            "locked": True,
        },
    }
    config.optimizer = {"name": "sgd", "learning_rate": 30.0, "clip_norm": 0.25, "weight_decay": 1.2e-6, "decay": "all"}
    config.training = {
        "num_steps": 4000,
        "log_every": 200,
        "eval_every": 200,
        "checkpoint_every": 1000,
        "average_patience": 2,
    }
    if variant in PUBLISHED:
        batch_size, (input_rate, layer_rate), (window, theta, mixing), epoch, epochs = PUBLISHED[variant]
        config.task.batch_size = batch_size
        config.task.neural_cache = {"window": window, "theta": theta, "mixing": mixing}
        config.model.update(embedding_size=400, num_layers=3, last_hidden_size=400)
        config.model.cell.hidden_size = 1150
        config.model.dropout.update(input_rate=input_rate, layer_rate=layer_rate, output_rate=0.4, weight_rate=0.5)
        config.training.update(num_steps=epoch * epochs, eval_every=epoch, checkpoint_every=epoch, average_patience=5)
    return config
