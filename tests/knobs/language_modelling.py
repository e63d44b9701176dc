"""The keys of a language model's config, and those that all tasks share: cells, vocabularies, optimiser, training."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows, without
from lstm_research.data.text import DATASETS
from lstm_research.data.vocabulary import VOCABULARIES
from lstm_research.models.cells import CELLS
from lstm_research.models.layers.softmax import SOFTMAXES
from lstm_research.tasks.language_modelling import MODELS, LanguageModelling
from lstm_research.training.optimizers import OPTIMIZERS
from lstm_research.training.schedules import SCHEDULES

BASE: Config = {
    "seed": 0,
    "dataset": {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "valid.txt"},
    "vocabulary": {"name": "characters"},
    "task": {"name": "language_modelling", "batch_size": 4, "unroll_length": 4, "eval_batch_size": 2},
    "model": {
        "name": "language_model",
        "embedding_size": 8,
        "cell": {"name": "lstm", "hidden_size": 8},
        "num_layers": 1,
        "dropout": {},
    },
    **TRAINING,
}
CONTEXT: dict[str, Config] = {
    "dataset[shakespeare]": {"dataset": {"name": "shakespeare"}},
    "dataset[text_file]": {"dataset": {"name": "text_file", "path": "train.txt"}},
    "dataset[text_file].unit": {
        "dataset": {"name": "text_file", "path": "accents.txt"},
        "vocabulary": {"name": "bytes"},
    },
    "dataset[imdb_reviews]": {"dataset": {"name": "imdb_reviews"}, "vocabulary.unknown": "replace"},
    "vocabulary[words]": {"vocabulary": {"name": "words"}},
    "vocabulary[subwords]": {"vocabulary": {"name": "subwords", "size": 18}},
    "task[language_modelling].unroll_deviation": {"task.unroll_length": 12},
    "task[language_modelling].short_rate": {"task.unroll_length": 12, "task.unroll_deviation": 2.0},
    "task.neural_cache": {"task.neural_cache": {"window": 5, "theta": 1.0, "mixing": 0.1}},
    "task.dynamic_evaluation": {"task.dynamic_evaluation": {"learning_rate": 0.01, "statistics_batches": 2}},
    "model.softmax[adaptive]": {"model.softmax": {"name": "adaptive", "cutoffs": (5,)}},
    "model.softmax[mixture]": {"model.softmax": {"name": "mixture", "num_experts": 2}},
    "model.softmax[sampled]": {"model.softmax": {"name": "sampled", "num_samples": 3}},
    "model[language_model].highway": {"model.num_layers": 2},
    "model[language_model].last_hidden_size": {"model.num_layers": 2},
    "model[language_model].residual": {"model.num_layers": 2},
    "model[language_model].skip": {"model.num_layers": 2},
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    "optimizer.decay": {"optimizer.weight_decay": 0.1},
    "optimizer.schedule[exponential]": {"optimizer.schedule": {"name": "exponential", "decay_steps": 2}},
    # With this rate no weight moves, so no validation is better than the first.
    "optimizer.schedule[plateau]": {
        "optimizer.schedule": {"name": "plateau"},
        "optimizer.learning_rate": 1e-12,
        "training.eval_every": 1,
    },
    "training.patience": {"optimizer.learning_rate": 1e-12, "training.eval_every": 1},
    "training.average_patience": {"optimizer.learning_rate": 5.0, "training.eval_every": 1, "training.num_steps": 9},
    "training.accumulation_steps": {"model.dropout.input_rate": 0.5},
}

OF_GATES = {"hidden_size": 4, "input_initializer": "glorot_uniform", "recurrent_initializer": "uniform_hidden"}
OF_GATES |= {"learned_initial_state": True}
OF_LSTM = OF_GATES | {"input_gate": "capped", "forget_gate": False, "output_gate": False, "projection_size": 4}
OF_LSTM |= {"peepholes": True, "gate_recurrence": True, "layer_norm": True, "forget_bias": 0.0, "chrono_max_length": 9}
OF_LSTM |= dict.fromkeys(("gate_activation", "input_activation", "output_activation"), "hard_sigmoid")
OF_GRU = OF_GATES | {"gate_activation": "hard_sigmoid", "activation": "relu", "chrono_max_length": 9}
OF_ADAM = {"b1": 0.5, "b2": 0.5, "eps": 0.1}


OF_FORGET_GATE = ("forget_gate", "forget_bias", "chrono_max_length")
OF_VANILLA = without(OF_LSTM, "peepholes")
KNOBS: dict[str, Any] = {
    "seed": 1,
    **rows("training.", {"num_steps": 3, "log_every": 2, "eval_every": 3, "checkpoint_every": 3}),
    **rows("training.", {"keep_checkpoints": 1, "patience": 1, "metric": "perplexity"}),
    **rows("training.", {"accumulation_steps": 2, "average_decay": 0.5, "average_patience": 1}),
    "training.init_from": Refused("runs/none"),  # what it takes over: tests/cli/test_warm_start.py
    **rows("dataset[text_files].", {"train": "other.txt", "valid": "other.txt", "test": "other.txt"}),
    **rows("dataset[text_file].", {"path": "other.txt", "fractions": (0.6, 0.2, 0.2), "unit": "bytes"}),
    "dataset[imdb_reviews].max_documents": 2,
    "dataset[shakespeare].part": "all",
    "dataset.name": {"name": "shakespeare"},
    "vocabulary.name": {"name": "words"},
    "vocabulary[characters].unknown": "replace",
    **rows("vocabulary[words].", {"min_count": 4, "max_size": 5, "lower_case": True, "unknown": "error"}),
    "vocabulary[words].tokenizer": "punctuation",
    **rows("vocabulary[subwords].", {"size": 17, "model_type": "bpe", "character_coverage": 0.99}),
    **rows("vocabulary[subwords].", {"lower_case": True, "unknown": "error"}),
    "task.name": Refused("another_task"),
    **rows("task[language_modelling].", {"batch_size": 2, "unroll_length": 3, "eval_batch_size": 3, "reset_rate": 1.0}),
    **rows("task[language_modelling].", {"unroll_deviation": 2.0, "short_rate": 1.0}),
    **rows("task[language_modelling].", {"activation_regularization": 2.0, "temporal_activation_regularization": 1.0}),
    "task[language_modelling].neural_cache": {"window": 5, "theta": 1.0, "mixing": 0.1},
    "task[language_modelling].dynamic_evaluation": {"learning_rate": 0.01},
    **rows("task.neural_cache.", {"window": 1, "theta": 0.1, "mixing": 0.5}),
    **rows("task.dynamic_evaluation.", {"learning_rate": 0.1, "decay": 0.5, "rule": "sgd", "unroll_length": 3}),
    **rows("task.dynamic_evaluation.", {"clip_norm": 1e-3, "eps": 0.1, "statistics_batches": 3}),
    "model.name": Refused("another_model"),
    **rows("model[language_model].", {"last_hidden_size": 4, "softmax": {"name": "mixture", "num_experts": 2}}),
    "model.softmax.name": {"name": "sampled", "num_samples": 3},
    **rows("model.softmax[adaptive].", {"cutoffs": (3,), "projection_factor": 2.0}),
    **rows("model.softmax[mixture].", {"num_experts": 3, "latent_size": 4, "latent_rate": 0.5}),
    "model.softmax[sampled].num_samples": 5,
    **rows("model[language_model].", {"embedding_size": 4, "num_layers": 2, "residual": True, "tied": True}),
    **rows("model[language_model].", {"highway": True, "skip": True, "skip_output": True}),
    **rows(
        "model[language_model].",
        {"dtype": "bfloat16", "param_dtype": "bfloat16", "engine": Refused("warp"), "remat": True},
    ),
    "model[language_model].cell": {"name": "gru", "hidden_size": 8},
    "model[language_model].dropout": {"input_rate": 0.5},
    **DROPOUT,
    **NUM_PARAMS,
    "model.cell.name": {"name": "rnn", "hidden_size": 8},
    **rows("model.cell[gru].", OF_GRU | {"update_bias": 1.0, "layer_norm": True}),
    **rows("model.cell[layer_norm_gru].", OF_GRU | {"update_bias": 1.0}),
    **rows("model.cell[original_gru].", OF_GRU | {"update_bias": 1.0}),
    **rows("model.cell[mgu].", OF_GRU | {"forget_bias": 1.0}),
    **rows("model.cell[janet].", OF_GRU | {"forget_bias": 0.0, "beta": 0.5}),
    **rows("model.cell[rnn].", OF_GATES | {"activation": "relu", "recurrent_factor": 0.5}),
    **rows("model.cell[irnn].", without(OF_GATES, "recurrent_initializer") | {"recurrent_factor": 0.5}),
    **rows("model.cell[indrnn].", OF_GATES | {"activation": "tanh", "recurrent_factor": 0.5}),
    **rows("model.cell[lstm].", OF_LSTM),
    **rows("model.cell[capped_lstm].", without(OF_LSTM, "input_gate", "forget_gate")),
    **rows("model.cell[layer_norm_lstm].", without(OF_LSTM, "layer_norm")),
    **rows("model.cell[mogrifier_lstm].", OF_LSTM | {"rounds": 2, "rank": 2}),
    **rows("model.cell[multiplicative_lstm].", OF_LSTM),
    **rows("model.cell[original_lstm].", without(OF_LSTM, *OF_FORGET_GATE) | {"input_gate": "none"}),
    **rows("model.cell[peephole_lstm].", OF_VANILLA),
    **rows("model.cell[cifg_lstm].", without(OF_VANILLA, "input_gate", "forget_gate")),
    **rows("model.cell[fgr_lstm].", without(OF_VANILLA, "gate_recurrence")),
    **rows("model.cell[nfg_lstm].", without(OF_VANILLA, *OF_FORGET_GATE) | {"input_gate": "none"}),
    **rows("model.cell[niaf_lstm].", without(OF_VANILLA, "input_activation")),
    **rows("model.cell[nig_lstm].", without(OF_VANILLA, "input_gate")),
    **rows("model.cell[noaf_lstm].", without(OF_VANILLA, "output_activation")),
    **rows("model.cell[nog_lstm].", without(OF_VANILLA, "output_gate")),
    **rows("optimizer.", {"name": {"name": "adam", "learning_rate": 0.1}, "learning_rate": 0.2}),
    **rows("optimizer.", {"schedule": {"name": "linear"}, "clip_norm": 0.01, "clip_value": 0.01}),
    **rows("optimizer.", {"weight_decay": 0.1, "decay": "all", "layer_decay": 0.5, "unfreeze_steps": 2}),
    **rows("optimizer[adam].", OF_ADAM),
    **rows("optimizer[adamw].", OF_ADAM),
    **rows("optimizer[momentum].", {"momentum": 0.5, "nesterov": True}),
    **rows("optimizer[rmsprop].", {"rms_decay": 0.5, "eps": 0.1, "momentum": 0.5}),
    "optimizer.schedule.name": {"name": "linear"},
    "optimizer.schedule[constant].warmup_steps": 2,
    **rows("optimizer.schedule[linear].", {"warmup_steps": 2, "final_fraction": 0.5}),
    **rows("optimizer.schedule[cosine].", {"warmup_steps": 2, "final_fraction": 0.5}),
    **rows("optimizer.schedule[exponential].", {"decay_steps": 1, "decay_rate": 0.1, "warmup_steps": 2}),
    **rows("optimizer.schedule[exponential].", {"staircase": True, "start_step": 1}),
    **rows("optimizer.schedule[plateau].", {"factor": 0.1, "patience": 2, "min_fraction": 0.4, "warmup_steps": 2}),
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (DATASETS, set()),
        "vocabulary": (VOCABULARIES, set()),
        "task": ({"language_modelling": LanguageModelling}, {"dataset", "vocabulary", "model", "files"}),
        "model": (MODELS, {"vocabulary_size", "rngs"}),
        "model.cell": (CELLS, set()),
        "model.softmax": (SOFTMAXES, set()),
        "optimizer": ({name: rule.make for name, rule in OPTIMIZERS.items()}, set()),
        "optimizer.schedule": (SCHEDULES, {"num_steps"}),
    },
    refuses_data=("vocabulary[words].unknown",),
)
