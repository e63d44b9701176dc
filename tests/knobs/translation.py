"""The keys of a translation model's config that are its own."""

from typing import Any

from knobs.table import DROPOUT, IN_DROPOUT, IN_NUM_PARAMS, NUM_PARAMS, TRAINING, Config, Refused, Table, rows, without
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.decoding import DECODERS
from lstm_research.models.layers.attention import ATTENTIONS
from lstm_research.tasks.translation import MODELS, MachineTranslation

BASE: Config = {
    "seed": 0,
    "dataset": {
        "name": "parallel_files",
        **{f"{split}_source": "source.txt" for split in ("train", "valid", "test")},
        **{f"{split}_target": "target.txt" for split in ("train", "valid", "test")},
    },
    "vocabulary": {"name": "characters", "unknown": "replace"},
    "task": {
        "name": "translation",
        "batch_size": 2,
        "max_length": 16,
        "eval_batch_size": 2,
        "decoder": {"name": "greedy", "max_length_offset": 3, "max_length_ratio": 0.5},
    },
    "model": {
        "name": "seq2seq",
        "embedding_size": 4,
        "cell": {"name": "lstm", "hidden_size": 4},
        "attention": {"name": "general"},
        "num_layers": 1,
        "dropout": {},
    },
    **TRAINING,
}
TSV = {"name": "tsv", "train": "pairs.tsv", "valid": "pairs.tsv", "test": "pairs.tsv"}
TFDS = {"name": "tfds", "dataset": "one", "source": "en", "target": "fr"}
ADDITIVE = {"model.attention": {"name": "additive"}}
CONTEXT: dict[str, Config] = {
    **IN_DROPOUT,
    **IN_NUM_PARAMS,
    "dataset[tatoeba]": {"dataset": {"name": "tatoeba"}},
    "dataset[bible_verses]": {"dataset": {"name": "bible_verses"}},
    "dataset[tsv]": {"dataset": TSV},
    "dataset[tsv].valid_fraction": {"dataset": without(TSV, "valid", "test")},
    "dataset[tsv].test_fraction": {"dataset": without(TSV, "valid", "test")},
    "dataset[tfds]": {
        "dataset": {"name": "tfds", "dataset": "one", "source": "en", "target": "fr"},
        "task.max_length": 30,
    },
    "task[translation].truncate": {"task.max_length": 8, "task.truncate": True},
    "task.decoder[beam]": {"task.decoder": {"name": "beam", "max_length_offset": 3, "max_length_ratio": 0.5}},
    "task.decoder[beam].alpha": {"task.decoder.length_penalty": "average"},
    "task.decoder[sample]": {"task.decoder": {"name": "sample", "max_length_offset": 3, "max_length_ratio": 0.5}},
    "model[seq2seq].residual": {"model.num_layers": 2},
    "model[seq2seq].merge": {},
    "model[seq2seq].bidirectional_layers": {"model.num_layers": 2},
    "model[seq2seq].attend_from": {"model.num_layers": 2},
    "model.attention[additive]": ADDITIVE,
    "model.attention[multi_head]": {"model.attention": {"name": "multi_head", "num_heads": 2}},
    "task[translation].coverage_loss": {},
}
KNOBS: dict[str, Any] = {
    **DROPOUT,
    **NUM_PARAMS,
    "dataset.name": {"name": "tatoeba"},
    **rows("dataset[tatoeba].", {"source": "de", "target": "de"}),
    **rows("dataset[bible_verses].", {"source": "de", "target": "de"}),
    **rows("dataset[parallel_files].", {"source": "en", "target": "fr"}),
    **rows("dataset[parallel_files].", {"train_source": "target.txt", "train_target": "source.txt"}),
    **rows("dataset[parallel_files].", {"valid_source": "target.txt", "valid_target": "source.txt"}),
    **rows("dataset[parallel_files].", {"test_source": "target.txt", "test_target": "source.txt"}),
    **rows("dataset[tsv].", {"train": "train.tsv", "valid": "train.tsv", "test": "train.tsv", "delimiter": ";"}),
    **rows("dataset[tsv].", {"valid_fraction": 0.3, "test_fraction": 0.3, "source_column": 2, "target_column": 2}),
    **rows("dataset[tsv].", {"source": "en", "target": "fr"}),
    **rows("dataset[tfds].", {"dataset": "two", "data_dir": "here", "source": "de", "target": "de"}),
    **rows("dataset[tfds].", {"train": "test", "valid": "test", "test": "train"}),
    "task.name": Refused("another_task"),
    **rows("task[translation].", {"batch_size": 3, "max_length": 20, "eval_batch_size": 3, "truncate": False}),
    **rows("task[translation].", {"bucket_boundaries": [9], "joint_vocabulary": False, "label_smoothing": 0.5}),
    **rows("task[translation].", {"scheduled_sampling_rate": 0.5, "coverage_loss": 1.0, "num_scored": 2}),
    "task[translation].decoder": {"name": "beam"},
    "task.decoder.name": Refused("another_decoder"),
    **rows("task.decoder[greedy].", {"max_length_ratio": 1.5, "max_length_offset": 9}),
    **rows("task.decoder[beam].", {"max_length_ratio": 1.5, "max_length_offset": 9, "beam_size": 1, "num_best": 2}),
    **rows("task.decoder[beam].", {"length_penalty": "average", "alpha": 3.0, "coverage_penalty": 9.0}),
    **rows("task.decoder[beam].", {"no_repeat_ngram": 1}),
    **rows("task.decoder[sample].", {"max_length_ratio": 1.5, "max_length_offset": 9, "num_best": 2}),
    **rows("task.decoder[sample].", {"temperature": 0.1, "top_k": 1, "top_p": 0.1}),
    "model.name": Refused("another_model"),
    **rows("model[seq2seq].", {"embedding_size": 3, "num_layers": 2, "decoder_layers": 2, "residual": True}),
    **rows("model[seq2seq].", {"bidirectional_layers": 1, "merge": "sum", "attend_from": "bottom", "copy": True}),
    **rows("model[seq2seq].", {"input_feeding": True, "tied": True, "share_embeddings": True}),
    **rows(
        "model[seq2seq].", {"dtype": "bfloat16", "param_dtype": "bfloat16", "engine": Refused("warp"), "remat": True}
    ),
    "model[seq2seq].cell": {"name": "gru", "hidden_size": 4},
    "model[seq2seq].attention": {"name": "none"},
    "model[seq2seq].dropout": {"input_rate": 0.5},
    "model.attention.name": Refused("another_attention"),
    **rows("model.attention[additive].", {"attention_size": 2, "coverage": True}),
    **rows("model.attention[multi_head].", {"num_heads": 1, "attention_size": 2, "additive": True}),
}
TABLE = Table(
    BASE,
    CONTEXT,
    KNOBS,
    {
        "dataset": (PARALLEL_DATASETS, set()),
        "task": ({"translation": MachineTranslation}, {"dataset", "vocabulary", "model", "files"}),
        "task.decoder": (DECODERS, set()),
        "model": (MODELS, {"source_size", "target_size", "joint", "rngs"}),
        "model.attention": (ATTENTIONS, set()),
    },
    refuses_data=("dataset[tsv].delimiter", "task[translation].truncate"),
)
