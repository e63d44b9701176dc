"""A word language model with the Mogrifier LSTM of Melis, Kočiský and Blunsom, "Mogrifier LSTM" (2020).

    lstm-research train --config=configs/mogrifier_lm.py --workdir=runs/mogrifier_lm
    lstm-research train --config=configs/mogrifier_lm.py:ptb --workdir=runs/ptb

The default has the data of `configs/word_lm.py` and a size for 2 CPU cores. `ptb` has the published size of 24 million
parameters, of which the width follows, and rates, for the usual files in the current folder; it is for a GPU.

Cost: 4000 steps, about 3 a second on 2 CPU cores. Expected: not measured. Published perplexities, validation / test:
`ptb` 51.4 / 50.1, with dynamic evaluation 44.9 / 44.8; here not measured.
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
    config.task = {"name": "language_modelling", "batch_size": 20, "unroll_length": 35}
    config.model = {
        "name": "language_model",
        "embedding_size": 256,
        "cell": {"name": "mogrifier_lstm", "hidden_size": 256, "rounds": 5, "rank": 48, "input_gate": "capped"},
        "num_layers": 2,
        "tied": True,
        "dropout": {"input_rate": 0.3, "layer_rate": 0.2, "output_rate": 0.3, "recurrent_rate": 0.2},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2.3e-3,
        "b1": 0.0,
        "schedule": {"name": "cosine", "warmup_steps": 200},
        "clip_norm": 10.0,
        "weight_decay": 1e-5,
    }
    config.training = {"num_steps": 4000, "log_every": 200, "eval_every": 500, "checkpoint_every": 500}
    if variant == "ptb":
        config.dataset = {"name": "text_files"} | {s: f"ptb.{s}.txt" for s in ("train", "valid", "test")}
        config.vocabulary = {"name": "words"}
        config.task.update(batch_size=64, unroll_length=70)
        del config.model["embedding_size"]
        del config.model.cell["hidden_size"]
        config.model.num_params = 24_000_000
        config.model.cell.rank = 84
        config.model.dropout.update(input_rate=0.729, layer_rate=0.291, output_rate=0.716, recurrent_rate=0.387)
        config.optimizer.update(schedule={"name": "constant"}, weight_decay=2.5e-4)
        # An epoch is 207 steps.
        config.training.update(num_steps=207 * 400, eval_every=207, checkpoint_every=207, average_patience=10)
    return config
