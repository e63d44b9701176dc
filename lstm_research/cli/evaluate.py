"""`lstm-research evaluate`: the metrics of a run over one whole split, as a table or as JSON.

lstm-research evaluate --workdir=runs/char_lm --split=test
lstm-research evaluate --workdir=runs/char_lm --checkpoint=latest --json
"""

import json

from absl import flags

from lstm_research.cli import run_flags


def define_flags() -> None:
    """Defines the flags of this command."""
    run_flags.define_flags()
    flags.DEFINE_string("split", "test", "The split to evaluate: train, valid or test.")
    flags.DEFINE_bool("json", False, "Print one JSON object instead of a table.")


def main(argv: list[str]) -> None:
    """Evaluates a run."""
    trained = run_flags.load(argv)
    metrics = trained.evaluate(flags.FLAGS.split)
    if flags.FLAGS.json:
        print(json.dumps({"step": trained.step, "split": flags.FLAGS.split, **metrics}))
        return
    print(f"{flags.FLAGS.workdir}: {flags.FLAGS.split} split, weights of step {trained.step}")
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"  {name:<{width}}  {value:.6g}")
