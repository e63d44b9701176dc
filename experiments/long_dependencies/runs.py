"""What this study runs; `experiments/study.py` runs it."""

from study import Run

STEPS = ("training.num_steps=4000",)
ADDING = ("dataset.length=400", *STEPS)
ORDER = ("dataset.length=200", *STEPS)
SLOW = ("optimizer.learning_rate=2e-4",)
SPIKES = ("dataset.min_interval=50", "dataset.length=500")

GROUPS: dict[str, list[Run]] = {
    "adding": [
        Run("adding-lstm", "synthetic.py:adding", (*ADDING, "model.cell.chrono_max_length=400")),
        Run("adding-rnn", "synthetic.py:adding,rnn", ADDING),
        Run("adding-rnn-slow", "synthetic.py:adding,rnn", (*ADDING, *SLOW), seeds=(0,)),
    ],
    "temporal_order": [
        Run("order-lstm", "synthetic.py:temporal_order", (*ORDER, "model.cell.chrono_max_length=200")),
        Run("order-rnn", "synthetic.py:temporal_order,rnn", ORDER),
        Run("order-rnn-slow", "synthetic.py:temporal_order,rnn", (*ORDER, *SLOW), seeds=(0,)),
    ],
    "timing": [
        Run("timed-peephole", "synthetic.py:timed_spikes", ("model.cell.name=peephole_lstm", *SPIKES)),
        Run("timed-plain", "synthetic.py:timed_spikes", ("model.cell.name=lstm", *SPIKES)),
    ],
}
