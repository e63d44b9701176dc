"""Problems of long dependencies and of timing, each of any length, with a baseline and a criterion for solved.

    lstm-research train --config=configs/synthetic.py --workdir=runs/adding
    lstm-research train --config=configs/synthetic.py --workdir=runs/adding_400 --config.dataset.length=400
    lstm-research train --config=configs/synthetic.py:copy --workdir=runs/copy
    lstm-research train --config=configs/synthetic.py:temporal_order --workdir=runs/temporal_order
    lstm-research train --config=configs/synthetic.py:noisy_sequence --workdir=runs/noisy_sequence
    lstm-research train --config=configs/synthetic.py:parity --workdir=runs/parity
    lstm-research train --config=configs/synthetic.py:even_pairs --workdir=runs/even_pairs
    lstm-research train --config=configs/synthetic.py:modular_arithmetic --workdir=runs/modular_arithmetic
    lstm-research train --config=configs/synthetic.py:embedded_reber --workdir=runs/embedded_reber
    lstm-research train --config=configs/synthetic.py:spike_delays --workdir=runs/spike_delays
    lstm-research train --config=configs/synthetic.py:timed_spikes --workdir=runs/timed_spikes
    lstm-research train --config=configs/synthetic.py:mackey_glass --workdir=runs/mackey_glass
    lstm-research train --config=configs/synthetic.py:digits --workdir=runs/digits

Data: generated, fresh at every training step; the digits are images that scikit-learn carries. A run begins by saying
its baseline, the loss without memory, and what counts as solved; the metric `solved` is 1 from there on. What else a
dataset can be is said in `lstm_research/data/synthetic`, as `--config.dataset.original=True` for the adding problem of
1997, `--config.dataset.test_length=500` for longer strings in the test, `--config.dataset.min_interval=50
--config.dataset.length=1000` for longer delays, `--config.dataset.unit=row --config.dataset.length=8` for digits row by
row.

The simple recurrent network in place of the LSTM, beside any of the data, as in `configs/synthetic.py:copy,rnn`; other
cells with `--config.model.cell.name=peephole_lstm`:

    lstm-research train --config=configs/synthetic.py:rnn --workdir=runs/adding_rnn

    lstm-research predict --workdir=runs/adding --count=10 --output=answers.csv

Where a memory must last from the beginning, forget gates start from chrono initialisation, up to the length given here.

Cost: temporal order with T = 200, 3000 steps, two minutes and a half on 2 busy CPU cores; adding with T = 400 and 64
units 17 to 28. Expected: both solved, see `experiments/long_dependencies` for the overrides; the rest is not measured.
"""

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError, unknown

# By dataset: its choices, hidden units, training steps, and the longest memory of the chrono initialisation.
DATASETS = {
    "adding": ({"length": 100}, 128, 6000, 100),
    "copy": ({"length": 100}, 128, 10000, 120),
    "temporal_order": ({"length": 100}, 64, 6000, 100),
    "noisy_sequence": ({"length": 100}, 32, 3000, 100),
    "parity": ({"length": 40}, 64, 10000, None),
    "even_pairs": ({"length": 40}, 64, 6000, None),
    "modular_arithmetic": ({"length": 40}, 128, 20000, None),
    "embedded_reber": ({"length": 50}, 32, 4000, None),
    "spike_delays": ({"length": 200, "min_interval": 10, "max_offset": 1}, 32, 6000, None),
    "timed_spikes": ({"length": 200, "min_interval": 10, "max_offset": 1}, 32, 10000, None),
    "mackey_glass": ({"length": 200, "delay": 17, "horizon": 84}, 64, 6000, None),
    "digits": ({"unit": "pixel", "length": 64}, 128, 4000, 64),
}
VARIANTS = ("", *list(DATASETS)[1:], "rnn")


def get_config(variant: str = "") -> ConfigDict:
    parts = variant.split(",") if variant else []
    for part in parts:
        if part not in (*DATASETS, "rnn"):
            raise unknown("variant", part, (*DATASETS, "rnn"))
    names = [part for part in parts if part in DATASETS]
    if len(names) > 1:
        raise UserError(f"variant {variant!r} names {len(names)} datasets; name one")
    name = names[0] if names else "adding"
    choices, hidden_size, num_steps, memory = DATASETS[name]

    config = ConfigDict()
    config.seed = 0
    config.dataset = {"name": name, **choices}
    config.vocabulary = {}
    config.task = {"name": "synthetic", "batch_size": 50}
    config.model = {
        "name": "sequence_model",
        "cell": {"name": "lstm", "hidden_size": hidden_size},
        "num_layers": 1,
        "dropout": {},
    }
    if "rnn" in parts:
        config.model.cell.name = "rnn"
    elif memory is not None:
        config.model.cell.chrono_max_length = memory
    config.optimizer = {
        "name": "adam",
        "learning_rate": 2e-3,
        "schedule": {"name": "cosine", "warmup_steps": 100},
        "clip_norm": 1.0,
    }
    config.training = {
        "num_steps": num_steps,
        "log_every": 200,
        "eval_every": 500,
        "checkpoint_every": 1000,
        "metric": "loss",
    }
    return config
