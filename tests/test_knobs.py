"""No config key is ignored: for every keyword that a config can set, another value changes what can be seen of a run.

The keywords are read from the constructors' signatures, so a new keyword without a row in `KNOBS` fails here. A key is
called by its dotted path, with the name of what it belongs to in brackets: `model.cell[lstm].forget_bias`.
"""

import contextlib
import functools
import inspect
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxtyping
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import shakespeare
from lstm_research.data.text import DATASETS
from lstm_research.data.vocabulary import VOCABULARIES
from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates
from lstm_research.tasks import TASKS
from lstm_research.tasks.language_modelling import MODELS
from lstm_research.training.experiment import SECTIONS, Experiment, TrainingOptions
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.optimizers import OPTIMIZERS, make_optimizer
from lstm_research.training.schedules import SCHEDULES

Config = dict[str, Any]

BASE: Config = {
    "seed": 0,
    "dataset": {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "valid.txt"},
    "vocabulary": {"name": "characters"},
    "task": {"name": "language_modelling", "batch_size": 4, "unroll_length": 4, "eval_batch_size": 2},
    "model": {
        "name": "language_model",
        "embedding_size": 8,
        "cell": {"name": "lstm", "hidden_size": 8},
        "num_layers": 1,
        "dropout": {},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "constant"}},
    "training": {"num_steps": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2, "keep_checkpoints": 3},
}
# What is set before a key is changed, where the key means nothing otherwise; by the beginning of the key.
CONTEXT: dict[str, Config] = {
    "dataset[shakespeare]": {"dataset": {"name": "shakespeare"}},
    "dataset[text_file]": {"dataset": {"name": "text_file", "path": "train.txt"}},
    "vocabulary[words]": {"vocabulary": {"name": "words"}},
    "model[language_model].highway": {"model.num_layers": 2},
    "model[language_model].residual": {"model.num_layers": 2},
    "model[language_model].skip": {"model.num_layers": 2},
    "model.dropout.layer_rate": {"model.num_layers": 2},
    "model.dropout.locked": {"model.dropout.input_rate": 0.5},
    "optimizer.decay": {"optimizer.weight_decay": 0.1},
    "optimizer.schedule[exponential]": {"optimizer.schedule": {"name": "exponential", "decay_steps": 2}},
    # With this rate no weight moves, so no validation is better than the first.
    "optimizer.schedule[plateau]": {
        "optimizer.schedule": {"name": "plateau"},
        "optimizer.learning_rate": 1e-12,
        "training.eval_every": 1,
    },
    "training.patience": {"optimizer.learning_rate": 1e-12, "training.eval_every": 1},
    "training.accumulation_steps": {"model.dropout.input_rate": 0.5},
}
# Which keys are seen in the files of a whole run only.
ONLY_IN_RUN = ("training.", "optimizer.schedule[plateau].")

# Which values the data contradicts, so that the change to be seen is an error.
REFUSES_DATA = ("vocabulary[words].unknown",)


class Refused(NamedTuple):
    """A value that must be refused, because there is only one that is valid."""

    value: Any


OF_GATES = {"hidden_size": 4, "input_initializer": "glorot_uniform", "recurrent_initializer": "uniform_hidden"}
OF_GATES |= {"learned_initial_state": True}
OF_LSTM = OF_GATES | {"input_gate": "capped", "forget_gate": False, "output_gate": False, "projection_size": 4}
OF_LSTM |= {"peepholes": True, "gate_recurrence": True, "layer_norm": True, "forget_bias": 0.0, "chrono_max_length": 9}
OF_LSTM |= dict.fromkeys(("gate_activation", "input_activation", "output_activation"), "hard_sigmoid")
OF_GRU = OF_GATES | {"gate_activation": "hard_sigmoid", "activation": "relu", "chrono_max_length": 9}
OF_ADAM = {"b1": 0.5, "b2": 0.5, "eps": 0.1}


def without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def rows(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in values.items()}


