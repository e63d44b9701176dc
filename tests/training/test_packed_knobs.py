"""Every number of a config either packs, and then trains as it does alone, or makes another program."""

import json
import re
from typing import Any

import jax
import numpy as np
import pytest
from test_knobs import TABLES, before_and_after, folder, make_experiment  # noqa: F401  (a fixture of the module)

from lstm_research.common.errors import UserError
from lstm_research.tasks import TASKS
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment, data_of
from lstm_research.training.pack import Group, Member, Pack, PackedSlot

# Of each kind of use one: an optimiser's rule, its schedule, a mask, the loss, the start, and sizes that do not pack.
SAMPLE = {
    ("language_modelling", "optimizer.schedule[exponential].decay_rate"),
    ("language_modelling", "optimizer[adam].b2"),
    ("language_modelling", "model.dropout.zoneout_c_rate"),
    ("language_modelling", "model.cell[janet].beta"),
    ("language_modelling", "model.cell[lstm].hidden_size"),
    ("translation", "task[translation].label_smoothing"),
}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cases() -> list[Any]:
    return [
        pytest.param(task, key, marks=[] if (task, key) in SAMPLE else [pytest.mark.whole])
        for task, table in TABLES.items()
        for key, value in table.knobs.items()
        if is_number(value)
    ]


def made_twice(task: str, key: str) -> list[Experiment] | None:
    """Returns experiments with two values of a key, neither of them 0; None if one is refused."""
    after = before_and_after(task, key)[1]
    third = json.loads(json.dumps(after))
    *groups, name = re.sub(r"\[.*\]", "", key).split(".")
    group: Any = third
    for part in groups:
        group = group[part]
    group[name] = group[name] * 0.9 if isinstance(group[name], float) else group[name] + 1
    try:
        return [make_experiment(json.dumps(config, sort_keys=True)) for config in (after, third)]
    except UserError:
        return None


@pytest.mark.parametrize(("task", "key"), cases())
def test_two_values_of_a_number_pack_or_make_two_programs(task: str, key: str) -> None:
    experiments = made_twice(task, key)
    if experiments is None:
        pytest.skip("another value is refused")
    if len({data_of(experiment.config, training=False) for experiment in experiments}) > 1:
        return  # trials that are evaluated on other batches never share a pack
    members = [Member(experiment) for experiment in experiments]
    group = Group(members[0])
    if not group.accepts(members[1]):
        assert not key.startswith("optimizer") or key.endswith(("unfreeze_steps", "num_steps")), "this is arithmetic"
        return
    group.prepare(members)
    states = [experiment.init_state() for experiment in experiments]
    pack = Pack(group, members, states, 2)
    batches = [experiment.task.train_batches(experiment.seed) for experiment in experiments]
    for step in range(2):
        made = pack.update([0, 1], [batches[0][step], batches[1][step]])
        for row, experiment in enumerate(experiments):
            states[row], metrics = experiment.train_step(states[row], batches[row][step])
            slot = PackedSlot()
            slot.join(pack, row)
            (packed,) = slot.fetch([made])
            for name, pair in metrics.items():
                np.testing.assert_allclose(packed[name], pair, rtol=1e-4, atol=1e-6)
    params = {row: state.evaluated for row, state in enumerate(states)}
    for row, values in pack.evaluate(params, "valid", lambda: False).items():
        assert values == pytest.approx(
            Evaluator(experiments[row].task).evaluate(params[row], "valid"), rel=1e-4, abs=1e-6
        )


@pytest.mark.parametrize("task", TABLES)
def test_the_floats_that_decide_what_is_in_a_batch_are_declared(task: str) -> None:
    declared = set()
    for key, value in TABLES[task].knobs.items():
        if not (key.startswith(f"task[{task}].") and isinstance(value, float)):
            continue
        streams = []
        for config in before_and_after(task, key):
            batches = make_experiment(json.dumps(config, sort_keys=True)).task.train_batches(0)
            streams.append([jax.tree.map(np.ndarray.tobytes, batches[step]) for step in range(6)])
        if streams[0] != streams[1]:
            declared.add(key.rpartition(".")[2])
    assert declared == TASKS[task].data_numbers
