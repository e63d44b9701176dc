"""`benchmark recurrence`: what it writes, how it compares, and that nothing broken is measured. Nothing about speed."""

import importlib.util
import json
import shlex
import statistics
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hatchling.builders.wheel import WheelBuilder
from matplotlib.figure import Figure

from lstm_research.cli import benchmark
from lstm_research.models import CELLS
from lstm_research.models.layers import Recurrent
from lstm_research.models.recurrence import ENGINES

ROOT = Path(__file__).parents[2]
MEASURES = ("forward", "forward_backward")
BASELINES = [name for name in ("flax", "torch") if importlib.util.find_spec(name)]
T, B, D, H = 3, 2, 4, 5
TINY = f"{B}x{T}x{D}x{H}"


def median_of_ratios(a, b):
    return statistics.median(np.asarray(a) / np.asarray(b))


def test_command(command, project, monkeypatch):
    monkeypatch.setitem(ENGINES, "refusing", ENGINES["scan"]._replace(refusal=lambda *_, **__: "it serves none"))
    arguments = [
        "benchmark", "recurrence", f"--shapes={TINY}", "--cells=lstm,peephole_lstm", "--engines=scan,refusing",
        f"--peers={','.join(BASELINES)}", "--repeats=3", "--output=results of today/tiny.json",
    ]  # fmt: skip
    result = command(*arguments)
    assert (result.code, result.err) == (0, "")
    record = json.loads((project / "results of today" / "tiny.json").read_text())
    assert record["benchmark"] == "recurrence"
    assert shlex.split(record["machine"]["command"]) == ["lstm-research", *arguments]
    assert {"cpu", "cores", "memory_bytes", "date", "versions", "git", "devices", "platform"} <= record[
        "machine"
    ].keys()
    assert set(BASELINES) | {"jax", "lstm-research", "python"} <= record["machine"]["versions"].keys()

    names = ["lstm scan", "peephole_lstm scan", *(f"{peer} lstm" for peer in BASELINES)]
    for shape in record["shapes"]:
        found = {entry["name"]: entry for entry in shape["entries"]}
        assert list(found) == names
        for name, entry in found.items():
            for measure in MEASURES:
                assert len(entry["seconds"][measure]) == 3
                assert min(entry["seconds"][measure]) > 0
                assert entry["engine_taken"] == entry["engine"]
                assert entry["median_seconds"][measure] == statistics.median(entry["seconds"][measure])
                if name.startswith("torch"):
                    assert entry["compile_seconds"] is entry["temporary_bytes"] is None
                else:
                    assert entry["compile_seconds"][measure] > 0
                    assert isinstance(entry["temporary_bytes"][measure], int)
        seconds = {name: entry["seconds"] for name, entry in found.items()}
        for measure in MEASURES:
            speed = found["lstm scan"]["speed"]
            assert list(speed) == BASELINES
            for peer in BASELINES:
                wanted = median_of_ratios(seconds[f"{peer} lstm"][measure], seconds["lstm scan"][measure])
                assert speed[peer][measure] == pytest.approx(wanted)
            peephole = found["peephole_lstm scan"]
            assert peephole["speed"] == {}
            assert peephole["cost"]["against"] == "lstm scan"
            wanted = median_of_ratios(seconds["peephole_lstm scan"][measure], seconds["lstm scan"][measure])
            assert peephole["cost"][measure] == pytest.approx(wanted)
        assert all(found[f"{peer} lstm"]["cost"] is None for peer in BASELINES)
        assert "flax" not in found["flax lstm"]["speed"]

        reasons = {entry["name"]: entry["reason"] for entry in shape["refused"]}
        assert "it serves none" in reasons["lstm refusing"]
        assert reasons["flax peephole_lstm"] == "has no cell with the equations of peephole_lstm"
        assert len(reasons) == 2 + len(BASELINES)

        found = {part["name"]: part for part in shape["parts"]}
        assert list(found) == ["xla products", "xla elementwise"]
        for name, part in found.items():
            assert len(part["seconds"]) == 3
            with_torch = ["torch lstm"] if "torch" in BASELINES and name == "xla products" else []
            assert list(part["share"]) == ["lstm scan", *with_torch]
            assert name in result.out

    assert "not measured: lstm refusing, peephole_lstm refusing: engine 'refusing' cannot" in result.out
    assert all(name in result.out for name in names)
    assert record["machine"]["cpu"] in result.out
    for name, how in record["absent"].items():
        assert f"peer {name} is absent; {how}" in result.out
    assert (project / "results of today" / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_what_auto_takes_is_named(recurrence, entries):
    label = entries.Label(recurrence.OWN, "lstm", "auto", "none", "float32")
    entry = recurrence.make_entry(label, recurrence.Shape(B, T, D, H), np.ones((T, B, D), np.float32))
    assert entry.engine_taken == "fused"  # on a CPU


def test_without_a_peer_there_is_no_plot_and_that_is_said(command, project):
    result = command(
        "benchmark", "recurrence", f"--shapes={TINY},1x4x3x6", "--engines=scan", "--peers=", "--repeats=1",
        "--output=tiny",
    )  # fmt: skip
    assert result.code == 0
    shapes = json.loads((project / "tiny.json").read_text())["shapes"]
    assert [tuple(shape["shape"].values()) for shape in shapes] == [(B, T, D, H), (1, 4, 3, 6)]
    assert "batch 2, time 3, input 4, hidden 5" in result.out
    assert "batch 1, time 4, input 3, hidden 6" in result.out
    assert "no plot: nothing was measured beside flax or torch" in result.out
    assert [path.name for path in project.glob("tiny*")] == ["tiny.json"]


@pytest.mark.parametrize("speeds", [(0.4, 0.9), (0.8, 2.3), (0.05, 3.0), (0.003, 1500.0)])
def test_the_ticks_of_the_plot_can_be_read(speeds, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: drawn.append(self))
    rows = [{"name": str(speed), "speed": {"flax": dict.fromkeys(MEASURES, speed)}} for speed in speeds]
    machine = {"devices": [{"platform": "cpu", "kind": "cpu"}], "cpu": "some CPU", "cores": 2, "date": "2000-01-01"}
    record = {"shapes": [{"shape": {"batch": 1}, "entries": rows}], "machine": machine}
    assert benchmark.load("report").plot_recurrence(record, tmp_path / "plot.png") is None
    (axis,) = drawn[0].axes
    low, high = axis.get_ylim()
    ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
    assert 3 <= len(ticks) <= 10
    assert len(axis.get_yticks(minor=True)) == 0


def test_ratios_are_taken_within_a_round(recurrence):
    ours, theirs = [1.0, 1.0, 4.0], [1.0, 4.0, 2.0]
    assert statistics.median(theirs) / statistics.median(ours) == 2
    assert recurrence.median_ratio(theirs, ours) == 1
    with pytest.raises(ValueError, match="shorter"):
        recurrence.median_ratio(theirs, ours[:2])


def test_only_like_is_compared_with_like(entries, recurrence):
    def entry(*label):
        return entries.Entry(entries.Label(*label), {}, np.asarray, "nowhere")

    own = recurrence.OWN
    all_entries = [
        entry(own, "lstm", "scan", "none", "float32"),
        entry(own, "lstm", "scan", "zoneout", "float32"),
        entry(own, "lstm", "fused", "zoneout", "float32"),  # there is no plain one on this engine
        entry(own, "gru", "scan", "none", "float32"),
        entry(own, "gru", "scan", "zoneout", "float32"),
        entry(own, "lstm", "scan", "none", "bfloat16"),
        entry("flax", "lstm", None, "none", "float32"),
        entry("torch", "gru", None, "none", "float32"),
        entry("haiku", "lstm", None, "none", "float32"),
    ]
    seconds = {each.label.name: {m: [index + 1.0] for m in MEASURES} for index, each in enumerate(all_entries)}
    rows = recurrence.describe_entries(all_entries, seconds)
    assert {row["name"]: (row["cost"] or {}).get("against") for row in rows if row["library"] == own} == {
        "lstm scan": None,
        "lstm scan zoneout": "lstm scan",
        "lstm fused zoneout": None,
        "gru scan": "lstm scan",
        "gru scan zoneout": "gru scan",
        "lstm scan bfloat16": None,
    }
    assert rows[1]["cost"] == {"against": "lstm scan", "forward": 2, "forward_backward": 2}
    assert {row["name"]: list(row["speed"]) for row in rows if row["speed"]} == {
        "lstm scan": ["flax"], "gru scan": ["torch"], "haiku lstm": ["flax"],
    }  # fmt: skip
    assert rows[0]["speed"]["flax"]["forward"] == 7


def test_summary(recurrence):
    def shape(cost, **speeds):
        return {
            "entries": [
                {
                    "name": name,
                    "speed": {"flax": dict.fromkeys(MEASURES, speed)},
                    "cost": {"against": "lstm scan", **dict.fromkeys(MEASURES, cost)} if name == "gru" else None,
                }
                for name, speed in speeds.items()
            ]
        }

    rows = recurrence.summarize([shape(2.0, lstm=0.5, gru=4.0), shape(1.0, lstm=2.0, gru=9.0), shape(1.0, lstm=8.0)])
    assert [(row["name"], row["ratio"]) for row in rows] == [
        ("lstm", "speed against flax"),
        ("gru", "speed against flax"),
        ("gru", "cost against lstm scan"),
    ]
    assert rows[0]["forward"] == {"geometric_mean": pytest.approx(2), "least": 0.5, "largest": 8, "shapes": 3}
    assert rows[1]["forward"] == {"geometric_mean": pytest.approx(6), "least": 4, "largest": 9, "shapes": 2}
    assert rows[2]["forward_backward"]["geometric_mean"] == pytest.approx(2**0.5)


def test_rounds_go_through_all_entries(entries, recurrence):
    calls = []

    def entry(name):
        def run(measure):
            return lambda: calls.append((name, measure))

        label = entries.Label("flax", name, None, "none", "float32")
        return entries.Entry(label, {measure: run(measure) for measure in MEASURES}, np.asarray, "nowhere")

    seconds = entries.measure([entry("a"), entry("b")], repeats=3)
    assert {name: {m: len(s) for m, s in each.items()} for name, each in seconds.items()} == {
        f"flax {name}": {"forward": 3, "forward_backward": 3} for name in "ab"
    }
    order = [call for before, call in zip([None, *calls], calls, strict=False) if call != before]
    one_round = [(name, measure) for name in "ab" for measure in MEASURES]
    assert order == one_round * 4  # once to find how many calls last long enough, then the rounds


def broken(what):
    """An engine that gives something wrong."""

    def engine(cell, params, xs, carry, **keywords):
        carry, ys = ENGINES["scan"].run(cell, params, xs, carry, **keywords)
        return carry, {
            "value": ys * jnp.nan,
            "shape": ys[1:],
            "gradient": jax.lax.stop_gradient(ys),
            "gradient value": ys + jnp.where(xs.sum() > 1e9, 0, jnp.sqrt(jnp.abs(0 * xs.sum()))),
        }[what]

    return engine


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("value", "outputs or gradients that are not finite"),
        ("shape", r"outputs of the shape \(2, 2, 5\), not \(3, 2, 5\)"),
        ("gradient", "no gradient of the inputs or of the parameters"),
        ("gradient value", "outputs or gradients that are not finite"),
    ],
)
def test_a_broken_entry_fails(what, message, recurrence, monkeypatch):
    monkeypatch.setitem(ENGINES, "broken", ENGINES["scan"]._replace(run=broken(what)))
    options = recurrence.Options(engines=["broken"], shapes=[recurrence.Shape(B, T, D, H)], peers=[], repeats=1)
    with pytest.raises(RuntimeError, match=f"^lstm broken at {TINY}: {message}"):
        recurrence.run(options, lambda record: None, lambda line: None)


