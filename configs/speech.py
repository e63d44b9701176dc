"""Speech recognition: connected digits, Czech or Dutch voice acting, English prompts, or your own recordings.

    lstm-research train --config=configs/speech.py --workdir=runs/digits
    lstm-research train --config=configs/speech.py:czech --workdir=runs/czech
    lstm-research train --config=configs/speech.py:dutch --workdir=runs/dutch
    lstm-research train --config=configs/speech.py:prompts --workdir=runs/prompts
    lstm-research train --config=configs/speech.py:manifest --workdir=runs/mine --config.dataset.train=train.csv

Strings of 3 to 7 digits of the Free Spoken Digit Dataset (13 cepstral coefficients a frame) are the default. `czech`,
`dutch` and `prompts` come from Debian packages and are read from waveforms; so are your own recordings, listed in a
table with the columns path and transcript. The model is a bidirectional LSTM with CTC; others, beside any of the data:

    --config=configs/speech.py:forward               reads in one direction, and so can recognise a stream
    --config=configs/speech.py:listen_attend_spell   the attention decoder of Chan et al., jointly with CTC
    --config=configs/speech.py:transducer            that of Graves

    lstm-research predict --workdir=runs/czech --audio=recordings --output=transcripts.jsonl
    lstm-research predict --workdir=runs/czech --audio=one.ogg --alignment_plot=one.png

Cost: the digits 6 minutes on 2 busy CPU cores, Czech 15 to 41 minutes for 1500 of its 4000 steps. Expected: word error
rate 0.6 % on the test split of the digits (seed 0); character error rate 53 % on that of Czech after 1500 steps.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

DATASETS = ("digits", "czech", "dutch", "prompts", "manifest")
MODELS = ("ctc", "forward", "listen_attend_spell", "transducer")
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
    dataset, model = (datasets or ["digits"])[0], (models or ["ctc"])[0]

    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": "connected_digits"}
    config.vocabulary = {"name": "characters"}
    config.task = {
        "name": "speech_recognition",
        "batch_size": 32,
        "max_length": 500,
        "bucket_boundaries": (150, 200, 250, 300),
        "features": {"name": "given", "normalize": "global", "deltas": 0 if model == "forward" else 2},
        "spec_augment": {"num_time_masks": 2, "max_time": 10, "num_frequency_masks": 1, "max_frequency": 3},
        "decoder": {"name": "beam", "beam_size": 8},
        "num_scored": 300,
    }
    config.model = {
        "name": "ctc",
        "cell": {"name": "lstm", "hidden_size": 128},
        "num_layers": 2,
        "bidirectional": model != "forward",
        "dropout": {"input_rate": 0.1, "layer_rate": 0.3, "output_rate": 0.3, "locked": True},
    }
    config.optimizer = {
        "name": "adam",
        "learning_rate": 3e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": 1200 if model in ("ctc", "forward") else 2000,
        "log_every": 100,
        "eval_every": 200,
        "checkpoint_every": 400,
        "average_decay": 0.99,
        "metric": "cer",
    }
    if dataset != "digits":
        set_waveforms(config, dataset, streaming=model == "forward")
    if model == "listen_attend_spell":
        config.model.update(name=model, embedding_size=64, attention={"name": "additive"}, ctc_weight=0.3)
        # The average of log-probabilities likes hypotheses that are as long as can be, and every symbol is a step of
        # the decoder. The fastest digits have 0.47 letters a frame, the fastest speech 0.9 in the 4 frames of 0.01
        # seconds that an output of the encoder stands for.
        ratio = 0.5 if dataset == "digits" else 1.0
        config.task.decoder = {
            "name": "beam",
            "beam_size": 5,
            "length_penalty": "average",
            "max_length_ratio": ratio,
        }
    elif model == "transducer":
        config.model.update(name=model, embedding_size=64, joint_size=128)
        config.task.decoder = {"name": "greedy"}
    return config


def set_waveforms(config: ConfigDict, name: str, *, streaming: bool) -> None:
    """Sets recordings as the data, and features that are computed from them."""
    config.task.update(
        batch_size=16,
        max_length=1600,
        bucket_boundaries=(200, 400, 600, 800),
        lower_case=True,
        punctuation=False,
        spec_augment={"num_time_masks": 2, "max_time": 40, "num_frequency_masks": 2, "max_frequency": 12},
        speeds=(0.9, 1.0, 1.1),
    )
    normalize = "global" if streaming else "utterance"
    config.task.features = {"name": "log_mel", "num_mels": 40, "normalize": normalize}
    config.model.update(num_layers=3, reductions=(2, 2, 1))
    config.model.cell.hidden_size = 256
    config.optimizer.learning_rate = 1e-3
    config.training.update(num_steps=4000, eval_every=500, checkpoint_every=1000)
    config.dataset = {
        "czech": {"name": "fillets", "language": "cs"},
        "dutch": {"name": "fillets", "language": "nl"},
        "prompts": {"name": "asterisk_prompts"},
        "manifest": {"name": "manifest", "train": "train.csv"},
    }[name]