OF_FORGET_GATE = ("forget_gate", "forget_bias", "chrono_max_length")
OF_VANILLA = without(OF_LSTM, "peepholes")
KNOBS: dict[str, Any] = {
    "seed": 1,
    **rows("training.", {"num_steps": 3, "log_every": 2, "eval_every": 3, "checkpoint_every": 3}),
    **rows("training.", {"keep_checkpoints": 1, "patience": 1, "metric": "perplexity"}),
    **rows("training.", {"accumulation_steps": 2, "average_decay": 0.5}),
    **rows("dataset[text_files].", {"train": "other.txt", "valid": "other.txt", "test": "other.txt"}),
    **rows("dataset[text_file].", {"path": "other.txt", "fractions": (0.6, 0.2, 0.2)}),
    "dataset[shakespeare].part": "all",
    "dataset.name": {"name": "shakespeare"},
    "vocabulary.name": {"name": "words"},
    "vocabulary[characters].unknown": "replace",
    **rows("vocabulary[words].", {"min_count": 4, "max_size": 5, "lower_case": True, "unknown": "error"}),
    "task.name": Refused("another_task"),
    **rows("task[language_modelling].", {"batch_size": 2, "unroll_length": 3, "eval_batch_size": 3, "reset_rate": 1.0}),
    "model.name": Refused("another_model"),
    **rows("model[language_model].", {"embedding_size": 4, "num_layers": 2, "residual": True, "tied": True}),
    **rows("model[language_model].", {"highway": True, "skip": True, "skip_output": True}),
    **rows(
        "model[language_model].",
        {"dtype": "bfloat16", "param_dtype": "bfloat16", "engine": Refused("warp")},
    ),
    "model[language_model].cell": {"name": "gru", "hidden_size": 8},
    "model[language_model].dropout": {"input_rate": 0.5},
    **rows("model.dropout.", {"input_rate": 0.5, "layer_rate": 0.5, "output_rate": 0.5, "embedding_rate": 0.5}),
    **rows("model.dropout.", {"recurrent_rate": 0.5, "weight_rate": 0.5, "locked": True}),
    **rows("model.dropout.", {"zoneout_c_rate": 0.5, "zoneout_h_rate": 0.5}),
    "model.cell.name": {"name": "rnn", "hidden_size": 8},
    **rows("model.cell[gru].", OF_GRU | {"update_bias": 1.0, "layer_norm": True}),
    **rows("model.cell[layer_norm_gru].", OF_GRU | {"update_bias": 1.0}),
    **rows("model.cell[original_gru].", OF_GRU | {"update_bias": 1.0}),
    **rows("model.cell[mgu].", OF_GRU | {"forget_bias": 1.0}),
    **rows("model.cell[janet].", OF_GRU | {"forget_bias": 0.0, "beta": 0.5}),
    **rows("model.cell[rnn].", OF_GATES | {"activation": "relu", "recurrent_factor": 0.5}),
    **rows("model.cell[irnn].", without(OF_GATES, "recurrent_initializer") | {"recurrent_factor": 0.5}),
    **rows("model.cell[indrnn].", OF_GATES | {"activation": "tanh", "recurrent_factor": 0.5}),
    **rows("model.cell[lstm].", OF_LSTM),
    **rows("model.cell[capped_lstm].", without(OF_LSTM, "input_gate", "forget_gate")),
    **rows("model.cell[layer_norm_lstm].", without(OF_LSTM, "layer_norm")),
    **rows("model.cell[mogrifier_lstm].", OF_LSTM | {"rounds": 2, "rank": 2}),
    **rows("model.cell[multiplicative_lstm].", OF_LSTM),
    **rows("model.cell[original_lstm].", without(OF_LSTM, *OF_FORGET_GATE) | {"input_gate": "none"}),
    **rows("model.cell[peephole_lstm].", OF_VANILLA),
    **rows("model.cell[cifg_lstm].", without(OF_VANILLA, "input_gate", "forget_gate")),
    **rows("model.cell[fgr_lstm].", without(OF_VANILLA, "gate_recurrence")),
    **rows("model.cell[nfg_lstm].", without(OF_VANILLA, *OF_FORGET_GATE) | {"input_gate": "none"}),
    **rows("model.cell[niaf_lstm].", without(OF_VANILLA, "input_activation")),
    **rows("model.cell[nig_lstm].", without(OF_VANILLA, "input_gate")),
    **rows("model.cell[noaf_lstm].", without(OF_VANILLA, "output_activation")),
    **rows("model.cell[nog_lstm].", without(OF_VANILLA, "output_gate")),
    **rows("optimizer.", {"name": {"name": "adam", "learning_rate": 0.1}, "learning_rate": 0.2}),
    **rows("optimizer.", {"schedule": {"name": "linear"}, "clip_norm": 0.01, "clip_value": 0.01}),
    **rows("optimizer.", {"weight_decay": 0.1, "decay": "all"}),
    **rows("optimizer[adam].", OF_ADAM),
    **rows("optimizer[adamw].", OF_ADAM),
    **rows("optimizer[momentum].", {"momentum": 0.5, "nesterov": True}),
    **rows("optimizer[rmsprop].", {"rms_decay": 0.5, "eps": 0.1, "momentum": 0.5}),
    "optimizer.schedule.name": {"name": "linear"},
    "optimizer.schedule[constant].warmup_steps": 2,
    **rows("optimizer.schedule[linear].", {"warmup_steps": 2, "final_fraction": 0.5}),
    **rows("optimizer.schedule[cosine].", {"warmup_steps": 2, "final_fraction": 0.5}),
    **rows("optimizer.schedule[exponential].", {"decay_steps": 1, "decay_rate": 0.1, "warmup_steps": 2}),
    **rows("optimizer.schedule[exponential].", {"staircase": True, "start_step": 1}),
    **rows("optimizer.schedule[plateau].", {"factor": 0.1, "patience": 2, "min_fraction": 0.4, "warmup_steps": 2}),
}


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


