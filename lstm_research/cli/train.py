"""`lstm-research train`: trains a model from a config, or goes on with a run.

lstm-research train --config=configs/char_lm.py --workdir=runs/char_lm
lstm-research train --config=configs/char_lm.py --workdir=runs/gru --config.model.cell.name=gru
srun lstm-research train --config=configs/char_lm.py --workdir=runs/char_lm --distributed
"""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from absl import flags

from lstm_research.cli.config_flag import define_config_flag, read_config
from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines the flags of this command."""
    define_config_flag()
    flags.DEFINE_string("workdir", None, "The folder of the run; a run that is there goes on.")
    flags.DEFINE_bool("overwrite_config", False, "Go on in a workdir that was made by another config.")
    flags.DEFINE_string("profile", None, "N..M: write a trace of these steps to the folder profile of the workdir.")
    flags.DEFINE_string(
        "compilation_cache", None, "A folder in which compiled programs are kept, for the next start and other runs."
    )
    flags.DEFINE_bool(
        "distributed", False, "Train as one of the processes that the cluster has started (SLURM, Open MPI, TPU)."
    )
    flags.DEFINE_string("coordinator_address", None, "The same without a cluster: HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "How many processes train together.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)


def main(argv: list[str]) -> int:
    """Trains; returns the exit code of `lstm_research.training.loop.run`."""
    if len(argv) > 1:
        raise UserError(f"train takes only flags, got {' '.join(argv[1:])}")
    FLAGS = flags.FLAGS
    config, source = read_config()
    if not FLAGS.workdir:
        raise UserError("give a folder for the run with --workdir=FOLDER")
    with _together_with_others():
        return _train(config, source)


def _train(config: Any, source: str) -> int:
    FLAGS = flags.FLAGS
    # Imported here, not above: --help and mistakes in flags must not wait for JAX.
    from lstm_research.training.environment import keep_compiled_programs
    from lstm_research.training.experiment import Experiment, files_to_resume_with
    from lstm_research.training.loop import run
    from lstm_research.training.processes import is_first, on_all
    from lstm_research.training.profile import read_steps
    from lstm_research.training.workdir import Workdir, check_workdir, config_digest

    profile = None if FLAGS.profile is None else read_steps(FLAGS.profile)
    path = Path(FLAGS.workdir)

    def build() -> Experiment:
        if FLAGS.compilation_cache is not None:
            keep_compiled_programs(Path(FLAGS.compilation_cache))
        if is_first():  # before data is fetched
            check_workdir(path, config, overwrite_config=FLAGS.overwrite_config)
        return Experiment.from_config(config, files=files_to_resume_with(Workdir(path), config))

    def describe(experiment: Experiment) -> dict[str, str]:
        data = hashlib.sha256(repr(sorted(experiment.task.files().items())).encode())
        return {"config": config_digest(config), "parallel": repr(experiment.parallel), "data": data.hexdigest()}

    experiment = on_all(build, describe)
    return run(experiment, path, overwrite_config=FLAGS.overwrite_config, config_source=source, profile=profile)


def _together_with_others() -> contextlib.AbstractContextManager[None]:
    """Returns what joins the processes that the flags name, if they name any."""
    FLAGS = flags.FLAGS
    names = ("coordinator_address", "num_processes", "process_id")
    given = {name: FLAGS[name].value for name in names if FLAGS[name].value is not None}
    if not given and not FLAGS.distributed:
        return contextlib.nullcontext()
    if given and len(given) < len(names):
        missing = ", ".join(f"--{name}" for name in names if name not in given)
        raise UserError(f"several processes need all of --{', --'.join(names)}: {missing} is missing")
    if given and FLAGS.process_id >= FLAGS.num_processes:
        raise UserError(
            f"--process_id={FLAGS.process_id} must be below --num_processes={FLAGS.num_processes}: they count from 0"
        )
    from lstm_research.training.processes import joined

    return joined(**given)
