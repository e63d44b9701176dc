"""No config key is ignored: for every keyword that a config can set, another value changes what can be seen of a run.

The keywords are read from the constructors' signatures, so a new keyword without a row in `tests/knobs` fails here.
"""

import contextlib
import functools
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from knobs import (
    files,
    forecasting,
    language_modelling,
    speech_recognition,
    synthetic,
    text_classification,
    translation,
)
from knobs.table import Config, Refused

from lstm_research.common.errors import UserError
from lstm_research.data import labelled_text, parallel_text
from lstm_research.data.prepared import PreparedDataset
from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates
from lstm_research.models.layers.spec_augment import SpecAugment
from lstm_research.tasks import TASKS
from lstm_research.tasks.dynamic_evaluation import DynamicEvaluation
from lstm_research.tasks.neural_cache import NeuralCache
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import SECTIONS, Experiment, TrainingOptions
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.optimizers import OPTIMIZERS, make_optimizer

TABLES = {
    "forecasting": forecasting.TABLE,
    "language_modelling": language_modelling.TABLE,
    "speech_recognition": speech_recognition.TABLE,
    "synthetic": synthetic.TABLE,
    "text_classification": text_classification.TABLE,
    "translation": translation.TABLE,
}
# Which keys are seen in the files of a whole run only.
ONLY_IN_RUN = ("training.", "optimizer.schedule[plateau].")


def keywords(constructor: Callable[..., Any]) -> set[str]:
    """Returns the keywords that a constructor takes, from a config or from code."""
    bound = {"self"}
    if isinstance(constructor, functools.partial):
        bound |= set(constructor.keywords)
        constructor = constructor.func
    if inspect.isclass(constructor):
        constructor = constructor.__init__
    parameters = inspect.signature(constructor).parameters.values()
    return {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - bound


def all_keys(task: str) -> set[str]:
    """Returns every key that a config of this task can have; what all tasks share is looked at with one of them."""
    keys = set()
    for section, (table, given) in TABLES[task].constructors.items():
        keys.add(f"{section}.name")
        for name, constructor in table.items():
            keys |= {f"{section}[{name}].{keyword}" for keyword in keywords(constructor) - given}
    keys |= {"model.num_params", *(f"model.dropout.{keyword}" for keyword in keywords(DropoutRates))}
    if task == "speech_recognition":
        keys |= {f"task.spec_augment.{keyword}" for keyword in keywords(SpecAugment)}
    if task == "language_modelling":
        keys |= {"seed"} | {f"training.{keyword}" for keyword in keywords(TrainingOptions)}
        keys |= {f"optimizer.{keyword}" for keyword in keywords(make_optimizer) - {"num_steps"}}
        keys |= {f"task.neural_cache.{keyword}" for keyword in keywords(NeuralCache)}
        keys |= {f"task.dynamic_evaluation.{keyword}" for keyword in keywords(DynamicEvaluation)}
    return keys


@pytest.mark.parametrize("task", TABLES)
def test_the_table_of_knobs_is_complete(task: str) -> None:
    assert set(TABLES[task].knobs) == all_keys(task)


def test_every_task_and_section_has_its_knobs() -> None:
    assert set(TABLES) == set(TASKS)
    keys = TABLES["language_modelling"].knobs
    assert {key.partition(".")[0].partition("[")[0] for key in keys} == set(SECTIONS)


def test_a_rule_and_the_optimizer_share_no_keyword() -> None:
    # One of the two would never get its value.
    for rule in OPTIMIZERS.values():
        assert not keywords(rule.make) & keywords(make_optimizer)


def put(config: Config, path: str, value: Any) -> None:
    """Sets a dotted path in nested dicts."""
    *groups, last = path.split(".")
    for group in groups:
        config = config.setdefault(group, {})
    config[last] = value


def before_and_after(task: str, key: str) -> tuple[Config, Config]:
    """Returns a config in which `key` can be set, and the same with another value of it."""
    table = TABLES[task]
    section, _, rest = key.partition("[")
    before, after = json.loads(json.dumps(table.base)), {}
    if rest:
        name = rest.partition("]")[0]
        if section in ("optimizer", "optimizer.schedule", "model.cell"):
            put(before, f"{section}.name", name)
    for beginning, context in table.context.items():
        if key.startswith(beginning):
            for path, value in context.items():
                put(before, path, value)
    after = json.loads(json.dumps(before))
    value = table.knobs[key]
    value = value.value if isinstance(value, Refused) else value
    path = section + rest.partition("]")[2] if rest else key
    if path.endswith(".name") and isinstance(value, dict):
        path = path.removesuffix(".name")
    put(after, path, value)
    return before, after


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder, the current one, with texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("knobs"))
        files.write_files()
        patch.setattr(PreparedDataset, "load", files.load)
        for module in (labelled_text, parallel_text):
            patch.setattr(module, "TFDSReader", files.TFDSReader)
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)
        yield
        jaxtyping.config.update("jaxtyping_disable", before)