def test_a_peer_that_fails_is_no_peer_that_lacks_something(recurrence, peers, monkeypatch):
    def fail(*arguments):
        raise ValueError("its own trouble")

    monkeypatch.setitem(peers.PEERS, "flax", peers.PEERS["flax"]._replace(make=fail))
    options = recurrence.Options(engines=["scan"], shapes=[recurrence.Shape(B, T, D, H)], peers=["flax"], repeats=1)
    with pytest.raises(ValueError, match="its own trouble") as error:
        recurrence.run(options, lambda record: None, lambda line: None)
    assert error.value.__notes__ == [f"while building flax lstm at {TINY}"]


def peer_cases():
    for name, peer in benchmark.load("peers").PEERS.items():
        for cell in peer.cells:
            for dtype in ("float32", "bfloat16"):
                marks = [pytest.mark.whole] if dtype != "float32" and cell != "lstm" else []
                yield pytest.param(name, cell, dtype, id=f"{name}-{cell}-{dtype}", marks=marks)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "cell", "dtype"), list(peer_cases()))
def test_peers_run_over_time_and_not_over_the_batch(name, cell, dtype, peers, entries):
    if not peers.PEERS[name].is_installed():
        pytest.skip(f"{name} is not installed")
    assert cell in CELLS
    shape = entries.Shape(B, T, D, H)
    # Every row of the batch reads the same, and every step is the same input to another state.
    xs = np.broadcast_to(np.random.default_rng(0).standard_normal((1, 1, D), np.float32), (T, B, D)).copy()
    label = entries.Label(name, cell, None, "none", dtype)
    entry = peers.make_entry(label, shape, xs)
    entry.check(shape, H)
    (ys,) = entry.run["forward"]()
    assert str(ys.dtype).removeprefix("torch.") == dtype
    ys = entry.read(ys)
    if ys.shape[0] == B:
        ys = ys.swapaxes(0, 1)
    np.testing.assert_allclose(ys[:, 0], ys[:, 1], atol=1e-6)
    assert all(np.abs(ys[t] - ys[t - 1]).max() > 1e-3 for t in range(1, T))
    gradients = entry.run["forward_backward"]()
    assert {str(array.dtype).removeprefix("torch.") for array in gradients} == {dtype}
    assert entry.read(gradients[0]).size == xs.size


