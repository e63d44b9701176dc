"""Training divided among eight devices; a program of its own, because their number is fixed when JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import dataclasses
import json
import re
import signal
import sys
import tempfile
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_task import make_experiment
from knobs.files import write_files
from test_configs import abstract, batch_shapes, get_config
from test_knobs import TABLES

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Words
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.parallel import Parallel
from lstm_research.training.step import init_state, make_train_step

WHOLE = "--whole" in sys.argv  # also what others stand for
TASKS = ("language_modelling", "speech_recognition", "text_classification", "translation")
NOISE = {"dropout": {"input_rate": 0.3, "output_rate": 0.3, "weight_rate": 0.2, "recurrent_rate": 0.2}}


def on(num_devices, **options):
    """Returns a `Parallel` of some of the devices."""
    parallel = Parallel(**options)
    sizes = (num_devices // parallel.model_axis, parallel.model_axis)
    devices = jax.devices()[:num_devices]
    mesh = jax.make_mesh(sizes, ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices)
    parallel.__dict__["mesh"] = mesh
    return parallel


def config_of(task, *, model=None, training=None, **sections):
    config = json.loads(json.dumps(TABLES[task].base))
    config["task"]["batch_size"] = 8
    config["model"] |= model or {}
    config["training"] |= training or {}
    return config | sections


def losses(experiment, parallel, num_steps=4):
    """Returns loss and gradient norm of every step, and the last weights."""
    experiment = dataclasses.replace(experiment, parallel=parallel)
    state, seen = parallel.place_state(experiment.init_state()), []
    for batch in list(zip(range(num_steps), experiment.train_iterator(0), strict=False)):
        state, metrics = experiment.train_step(state, parallel.place_batch(batch[1]))
        metrics = jax.device_get(metrics)
        seen.append([metrics[name][0] / metrics[name][1] for name in ("loss", "gradient_norm")])
    # That of one batch shape: the state comes back where it was.
    assert experiment.train_step._cache_size() <= 2, experiment.train_step._cache_size()
    return np.array(seen), jax.device_get(state.params)


def assert_same(actual, expected):
    np.testing.assert_allclose(actual[0][:, 0], expected[0][:, 0], rtol=1e-5)
    np.testing.assert_allclose(actual[0][:, 1], expected[0][:, 1], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), actual[1], expected[1])


def the_same_losses_with_the_noise_of_one_device():
    for task in TASKS if WHOLE else TASKS[:2]:
        experiment = Experiment.from_config(config_of(task, model=NOISE))
        assert_same(losses(experiment, on(8)), losses(experiment, on(1)))
    parts = Experiment.from_config(
        config_of("language_modelling", model=NOISE, training={"accumulation_steps": 2, "average_decay": 0.9})
    )
    assert_same(losses(parts, on(4)), losses(parts, on(1)))


def the_same_losses_of_programs_that_sum_by_themselves():
    for task in ("language_modelling", "speech_recognition"):
        config = config_of(task, training={"accumulation_steps": 2})
        if task == "language_modelling":  # the length of a batch's windows scales the learning rate
            config["task"] |= {"unroll_length": 12, "unroll_deviation": 2.0}
        experiment = Experiment.from_config(config)
        assert_same(losses(experiment, on(4, strategy="pmap")), losses(experiment, on(1)))


def every_program_draws_its_own_noise():
    experiment = make_experiment()
    experiment.task.batch_size = 8
    parallel = on(8, strategy="pmap")
    state = parallel.place_state(init_state(experiment.task, experiment.optimizer, seed=0, average=True))
    alike = jax.tree.map(lambda x: np.repeat(x[:1], 8, 0), experiment.task.train_batch(0, 0))
    step = make_train_step(experiment.task, experiment.optimizer, average_decay=0.9, parallel=parallel)
    carry = np.asarray(step(state, parallel.place_batch(alike))[0].carry)
    assert len(np.unique(carry, axis=0)) == 8


def large_weights_are_divided():
    """Each device has its part of them, of the optimiser's state and of the average, and none gathers a kernel."""
    config = config_of("language_modelling", vocabulary={"name": "words"}, training={"average_decay": 0.9})
    config["task"]["unroll_length"] = 16
    config["optimizer"] = {"name": "adam", "learning_rate": 0.01}
    config["model"] |= {"embedding_size": 128, "cell": {"name": "lstm", "hidden_size": 128}, "num_layers": 2, **NOISE}
    vocabulary = Words().fit([" ".join(map(str, range(1022)))])
    assert len(vocabulary) == 1024
    for tied in (False, True):
        config["model"]["tied"] = tied
        files = {"vocabulary.json": vocabulary.to_json().encode(), "dataset.json": b"{}"}
        experiment = Experiment.from_config(config, files=files)
        whole, divided = (compiled(experiment, on(8, model_axis=size)) for size in (1, 4))
        sizes = [program.memory_analysis().argument_size_in_bytes for program in (whole, divided)]
        assert sizes[1] < 0.3 * sizes[0], sizes
        kernels = {"128,512", "512,128", "128,1024", "1024,128"}
        gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", divided.as_text())
        assert not kernels & set(gathered), gathered
    config = config_of("language_modelling", model={"embedding_size": 64, "cell": {"name": "lstm", "hidden_size": 256}})
    large = Experiment.from_config(config)
    assert_same(losses(large, on(8, model_axis=2)), losses(large, on(1)))


