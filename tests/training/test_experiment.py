"""An experiment from its config: every key arrives where it belongs, and what does not fit is refused by name."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from lstm_research.common.errors import UserError
from lstm_research.training.experiment import Experiment, TrainingOptions, make_training_options

TEXT = "so shaken as we are, so wan with care,\nfind we a time for frighted peace to pant\n" * 3


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return {
        "seed": 3,
        "dataset": {"name": "text_file", "path": str(path), "fractions": (0.6, 0.2, 0.2)},
        "vocabulary": {"name": "characters"},
        "task": {"name": "language_modelling", "batch_size": 4, "unroll_length": 5, "eval_batch_size": 2},
        "model": {"name": "language_model", "embedding_size": 3, "cell": {"name": "gru", "hidden_size": 4}},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "linear"}},
        "training": {"num_steps": 10},
    }


@pytest.fixture(scope="module")
def unchanged(config):
    """What two steps give with the config as it is."""
    return two_steps(config)


def changed(config, path, value):
    """Returns a copy with the key at a dotted path set, or deleted if the value is `...`."""
    config = copy.deepcopy(config)
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section.setdefault(name, {})
    if value is ...:
        del section[key]
    else:
        section[key] = value
    return config


def two_steps(config):
    """Returns the state after two steps and the metrics of the second."""
    experiment = Experiment.from_config(config)
    state, batches = experiment.init_state(), experiment.train_iterator(0)
    for _ in range(2):
        state, metrics = experiment.train_step(state, next(batches))
    return jax.device_get((state.params, state.average, metrics))


def test_parts_are_built_from_their_sections(config):
    experiment = Experiment.from_config(config)
    assert (experiment.seed, experiment.task.batch_size, experiment.task.unroll_length) == (3, 4, 5)
    assert experiment.training == TrainingOptions(num_steps=10)
    assert float(experiment.optimizer.learning_rate(jnp.int32(0), None)) == pytest.approx(0.1)
    assert float(experiment.optimizer.learning_rate(jnp.int32(5), None)) == pytest.approx(0.05)
    state = experiment.init_state()
    assert state.average is None
    assert state.params["stack"]["layer_0"]["params"]["recurrent_kernel"].shape == (4, 12)
    state, metrics = experiment.train_step(state, next(experiment.train_iterator(0)))
    assert int(state.step) == 1
    assert np.isfinite(metrics["loss"][0])


def test_a_config_dict_is_a_config(config, unchanged):
    assert jax.tree.all(jax.tree.map(np.array_equal, two_steps(ConfigDict(config)), unchanged))


def test_the_iterator_starts_at_any_step(config):
    experiment = Experiment.from_config(config)
    batches = experiment.task.train_batches(3)
    for start in (0, 4, 1000):
        iterator = experiment.train_iterator(start)
        for k in range(3):
            jax.tree.map(np.testing.assert_array_equal, next(iterator), batches[start + k])


def test_files_stand_for_the_data(config):
    experiment = Experiment.from_config(config)
    again = Experiment.from_config(config, files=experiment.task.files())
    jax.tree.map(np.testing.assert_array_equal, experiment.init_state().params, again.init_state().params)
    batches = [next(each.train_iterator(2)) for each in (experiment, again)]
    jax.tree.map(np.testing.assert_array_equal, *batches)


def test_accumulation_changes_only_the_last_bits(config, unchanged):
    after = two_steps(changed(config, "training.accumulation_steps", 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after, unchanged)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("modle", {}, "'model'"),
        ("vocabulary", ..., "'vocabulary' is missing"),
        ("seed", -1, "seed"),
        ("seed", 2**32, "seed"),
        ("seed", 1.5, "seed"),
        ("seed", True, "seed"),
        ("task.name", "language_modeling", "'language_modelling'"),
        ("task.batchsize", 3, "'batch_size'"),
        ("task.files", {}, "task.files"),
        ("task.batch_size", "4", "task.batch_size must be int"),
        ("task", None, "task"),
        ("model", 3, "model"),
        ("optimizer", None, "optimizer"),
        ("optimizer.name", ..., "optimizer.name"),
        ("optimizer.learning_rate", ..., "optimizer.learning_rate"),
        ("optimizer.schedule", "cosine", "optimizer.schedule"),
        ("training", 5, "training"),
        ("training.num_steps", ..., "training.num_steps"),
        ("training.num_steps", 0, "training.num_steps"),
        ("training.num_step", 5, "'num_steps'"),
        ("training.log_every", 0, "training.log_every"),
        ("training.eval_every", 2.5, "training.eval_every"),
        ("training.keep_checkpoints", 0, "training.keep_checkpoints"),
        ("training.patience", 0, "training.patience"),
        ("training.average_decay", 1.0, "training.average_decay"),
        ("training.average_decay", float("nan"), "training.average_decay"),
        ("training.accumulation_steps", 3, "training.accumulation_steps = 3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(unchecked_shapes, config, path, value, named):
    with pytest.raises(UserError, match=named) as caught:
        Experiment.from_config(changed(config, path, value))
    assert "\n" not in str(caught.value)


def test_all_training_options_come_from_the_section():
    values = {
        "num_steps": 5,
        "log_every": 1,
        "eval_every": 2,
        "checkpoint_every": 3,
        "keep_checkpoints": 4,
        "patience": 6,
        "metric": "perplexity",
        "accumulation_steps": 7,
        "average_decay": 0.5,
        "average_patience": None,
        "init_from": "runs/other",
    }
    options = make_training_options(values)
    assert dataclasses.asdict(options) == values
    assert make_training_options({"num_steps": 5, "average_patience": 8}).average_patience == 8
    default = dataclasses.asdict(TrainingOptions(num_steps=5))
    assert {name for name in values if default[name] == values[name]} == {"num_steps", "average_patience"}


def test_two_averages_are_refused():
    with pytest.raises(UserError, match=r"average_decay and training\.average_patience"):
        make_training_options({"num_steps": 5, "average_decay": 0.5, "average_patience": 3})


@pytest.mark.parametrize(("path", "reason"), [("nowhere", "no workdir at nowhere"), ("", "holds no config.json")])
def test_a_run_to_start_from_that_is_none_is_named_by_its_key(config, path, reason):
    config["training"]["init_from"] = path
    with pytest.raises(UserError, match=rf"training\.init_from: .*{reason}"):
        Experiment.from_config(config)
