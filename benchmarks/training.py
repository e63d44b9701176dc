"""The whole training step of a recipe: where its time goes.

A step is timed in two ways, in turn, on the state and the batches of a real `Experiment`.

*One at a time.* Nothing overlaps, so the parts add up to the step:

- `data`: the next batch is made, in the foreground;
- `host`: `train_step(state, batch)` is called, until it returns: Python, the batch's way to the device, the launch;
- `device`: then its results are waited for.

*As the loop runs.* Batches come from the experiment's own iterator, which makes them in the background; no result is
waited for until the last, as where the loop writes a line of metrics. The parts are what the host spends of a step on
waiting for a batch (`data`), in calls (`host`), and on the results at the end (`device`). The iterator's buffer is
emptied first, so what was made before the clock started does not count.

**The data and host share** of a step is 1 - device / step, where `device` is always the time that the host waits for
the results of one step by itself. For steps one at a time it is the share with nothing hidden, (data + host) / step. As
the loop runs, `step` is the loop's: what of data and host the device does not hide, along with what the two take from
the device by using the same cores. The device starts while the call still returns, so `device` is rather too short, and
both shares are rather too large than too small. (A share below 0 means that it is lost in the scatter: the loop's step
took less time than a step by itself waits for the device.) Where a device runs a very small program inside the call, as
CPUs do, that counts as `host`.

Both are measured in each of several rounds; reported are the medians over steps and rounds, and the shares' medians
over rounds.
"""

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from lstm_research.common.errors import UserError
from lstm_research.training.experiment import Experiment

from .machine import describe

FORMAT = 1
PARTS = ("data", "host", "device")
_ROUNDS = 5
_WARM_UP = 3
_BUFFERED = 16  # more than an experiment's iterator makes ahead