def compiled(experiment, parallel):
    """Returns the compiled step of an experiment of which there are no arrays."""
    experiment = dataclasses.replace(experiment, parallel=parallel)
    B, T = experiment.task.batch_size, experiment.task.unroll_length
    dtypes = {"inputs": "int32", "targets": "int32", "resets": "bool", "weights": "float32"}
    batch = {name: jax.ShapeDtypeStruct((B, T), dtype) for name, dtype in dtypes.items()}
    state, batch = placed(parallel, experiment.state_shapes, batch)
    return experiment.train_step.lower(state, batch).compile()


def recipes_lower_for_accelerators():
    """The step of a recipe at full size, divided among eight devices; with --whole, the default one of every task."""
    recipes = ["quickstart", "speech"]
    if WHOLE:
        recipes += ["sentiment", "translation", "forecasting", "synthetic"]
    seen = set()
    for name, strategy in [*((name, "jit") for name in recipes), ("quickstart", "pmap")]:
        config = get_config(name, "")
        config.task.batch_size += -config.task.batch_size % 8
        experiment, state = abstract(config)
        seen.add(config.task.name)
        experiment = dataclasses.replace(experiment, parallel=on(8, strategy=strategy))
        state, batch = placed(experiment.parallel, state, batch_shapes(config))
        exported = jax.export.export(experiment.train_step, platforms=("tpu", "cuda"))(state, batch)
        assert (exported.platforms, exported.nr_devices) == (("tpu", "cuda"), 8)
    assert seen == set(TABLES) if WHOLE else len(seen) == len(recipes)


def placed(parallel, state, batch):
    """Returns shapes with where the arrays lie."""
    rows = NamedSharding(parallel.mesh, PartitionSpec("data"))
    shardings = (parallel.state_shardings(state), jax.tree.map(lambda _: rows, batch))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), (state, batch), shardings
    )


def evaluation_is_exact():
    for size in (2, 8):
        config = config_of("language_modelling", model=NOISE)
        config["task"]["eval_batch_size"] = size
        experiment = Experiment.from_config(config)
        params = experiment.init_state().params
        (one, eight) = (Evaluator(experiment.task, on(n)).evaluate(params, "valid") for n in (1, 8))
        assert one.keys() == eight.keys()
        np.testing.assert_allclose(list(eight.values()), list(one.values()), rtol=1e-6)
    # What several processes have gathered is of NumPy, and must not go to the device anew for every batch.
    assert on(8).on_one_device({"kernel": np.ones(3)})["kernel"].devices() == {jax.devices()[0]}


def a_run_goes_on_with_other_devices(first, noise):
    """From eight devices to two to one: as if nothing had happened."""
    training = {"num_steps": 9, "log_every": 1, "eval_every": 3, "checkpoint_every": 100, "average_decay": 0.9}
    optimizer = {"name": "adam", "learning_rate": 0.01, "schedule": {"name": "plateau", "patience": 1}}
    config = config_of("language_modelling", model=noise, training=training, optimizer=optimizer)
    experiment = Experiment.from_config(config)
    assert run(dataclasses.replace(experiment, parallel=on(1)), Path(f"whole_{first}")) == 0
    name = f"moved_{first}"
    for stop, parallel in ((4, on(8, strategy=first)), (7, on(2)), (None, on(1))):
        moved = dataclasses.replace(experiment, parallel=parallel, config=config | {"parallel": {"strategy": first}})
        assert run(stopping(moved, stop), Path(name)) == (143 if stop else 0)
    lines = [read_metrics(Path(path) / "metrics.jsonl") for path in (f"whole_{first}", name)]
    assert [(line["step"], line["split"]) for line in lines[0]] == [(line["step"], line["split"]) for line in lines[1]]
    np.testing.assert_allclose(*([line["loss"] for line in run_lines] for run_lines in lines), rtol=1e-5)


def stopping(experiment, step):
    """Returns the experiment, which asks to be stopped when the batch of a step is wanted."""
    batches = experiment.train_iterator

    def iterator(start):
        for index, batch in enumerate(batches(start), start):
            if index == step:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    experiment.train_iterator = iterator
    return experiment


def what_does_not_fit_is_refused():
    experiment = Experiment.from_config(config_of("language_modelling") | {"parallel": {"model_axis": 3}})
    cases = [
        (lambda: experiment.parallel.check(8, 1), "parallel.model_axis = 3 does not divide.* 8; set it to 1 or 2 or 4"),
        (lambda: on(8).check(20, 1), "task.batch_size = 20 .* among 8 devices; set it to 16 or 24"),
        (lambda: on(8).check(24, 2), "among 8 devices x training.accumulation_steps = 2; set it to 16 or 32"),
        (lambda: on(8).check(4, 1), "set it to 8, or"),
        (lambda: run(experiment, Path("new")), "parallel.model_axis"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
    assert not Path("new").exists()


def main():
    assert jax.device_count() == 8
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_files()
        for check in (
            what_does_not_fit_is_refused,
            evaluation_is_exact,
            recipes_lower_for_accelerators,
            every_program_draws_its_own_noise,
            the_same_losses_of_programs_that_sum_by_themselves,
            large_weights_are_divided,
            the_same_losses_with_the_noise_of_one_device,
        ):
            check()
            print("checked", check.__name__, flush=True)
        a_run_goes_on_with_other_devices("jit", NOISE)
        a_run_goes_on_with_other_devices("pmap", {})
        print("checked a_run_goes_on_with_other_devices", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
