"""`lstm-research train`: trains a model from a config, or goes on with a run.

lstm-research train --config=configs/char_lm.py --workdir=runs/char_lm
lstm-research train --config=configs/char_lm.py --workdir=runs/gru --config.model.cell.name=gru
"""

from pathlib import Path

from absl import flags

from lstm_research.cli.config_flag import define_config_flag, read_config
from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines the flags of this command."""
    define_config_flag()
    flags.DEFINE_string("workdir", None, "The folder of the run; a run that is there goes on.")
    flags.DEFINE_bool("overwrite_config", False, "Go on in a workdir that was made by another config.")


def main(argv: list[str]) -> int:
    """Trains; returns the exit code of `lstm_research.training.loop.run`."""
    if len(argv) > 1:
        raise UserError(f"train takes only flags, got {' '.join(argv[1:])}")
    FLAGS = flags.FLAGS
    config, source = read_config()
    if not FLAGS.workdir:
        raise UserError("give a folder for the run with --workdir=FOLDER")
    # Imported here, not above: --help and mistakes in flags must not wait for JAX.
    from lstm_research.training.experiment import Experiment, files_to_resume_with
    from lstm_research.training.loop import run
    from lstm_research.training.workdir import check_workdir

    # Before data is fetched.
    workdir = check_workdir(Path(FLAGS.workdir), config, overwrite_config=FLAGS.overwrite_config)
    experiment = Experiment.from_config(config, files=files_to_resume_with(workdir, config))
    return run(experiment, workdir.path, overwrite_config=FLAGS.overwrite_config, config_source=source)
