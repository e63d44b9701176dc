"""What a sweep is: recipe, trials to come, and how they are judged; kept in `sweep.json` of its folder."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lstm_research.common.errors import UserError, unknown
from lstm_research.sweeps.points import Point, plain_value
from lstm_research.sweeps.space import Parameter, corners, grid
from lstm_research.sweeps.sweep_file import SweepFile
from lstm_research.training.files import write_atomically
from lstm_research.training.workdir import config_differences

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("none", "asha", "hyperband", "median")

# Keys that say what trials are compared by; they must be the same in all of them.
_JUDGE = ("training.metric", "task.name")

Configure = Callable[[Sequence[str]], Any]
"""Reads a config as the command line does: from `--config=RECIPE` and overrides."""


@dataclasses.dataclass(frozen=True)
class SweepDefinition:
    """A sweep, for engines and for those who read its results.

    Attributes:
      folder: of the sweep; `trials/0007` in it is the workdir of trial 7.
      recipe: FILE.py or FILE.py:VARIANT.
      overrides: of all trials, as command-line arguments.
      config: the recipe with these overrides, nested dicts.
      points: overrides of the trials in order, where they are given one by one or are a grid; else None.
      space: what is searched; None for the points of `get_hyper`.
      num_trials: how many trials there will be.
      sampler: one of `SAMPLERS`, or "points" for those of `get_hyper`.
      pruner: one of `PRUNERS`.
      seed: of the sampler.
      metric: the validation metric that trials are judged by.
      direction: "minimize" or "maximize".
      recipe_text: the recipe's file.
      sweep_text: the sweep file.
      program: what a trial's command begins with.
      configure: reads the config of a trial, where trials are trained in this process.
    """

    folder: Path
    recipe: str
    overrides: tuple[str, ...]
    config: dict[str, Any]
    points: tuple[Point, ...] | None
    space: tuple[Parameter, ...] | None
    num_trials: int
    sampler: str
    pruner: str
    seed: int
    metric: str
    direction: str
    recipe_text: str
    sweep_text: str
    program: tuple[str, ...] = (sys.executable, "-m", "lstm_research", "train")
    configure: Configure | None = dataclasses.field(default=None, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys, in the order of the sweep file."""
        if self.space is not None:
            return tuple(dict.fromkeys(parameter.key for parameter in self.space))
        return tuple(dict.fromkeys(key for point in self.points or () for key in point))

    def trial_folder(self, number: int) -> Path:
        """Returns the workdir of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def train_command(self, point: Mapping[str, Any], workdir: Path) -> list[str]:
        """Returns the command that trains with a trial's overrides."""
        arguments = _arguments(self.recipe, self.overrides, point)
        return [*self.program, arguments[0], f"--workdir={workdir}", *arguments[1:]]

    def trial_config(self, point: Mapping[str, Any]) -> Any:
        """Returns the config that `train_command` trains."""
        assert self.configure is not None
        return self.configure(_arguments(self.recipe, self.overrides, point))

    def better(self, one: float, other: float) -> bool:
        """Whether the first of two values is the better one."""
        return one > other if self.direction == "maximize" else one < other

    def check_recipe(self) -> None:
        """Raises a `UserError` if the recipe's file is no longer what the sweep began with."""
        path = Path(self.recipe.split(":")[0])
        if not path.is_file() or path.read_text(encoding="utf-8") != self.recipe_text:
            raise UserError(
                f"the recipe {path} has changed while the sweep in {self.folder} was running; put back what it was "
                f"(recipe_text in {self.folder / 'sweep.json'}), or start another sweep in a new --workdir"
            )

    def write(self) -> "SweepDefinition":
        """Records the sweep in its folder, or checks that it is the one recorded there. Returns the sweep.

        A larger number of trials goes on with the same sweep.

        Raises:
          UserError: see `check_folder`.
        """
        self.check_folder()
        content = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("configure", "folder", "program", "space")
        }
        content["space"] = None if self.space is None else [parameter.to_json() for parameter in self.space]
        write_atomically(self.folder / "sweep.json", json.dumps(content, indent=2, default=dict) + "\n")
        return self

    def check_folder(self) -> None:
        """Raises a `UserError` if the folder holds another sweep, or is that of a run, or no folder."""
        if self.is_in(self.folder):
            self._check_same(SweepDefinition.read(self.folder))
        elif self.folder.exists() and (not self.folder.is_dir() or (self.folder / "config.json").exists()):
            raise UserError(f"--workdir: {self.folder} is not the folder of a sweep; give a new one")

    def _check_same(self, old: "SweepDefinition") -> None:
        changed = config_differences(old.config, self.config)
        for name in ("recipe", "points", "space", "sampler", "pruner", "seed"):
            if getattr(old, name) != getattr(self, name):
                short = name in ("points", "space")
                text = name if short else f"{name}: {getattr(old, name)} -> {getattr(self, name)}"
                changed.append(text)
        if self.num_trials < old.num_trials:
            changed.append(f"num_trials: {old.num_trials} -> {self.num_trials}")
        if changed:
            raise UserError(
                f"{self.folder} holds another sweep ({', '.join(changed)}); give a new --workdir, or the same command "
                "to go on"
            )

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder is that of a sweep."""
        return (folder / "sweep.json").exists()

    @classmethod
    def read(cls, folder: Path) -> "SweepDefinition":
        """Returns the sweep that a folder holds.

        Raises:
          UserError: there is none, or `sweep.json` is damaged.
        """
        path = folder / "sweep.json"
        try:
            content = json.loads(path.read_text())
            points, space = content.pop("points"), content.pop("space")
            return cls(
                **{**content, "overrides": tuple(content["overrides"])},
                folder=folder,
                points=None if points is None else tuple(_plain_point(point) for point in points),
                space=None if space is None else tuple(map(Parameter.from_json, space)),
            )
        except FileNotFoundError:
            raise UserError(f"{folder} holds no sweep; lstm-research sweep --workdir={folder} makes one") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def define_sweep(
    file: SweepFile,
    configure: Configure,
    *,
    folder: Path,
    recipe: str,
    recipe_text: str,
    overrides: Iterable[str] = (),
    sampler: str | None = None,
    pruner: str = "none",
    seed: int = 0,
    num_trials: int | None = None,
) -> SweepDefinition:
    """Returns the sweep that a recipe, a sweep file and flags describe, after a check of what trials will be.

    Every point, or every end of every range and every value of a categorical, must give a valid config. A sweep that
    the folder holds already has been checked.

    Args:
      file: the sweep file.
      configure: reads a config as the command line does.
      folder: of the sweep.
      recipe: FILE.py or FILE.py:VARIANT.
      recipe_text: of that file.
      overrides: of all trials, as command-line arguments.
      sampler: one of `SAMPLERS`; only for a space. None is tpe.
      pruner: one of `PRUNERS`.
      seed: of the sampler.
      num_trials: the budget of a space; None is that of the sweep file.

    Raises:
      UserError: a trial's config would be wrong, trials would not be comparable, or flags do not fit the sweep file.
    """
    if pruner not in PRUNERS:
        raise unknown("--pruner", pruner, PRUNERS)
    if file.space is None:
        for flag, value in (("sampler", sampler), ("num_trials", num_trials)):
            if value is not None:
                raise UserError(f"--{flag} is for a space; the points of get_hyper are all run, in their order")
        points, name = file.points, "points"
    else:
        name = sampler or "tpe"
        if name not in SAMPLERS:
            raise unknown("--sampler", name, SAMPLERS)
        points = grid(file.space) if name == "grid" else None
        if name == "grid" and num_trials is not None:
            raise UserError("--num_trials is for --sampler=tpe and random; a grid is run whole")
    budget = len(points) if points is not None else file.num_trials if num_trials is None else num_trials
    if budget is None or budget < 1:
        raise UserError("say how many trials to run: NUM_TRIALS in the sweep file, or --num_trials, at least 1")
    overrides = tuple(overrides)
    config = configure(_arguments(recipe, overrides, {}))
    plain = config.to_dict()
    metric, direction = _judge(config)
    definition = SweepDefinition(
        folder, recipe, overrides, json.loads(json.dumps(plain, default=dict)), points, file.space, budget, name,
        pruner, seed, metric, direction, recipe_text, file.text, configure=configure,
    )  # fmt: skip
    for key in definition.keys:
        if key in _JUDGE:
            raise UserError(f"{key} cannot be swept: trials would not be comparable; run a sweep for each value")
    if not (folder / "sweep.json").exists():
        for point in points if points is not None else corners(file.space or ()):
            _check_point(definition, point, configure)
    return definition


def _check_point(definition: SweepDefinition, point: Point, configure: Configure) -> None:
    """Raises a `UserError` unless a trial's command line gives a valid config with just these values."""
    text = " ".join(f"{key}={value!r}" for key, value in point.items())
    try:
        config = configure(_arguments(definition.recipe, definition.overrides, point))
        for key, value in point.items():
            found = config
            for part in key.split("."):
                found = found[part]
            if not _equal(plain_value(key, found), value):
                raise UserError(
                    f"{key}: a command line gives {found!r} and not {value!r}; give the key a value of that kind in "
                    "the recipe"
                )
        judge = _judge(config)
    except UserError as error:
        raise UserError(f"the trial {text}: {error}") from error
    if judge != (definition.metric, definition.direction):
        raise UserError(f"the trial {text} would be judged by another metric; run a sweep for each")


def _judge(config: Any) -> tuple[str, str]:
    """Returns the metric that a config's run is judged by and its direction, having checked the config."""
    # Imported here, not above: who reads a sweep must not wait for all models.
    from lstm_research.training.experiment import make_parts

    training, _, _, task = make_parts(config)
    return training.metric, "maximize" if training.metric in task.higher_is_better else "minimize"


def _arguments(recipe: str, overrides: Iterable[str], point: Mapping[str, Any]) -> list[str]:
    """Returns the command-line arguments of a config; a trial's override takes the place of the sweep's own."""
    replaced = {f"config.{key}" for key in point}
    kept = [argument for argument in overrides if argument.split("=")[0].lstrip("-") not in replaced]
    return [f"--config={recipe}", *kept, *(f"--config.{key}={value}" for key, value in point.items())]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _plain_point(point: Mapping[str, Any]) -> Point:
    return {key: plain_value(key, value) for key, value in point.items()}
