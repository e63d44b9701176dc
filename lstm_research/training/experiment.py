"""An experiment: everything that a config describes, built and checked before anything is written."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
from ml_collections import ConfigDict

from lstm_research.common.arrays import Params
from lstm_research.common.build import build, build_section, check_keywords
from lstm_research.common.errors import UserError, unknown
from lstm_research.tasks import TASKS
from lstm_research.tasks.warm_start import check_wiring
from lstm_research.training.optimizers import Optimizer, build_optimizer
from lstm_research.training.parallel import Parallel
from lstm_research.training.step import Sums, TrainState, init_state, make_train_step
from lstm_research.training.weights import load_weights
from lstm_research.training.workdir import Workdir, read_workdir

SECTIONS = ("dataset", "model", "optimizer", "seed", "task", "training", "vocabulary")
OPTIONAL_SECTIONS = ("parallel",)


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """The config's section `training`; all intervals are in steps.

    Attributes:
      num_steps: how long to train.
      log_every: how often training metrics are written.
      eval_every: how often the validation split is evaluated.
      checkpoint_every: how often the state is saved; it is also saved when the run is asked to stop.
      keep_checkpoints: how many of the newest checkpoints are kept.
      patience: stop after this many evaluations without a new best; None trains to the end.
      metric: the validation metric that picks the best weights; one that the task reports.
      accumulation_steps: cut each batch in this many parts to save memory.
      average_decay: keep an exponential moving average of the weights, and evaluate and keep as best this average.
      average_patience: n of NT-ASGD (Merity, Keskar and Socher, 2018): once a validation is worse than the best of
        those more than n before it, the mean of all weights from then on is evaluated and kept as best. In steps of
        `eval_every`.
      init_from: workdir of a run whose best weights this one starts from, as far as the models share layers.
    """

    num_steps: int
    log_every: int = 100
    eval_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    patience: int | None = None
    metric: str = "loss"
    accumulation_steps: int = 1
    average_decay: float | None = None
    average_patience: int | None = None
    init_from: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "average_decay" and isinstance(value, int) and value < 1:
                raise UserError(f"training.{field.name} must be at least 1, got {value}")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise UserError(f"training.average_decay must be between 0 and 1, or None, got {self.average_decay}")
        if self.average_decay is not None and self.average_patience is not None:
            raise UserError("training.average_decay and training.average_patience are two averages; set one to None")


@dataclasses.dataclass
class Experiment:
    """What the loop runs.

    Attributes:
      config: the config that all of this was built from.
      seed: of the parameters, the noise and the order of the data.
      task: data, model, loss and metrics.
      optimizer: see `build_optimizer`.
      training: see `TrainingOptions`.
      parallel: how a step is divided among devices.
      warm_start: puts weights of `training.init_from` in the place of random ones; None without.
      notes: what is worth saying when the run starts.
    """

    config: Any
    seed: int
    task: Any
    optimizer: Optimizer
    training: TrainingOptions
    parallel: Parallel
    warm_start: Callable[[Params], Params] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_config(
        cls, config: Any, files: Mapping[str, bytes] | None = None, like: "Experiment | None" = None
    ) -> "Experiment":
        """Builds an experiment.

        Args:
          config: the whole config.
          files: what the task of this run stored in its workdir; None reads the data, and fetches it if need be.
          like: an experiment that has loaded the same data (`same_data`), which is taken over.

        Raises:
          UserError: anything in the config that does not fit, named by its key.
        """
        training, parallel, optimizer, task = make_parts(config, files if like is None else like.task.files())
        sections = check_sections(config)
        if like is not None:
            task.share_data(like.task)
        source: Any = ()
        if files is None:
            source = read_source(training.init_from, sections["model"]) if training.init_from is not None else ()
            if like is None:
                task.load(*source[1:])
        notes = task.notes
        if source:  # what does not fit is refused now
            notes += (task.warm_start(jax.eval_shape(task.init, jax.random.key(0)), source[0])[1],)
        warm_start = (lambda params: task.warm_start(params, source[0])[0]) if source else None
        return cls(config, sections["seed"], task, optimizer, training, parallel, warm_start, notes)

    @functools.cached_property
    def train_step(self) -> Callable[[TrainState, Any], tuple[TrainState, Sums]]:
        """The compiled step, see `make_train_step`; made when it is asked for, because it depends on the devices."""
        return make_train_step(
            self.task,
            self.optimizer,
            accumulation_steps=self.training.accumulation_steps,
            average_decay=self.training.average_decay,
            parallel=self.parallel,
        )

    def init_state(self) -> TrainState:
        """Returns the state before the first step."""
        triggered = self.training.average_patience is not None
        return init_state(
            self.task,
            self.optimizer,
            seed=self.seed,
            average=triggered or self.training.average_decay is not None,
            triggered=triggered,
            warm_start=self.warm_start,
        )

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """Shapes and types of `init_state`'s arrays; to trace it takes long enough not to be done twice."""
        return jax.eval_shape(self.init_state)

    def train_iterator(self, start_step: int) -> Iterator[Any]:
        """Yields the batches of step `start_step` and all after it; the next ones are made in the background."""
        batches = self.task.train_batches(self.seed)[start_step:]
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))


