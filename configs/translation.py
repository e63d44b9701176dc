"""Translation with attention: Tatoeba sentences, Bible verses, or your own parallel files.

    lstm-research train --config=configs/translation.py --workdir=runs/en_fr
    lstm-research train --config=configs/translation.py:no_attention --workdir=runs/en_fr_no_attention
    lstm-research train --config=configs/translation.py:files,additive --workdir=runs/mine

By default English to French with Tatoeba's 32,000 sentence pairs. A variant names one of the datasets

    --config=configs/translation.py:en-de     --config=configs/translation.py:bible (English to French verses)
    --config=configs/translation.py:en-es     --config=configs/translation.py:files (train.source and train.target, ...)
    --config=configs/translation.py:ja-en

and one of the models, both if separated by a comma:

    --config=configs/translation.py:additive             the attention of Bahdanau et al.
    --config=configs/translation.py:multi_head           that of Vaswani et al.
    --config=configs/translation.py:input_feeding        as in Luong et al.
    --config=configs/translation.py:pointer_generator    copying and coverage, See et al. (no extended vocabulary)
    --config=configs/translation.py:gnmt                 deep stacks with residuals, as in Wu et al. and Chen et al.
    --config=configs/translation.py:no_attention         the baseline, Sutskever et al.

Few and loose pairs want a strong regularisation: a small vocabulary of subwords for both languages, tied and shared
embeddings, dropout of whole words and features, smoothed labels, an average of the weights.

Cost: 18 minutes on 2 CPU cores. Expected (seed 0): test BLEU 25.6 with beam 5 (nrefs:var|case:mixed|eff:no|tok:13a|
smooth:exp|version:2.6.0), 23.7 greedy. `ja-en`: 13.9, 40 minutes beside other work. `experiments/text_tasks` compares
`no_attention`; the other variants are not measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

DATASETS = ("en-fr", "en-de", "en-es", "ja-en", "bible", "files")
MODELS = ("general", "additive", "multi_head", "input_feeding", "pointer_generator", "gnmt", "no_attention")
VARIANTS = ("", *DATASETS[1:], *MODELS[1:])


def get_config(variant: str = "") -> ConfigDict:
    parts = variant.split(",") if variant else []
    for part in parts:
        if part not in DATASETS + MODELS:
            raise unknown("variant", part, DATASETS + MODELS)
    datasets, models = ([part for part in parts if part in group] for group in (DATASETS, MODELS))
    if len(datasets) > 1 or len(models) > 1:
        raise UserError(
            f"variant {variant!r} names {len(datasets)} data sets and {len(models)} models; name one of each"
        )

    config = ConfigDict()
    config.seed = 0
    set_dataset(config, datasets[0] if datasets else "en-fr")
    set_model(config, models[0] if models else "general")
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 400},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": 7000,
        "log_every": 200,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "average_decay": 0.999,
    }
    return config


def set_dataset(config: ConfigDict, name: str) -> None:
    """Sets what is translated."""
    config.dataset = {"name": "tatoeba"}
    config.vocabulary = {"name": "subwords", "size": 3000}
    config.task = {
        "name": "translation",
        "batch_size": 64,
        "max_length": 100,
        "truncate": True,
        "bucket_boundaries": (9, 12, 15, 18, 22, 28, 40),
        "joint_vocabulary": name != "ja-en",
        "label_smoothing": 0.1,
        "decoder": {"name": "beam", "beam_size": 5, "length_penalty": "average"},
        "num_scored": 200,
    }
    if name == "files":
        splits = ("train", "valid", "test")
        files = {f"{split}_{side}": f"{split}.{side}" for split in splits for side in ("source", "target")}
        config.dataset = {"name": "parallel_files", **files}
    elif name == "bible":
        config.dataset = {"name": "bible_verses", "source": "en", "target": "fr"}
        config.vocabulary.size = 6000
        config.task.update(max_length=150, bucket_boundaries=(20, 28, 36, 44, 56, 72, 100))
    else:
        config.dataset.source, config.dataset.target = name.split("-")


def set_model(config: ConfigDict, name: str) -> None:
    """Sets what translates."""
    joint = config.task.joint_vocabulary
    config.model = {
        "name": "seq2seq",
        "embedding_size": 256,
        "cell": {"name": "lstm", "hidden_size": 384},
        "num_layers": 1,
        "attention": {"name": "general"},
        "tied": True,
        "share_embeddings": joint,
        "dropout": {"embedding_rate": 0.2, "input_rate": 0.3, "output_rate": 0.4, "locked": True},
    }
    if name in ("additive", "multi_head"):
        config.model.attention = {"name": name}
    elif name == "input_feeding":
        config.model.input_feeding = True
    elif name == "pointer_generator":
        config.model.attention = {"name": "additive", "coverage": True}
        config.model.copy = True
        config.task.coverage_loss = 1.0
    elif name == "gnmt":
        config.model.cell = {"name": "layer_norm_lstm", "hidden_size": 256}
        config.model.attention = {"name": "multi_head", "additive": True}
        config.model.update(num_layers=4, bidirectional_layers=1, residual=True, attend_from="bottom")
        config.model.dropout.layer_rate = 0.2
    elif name == "no_attention":
        config.model.attention = {"name": "none"}
