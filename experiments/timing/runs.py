"""What this study runs; `experiments/study.py` runs it."""

from study import Run

# Spikes 50 or 51 steps apart, some nine in a sequence.
SPIKES = ("dataset.min_interval=50", "dataset.length=500", "training.num_steps=8000")

GROUPS: dict[str, list[Run]] = {
    "peephole": [Run("peephole", "synthetic.py:timed_spikes", ("model.cell.name=peephole_lstm", *SPIKES))],
    "plain": [Run("plain", "synthetic.py:timed_spikes", SPIKES)],
}
