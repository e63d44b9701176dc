"""Trials an hour: packed into one program, and as processes of their own, one or several at a time.

What is timed is the real command on a recipe, in a process of its own, that trains a few steps: `train`, as many of
them at a time as there are cores, and `sweep --engine=packed` over as many learning rates. Of each it is known

- `seconds`: from the start of the command to its end: Python, the data, compiling, and what a run writes included;
- `step_seconds`: of a step in the second half of a run, from its `metrics.jsonl`, over the trials that share it;
- `fixed_seconds`: the rest, for all trials of the command together.

From these come the trials an hour of the recipe's own length. All ways are measured in turn in each of several rounds;
reported are the medians.
"""

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_research.common.errors import UserError
from lstm_research.training.metrics import read_metrics

from .machine import describe, usable_cores

FORMAT = 1
_SWEEP = """
def get_hyper(hyper):
    return hyper.sweep("optimizer.learning_rate", [{rate!r} * (1 + i / {count}) for i in range({count})])
"""


@dataclasses.dataclass(frozen=True)
class Way:
    """How trials are run.

    Attributes:
      name: for tables.
      trials: how many the measured commands train together.
      packed: whether in one program.
    """

    name: str
    trials: int
    packed: bool


def ways(packs: Sequence[int], cores: int) -> list[Way]:
    """Returns what is compared: a process, as many as there are cores, and packs.

    Raises:
      UserError: a pack of less than one trial.
    """
    for pack in packs:
        if pack < 1:
            raise UserError(f"--packs must be at least 1, got {pack}")
    alone = [Way("alone", 1, False), *([Way(f"{cores} at a time", cores, False)] if cores > 1 else [])]
    return [*alone, *(Way(f"pack of {pack}", pack, True) for pack in packs)]


Measure = Callable[[Way, str, Mapping[str, Any], Sequence[str], int], dict[str, float]]
"""From a way, a recipe's file, its config, overrides and steps to seconds, see the module."""


def run(
    recipes: Mapping[str, Any],
    overrides: Sequence[str],
    packs: Sequence[int],
    num_steps: int,
    repeats: int,
    finished_recipe: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Measures trials an hour.

    Args:
      recipes: configs by the names of their files.
      overrides: KEY=VALUE, of all recipes.
      packs: the sizes of packs.
      num_steps: how many steps each command trains.
      repeats: how many rounds.
      finished_recipe: called with the record after each recipe.
      say: takes one line about what happens now.
      measure: measures one way; None runs the commands.

    Returns:
      The record, in types that JSON has; `benchmarks/README.md` describes it.

    Raises:
      UserError: numbers that are too small, or a command that failed.
    """
    for name, value, least in (("steps", num_steps, 4), ("repeats", repeats, 1)):
        if value < least:
            raise UserError(f"--{name} must be at least {least}, got {value}")
    compared = ways(packs, usable_cores())
    options = {"steps": num_steps, "packs": list(packs), "repeats": repeats, "overrides": list(overrides)}
    record: dict[str, Any] = {
        "benchmark": "packed",
        "format": FORMAT,
        "machine": describe(),
        "options": options,
        "recipes": [],
    }
    for recipe, config in recipes.items():
        rounds = []
        for number in range(repeats):
            rows = {}
            for way in compared:
                say(f"{recipe}, round {number + 1} of {repeats}: {way.name}")
                rows[way.name] = (measure or run_commands)(way, recipe, config, overrides, num_steps)
            rounds.append(rows)
        length = config["training"]["num_steps"]
        summary = {way.name: summarize([rows[way.name] for rows in rounds], way.trials, length) for way in compared}
        record["recipes"].append({"recipe": recipe, "num_steps": length, "rounds": rounds, "ways": summary})
        finished_recipe(record)
    return record


def summarize(rows: Sequence[Mapping[str, float]], trials: int, num_steps: int) -> dict[str, float]:
    """Returns the medians of one way, and the trials an hour that follow for runs of `num_steps`."""
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    whole = median["fixed_seconds"] + trials * num_steps * median["step_seconds"]
    return {**median, "trials": trials, "trials_per_hour": 3600 * trials / whole}


def run_commands(
    way: Way, recipe: str, config: Mapping[str, Any], overrides: Sequence[str], num_steps: int
) -> dict[str, float]:
    """Runs the commands of one way, and returns their seconds.

    Raises:
      UserError: a command failed.
    """
    half = num_steps // 2
    lengths = {"num_steps": num_steps, "log_every": half, "eval_every": num_steps, "checkpoint_every": num_steps}
    arguments = [f"--config={recipe}", *(f"--config.{override}" for override in overrides)]
    arguments += [f"--config.training.{key}={value}" for key, value in lengths.items()]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        if way.packed:
            (folder / "sweep.py").write_text(_SWEEP.format(rate=config["optimizer"]["learning_rate"], count=way.trials))
            flags = [f"--sweep={folder}/sweep.py", f"--workdir={folder}/sweep", "--engine=packed"]
            commands = [["sweep", *arguments, *flags, f"--pack={way.trials}"]]
            workdir = folder / "sweep" / "trials" / "0000"
        else:
            commands = [["train", *arguments, f"--workdir={folder}/{number}"] for number in range(way.trials)]
            workdir = folder / "0"
        environment = dict(os.environ)
        if len(commands) > 1:  # as a sweep's workers divide a machine
            environment |= {"NPROC": "1", "OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        log = stack.enter_context(open(folder / "log.txt", "w+"))
        start = time.perf_counter()
        processes = [
            subprocess.Popen([sys.executable, "-m", "lstm_research", *each], stdout=log, stderr=log, env=environment)
            for each in commands
        ]
        codes = [process.wait() for process in processes]
        seconds = time.perf_counter() - start
        if any(codes):
            log.seek(0)
            raise UserError(f"{recipe}, {way.name}: {log.read().strip().splitlines()[-1]}")
        at = {
            line["step"]: line["seconds"]
            for line in read_metrics(workdir / "metrics.jsonl")
            if line["split"] == "train"
        }
    together = (at[num_steps] - at[half]) / (num_steps - half)
    return {
        "seconds": seconds,
        "step_seconds": together / way.trials,
        "fixed_seconds": seconds - num_steps * together,
    }