def test_bfloat16_is_that_of_the_layer(recurrence):
    cell = CELLS["layer_norm_lstm"](H)
    layer = Recurrent(cell, D, engine="scan", dtype="bfloat16", rngs=nnx.Rngs(0))
    for name, value in cell.init(jax.random.key(0), D).items():
        layer.params[name] = nnx.Param(value)
    xs = np.random.default_rng(0).standard_normal((T, B, D), np.float32)
    label = recurrence.Label(recurrence.OWN, "layer_norm_lstm", "scan", "none", "bfloat16")
    entry = recurrence.make_entry(label, recurrence.Shape(B, T, D, H), xs)
    (ys,) = entry.run["forward"]()
    expected = layer(jnp.asarray(xs, "bfloat16"))[1]
    assert ys.dtype == expected.dtype == "float32"
    np.testing.assert_allclose(ys, expected, atol=1e-6)
    names = ["xs", *sorted(layer.params)]
    for name, gradient in zip(names, entry.run["forward_backward"](), strict=True):
        assert gradient.dtype == ("bfloat16" if name == "xs" or name.endswith("kernel") else "float32"), name


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("noise", ["recurrent_dropout", "zoneout"])
def test_noise_is_drawn_inside_what_is_timed(cell, noise, recurrence, monkeypatch):
    drawn = []
    draw = recurrence.recurrent_masks

    def spy(key, *arguments):
        masks = draw(key, *arguments)
        if isinstance(key, jax.core.Tracer):
            drawn.append({name for name, mask in masks._asdict().items() if mask is not None})
        return masks

    monkeypatch.setattr(recurrence, "recurrent_masks", spy)
    entries = [
        recurrence.make_entry(
            recurrence.Label(recurrence.OWN, cell, "scan", each, "float32"),
            recurrence.Shape(B, T, D, 64),
            np.ones((T, B, D), np.float32),
        )
        for each in ("none", noise)
    ]
    zoneout = {"zoneout_c", "zoneout_h"} if cell == "lstm" else {"zoneout_h"}
    wanted = {"dropout"} if noise == "recurrent_dropout" else zoneout
    assert drawn == [set(), set(), wanted, wanted]  # of the forward pass, and of both passes
    plain, noisy, again = (np.asarray(entry.run["forward"]()[0]) for entry in (*entries, entries[1]))
    np.testing.assert_array_equal(noisy, again)
    assert np.abs(noisy - plain).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_alone_each_need_the_one_before(dtype, entries):
    parts = benchmark.load("parts")
    label = entries.Label("xla", "products", None, "none", dtype)
    entry = parts.make_part(label, entries.Shape(B, T, D, H))
    kernel = np.asarray(CELLS["lstm"](H).init(jax.random.key(0), 1)["recurrent_kernel"])
    z = np.asarray(jax.random.normal(jax.random.key(1), (B, 4 * H)))
    for _ in range(T):
        z = z[:, :H] @ kernel
    for _ in range(2):  # every call starts anew
        np.testing.assert_allclose(entry.read(entry.run["forward"]()[0]), z, atol=1e-5 if dtype == "float32" else 0.05)


