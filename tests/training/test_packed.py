"""Trials packed into one program: each as if it had run alone."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import types
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from packed_trials import FIVE, TRAINING, trials, write_data

from lstm_research.common.errors import UserError
from lstm_research.models.cells.lstm import LSTM
from lstm_research.training import packed_function
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import Start, run
from lstm_research.training.metrics import read_metrics
from lstm_research.training.pack import Group, Member, Pack
from lstm_research.training.packed import (
    Outcome,
    Packer,
    _keys_that_part,
    _Streams,
    _Trial,
    _TrialSignals,
    train_packed,
)
from lstm_research.training.packed_function import PackedFunction
from lstm_research.training.packed_program import NotPackableError, TracedProgram
from lstm_research.training.stopping import StopSignals
from lstm_research.training.weights import load_weights, named_leaves
from lstm_research.training.workdir import Workdir

pytestmark = pytest.mark.usefixtures("collected_alone")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The current folder, with data."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("packed")
        patch.chdir(path)
        write_data(path)
        yield path


def alone(config: dict[str, Any], workdir: Path) -> int:
    """Trains one config as `lstm-research train` does."""
    return run(Experiment.from_config(config), workdir, argv=[])


def lines(workdir: Path) -> list[dict[str, Any]]:
    """Returns what a run has logged, but for the time it took."""
    return [{**line, "seconds": None} for line in read_metrics(workdir / "metrics.jsonl")]


def numbers(value: Any) -> Any:
    """Returns nested content with every float as something that equals those close to it."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    return pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value


def assert_as_alone(packed: Path, separate: Path) -> None:
    """Checks that a run in a pack wrote what it would have written alone."""
    assert lines(packed) == [numbers(line) for line in lines(separate)]
    status = [json.loads((path / "status.json").read_text()) for path in (packed, separate)]
    assert status[0] == numbers(status[1])
    kept = [sorted(entry.name for entry in (path / "checkpoints").iterdir()) for path in (packed, separate)]
    assert kept[0] == kept[1]
    weights = [load_weights(path / "best/model.safetensors")[0] for path in (packed, separate)]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4), *weights)


NUMBERS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "where they start": ("language_model", [{"seed": k, "model.cell.forget_bias": 0.5 + 2 * k} for k in range(2)]),
    "noise": (
        "language_model",
        [
            {
                "model.dropout": {"input_rate": r, "zoneout_h_rate": r, "recurrent_rate": r / 2, "weight_rate": r / 3},
                "model.remat": True,
                "training.accumulation_steps": 3,
            }
            for r in (0.1, 0.5)
        ],
    ),
    "optimizer": (
        "classifier",
        [
            {
                "optimizer.b1": 0.9 - 0.1 * k,
                "optimizer.eps": 10.0 ** (k - 8),
                "optimizer.clip_norm": 0.1 * (k + 1),
                "optimizer.weight_decay": 0.01 * (k + 1),
                "optimizer.schedule.warmup_steps": 3 + k,
                "optimizer.schedule.final_fraction": 0.1 * k,
                "task.label_smoothing": 0.1 + 0.1 * k,
                "model.cell.forget_bias": float(k),
                "seed": k % 2,
            }
            for k in range(3)
        ],
    ),
    "what stops or changes a run on the way": (
        "adding",
        [
            {
                "optimizer.learning_rate": rate,
                "optimizer.schedule": {"name": "plateau", "factor": factor},
                "training": {**TRAINING, "eval_every": 2, "patience": 2, "num_steps": 16, "average_patience": 1},
            }
            for rate, factor in ((1e-9, 0.5), (0.003, 0.5), (0.5, 0.1))
        ],
    ),
}


# The numbers of the optimiser are in the table of all numbers too, see test_packed_knobs.py.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.whole if name == "optimizer" else []) for name in NUMBERS]
)
def test_trials_of_a_pack_are_as_if_alone(name: str, tmp_path: Path) -> None:
    base, changes = NUMBERS[name]
    configs = trials(base, *changes)
    workdirs = [tmp_path / f"packed{index}" for index in range(len(configs))]
    assert train_packed(configs, workdirs) == [Outcome(0)] * len(configs)
    for index, config in enumerate(configs):
        assert alone(config, tmp_path / f"alone{index}") == 0
        assert_as_alone(workdirs[index], tmp_path / f"alone{index}")