def content(tree: Any) -> list[Any]:
    """Returns the arrays of a tree in a form that `==` compares."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return [(jax.tree_util.keystr(path), str(leaf.dtype), leaf.shape, leaf.tobytes()) for path, leaf in leaves]


@functools.lru_cache(4)
def make_experiment(text: str) -> Experiment:
    """Of the last configs, in JSON: building the model is most of the time of what looks at it."""
    return Experiment.from_config(json.loads(text))


def observed(see: Callable[[Experiment], Any]) -> Callable[[Config], Any]:
    """Makes `see` take a config, remember what it saw of it, and see the message where one is refused."""
    memory: dict[str, Any] = {}

    def look(config: Config) -> Any:
        text = json.dumps(config, sort_keys=True)
        if text not in memory:
            try:
                memory[text] = see(make_experiment(text))
            except UserError as error:
                memory[text] = f"refused: {error}"
        return memory[text]

    return look


def num_params(config: Config) -> int:
    """Returns the number of parameters of the model of a config."""
    task = make_experiment(json.dumps(config, sort_keys=True)).task
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0))))


@pytest.mark.parametrize("task", TABLES)
def test_num_params_is_kept_by_the_widest_model_that_has_no_more(task: str) -> None:
    config, _ = before_and_after(task, "model.num_params")
    wanted = config["model"]["num_params"]
    assert num_params(config) <= wanted
    note = next(note for note in make_experiment(json.dumps(config, sort_keys=True)).notes if "num_params" in note)
    wider = json.loads(json.dumps(config))
    del wider["model"]["num_params"]
    wider["model"]["cell"]["hidden_size"] = width = int(note.rpartition(" ")[2]) + 1
    if task == "language_modelling":
        wider["model"].setdefault("embedding_size", width)
    assert num_params(wider) > wanted


@observed
def start(experiment: Experiment) -> Any:
    """What there is before the first step: weights, carry, files and batches."""
    state = experiment.init_state()
    batches = [experiment.task.train_batches(experiment.seed)[0]]
    for split in ("valid", "test"):
        batches += list(experiment.task.eval_batches(split))
    return experiment.task.files(), content((state.params, state.carry)), content(batches)


@observed
def updates(experiment: Experiment) -> Any:
    """What the optimiser makes of fixed gradients."""
    optimizer = experiment.optimizer
    layer = {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}
    params: Any = {"layer_0": layer}
    state = optimizer.init(params)
    for number in range(4):
        gradients = jax.tree.map(lambda p, number=number: p * (number - 1.5) + 0.1, params)
        changes, state = optimizer.update(gradients, state, params)
        params = jax.tree.map(lambda p, u: np.asarray(p + u), params, changes)
    return content(params)


@observed
def steps(experiment: Experiment) -> Any:
    """Two training steps: metrics and weights."""
    state, batches = experiment.init_state(), experiment.task.train_batches(experiment.seed)
    seen = []
    for number in range(2):
        state, metrics = experiment.train_step(state, batches[number])
        seen += content(metrics)
    return seen + content(state.params)


@observed
def rematerialized(experiment: Experiment) -> int:
    """How many layers of a training step are computed twice, which changes no number."""
    state, batch = experiment.state_shapes, experiment.task.train_batches(experiment.seed)[0]
    return str(jax.make_jaxpr(experiment.train_step)(state, batch)).count("remat2[")


@observed
def evaluated(experiment: Experiment) -> Any:
    """What an evaluation of the first weights gives, and what they predict."""
    params, evaluator = experiment.init_state().params, Evaluator(experiment.task)
    metrics = [evaluator.evaluate(params, split) for split in ("valid", "test")]
    if hasattr(experiment.task, "translate"):
        return metrics, str(experiment.task.translate(params, ["to be", "not"]))
    if hasattr(experiment.task, "transcribe"):
        shape = (700,) if experiment.task.features.sample_rate else (20, experiment.task.features.num_features)
        signal = np.random.default_rng(0).normal(size=shape)
        signal = (9000 * signal).astype(np.int16) if len(shape) == 1 else signal.astype(np.float32)
        return metrics, str(experiment.task.transcribe(params, [signal]))
    return metrics


@observed
def whole_run(experiment: Experiment) -> Any:
    """The files of a run: metrics, checkpoints, best result and weights."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
        workdir = Path(name) / "run"
        assert run(experiment, workdir) == 0
        lines = [{**line, "seconds": None} for line in read_metrics(workdir / "metrics.jsonl")]
        kept = sorted(path.name for path in (workdir / "checkpoints").iterdir())
        best = json.loads((workdir / "status.json").read_text())["best"]
        return lines, kept, best