def test_elementwise_alone_is_all_of_a_step_but_the_products(entries):
    parts = benchmark.load("parts")
    entry = parts.make_part(entries.Label("xla", "elementwise", None, "none", "float32"), entries.Shape(B, T, D, H))
    (ys,) = entry.run["forward"]()
    z = np.asarray(jax.random.normal(jax.random.key(1), (B, 4 * H)))
    c = h = np.zeros((B, H))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for t in range(T):
        i, f, g, o = np.split(z + h[:, :1], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(ys[t], h, atol=1e-5)


def test_shares_of_the_parts(entries, recurrence):
    parts = benchmark.load("parts")
    labels = [
        entries.Label(recurrence.OWN, "lstm", "scan", "none", "float32"),
        entries.Label(recurrence.OWN, "lstm", "scan", "zoneout", "float32"),
        entries.Label(recurrence.OWN, "gru", "scan", "none", "float32"),
        entries.Label(recurrence.OWN, "lstm", "scan", "none", "bfloat16"),
        entries.Label("flax", "lstm", None, "none", "float32"),
        entries.Label("torch", "lstm", None, "none", "float32"),
        *parts.make_labels("float32"),
    ]
    found = [entries.Entry(label, {}, np.asarray, "nowhere") for label in labels]
    seconds = {label.name: dict(zip(MEASURES, ([8.0, 16.0, 8.0], [32.0] * 3), strict=True)) for label in labels[:6]}
    seconds |= {"xla products": {"forward": [2.0, 4.0, 1.0]}, "xla elementwise": {"forward": [1.0] * 3}}
    rows = parts.describe_parts(entries.Shape(batch=2, time=3, input_size=5, hidden_size=10), found, seconds)
    products, elementwise = rows
    # An input as wide as half the state: 1.5 times the recurrent product; with the way back three times that.
    share = {"forward": 1.5 * 2 / 8, "forward_backward": 4.5 * 2 / 32}
    assert products["share"] == {"lstm scan": share, "torch lstm": share}
    assert products["gflops"] == pytest.approx(3 * 2 * (2 * 10) * 40 / 2.0 / 1e9)
    assert elementwise["share"] == {"lstm scan": {"forward": 1 / 8}}
    assert elementwise["gflops"] is None


def test_parts_are_measured_beside_lstms_only(recurrence):
    options = recurrence.Options(cells=["gru"], engines=["scan"], peers=[])
    assert {label.cell for label in recurrence.make_labels(options, ["float32"])} == {"gru"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--cells=lstn", "unknown cell 'lstn'; did you mean 'lstm'"),
        ("--engines=scam", "unknown engine 'scam'; did you mean 'scan'?"),
        ("--peers=flex", "unknown peer 'flex'; did you mean 'flax'?"),
        ("--dtype=float16", "unknown dtype 'float16'; did you mean "),
        ("--noise=zone", "unknown noise 'zone'; did you mean 'none' or 'zoneout'"),
        ("--shapes=32x128x256", "a shape is BATCHxTIMExINPUTxHIDDEN, as in 32x128x256x256, got '32x128x256'"),
        ("--shapes=0x1x1x1", "a shape is BATCHxTIMExINPUTxHIDDEN"),
        ("--shapes=", "--shapes must name at least one"),
        ("--cells=", "--cells must name at least one"),
        ("--cells=lstm,lstm", "a cell is named twice: lstm, lstm"),
        ("--repeats=0", "--repeats must be at least 1, got 0"),
        ("--steps=5", "--steps is a flag of benchmark training, not of benchmark recurrence"),
        ("lstm", "benchmark recurrence takes only flags, got lstm"),
    ],
)
def test_mistakes(flag, message, refused):
    assert message in refused("benchmark", "recurrence", flag)


