"""`lstm-research predict` for a generated problem: the model's answers to sequences of the test split, as CSV.

lstm-research predict --workdir=runs/adding --count=10 --output=answers.csv
"""

from typing import Any

from absl import flags

from lstm_research.cli.predict_io import write_output
from lstm_research.common.errors import UserError

SHARED_FLAGS = ("output",)
"""The flags of `predict` that this task reads."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    flags.DEFINE_integer("count", 1, "How many sequences of the test split to answer.", lower_bound=1)


def main(trained: Any) -> None:
    """Writes one line a step: the inputs, the target where one counts, and the output."""
    count, available = flags.FLAGS.count, len(trained.task.dataset.examples("test").lengths)
    if count > available:
        raise UserError(f"--count={count}: the test split has {available} sequences; give a number up to that")
    write_output(trained.task.answers(trained.params, count))