def is_one_of_many(task: str, key: str) -> bool:
    """Whether a key is looked at with --whole only, because others stand for it."""
    if key.startswith("model.dropout."):  # all models hand all rates on
        return task != "language_modelling" and not key.endswith(("embedding_rate", "weight_rate"))
    if key.startswith("model.cell["):  # what is another name for a class with options set
        return isinstance(CELLS[key.removeprefix("model.cell[").partition("]")[0]], functools.partial)
    section, _, keyword = key.partition("[")[0], *key.rpartition("]")[1:]
    if section in ("model", "model.cell", "task.features") and keyword:  # what several models or cells share
        alike = (each for each in TABLES[task].knobs if each.startswith(f"{section}[") and each.endswith(f"]{keyword}"))
        return key != next(alike)
    return key == "dataset[shakespeare].part"  # reads 38 plays; tests of the dataset do too


def cases() -> list[Any]:
    """Every key of every task."""
    return [
        pytest.param(task, key, marks=[pytest.mark.whole] if is_one_of_many(task, key) else [])
        for task, table in TABLES.items()
        for key in table.knobs
    ]


@pytest.mark.one_in(8)
@pytest.mark.parametrize(("task", "key"), cases())
def test_another_value_changes_what_is_seen(task: str, key: str) -> None:
    before, after = before_and_after(task, key)
    table = TABLES[task]
    assert not str(start(before)).startswith("refused"), start(before)
    if isinstance(table.knobs[key], Refused):
        assert table.knobs[key].value in start(after)
        return
    assert str(start(after)).startswith("refused") == (key in table.refuses_data), start(after)
    later = updates if key.startswith("optimizer") else steps
    looks = [start, later, evaluated]  # the cheap ones first
    if key.startswith(ONLY_IN_RUN):
        looks = [whole_run]
    elif key.endswith("].remat"):
        looks = [rematerialized]
    elif key.startswith("task.decoder"):  # which no step uses
        looks = [evaluated]
    assert any(see(before) != see(after) for see in looks), f"{key} changes nothing"