def test_mistakes_before_any_flag(refused):
    assert "benchmark: say what to measure: recurrence, training" in refused("benchmark")
    assert "unknown benchmark 'recurence'; did you mean 'recurrence'?" in refused("benchmark", "recurence")


def test_an_absent_peer(refused, recurrence, peers, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "haiku", peers.PEERS["haiku"]._replace(module="no_such_module"))
    error = refused("benchmark", "recurrence", "--peers=flax,haiku")
    assert error.endswith("peer 'haiku' is not installed; pip install dm-haiku\n")
    assert "haiku" not in recurrence.Options().peers
    options = recurrence.Options(engines=["scan"], shapes=[recurrence.Shape(1, 1, 1, 1)], peers=[], repeats=1)
    assert recurrence.run(options, lambda record: None, lambda line: None)["absent"]["haiku"] == "pip install dm-haiku"


def test_an_output_that_cannot_be(refused, project):
    (project / "file").write_text("")
    refused("benchmark", "recurrence", f"--shapes={TINY}", "--output=file/results")
    (project / "folder").mkdir()
    error = refused("benchmark", "recurrence", f"--shapes={TINY}", "--output=folder")
    assert "--output=folder is a folder; give a name in it" in error


def test_measurements_that_are_not_there(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.lstm_research, "__file__", str(tmp_path / "lib" / "lstm_research" / "__init__.py"))
    monkeypatch.delitem(__import__("sys").modules, "lstm_research.benchmarks", raising=False)
    error = refused("benchmark", "recurrence")
    assert "the measurements are missing" in error
    assert "run from a whole checkout" in error


def test_a_wheel_holds_the_measurements_and_no_results(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert f"lstm_research/benchmarks/{path.name}" in names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"lstm_research"}
    assert not any("benchmarks/results" in name for name in names)