def make_parts(
    config: Any, files: Mapping[str, bytes] | None = None
) -> tuple[TrainingOptions, Parallel, Optimizer, Any]:
    """Returns training options, division, optimizer and task of a config: all that can be checked without its data.

    Args:
      config: the whole config.
      files: see `Experiment.from_config`.

    Raises:
      UserError: anything in the config that does not fit, named by its key.
    """
    sections = check_sections(config)
    training = make_training_options(sections["training"])
    parallel = build_section(Parallel, sections.get("parallel", {}), where="parallel")
    optimizer = build_optimizer(sections["optimizer"], training.num_steps)
    task = build(
        TASKS,
        sections["task"],
        where="task",
        dataset=sections["dataset"],
        vocabulary=sections["vocabulary"],
        model=sections["model"],
        files=files,
    )
    if task.batch_size % training.accumulation_steps:
        raise UserError(
            f"training.accumulation_steps = {training.accumulation_steps} does not divide task.batch_size = "
            f"{task.batch_size}"
        )
    return training, parallel, optimizer, task


def data_of(config: Any, *, training: bool = True) -> str:
    """Returns what of a config decides which batches there are, of evaluation only or of training too, as one text."""
    sections = check_sections(config)
    task = sections["task"]
    decides = [sections["dataset"], sections["vocabulary"], _without_floats(task)]
    if training:
        decides += [sections["seed"], {key: task[key] for key in TASKS[task["name"]].data_numbers if key in task}]
    return json.dumps(decides, sort_keys=True, default=dict)


def same_data(config: Any, other: Any) -> bool:
    """Whether a run with one config can take over the data that a run with another one has loaded."""

    def read_by_load(config: Any) -> Any:
        sections = check_sections(config)
        task, source = _without_floats(sections["task"]), sections["training"].get("init_from")
        # The ints of a model are sizes, and what is loaded may be of one.
        return sections["dataset"], sections["vocabulary"], task, _without_floats(sections["model"], deep=True), source

    return bool(read_by_load(config) == read_by_load(other))


def _without_floats(section: Mapping[str, Any], *, deep: bool = False) -> dict[str, Any]:
    """Returns a section with None in place of every float; with `deep`, in the groups in it too."""
    plain = {key: None if isinstance(value, float) else value for key, value in section.items()}
    if not deep:
        return plain
    return {k: _without_floats(v, deep=True) if isinstance(v, Mapping) else v for k, v in plain.items()}


def read_source(path: str, model: Mapping[str, Any]) -> tuple[Params, dict[str, bytes]]:
    """Returns the best weights of the run in `training.init_from`, and what its task stored, by file name.

    Args:
      path: the run's workdir.
      model: the section of the model that starts from it.

    Raises:
      UserError: not a workdir, or one without best weights, or of a model that differs.
    """
    try:
        workdir, config = read_workdir(Path(path))
    except UserError as error:
        raise UserError(f"training.init_from: {error}") from error
    check_wiring(model, check_sections(config)["model"])
    try:
        return load_weights(workdir.best_weights)[0], read_task_files(workdir, config)
    except UserError as error:
        raise UserError(f"training.init_from: {error}") from error


def files_to_resume_with(workdir: Workdir, config: Any) -> dict[str, bytes] | None:
    """Returns what the task of a run stored, if the run goes on without the one it started from; otherwise None.

    A checkpoint and these files hold all that was taken from `training.init_from`, whose folder may be gone by then.
    """
    if not workdir.has_checkpoint or not check_sections(config)["training"].get("init_from"):
        return None
    return read_task_files(workdir, config)


def read_task_files(workdir: Workdir, config: Any) -> dict[str, bytes]:
    """Returns what the task of a run stored in its workdir, by file name."""
    name = check_sections(config)["task"].get("name")
    if name not in TASKS:
        raise unknown("task.name", name, TASKS)
    return {name: _read(workdir.path / name) for name in TASKS[name].file_names}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the workdir is not complete") from None


def check_sections(config: Any) -> dict[str, Any]:
    """Returns the config as plain dicts.

    Raises:
      UserError: a top-level key is missing or unknown, or is not what it must be.
    """
    sections: dict[str, Any] = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    for key in sections:
        if key not in SECTIONS + OPTIONAL_SECTIONS:
            raise unknown("config key", key, SECTIONS + OPTIONAL_SECTIONS)
    for key in (*SECTIONS, *OPTIONAL_SECTIONS):
        if key not in sections:
            if key in OPTIONAL_SECTIONS:
                continue
            raise UserError(f"config key {key!r} is missing; a config has {', '.join(SECTIONS)}")
        if key != "seed" and not isinstance(sections[key], Mapping):
            value = sections[key]
            raise UserError(f"{key} must be a group of keys, got {type(value).__name__} {value!r}")
    seed = sections["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed must be an int from 0 to 2**32 - 1, got {seed!r}")
    return sections


def make_training_options(section: Mapping[str, Any]) -> TrainingOptions:
    """Builds the section `training`."""
    check_keywords(TrainingOptions, section, where="training", what="the section")
    return TrainingOptions(**section)