def all_keys() -> set[str]:
    """Returns every key that a config can have."""
    tables: dict[str, tuple[Mapping[str, Any], set[str]]] = {  # with what code and not the config gives
        "dataset": (DATASETS, set()),
        "vocabulary": (VOCABULARIES, set()),
        "task": (TASKS, {"dataset", "vocabulary", "model", "files"}),
        "model": (MODELS, {"vocabulary_size", "rngs"}),
        "model.cell": (CELLS, set()),
        "optimizer": ({name: rule.make for name, rule in OPTIMIZERS.items()}, set()),
        "optimizer.schedule": (SCHEDULES, {"num_steps"}),
    }
    keys = {"seed", *(f"{section}.name" for section in tables)}
    for section, (table, given) in tables.items():
        for name, constructor in table.items():
            keys |= {f"{section}[{name}].{keyword}" for keyword in keywords(constructor) - given}
    keys |= {f"training.{keyword}" for keyword in keywords(TrainingOptions)}
    keys |= {f"model.dropout.{keyword}" for keyword in keywords(DropoutRates)}
    return keys | {f"optimizer.{keyword}" for keyword in keywords(make_optimizer) - {"num_steps"}}


def test_the_table_of_knobs_is_complete() -> None:
    assert set(KNOBS) == all_keys()
    assert {key.partition(".")[0].partition("[")[0] for key in KNOBS} == set(SECTIONS)


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


def before_and_after(key: str) -> tuple[Config, Config]:
    """Returns a config in which `key` can be set, and the same with another value of it."""
    section, _, rest = key.partition("[")
    before, after = json.loads(json.dumps(BASE)), {}
    if rest:
        name = rest.partition("]")[0]
        if section in ("optimizer", "optimizer.schedule", "model.cell"):
            put(before, f"{section}.name", name)
    for beginning, context in CONTEXT.items():
        if key.startswith(beginning):
            for path, value in context.items():
                put(before, path, value)
    after = json.loads(json.dumps(before))
    value = KNOBS[key].value if isinstance(KNOBS[key], Refused) else KNOBS[key]
    path = section + rest.partition("]")[2] if rest else key
    if path.endswith(".name") and isinstance(value, dict):
        path = path.removesuffix(".name")
    put(after, path, value)
    return before, after


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder, the current one, with texts."""
    texts = {
        "train.txt": "To be or not to be that is the question\n" * 3,
        "valid.txt": "to be or not to sit is that the question\n" * 2,
        "other.txt": "that is the question\nTo be or not to be\n" * 4,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("knobs"))
        for name, text in texts.items():
            Path(name).write_text(text)
        plays = {"tiny": "to be or not to be, that is it\n" * 3, "all": "or not to be, to be that is it\n" * 3}
        patch.setattr(shakespeare, "load", lambda part, split: [shakespeare.Document(part, plays[part])])
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
    params = {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}
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
def whole_run(experiment: Experiment) -> Any:
    """The files of a run: metrics, checkpoints, best result and weights."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
        workdir = Path(name) / "run"
        assert run(experiment, workdir) == 0
        lines = [{**line, "seconds": None} for line in read_metrics(workdir / "metrics.jsonl")]
        kept = sorted(path.name for path in (workdir / "checkpoints").iterdir())
        best = json.loads((workdir / "status.json").read_text())["best"]
        return lines, kept, best


@pytest.mark.parametrize("key", KNOBS)
def test_another_value_changes_what_is_seen(key: str) -> None:
    before, after = before_and_after(key)
    assert not str(start(before)).startswith("refused")
    if isinstance(KNOBS[key], Refused):
        assert KNOBS[key].value in start(after)
        return
    assert str(start(after)).startswith("refused") == (key in REFUSES_DATA), start(after)
    later = updates if key.startswith("optimizer") else steps
    cheap_first = [whole_run] if key.startswith(ONLY_IN_RUN) else [start, later]
    assert any(see(before) != see(after) for see in cheap_first), f"{key} changes nothing"
