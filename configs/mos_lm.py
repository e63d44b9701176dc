"""A word language model with a mixture of softmaxes on AWD-LSTM.

Yang, Dai, Salakhutdinov and Cohen, "Breaking the Softmax Bottleneck", 2018.

    lstm-research train --config=configs/mos_lm.py --workdir=runs/mos_lm
    lstm-research train --config=configs/mos_lm.py:ptb --workdir=runs/ptb

The default has the data of `configs/word_lm.py`, three softmaxes and a size for 2 CPU cores. `ptb` has the published
size and rates, for the usual files in the current folder; it is for a GPU.

Cost: 2000 steps, about 1.5 a second on 2 CPU cores. Expected: not measured. Published perplexities, validation / test
(after finetuning): `ptb` 56.5 / 54.4, with dynamic evaluation 48.3 / 47.7; here not measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import unknown

VARIANTS = ("", "ptb")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS[1:])
    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "imdb_reviews", "max_documents": 2000}
    config.vocabulary = {"name": "words", "max_size": 10000, "lower_case": True, "tokenizer": "punctuation"}
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
        "embedding_size": 128,
        "cell": {"name": "lstm", "hidden_size": 400},
        "num_layers": 2,
        "last_hidden_size": 256,
        "tied": True,
        "softmax": {"name": "mixture", "num_experts": 3, "latent_size": 128, "latent_rate": 0.2},
        "dropout": {
            "embedding_rate": 0.1,
            "input_rate": 0.3,
            "layer_rate": 0.2,
            "output_rate": 0.3,
            "weight_rate": 0.3,
            "locked": True,
        },
    }
    config.optimizer = {"name": "sgd", "learning_rate": 20.0, "clip_norm": 0.25, "weight_decay": 1.2e-6, "decay": "all"}
    config.training = {
        "num_steps": 2000,
        "log_every": 100,
        "eval_every": 200,
        "checkpoint_every": 500,
        "average_patience": 2,
    }
    if variant == "ptb":
        config.dataset = {"name": "text_files"} | {s: f"ptb.{s}.txt" for s in ("train", "valid", "test")}
        config.vocabulary = {"name": "words"}
        config.task.batch_size = 12
        config.model.update(embedding_size=280, num_layers=3, last_hidden_size=620)
        config.model.cell.hidden_size = 960
        config.model.softmax.update(num_experts=15, latent_size=280, latent_rate=0.29)
        config.model.dropout.update(input_rate=0.4, layer_rate=0.225, output_rate=0.4, weight_rate=0.5)
        # An epoch is 1,135 steps.
        config.training.update(num_steps=1135 * 1000, eval_every=1135, checkpoint_every=1135, average_patience=5)
    return config