@dataclasses.dataclass
class Trainer:
    """An experiment on its way, which can be timed for some steps."""

    experiment: Any
    state: Any
    step: int = 0
    tokens: float = 0.0

    def one_at_a_time(self, num_steps: int) -> list[dict[str, float]]:
        """Returns the seconds of each part of each step, with nothing overlapping."""
        batches = self.experiment.task.train_batches(self.experiment.seed)
        rows = []
        for _ in range(num_steps):
            times = [time.perf_counter()]
            batch = batches[self.step]
            times.append(time.perf_counter())
            self.state, metrics = self._update(batch)
            times.append(time.perf_counter())
            jax.block_until_ready((self.state, metrics))
            times.append(time.perf_counter())
            rows.append(dict(zip(PARTS, (b - a for a, b in itertools.pairwise(times)), strict=True)))
            self.step += 1
            self._look_at([metrics])
        return rows

    def _update(self, batch: Any) -> tuple[Any, Any]:
        return self.experiment.train_step(self.state, self.experiment.parallel.place_batch(batch))

    def as_the_loop_runs(self, num_steps: int) -> dict[str, float]:
        """Returns the seconds that the host spends on each part, over all steps, waiting for results at the end."""
        batches = iter(self.experiment.train_iterator(self.step))
        try:
            for _ in range(_BUFFERED):
                next(batches)
            seconds, pending = dict.fromkeys(PARTS, 0.0), []
            for _ in range(num_steps):
                start = time.perf_counter()
                batch = next(batches)
                made = time.perf_counter()
                self.state, metrics = self._update(batch)
                pending.append(metrics)
                returned = time.perf_counter()
                seconds["data"] += made - start
                seconds["host"] += returned - made
            start = time.perf_counter()
            fetched = jax.device_get(pending)  # as the loop does before it writes a line
            jax.block_until_ready(self.state)
            seconds["device"] = time.perf_counter() - start
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        self.step += num_steps
        self._look_at(fetched)
        return seconds

    def _look_at(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        loss, count = map(float, metrics[-1]["loss"])
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss of step {self.step} is {loss}: this is no training to be timed")
        self.tokens = count


def prepare(recipes: Mapping[str, Any], num_steps: int) -> dict[str, Experiment]:
    """Builds the experiments of all recipes, data included, so that mistakes show before anything is measured.

    Args:
      recipes: configs by name.
      num_steps: the number of steps that will be timed.

    Raises:
      UserError: no recipe, no steps, or a config that does not fit.
    """
    if not recipes:
        raise UserError("give a recipe with --config=FILE.py")
    if num_steps < 1:
        raise UserError(f"--steps must be at least 1, got {num_steps}")
    return {name: Experiment.from_config(config) for name, config in recipes.items()}


def run(
    experiments: Mapping[str, Any],
    num_steps: int,
    finished_recipe: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures the training step of experiments.

    Args:
      experiments: by the names of their recipes.
      num_steps: the number of steps that are timed in each way.
      finished_recipe: called with the record after each recipe, so that what is measured can be shown and kept.
      say: takes one line about what happens now.

    Returns:
      The record, in types that JSON has; `benchmarks/README.md` describes it.

    Raises:
      RuntimeError: a training that diverges.
    """
    record: dict[str, Any] = {
        "benchmark": "training",
        "format": FORMAT,
        "machine": describe(),
        "options": {"steps": num_steps},
        "recipes": [],
    }
    for name, experiment in experiments.items():
        say(f"{name}: compiling, then {num_steps} steps in each way")
        record["recipes"].append({"recipe": name, **measure_experiment(experiment, num_steps)})
        finished_recipe(record)
    return record


def measure_experiment(experiment: Any, num_steps: int) -> dict[str, Any]:
    """Measures the training step of an experiment."""
    trainer = Trainer(experiment, experiment.parallel.place_state(experiment.init_state()))
    size = sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params))
    trainer.one_at_a_time(_WARM_UP)
    rounds = []
    for steps in _rounds(num_steps):
        trainer.one_at_a_time(1)  # the state is settled, and the iterator of the round before gone
        alone = trainer.one_at_a_time(steps)
        rounds.append({"steps": steps, "one_at_a_time": alone, "as_the_loop_runs": trainer.as_the_loop_runs(steps)})
    return {
        "config": experiment.config.to_dict() if hasattr(experiment.config, "to_dict") else dict(experiment.config),
        "parameters": size,
        "tokens_per_step": trainer.tokens,
        "rounds": rounds,
        **summarize(rounds, trainer.tokens),
    }


def _rounds(num_steps: int) -> list[int]:
    """Returns the steps of each round: as equal as can be, none of them 0."""
    count = min(_ROUNDS, num_steps)
    return [num_steps // count + (index < num_steps % count) for index in range(count)]


def summarize(rounds: Sequence[Mapping[str, Any]], tokens: float) -> dict[str, dict[str, float]]:
    """Returns for each way the seconds of a step and of its parts, tokens per second, and the data and host share.

    Args:
      rounds: of each, `steps`, and the seconds of `one_at_a_time` (by step) and `as_the_loop_runs` (of all steps).
      tokens: of a step.
    """
    alone, loop = [], []
    shares: dict[str, list[float]] = {"one_at_a_time": [], "as_the_loop_runs": []}
    for each in rounds:
        steps = [{**row, "step": sum(row.values())} for row in each["one_at_a_time"]]
        whole = {part: seconds / each["steps"] for part, seconds in each["as_the_loop_runs"].items()}
        whole["step"] = sum(whole.values())
        device, step = (statistics.median(row[part] for row in steps) for part in ("device", "step"))
        shares["one_at_a_time"].append(1 - device / step)
        shares["as_the_loop_runs"].append(1 - device / whole["step"])
        alone += steps
        loop.append(whole)
    result = {}
    for way, rows in (("one_at_a_time", alone), ("as_the_loop_runs", loop)):
        seconds = {part: statistics.median(row[part] for row in rows) for part in ("step", *PARTS)}
        result[way] = {
            **{f"{part}_seconds": value for part, value in seconds.items()},
            "tokens_per_second": tokens / seconds["step"],
            "data_and_host_share": statistics.median(shares[way]),
        }
    return result
