"""Reports of small runs of every task: whole pages, that need nothing besides themselves."""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from knobs.files import load, write_files
from knobs.forecasting import DEEPAR
from knobs.speech_recognition import DIGITS, SPELL, TRANSDUCER
from pages import check_page, look_at
from test_knobs import TABLES, put

from lstm_research.analysis import pictures, report
from lstm_research.analysis.charts import scatter_chart
from lstm_research.analysis.dynamics import random_weights
from lstm_research.analysis.report import RunRecord, comparison_report, run_report
from lstm_research.common.errors import UserError
from lstm_research.data.prepared import PreparedDataset
from lstm_research.tasks.recognisers import ctc_log_probs
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.trained_run import TrainedRun
from lstm_research.training.workdir import Workdir

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    **{task: (task, {}) for task in TABLES},
    "bidirectional": (
        "text_classification",
        {"model.bidirectional": True, "model.num_layers": 2, "model.pooling": ["attention"]},
    ),
    "deepar": ("forecasting", {"model": DEEPAR, "task.num_samples": 2}),
    "digits": ("speech_recognition", DIGITS),
    "listen_attend_spell": ("speech_recognition", SPELL),
    "transducer": ("speech_recognition", TRANSDUCER),
}
"""By a name for it, the task of a run and what is not as in its base config."""

COMMON = {"Results", "Curves", "Predictions", "Gradients through time", "Config", "Where it comes from"}

SECTIONS = {
    "bidirectional": ["Confusion", "Attention"],
    "forecasting": ["Forecast", "Loss by step"],
    "language_modelling": ["What surprises the model", "Loss by step"],
    "speech_recognition": ["Alignment"],
    "synthetic": [],
    "text_classification": ["Confusion"],
    "translation": ["Attention", "Loss by step"],
}
"""What only the report of a task, or of a run, has."""


def legends(text: str) -> list[list[str]]:
    """The names of what each chart with a legend shows."""
    return [
        [html.unescape(each) for each in re.findall(r"</i> (.*?)</span>", legend)]
        for legend in re.findall(r'<div class="legend">(.*?)</div>', text)
    ]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains a small run in a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(PreparedDataset, "load", load)  # made up recordings
    write_files()

    def train(task: str, name: str, changes: dict[str, Any] | None = None) -> Path:
        config = json.loads(json.dumps(TABLES[task].base))
        for path, value in (changes or {}).items():
            put(config, path, value)
        assert run(Experiment.from_config(config), tmp_path / name) == 0
        return tmp_path / name

    return train


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in TABLES else pytest.mark.whole) for name in RUNS]
)
def test_report(train: Callable[..., Path], name: str, tmp_path: Path) -> None:
    task, changes = RUNS[name]
    workdir = train(task, "run", changes)
    text = run_report(workdir)
    page = check_page(text)
    assert COMMON - {"Predictions"} <= set(page.headings)
    own = [each for each in page.headings if each not in COMMON and not each.startswith("Layer ")]
    assert own == SECTIONS.get(name, SECTIONS[task])
    assert "confusion.txt" not in text  # drawn already
    if task == "speech_recognition":  # features that are given have no rate
        unit = "frames" if name == "digits" else "seconds"
        assert [each for each in ("frames", "seconds") if f">{each}</text>" in text] == [unit]
    layers = [heading.removeprefix("Layer ") for heading in page.headings if heading.startswith("Layer ")]
    assert layers
    assert len(set(layers)) == len(layers)
    assert not any(layer.startswith("layer ") for layer in layers)  # where each has its weights is found
    if name == "bidirectional":
        assert layers == [f"stack.layer_{number}.{way}" for number in range(2) for way in ("forward", "backward")]
    # Each moment once, and the best one by one name.
    best = RunRecord.read(workdir).status["best"]["step"]
    moments = ["random weights", *(f"step {step}" for step in (2, 4) if step != best), f"best (step {best})"]
    drawn = [each for each in legends(text) if each[0] == "random weights"]
    assert drawn == [moments] * 2 * text.count(": gradient of the loss with regard to")
    for line in RunRecord.read(workdir).split("test"):
        assert f"<td>{line['loss']:.5g}</td>" in text
    look_at(text, tmp_path)


