"""What this study runs; `experiments/study.py` runs it."""

from study import Run

ADDING = ("dataset.length=400", "model.cell.hidden_size=64", "optimizer.learning_rate=4e-3")
ORDER = ("dataset.length=200", "training.num_steps=3000")
SLOW = ("optimizer.learning_rate=2e-4",)

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
}
