"""The keys of a recogniser's config that are its own."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.decoding.ctc import CTC_DECODERS
from lstm_research.decoding.transducer import TRANSDUCER_DECODERS
from lstm_research.models.acoustic import ACOUSTIC_MODELS
from lstm_research.models.layers.features import FEATURES
from lstm_research.tasks.speech_recognition import SpeechRecognition

RATE = 2000
"""Of the recordings that `knobs.files` writes, in Hz."""
BASE: Config = {
    "seed": 0,
    "dataset": {
        "name": "manifest",
        **{split: f"{split}_speech.csv" for split in ("train", "valid", "test")},
        "sample_rate": RATE,
    },
    "vocabulary": {"name": "characters", "unknown": "replace"},
    "task": {
        "name": "speech_recognition",
        "batch_size": 2,
        "max_length": 60,
        "eval_batch_size": 2,
        "features": {"name": "log_mel", "num_mels": 4},
        "decoder": {"name": "greedy"},
    },
    "model": {
        "name": "ctc",
        "cell": {"name": "lstm", "hidden_size": 4},
        "num_layers": 1,
        "dropout": {},
    },
    **TRAINING,
}
TRANSDUCER: Config = {
    "model": {**BASE["model"], "name": "transducer", "embedding_size": 4, "joint_size": 4},
    "task.decoder": {"name": "greedy", "max_symbols": 2},
}
SPELL: Config = {
    "model": {
        **BASE["model"],
        "name": "listen_attend_spell",
        "embedding_size": 4,
        "attention": {"name": "additive", "attention_size": 4},
    },
    "task.decoder": {"name": "greedy", "max_length_ratio": 0.1, "max_length_offset": 3},
}
DIGITS: Config = {
    "dataset": {"name": "connected_digits", "num_train": 4, "num_valid": 3, "num_test": 3},
    "task.features": {"name": "given"},
    "task.max_length": 600,
}
MANY = {"name": "manifest", "train": "many_speech.csv", "sample_rate": RATE}
AUGMENT: Config = {
    "task.spec_augment": {
        "num_time_masks": 1,
        "max_time": 10,
        "max_time_fraction": 0.9,
        "num_frequency_masks": 1,
        "max_frequency": 2,
    }
}
CONTEXT: dict[str, Config] = {
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    "model.dropout.embedding_rate": TRANSDUCER,
    "dataset.name": {"task.max_length": 120},
    "dataset[connected_digits]": DIGITS,
    "dataset[fillets]": {"dataset": {"name": "fillets"}, "task.max_length": 600},
    "dataset[manifest].valid_fraction": {"dataset": MANY},
    "dataset[manifest].test_fraction": {"dataset": MANY},
    "task.features[mfcc]": {"task.features": {"name": "mfcc", "num_mels": 4, "num_coefficients": 3}},
    "task.features[given]": DIGITS,
    "task.spec_augment.": AUGMENT,
    "task.decoder[beam]": {"task.decoder": {"name": "beam", "beam_size": 2}},
    "task.decoder[transducer greedy]": TRANSDUCER,
    "task.decoder[transducer beam]": {
        **TRANSDUCER,
        "task.decoder": {"name": "beam", "beam_size": 2, "max_symbols": 2},
    },
    # Many hypotheses: the score of the best one is then a sum over more paths than a beam of one knows.
    "task.decoder[transducer beam].beam_size": {
        **TRANSDUCER,
        "task.decoder": {"name": "beam", "beam_size": 30, "max_symbols": 2},
    },
    # A beam with room for two symbols at a frame.
    "task.decoder[transducer beam].max_symbols": {
        **TRANSDUCER,
        "task.decoder": {"name": "beam", "beam_size": 30, "num_best": 30, "max_symbols": 2},
    },
    "model[ctc].residual": {"model.num_layers": 2},
    "model[ctc].merge": {"model.bidirectional": True},
    "model[transducer]": TRANSDUCER,
    "model[transducer].residual": {**TRANSDUCER, "model": {**TRANSDUCER["model"], "num_layers": 2}},
    "model[transducer].merge": {**TRANSDUCER, "model": {**TRANSDUCER["model"], "bidirectional": True}},
    "model[listen_attend_spell]": SPELL,
    "model[listen_attend_spell].residual": {**SPELL, "model": {**SPELL["model"], "num_layers": 2}},
    "model[listen_attend_spell].merge": {**SPELL, "model": {**SPELL["model"], "bidirectional": True}},
}
FEATURE_KNOBS = {"deltas": 1, "normalize": "none", "stack": 2, "stride": 2}
MEL_KNOBS = {
    **FEATURE_KNOBS,
    "frame_seconds": 0.03,
    "hop_seconds": 0.02,
    "num_mels": 5,
    "n_fft": 128,
    "f_min": 100.0,
    "f_max": 800.0,
    "scale": "htk",
    "window": "hamming",
}
MODEL_KNOBS = {
    "cell": {"name": "gru", "hidden_size": 4},
    "num_layers": 2,
    "reductions": [2],
    "bidirectional": True,
    "merge": "sum",
    "residual": True,
    "dropout": {"input_rate": 0.5},
    "dtype": "bfloat16",
    "param_dtype": "bfloat16",
    "engine": Refused("warp"),
    "remat": True,
}
KNOBS: dict[str, Any] = {
    **DROPOUT,
    **NUM_PARAMS,
    "dataset.name": {"name": "asterisk_prompts"},
    **rows("dataset[connected_digits].", {"num_train": 5, "num_valid": 4, "num_test": 4}),
    **rows("dataset[connected_digits].", {"min_digits": 6, "max_digits": 4}),
    **rows("dataset[fillets].", {"language": "nl", "sample_rate": 8_000}),
    **rows("dataset[manifest].", {split: "many_speech.csv" for split in ("train", "valid", "test")}),
    **rows("dataset[manifest].", {"valid_fraction": 0.3, "test_fraction": 0.3, "delimiter": ";"}),
    **rows("dataset[manifest].", {"path_column": "other", "transcript_column": "other", "sample_rate": 1_000}),
    "task.name": Refused("another_task"),
    **rows("task[speech_recognition].", {"batch_size": 3, "max_length": 70, "eval_batch_size": 3}),
    **rows("task[speech_recognition].", {"bucket_boundaries": [40], "lower_case": True, "punctuation": False}),
    **rows("task[speech_recognition].", {"speeds": [0.9, 1.1], "num_scored": 2}),
    "task[speech_recognition].spec_augment": AUGMENT["task.spec_augment"],
    "task[speech_recognition].features": {"name": "mfcc", "num_mels": 4, "num_coefficients": 3},
    "task[speech_recognition].decoder": {"name": "beam"},
    "task.features.name": Refused("other_features"),
    **rows("task.features[log_mel].", MEL_KNOBS),
    **rows("task.features[mfcc].", {**MEL_KNOBS, "num_coefficients": 2}),
    **rows("task.features[given].", FEATURE_KNOBS),
    **rows("task.spec_augment.", {"num_time_masks": 2, "max_time": 2, "max_time_fraction": 0.1}),
    **rows("task.spec_augment.", {"num_frequency_masks": 2, "max_frequency": 1}),
    "task.decoder.name": Refused("another_decoder"),
    **rows("task.decoder[beam].", {"beam_size": 1, "num_best": 2, "min_log_prob": -0.1}),
    **rows("task.decoder[transducer greedy].", {"max_symbols": 1}),
    **rows("task.decoder[transducer beam].", {"beam_size": 1, "num_best": 2, "max_symbols": 1}),
    "model.name": Refused("another_model"),
    **rows("model[ctc].", MODEL_KNOBS),
    **rows("model[transducer].", {**MODEL_KNOBS, "embedding_size": 3, "joint_size": 3, "prediction_layers": 2}),
    **rows("model[listen_attend_spell].", {**MODEL_KNOBS, "embedding_size": 3, "decoder_layers": 2}),
    **rows("model[listen_attend_spell].", {"input_feeding": True, "sampling_rate": 0.5, "ctc_weight": 0.5}),
    "model[listen_attend_spell].attention": {"name": "general"},
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (SPEECH_DATASETS, set()),
        "task": ({"speech_recognition": SpeechRecognition}, {"dataset", "vocabulary", "model", "files"}),
        "task.features": (FEATURES, {"sample_rate", "num_features"}),
        "task.decoder": (
            {**CTC_DECODERS, **{f"transducer {name}": each for name, each in TRANSDUCER_DECODERS.items()}},
            set(),
        ),
        "model": (ACOUSTIC_MODELS, {"num_features", "vocabulary_size", "blank_id", "rngs"}),
    },
    refuses_data=("dataset[manifest].delimiter",),
)