def test_comparison(train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model.cell": {"name": "gru", "hidden_size": 4}}
    runs = [train("language_modelling", "_lstm"), train("language_modelling", "a <b> & c", changes)]
    text = comparison_report(runs)
    check_page(text)
    assert "model.cell.name" in text
    assert "&quot;gru&quot;" in text
    assert "model.num_layers" not in text  # the same in both
    assert "<b>" not in text
    assert "a &lt;b&gt; &amp; c" in text
    assert legends(text)[-1] == ["_lstm, c", "_lstm, h", "a <b> & c, h"]
    look_at(text, tmp_path)
    with pytest.raises(UserError, match="twice"):
        comparison_report(runs[:1] * 2)
    monkeypatch.setattr(report, "COLORS", ("red",))
    with pytest.raises(UserError, match="2 runs cannot be told apart in a chart; compare at most 1"):
        comparison_report(runs)


def test_states_of_a_run(train: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    workdir = train("language_modelling", "run")
    record = RunRecord.read(workdir)
    # A checkpoint that goes away after it was listed is left out, one that is there and cannot be read is not.
    load = TrainedRun.load

    def removing(path: Path, which: str = "best") -> TrainedRun:
        shutil.rmtree(workdir / "checkpoints" / "2", ignore_errors=True)
        return load(path, which)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedRun, "load", removing)
        assert list(record.checkpoints(but=1)) == ["step 4"]
    assert "checkpoint of step 2 is gone" in caplog.text
    for file in (workdir / "checkpoints" / "4").rglob("*"):
        if file.is_file() and "state" in file.parts:
            file.write_bytes(b"")
    with pytest.raises(UserError, match="step 4"):
        record.checkpoints(but=1)


def test_a_run_that_was_not_yet_validated(train: Callable[..., Path]) -> None:
    other = train("language_modelling", "other")
    workdir = train("language_modelling", "run", {"training.init_from": str(other)})
    shutil.rmtree(workdir / "best")
    (workdir / "metrics.jsonl").unlink()
    text = run_report(workdir)
    check_page(text)
    assert ["random weights", "step 2", "latest (step 4)"] in legends(text)
    assert f"but from training.init_from={other}" in text
    assert "How far gradients reach" in comparison_report([workdir, other])
    for file, text in (("environment.json", "{"), ("environment.json", "[]"), ("status.json", '{"best": {"step": 4}}')):
        before = (workdir / file).read_text()
        (workdir / file).write_text(text)
        with pytest.raises(UserError, match=rf"{file} is damaged"):
            run_report(workdir)
        (workdir / file).write_text(before)


def test_data_that_is_gone_or_another(train: Callable[..., Path]) -> None:
    workdir = train("language_modelling", "run")
    Path("valid.txt").write_text("to be\n" * 9)
    with pytest.raises(UserError, match="data"):
        run_report(workdir)
    Path("valid.txt").unlink()
    with pytest.raises(UserError, match=r"valid\.txt"):
        run_report(workdir)


def test_where_a_run_began_and_went_on() -> None:
    config = {"training": {"init_from": "runs/one"}, "task": {"vectors": None}}
    start = {"time": "Monday", "argv": ["train", "--x=a b"], "versions": {"jax": "1"}, "devices": []}
    later = start | {"time": "Tuesday", "versions": {"jax": "2"}}
    environment = start | {"starts": [later, later | {"time": "Wednesday"}]}
    record = RunRecord(Workdir(Path("run")), config, [], {}, environment)
    assert "not begin from the random weights but from training.init_from=runs/one." in report._beginning(record)
    assert report._beginning(record._replace(config={"training": {}, "task": {}})) == ""
    text = report._origin(record)
    assert "train &#x27;--x=a b&#x27;" in text
    assert "Tuesday, jax 1 -&gt; 2" in text
    assert "<td>Wednesday</td>" in text  # nothing else than before


def test_samples_are_text_files_and_what_is_undefined_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "samples" / "folder").mkdir(parents=True)
    for name in (".hidden", "sample.txt"):
        (tmp_path / "samples" / name).write_bytes(b"caf\xe9 is no UTF-8")
    line = {"step": 2, "split": "test", "seconds": 1.0, "nd": None}
    record = RunRecord(Workdir(tmp_path), {}, [line], {}, {})
    (sample,) = report._samples(record)
    assert "<h3>sample.txt</h3>" in sample
    assert "is no UTF-8" in sample
    assert "<td>test nd</td><td>undefined</td>" in report._results([record])


def test_checkpoints_are_at_most_as_many_as_colours(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = train("language_modelling", "run")
    for step in range(5, 40):
        (workdir / "checkpoints" / str(step)).mkdir()
    load = TrainedRun.load
    monkeypatch.setattr(TrainedRun, "load", lambda path, which: load(path))
    found = RunRecord.read(workdir).checkpoints(but=4)
    assert 2 <= len(found) <= 8
    assert "step 4" not in found


def test_recordings_of_like_length_are_compiled_once(train: Callable[..., Path]) -> None:
    task = TrainedRun.load(train("speech_recognition", "run"))
    rng = np.random.default_rng(0)
    signals = [rng.integers(-9000, 9000, size).astype(np.int16) for size in (760, 720)]
    for signal, (best, *_) in zip(signals, task.task.transcribe(task.params, signals), strict=True):
        drawn = pictures.aligned(task, signal, best, "")
        frames = drawn.features
        expected, steps = ctc_log_probs(task.task.apply)(task.params, frames[None], np.array([len(frames)], np.int32))
        assert drawn.probabilities is not None
        assert len(drawn.probabilities) == int(steps[0]) == len(frames)
        np.testing.assert_allclose(drawn.probabilities, np.exp(expected[:, 0]), atol=1e-5)
    assert pictures._ctc_log_probs(task.task.apply)._cache_size() == 1


def test_random_weights_are_those_that_a_run_begins_from(train: Callable[..., Path]) -> None:
    found = TrainedRun.load(train("language_modelling", "run", {"seed": 3, "optimizer.learning_rate": 1e-30}))
    expected = random_weights(found.task, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-25), found.params, expected)


def test_forecasts_are_of_series_that_were_trained_on(train: Callable[..., Path]) -> None:
    header, *lines = Path("series.csv").read_text().splitlines()
    shops = {"<late>": lines[42:], "early": lines}
    rows = [line.removesuffix("x") + shop for shop, part in shops.items() for line in part]
    Path("shops.csv").write_text("\n".join([header, *rows]) + "\n")
    changes = {"dataset.path": "shops.csv", "dataset.id_column": "shop"}
    text = run_report(train("forecasting", "run", changes))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text.partition("Forecast</h2>")[2].partition("<h2>")[0])
    assert captions == ["a", "b"]


def test_thousands_of_points_are_an_image() -> None:
    points = np.random.default_rng(0).random((2, 9000))
    text = scatter_chart({"": (points[0], points[1])}, xlabel="x", ylabel="y")
    assert "<image" in text
    assert len(text) < 400_000
