"""The flags that name a finished or running run; shared by the commands that use one."""

from typing import Any

from absl import flags

from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines `--workdir` and `--checkpoint`."""
    flags.DEFINE_string("workdir", None, "The folder of the run.")
    flags.DEFINE_string("checkpoint", "best", "Which weights: best, latest, or the step of a checkpoint.")


def load(argv: list[str]) -> Any:
    """Returns the `TrainedRun` that the flags name.

    Raises:
      UserError: arguments that are no flags, no such workdir, or no such checkpoint in it.
    """
    if len(argv) > 1:
        raise UserError(f"{argv[0]} takes only flags, got {' '.join(argv[1:])}")
    if not flags.FLAGS.workdir:
        raise UserError("give the folder of a run with --workdir=FOLDER")
    # Imported here, not above: --help and mistakes in flags must not wait for JAX.
    from lstm_research.training.trained_run import TrainedRun

    return TrainedRun.load(flags.FLAGS.workdir, flags.FLAGS.checkpoint)
