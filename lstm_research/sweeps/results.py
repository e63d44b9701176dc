"""What came out of a sweep, read from its trials' folders alone, and written as a table and as a recipe of the best."""

import csv
import dataclasses
import io
import json
import pprint
import shlex
from collections.abc import Iterable
from pathlib import Path

from lstm_research.sweeps.definition import SweepDefinition
from lstm_research.sweeps.trial import FINISHED, Trial
from lstm_research.training.files import write_atomically
from lstm_research.training.workdir import read_workdir


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep and its trials so far.

    Attributes:
      definition: recipe, points or space, metric, direction.
      trials: in the order of their numbers, also those that still run. `Trial.validations(definition.metric)` gives
        the intermediate values of one.
    """

    definition: SweepDefinition
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best value, the first of equal ones; None before the first."""
        sign = -1.0 if self.definition.direction == "maximize" else 1.0
        finished = [(sign * t.value, t.number, t) for t in self.trials if t.state == FINISHED and t.value is not None]
        return min(finished)[2] if finished else None

    @property
    def best_command(self) -> str | None:
        """The command line that trains the best trial again, in a folder of its own; None before the first."""
        if self.best is None:
            return None
        command = self.definition.train_command(self.best.overrides, self.definition.folder / "best" / "run")
        return shlex.join(["python", *command[1:]])


def read_sweep(folder: Path) -> Sweep:
    """Returns the sweep that a folder holds, whichever engine runs or ran it.

    Raises:
      UserError: the folder holds none, or a record in it is damaged.
    """
    return _read_trials(SweepDefinition.read(folder))


def write_results(definition: SweepDefinition) -> None:
    """Renews `sweep.csv`, and `best/` once a trial is finished."""
    sweep = _read_trials(definition)
    _replace(definition.folder / "sweep.csv", _csv(sweep))
    best = sweep.best
    if best is None:
        return
    config = read_workdir(best.workdir)[1].to_dict()
    folder = definition.folder / "best"
    _replace(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    _replace(folder / "config.py", _recipe(definition, best, config))
    _replace(folder / "command.txt", f"{sweep.best_command}\n")


def _replace(path: Path, text: str) -> None:
    """Writes a file that has changed; most trials are not the best, and each write waits for the disk."""
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)


def _read_trials(definition: SweepDefinition) -> Sweep:
    records = (definition.folder / "trials").glob("*/trial.json")
    folders = sorted((path.parent for path in records if path.parent.name.isdigit()), key=lambda path: int(path.name))
    trials = [Trial.read(folder) for folder in folders]
    for trial in trials:
        if not trial.is_over:
            trial.collect()
    return Sweep(definition, tuple(trials))


def _csv(sweep: Sweep) -> str:
    """Returns the table: a row for every trial that is over."""
    over = [trial for trial in sweep.trials if trial.is_over]
    tests = list(dict.fromkeys(name for trial in over for name in trial.test))
    keys = sweep.definition.keys
    header = ["number", "state", sweep.definition.metric, "best_step", "seconds", *keys]
    rows: list[list[object]] = [[*header, *(f"test_{name}" for name in tests), "workdir", "reason"]]
    for trial in over:
        swept = [_cell(trial.overrides, key) for key in keys]
        row = [trial.number, trial.state, trial.value, trial.best_step, trial.seconds, *swept]
        folder = trial.workdir.relative_to(sweep.definition.folder)
        rows.append([*row, *(trial.test.get(name) for name in tests), str(folder), trial.reason])
    return _lines(rows)


def _cell(overrides: dict[str, object], key: str) -> object:
    """Returns a swept value for the table; empty where the trial has none, which is not the value None."""
    return str(overrides[key]) if key in overrides else ""


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _recipe(definition: SweepDefinition, best: Trial, config: dict[str, object]) -> str:
    literal = pprint.pformat(config, indent=1, width=100, sort_dicts=False)
    indented = literal.replace("\n", "\n    ")
    title = f"Trial {best.number} of a sweep of {definition.recipe}: validation {definition.metric} {best.value:.6g}."
    return (
        f'"""{title}"""\n\nfrom ml_collections import ConfigDict\n\n\n'
        f"def get_config() -> ConfigDict:\n    return ConfigDict({indented})\n"
    )
