"""`benchmark training`: which column a second goes to, on a clock of our own, and what the command writes."""

import json
import types

import numpy as np
import pytest

PARTS = ("data", "host", "device")
DATA, HOST, DEVICE = 2.0, 1.0, 5.0


class Simulation:
    """An experiment whose host and device take exactly known times, on a clock that only they move.

    A batch takes DATA to make in the foreground and nothing in the background, a call HOST, and the device DEVICE from
    when the call has returned and the device is free.
    """

    def __init__(self, loss=1.0, prefetched=True):
        self.now = self.free = 0.0
        self.loss = loss
        self.prefetched = prefetched
        self.closed = 0
        self.config = {}
        self.seed = 0
        self.task = self
        self.perf_counter = lambda: self.now

    def train_batches(self, seed):
        simulation = self

        class Batches:
            def __getitem__(self, step):
                simulation.now += DATA
                return step

        return Batches()

    def train_iterator(self, step):
        try:
            while True:
                self.now += 0 if self.prefetched else DATA
                yield step
                step += 1
        finally:
            self.closed += 1

    parallel = types.SimpleNamespace(place_state=lambda state: state, place_batch=lambda batch: batch)

    def init_state(self):
        return types.SimpleNamespace(params=np.zeros(3))

    def train_step(self, state, batch):
        self.now += HOST
        self.free = max(self.now, self.free) + DEVICE
        return Result(self, state.params, self.free), {"loss": (Result(self, self.loss, self.free), 4.0)}


class Result:
    """An array that is there when the device has made it."""

    def __init__(self, simulation, value, ready):
        self.simulation, self.value, self.ready, self.params = simulation, value, ready, value

    def block_until_ready(self):
        self.simulation.now = max(self.simulation.now, self.ready)
        return self

    def __array__(self, dtype=None, copy=None):
        self.block_until_ready()
        return np.asarray(self.value, dtype)

    def __float__(self):
        return float(np.asarray(self))


@pytest.fixture
def simulate(training, monkeypatch):
    def run(num_steps, **options):
        simulation = Simulation(**options)
        monkeypatch.setattr(training, "time", simulation)
        return simulation, training.measure_experiment(simulation, num_steps)

    return run


def test_a_second_is_counted_where_it_is_spent(simulate):
    simulation, record = simulate(20)
    assert [each["steps"] for each in record["rounds"]] == [4] * 5
    alone = record["one_at_a_time"]
    assert [alone[f"{part}_seconds"] for part in PARTS] == [DATA, HOST, DEVICE]
    assert alone["step_seconds"] == DATA + HOST + DEVICE
    assert alone["data_and_host_share"] == pytest.approx((DATA + HOST) / (DATA + HOST + DEVICE))
    assert alone["tokens_per_second"] == pytest.approx(4 / (DATA + HOST + DEVICE))
    # Of four steps, only the first call is not hidden behind the device.
    loop = record["as_the_loop_runs"]
    assert loop["step_seconds"] == pytest.approx((HOST + 4 * DEVICE) / 4)
    assert [loop[f"{part}_seconds"] for part in PARTS] == pytest.approx([0, HOST, HOST / 4 + DEVICE - HOST])
    assert loop["data_and_host_share"] == pytest.approx(1 - DEVICE / (HOST / 4 + DEVICE))
    assert (record["parameters"], record["tokens_per_step"]) == (3, 4)
    assert simulation.closed == 5


def test_data_that_nobody_makes_in_the_background_shows(simulate):
    _, record = simulate(6, prefetched=False)
    loop = record["as_the_loop_runs"]
    assert loop["data_seconds"] == DATA
    assert loop["data_and_host_share"] > 0.2


def test_what_was_made_before_the_clock_started_does_not_count(training):
    simulation = Simulation()
    taken = []
    simulation.train_iterator = lambda step: (taken.append(k) or k for k in range(100))
    training.Trainer(simulation, simulation.init_state()).as_the_loop_runs(4)
    assert len(taken) == 16 + 4


@pytest.mark.parametrize(("num_steps", "rounds"), [(1, [1]), (3, [1, 1, 1]), (12, [3, 3, 2, 2, 2])])
def test_every_step_is_in_one_round(num_steps, rounds, simulate):
    assert [each["steps"] for each in simulate(num_steps)[1]["rounds"]] == rounds


def test_a_diverging_training_is_not_timed(simulate):
    with pytest.raises(RuntimeError, match="the loss of step 1 is nan"):
        simulate(4, loss=float("nan"))


def test_command(command, project):
    (project / "second.py").write_text((project / "recipe.py").read_text())
    result = command(
        "benchmark", "training", "--config=recipe.py:words,second.py", "--override=task.batch_size=2",
        "--override=task.unroll_length=3", "--steps=6", "--output=results/tiny",
    )  # fmt: skip
    assert (result.code, result.err) == (0, "")
    record = json.loads((project / "results" / "tiny.json").read_text())
    assert record["benchmark"] == "training"
    assert record["machine"]["devices"][0]["platform"] == "cpu"
    assert [recipe["recipe"] for recipe in record["recipes"]] == ["recipe.py:words", "second.py"]
    assert [recipe["config"]["vocabulary"]["name"] for recipe in record["recipes"]] == ["words", "characters"]
    for recipe in record["recipes"]:
        assert recipe["config"]["task"]["batch_size"] == 2
        assert 4 <= recipe["tokens_per_step"] <= 6  # the first word of a document is no target
        assert sum(each["steps"] for each in recipe["rounds"]) == 6
        assert all(len(each["one_at_a_time"]) == each["steps"] for each in recipe["rounds"])
        for way in ("one_at_a_time", "as_the_loop_runs"):
            values = recipe[way]
            assert all(values[f"{part}_seconds"] > 0 for part in (*PARTS, "step"))
            assert values["data_and_host_share"] < 1
            wanted = recipe["tokens_per_step"] / values["step_seconds"]
            assert values["tokens_per_second"] == pytest.approx(wanted)
        assert f"{recipe['recipe']}: {recipe['parameters']:,} parameters" in result.out
    assert "data and host share: 1 - device / step" in result.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=nowhere.py"], "cannot read the recipe nowhere.py"),
        (["--config="], "give a recipe with --config=FILE.py"),
        (["--config=recipe.py", "--override=task"], "--override=task: give KEY=VALUE"),
        (["--config=recipe.py", "--override=taks.batch_size=2"], "unknown config key 'taks'"),
        (["--config=recipe.py", "--override=model.cell.name=gruu"], "unknown model.cell.name 'gruu'"),
        (["--config=recipe.py", "--steps=0"], "--steps must be at least 1, got 0"),
        (["--config=recipe.py", "--cells=lstm"], "--cells is a flag of benchmark recurrence"),
    ],
)
def test_mistakes(flags, message, refused):
    assert message in refused("benchmark", "training", *flags)