def final(workdir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the bytes of what a run came to."""
    checkpoints = Checkpoints(workdir / "checkpoints", 2)
    restored = checkpoints.restore_latest(Experiment.from_config(config).init_state())
    checkpoints.close()
    assert restored is not None
    state = {name: np.asarray(leaf).tobytes() for name, leaf in named_leaves(restored[1]._replace(key=())).items()}
    return {"lines": lines(workdir), "state": state, "best": (workdir / "best/model.safetensors").read_bytes()}


@pytest.fixture(scope="module")
def packer() -> Packer:
    """What it has compiled for one test serves the next one."""
    return Packer()


RATES = [{"optimizer.learning_rate": rate} for rate in (0.003, 0.01)]
DIVERGES = {"optimizer": {"name": "sgd", "learning_rate": 1e30}}


@pytest.fixture(scope="module")
def undisturbed(packer: Packer, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two trials come to that nothing disturbs."""
    folder, configs = tmp_path_factory.mktemp("undisturbed"), trials("adding", *RATES)
    packer.train(configs, [folder / "0", folder / "1"])
    return [final(folder / str(index), config) for index, config in enumerate(configs)]


class CrashError(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


@pytest.mark.parametrize("moment", [pytest.param(m, marks=[] if m == 2 else pytest.mark.whole) for m in range(1, 7)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_killed_at_a_save_and_started_again_all_end_as_if_undisturbed(
    moment: int, packer: Packer, undisturbed: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At odd moments the two have different newest checkpoints, and one waits for the other."""
    configs, workdirs, saves = trials("adding", *RATES), [tmp_path / "0", tmp_path / "1"], [0]
    save = Checkpoints.save

    def crashing(self: Checkpoints, *rest: Any) -> None:
        saves[0] += 1
        if saves[0] == moment:
            raise CrashError
        save(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", crashing)
        with pytest.raises(CrashError):
            packer.train(configs, workdirs)
    gc.collect()
    assert packer.train(configs, workdirs) == [Outcome(0)] * 2
    assert [final(path, config) for path, config in zip(workdirs, configs, strict=True)] == undisturbed


def test_a_signal_has_all_trials_saved_and_they_go_on(
    packer: Packer, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    configs, workdirs, signals = trials("adding", *RATES), [tmp_path / "0", tmp_path / "1"], StopSignals()

    def stop(index: int) -> bool:
        signals.requested = "SIGTERM"
        return False

    outcomes = packer.train(configs, workdirs, signals=signals, is_enough=stop)
    assert outcomes == [Outcome(143)] * 2
    assert [Workdir(path).read_status()["step"] for path in workdirs] == [7, 6]  # the first had asked for an update
    assert packer.train(configs, workdirs) == [Outcome(0)] * 2
    assert [final(path, config) for path, config in zip(workdirs, configs, strict=True)] == undisturbed


def test_a_signal_leaves_packs_that_have_not_begun_as_they_are(tmp_path: Path) -> None:
    signals, begun = StopSignals(), []

    def begin(indices: Sequence[int]) -> None:
        begun.append(list(indices))
        signals.requested = "SIGTERM"

    configs = trials("adding", {}, {"model.cell.name": "gru"}, {"optimizer.learning_rate": 0.5})
    workdirs = [tmp_path / str(index) for index in range(3)]
    outcomes = Packer().train(configs, workdirs, signals=signals, on_start=begin)
    assert outcomes == [Outcome(143)] * 3
    assert begun == [[0, 2]]
    assert [workdir.exists() for workdir in workdirs] == [True, False, True]


def test_one_trial_is_stopped_alone(packer: Packer, undisturbed: list[dict[str, Any]], tmp_path: Path) -> None:
    configs, workdirs = trials("adding", *RATES), [tmp_path / "0", tmp_path / "1"]
    outcomes = packer.train(configs, workdirs, is_enough=lambda index: index == 0)
    assert outcomes == [Outcome(143), Outcome(0)]
    assert Workdir(workdirs[0]).read_status()["state"] == "preempted"
    assert final(workdirs[1], configs[1]) == undisturbed[1]


def test_a_trial_that_diverges_leaves_the_bytes_of_the_others_as_they_are(tmp_path: Path) -> None:
    sgd = [{"optimizer": {"name": "sgd", "learning_rate": rate}} for rate in (0.003, 0.01)]
    configs = trials("adding", *sgd, DIVERGES)
    with_it, without = ([tmp_path / f"{name}{index}" for index in range(3)] for name in ("with", "without"))
    assert [outcome.code for outcome in train_packed(configs, with_it)] == [0, 0, 1]
    assert [outcome.code for outcome in train_packed(configs[:2], without[:2])] == [0, 0]
    for index in (0, 1):
        assert final(with_it[index], configs[index]) == final(without[index], configs[index])
    assert Workdir(with_it[2]).read_status()["state"] == "diverged"
    assert "diverged at step" in (with_it[2] / "train.log").read_text()


def test_a_trial_that_is_refused_or_fails_leaves_the_others_alone(
    packer: Packer, undisturbed: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def failing_init(self: LSTM, *rest: Any) -> Any:
        if self.forget_bias == 7:
            raise RuntimeError("this cell has a fault")
        return init(self, *rest)

    init = LSTM.init
    monkeypatch.setattr(LSTM, "init", failing_init)
    wrong = [{"model.cell.hidden_size": -1}, {"training.metric": "bleu"}, {}, {}, {"model.cell.forget_bias": 7.0}]
    configs = trials("adding", *RATES, *wrong)
    workdirs = [tmp_path / str(index) for index in range(len(configs))]
    for workdir in workdirs[4:6]:
        workdir.mkdir()
    (workdirs[4] / "metrics.jsonl").touch()
    (workdirs[5] / "train.log").symlink_to("/dev/full")  # which fails when it is written to, and when it is closed
    outcomes = packer.train(configs, workdirs)
    assert [outcome.code for outcome in outcomes] == [0, 0, 2, 2, 2, 2, 1]
    words = ("hidden_size", "training.metric 'bleu'", "no config.json", "no room left", "this cell has a fault")
    for outcome, word in zip(outcomes[2:], words, strict=True):
        assert word in outcome.reason
    assert "failing_init" in capfd.readouterr().err, "where it failed is shown"
    assert [final(path, config) for path, config in zip(workdirs, configs[:2], strict=False)] == undisturbed


def test_what_differs_in_more_than_numbers_is_another_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        {"model.dropout": {"input_rate": 0.1}, "seed": 1},
        {"model.dropout": {}},
        {"model.dropout": {"input_rate": 0.3}},
        {"model.cell.hidden_size": 4},
        {"model.dropout": {}, "optimizer.learning_rate": 0.5},
    ]
    configs, packs, kept, said, init = trials("adding", *changes), [], [], [], Pack.__init__
    workdirs = [tmp_path / f"packed{index}" for index in range(len(configs))]

    def counting(self: Pack, group: Any, members: Any, *rest: Any) -> None:
        gc.collect()
        assert not any(pack() for pack in kept), "an earlier pack still takes memory"
        kept.append(weakref.ref(self))
        packs.append(len(members))
        init(self, group, members, *rest)

    monkeypatch.setattr(Pack, "__init__", counting)
    assert Packer(say=said.append).train(configs, workdirs) == [Outcome(0)] * len(configs)
    assert packs == [2, 2, 1]
    assert said == ["5 trials make 3 kinds of programs"]
    assert alone(configs[1], tmp_path / "alone") == 0
    assert_as_alone(workdirs[1], tmp_path / "alone")


def test_batches_are_those_of_the_step_also_when_the_trials_behind_have_ended() -> None:
    (config,) = trials("adding", {})
    member = types.SimpleNamespace(experiment=Experiment.from_config(config))
    of_both = (Path(), Start(False, None, []), config, _TrialSignals(StopSignals()), member)
    streams, batches = (
        _Streams({row: _Trial(row, *of_both) for row in range(2)}),
        member.experiment.task.train_batches(0),
    )
    for step, row in ((0, 0), (1, 0), (5, 1), (6, 1)):
        ((_, (batch,)),) = streams.at(step, [row], 2)
        jax.tree.map(np.testing.assert_array_equal, batch, batches[step])
    streams.close()


def test_only_trials_that_start_and_predict_alike_share_a_task() -> None:
    changes = ({}, {"model.cell.forget_bias": 3.0}, {"optimizer.learning_rate": 0.5, "seed": 1})
    members = [Member(Experiment.from_config(config)) for config in trials("adding", *changes)]
    Group(members[0]).prepare(members)
    first, other, like_first = (member.experiment.task for member in members)
    assert other is not first
    assert like_first is first


def test_the_keys_that_make_other_programs_are_named() -> None:
    rates = [{"optimizer.learning_rate": rate} for rate in (0.1, 0.2, 0.3)]
    kinds = [trials("adding", *rates[:2]), trials("adding", {"model.cell.hidden_size": 4, **rates[2]})]
    assert _keys_that_part(kinds) == ["model.cell.hidden_size"]


def test_where_a_number_cannot_be_an_argument_trials_train_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TracedProgram, values: Mapping[int, Any], *arguments: Any) -> Any:
        if values:
            raise NotPackableError("a number inside of the operation 'sort' differs")
        return run_program(self, values, *arguments)

    run_program, said = TracedProgram.run, []
    monkeypatch.setattr(TracedProgram, "run", refuse)
    configs, workdirs = trials("adding", *RATES), [tmp_path / "0", tmp_path / "1"]
    assert Packer(say=said.append).train(configs, workdirs) == [Outcome(0)] * 2
    assert said == ["2 trials train one by one: a number inside of the operation 'sort' differs"]


def test_trials_in_turn_are_as_if_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loops of a trial fill the cache, no two are computed at once."""
    monkeypatch.setattr(packed_function, "_CACHE", 0)
    configs = trials("language_model", {}, {"optimizer.learning_rate": 0.1, "seed": 1})
    workdirs = [tmp_path / "packed0", tmp_path / "packed1"]
    assert train_packed(configs, workdirs) == [Outcome(0)] * 2
    for index, config in enumerate(configs):
        assert alone(config, tmp_path / f"alone{index}") == 0
        assert_as_alone(workdirs[index], tmp_path / f"alone{index}")


def test_a_pack_that_the_memory_does_not_hold_is_refused_with_one_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_function, "_host_memory", lambda: 1e4)
    with pytest.raises(UserError, match=r"2 trials need .* try --pack=1"):
        train_packed(trials("adding", *RATES), [tmp_path / "0", tmp_path / "1"])


@pytest.mark.usefixtures("undisturbed")
def test_a_later_call_compiles_nothing_anew(packer: Packer, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_function.PackedFunction, "_compile", lambda *_: pytest.fail("compiled"))
        later = trials("adding", *({"optimizer.learning_rate": rate} for rate in (0.1, 0.2)))
        assert packer.train(later, [tmp_path / "2", tmp_path / "3"]) == [Outcome(0)] * 2


def test_parallel_is_refused(tmp_path: Path) -> None:
    (outcome,) = train_packed(trials("adding", {"parallel": {"strategy": "pmap"}}), [tmp_path / "0"])
    assert outcome.code == 2
    assert outcome.reason.startswith("parallel divides one run among devices")


def start(folder: Path, num_devices: int = 4) -> subprocess.Popen[str]:
    """Starts the program that trains five trials, on a CPU as several devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"
    program = [sys.executable, str(Path(__file__).with_name("packed_trials.py")), str(folder)]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)


def test_trials_are_divided_among_devices(tmp_path: Path) -> None:
    configs = trials("adding", *FIVE)
    with start(tmp_path / "four") as process:
        assert train_packed(configs, [tmp_path / "one" / str(number) for number in range(5)]) == [Outcome(0)] * 5
        assert process.wait(120) == 0
    for number in range(5):
        assert_as_alone(tmp_path / "four" / str(number), tmp_path / "one" / str(number))


@pytest.mark.whole
def test_killed_anywhere_and_started_again_they_end_with_the_same_bytes(tmp_path: Path) -> None:
    configs, chance = trials("adding", *FIVE), random.Random(0)
    with start(tmp_path / "undisturbed") as process:
        assert process.wait(120) == 0
    for _ in range(4):
        with start(tmp_path / "killed") as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 5)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
    with start(tmp_path / "killed") as process:
        assert process.wait(120) == 0
    for number, config in enumerate(configs):
        ours, theirs = (final(tmp_path / name / str(number), config) for name in ("killed", "undisturbed"))
        assert ours == theirs


@pytest.mark.whole
def test_sixteen_learning_rates_over_two_hundred_steps(tmp_path: Path) -> None:
    rates = np.geomspace(1e-4, 1e-2, 16).tolist()
    training = {"num_steps": 200, "log_every": 10, "eval_every": 100}
    configs = trials("language_model", *({"optimizer.learning_rate": rate, "training": training} for rate in rates))
    workdirs = [tmp_path / f"packed{index}" for index in range(16)]
    assert train_packed(configs, workdirs) == [Outcome(0)] * 16
    for index, config in enumerate(configs):
        assert alone(config, tmp_path / f"alone{index}") == 0
        assert_as_alone(workdirs[index], tmp_path / f"alone{index}")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_where_trials_are_computed_at_once_a_step_has_no_loop_over_them(platform: str) -> None:
    experiments = [Experiment.from_config(config) for config in trials("adding", *RATES)]
    members = [Member(experiment) for experiment in experiments]
    shapes = (members[0].state, experiments[0].task.train_batches(0)[0])
    programs = [member.program("update", *shapes) for member in members]
    numbers = PackedFunction("update", programs[0]).numbers(programs)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), shapes[0])
    at_once = jax.jit(jax.vmap(programs[0].run, in_axes=(0, 0, None)))
    text = jax.export.export(at_once, platforms=[platform])(numbers, state, shapes[1]).mlir_module()
    alone = jax.export.export(jax.jit(programs[0].run), platforms=[platform])({}, *shapes).mlir_module()
    for operation in ("while", "dot_general", "dynamic_update_slice", "scatter"):
        assert text.count(f"stablehlo.{operation}") == alone.count(f"stablehlo.{operation}"), operation
