"""`lstm-research sweep`: trains many trials of a recipe, chosen by a sweep file; the same command goes on.

lstm-research sweep --config=configs/synthetic.py --sweep=rates.py --workdir=sweeps/rates --workers=2
lstm-research sweep --config=configs/synthetic.py --sweep=space.py --workdir=sweeps/space --num_trials=50 --pruner=asha
lstm-research sweep --workdir=sweeps/rates --status
"""

import os
import sys
from pathlib import Path
from typing import Any

from absl import flags

from lstm_research.cli.config_flag import define_config_flag, overrides, parse_config, read_config
from lstm_research.common.errors import UserError

_ENGINE_FLAGS = (
    "pack",
    "workers",
    "max_restarts",
    "cpus_per_trial",
    "devices_per_trial",
    "storage",
    "address",
    "slurm_partition",
    "slurm_time",
    "slurm_gpus",
    "slurm_array_parallelism",
)


def define_flags() -> None:
    """Defines the flags of this command."""
    define_config_flag()
    flags.DEFINE_string("sweep", None, "The sweep file: Python with get_hyper(hyper) or get_space(space).")
    flags.DEFINE_string("workdir", None, "The folder of the sweep; a sweep that is there goes on.")
    flags.DEFINE_bool("status", False, "Show the trials of the sweep in --workdir, and run nothing.")
    flags.DEFINE_string("engine", "local", "What runs the trials: local, packed, ray or slurm.")
    flags.DEFINE_string("sampler", None, "How a space is searched: tpe (where nothing is said), random or grid.")
    flags.DEFINE_string("pruner", "none", "Whether bad trials are stopped early: none, asha, hyperband or median.")
    flags.DEFINE_integer("seed", 0, "Seed of the sampler.")
    flags.DEFINE_integer("num_trials", None, "How many trials of a space; NUM_TRIALS of the sweep file if left out.")
    flags.DEFINE_integer("pack", None, "packed: the most trials in one program, 16 if left out.")
    flags.DEFINE_integer("workers", None, "local, ray: trials at a time; 1 (local) or all there is room for (ray).")
    flags.DEFINE_integer(
        "max_restarts", None, "How often a trial that died goes on without having got any further; 10 if left out."
    )
    flags.DEFINE_integer("cpus_per_trial", None, "ray, slurm: CPUs that each trial reserves, 1 if left out.")
    flags.DEFINE_integer(
        "devices_per_trial",
        None,
        "local, ray: GPUs of each trial; left out, 1 where there are any (local), none (ray).",
    )
    flags.DEFINE_string(
        "storage", None, "local: URL of a database, which several of these commands may share; a file if left out."
    )
    flags.DEFINE_string("address", None, "ray: address of the cluster, or auto; one is started here if left out.")
    flags.DEFINE_string("slurm_partition", None, "slurm: the partition.")
    flags.DEFINE_integer("slurm_time", None, "slurm: minutes until a job saves and is queued again, 60 if left out.")
    flags.DEFINE_integer("slurm_gpus", None, "slurm: GPUs of each trial, none if left out.")
    flags.DEFINE_integer("slurm_array_parallelism", None, "slurm: trials at a time, 16 if left out.")


def main(argv: list[str]) -> int:
    """Runs the sweep; returns 0, or 1 if no trial was finished, or 143 or 130 if it was stopped."""
    if len(argv) > 1:
        raise UserError(f"sweep takes only flags, got {' '.join(argv[1:])}")
    FLAGS = flags.FLAGS
    if not FLAGS.workdir:
        raise UserError("give a folder for the sweep with --workdir=FOLDER")
    folder = Path(FLAGS.workdir)
    # Imported here, not above: --help and mistakes in flags must not wait for JAX.
    if FLAGS.status:
        from lstm_research.sweeps.display import show_results
        from lstm_research.sweeps.results import read_sweep

        show_results(read_sweep(folder))
        return 0
    _, recipe_text = read_config()
    flag: Any = FLAGS["config"]
    if not FLAGS.sweep:
        raise UserError("give a sweep file with --sweep=FILE.py")
    import jax

    from lstm_research.sweeps.definition import define_sweep
    from lstm_research.sweeps.engines import make_engine
    from lstm_research.sweeps.local import cores
    from lstm_research.sweeps.sweep_file import read_sweep_file

    engine = make_engine(FLAGS.engine, {name: FLAGS[name].value for name in _ENGINE_FLAGS})
    if not engine.trains_here:  # checking configs must not take the devices from the trials
        jax.config.update("jax_platforms", "cpu")
    elif "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Trials are divided among devices, of which a CPU has but one for all its cores.
        jax.config.update("jax_num_cpu_devices", cores())
    definition = define_sweep(
        read_sweep_file(Path(FLAGS.sweep)),
        parse_config,
        folder=folder,
        recipe=flag.config_filename,
        recipe_text=recipe_text,
        overrides=overrides(sys.argv),
        sampler=FLAGS.sampler,
        pruner=FLAGS.pruner,
        seed=FLAGS.seed,
        num_trials=FLAGS.num_trials,
    )
    return engine.run(definition)
