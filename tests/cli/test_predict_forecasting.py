"""`lstm-research predict`, `evaluate` and `data` for forecasting runs."""

import csv
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from lstm_research.tasks.forecasting import Forecasting
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.trained_run import TrainedRun

CELL = {"name": "lstm", "hidden_size": 4}
CONFIG: dict[str, Any] = {
    "seed": 0,
    "dataset": {"name": "csv_series", "path": "series.csv", "id_column": "shop", "calendar": ("weekday",)},
    "vocabulary": {},
    "task": {"name": "forecasting", "batch_size": 4, "history": 7, "horizon": 3},
    "model": {"name": "direct", "cell": CELL, "distribution": {"name": "gaussian"}},
    "optimizer": {"name": "adam", "learning_rate": 0.05, "schedule": {"name": "constant"}},
    "training": {"num_steps": 4, "log_every": 4, "eval_every": 4, "checkpoint_every": 4},
}


def table(names: str = "xy", days: int = 60, begin: str = "2024-01-01", time_column: str = "time") -> str:
    times = np.datetime64(begin) + np.arange(days)
    random = np.random.default_rng(0)
    rows = [f"{time},{name},{random.normal(n, 1):.6f},{n % 7}" for n, time in enumerate(times) for name in names]
    return "\n".join([f"{time_column},shop,sold,visits", *rows]) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a table and finished runs, not to be changed."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    folder = tmp_path_factory.mktemp("forecasting")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("series.csv").write_text(table())
        Path("known.csv").write_text(table("x"))
        assert run(Experiment.from_config(CONFIG), folder / "direct") == 0
        deepar = {"name": "deepar", "cell": CELL, "distribution": {"name": "student_t"}}
        task = CONFIG["task"] | {"num_samples": 5}
        known = {"name": "csv_series", "path": "known.csv", "target_columns": ("sold",), "known_columns": ("visits",)}
        config = CONFIG | {"model": deepar, "task": task, "dataset": known}
        assert run(Experiment.from_config(config), folder / "deepar") == 0
    yield folder
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True)
def _folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_what_comes_after_the_data_of_the_run(command: Any, tmp_path: Path) -> None:
    result = command("predict", "--workdir=direct")
    assert (result.code, result.err) == (0, "")
    lines = rows(result.out)
    assert list(lines[0]) == ["time", "id", "variable", "mean", *(f"quantile_0.{n}" for n in range(1, 10))]
    expected = [
        (name, variable, f"2024-03-0{day}") for name in "xy" for variable in ("sold", "visits") for day in (1, 2, 3)
    ]
    assert [(line["id"], line["variable"], line["time"]) for line in lines] == expected
    trained = TrainedRun.load("direct")
    found = trained.task.predict(trained.params, trained.task.own_series())
    assert float(lines[4]["mean"]) == pytest.approx(found[0].mean[1, 1], rel=1e-6)
    assert float(lines[8]["quantile_0.9"]) == pytest.approx(found[1].quantiles[8, 2, 0], rel=1e-6)
    assert command("predict", "--workdir=direct", f"--output={tmp_path}/f.csv", f"--plot={tmp_path}/fan.png").out == ""
    assert (tmp_path / "f.csv").read_text() == result.out
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")


def test_what_comes_after_another_table(command: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table("y", 20, "2030-01-01", "day").replace("shop", "id"))
    flags = (f"--input={other}", "--time_column=day", "--id_column=id")
    result = command("predict", "--workdir=direct", *flags)
    assert (result.code, result.err) == (0, "")
    assert [(line["id"], line["time"]) for line in rows(result.out)][:3] == [
        ("y", f"2030-01-{day}") for day in (21, 22, 23)
    ]
    # What is not asked for of the table is not looked at; a series that is new is said to be.
    other.write_text(
        "\n".join(f"{line},1" if n else f"{line},more" for n, line in enumerate(table("z", 20).splitlines()))
    )
    result = command("predict", "--workdir=direct", f"--input={other}")
    assert result.code == 0
    assert "series that were not trained on are scaled by their own mean and deviation: z" in caplog.text
    assert rows(result.out)[0]["id"] == "z"


def test_what_is_known_of_the_future_is_read(command: Any, tmp_path: Path) -> None:
    other, flags = tmp_path / "other.csv", ("--workdir=deepar", f"--input={tmp_path}/other.csv")
    text = table("x", 20)
    other.write_text(text)
    result = command("predict", *flags)
    assert result.code == 2
    assert (
        "series 'series' has 0 row(s) after its last observation, and task.horizon=3; add rows with no target"
        in result.err
    )
    other.write_text(text + "".join(f"2024-01-{day},x,,{day % 7}\n" for day in (21, 22, 23)))
    few, many, again, seeded = (
        command("predict", *flags, *more).out
        for more in ((), ("--num_samples=40",), ("--num_samples=40",), ("--num_samples=40", "--seed=1"))
    )
    assert many == again
    assert len({few, many, seeded}) == 3
    assert [line["time"] for line in rows(few)] == ["2024-01-21", "2024-01-22", "2024-01-23"]
    other.write_text(text + "".join(f"2024-01-{day},x,,{day % 7 + 5}\n" for day in (21, 22, 23)))
    assert command("predict", *flags).out != few


REFUSED = {
    ("direct", "--num_samples=10"): "--num_samples: the model in direct draws no paths; leave the flag out",
    ("direct", "--time_column=day"): "--time_column names a column of --input; give both or neither",
    ("direct", "--input=none.csv"): "--input: there is no file none.csv",
    (
        "direct",
        "--input=series.csv",
        "--time_column=day",
    ): "unknown column (--time_column; columns in --input: series.csv)",
    ("direct", "--plot=fan.gif"): "--plot=fan.gif: give a name that ends in .png, .svg, .pdf",
    ("direct", "--output=series.csv/f.csv", "--plot=fan.png"): "--output: series.csv/f.csv cannot be written",
    ("direct", "--output=f.csv", "--plot=series.csv/fan.png"): "--plot: series.csv/fan.png cannot be written",
    ("direct", "--text=x"): "--text means nothing to the task 'forecasting' of this run",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_mistakes_are_said_in_one_line(
    command: Any, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forecasting, "predict", None)  # they are said before anything is forecast
    result = command("predict", f"--workdir={arguments[0]}", *arguments[1:])
    assert (result.code, result.out) == (2, "")
    assert REFUSED[arguments] in result.err
    assert result.err.count("\n") == 1
    assert not {"fan.png", "f.csv"} & set(os.listdir())


def test_a_table_may_come_from_the_standard_input(command: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table("x", 20))
    before = os.dup(0)
    with other.open() as file:
        os.dup2(file.fileno(), 0)
        result = command("predict", "--workdir=direct", "--input=-")
    os.dup2(before, 0)
    os.close(before)
    assert (result.code, result.err) == (0, "")
    assert result.out == command("predict", "--workdir=direct", f"--input={other}").out


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"series": {"x": [[1]]}, "known": {}, "static": {}}'])
def test_a_damaged_scale_is_said_in_one_line(command: Any, tmp_path: Path, text: str) -> None:
    shutil.copytree("direct", tmp_path / "run")
    (tmp_path / "run" / "series.json").write_text(text)
    result = command("predict", f"--workdir={tmp_path}/run")
    assert (result.code, result.out) == (2, "")
    assert "series.json is damaged" in result.err
    assert result.err.count("\n") == 1


def test_a_table_of_another_frequency_is_refused(command: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("time,shop,sold,visits\n" + "".join(f"2024-01-01T{h:02},x,1,{h}\n" for h in range(20)))
    result = command("predict", "--workdir=direct", f"--input={other}")
    assert result.code == 2
    assert "line 3, series 'x', has the time 2024-01-01T01:00:00, which is no multiple of D" in result.err


def test_ways_out_are_those_that_there_are(command: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    good = table("x", 20)
    mistakes = {
        "rows are missing there: add the rows\n": "".join(
            line for line in good.splitlines(keepends=True) if "2024-01-09" not in line
        ),
        "is no time of the form ISO 8601, as in 2024-01-31 18:00; correct it\n": good.replace("2024-01-09", "09.01.24"),
        "or name the column of the series' names in --id_column\n": good.replace("2024-01-09", "2024-01-08"),
        "round or resample the times\n": good.replace("2024-01-09", "2024-01-09 12:00"),
    }
    for message, text in mistakes.items():
        other.write_text(text)
        result = command("predict", "--workdir=direct", f"--input={other}")
        assert result.code == 2
        assert result.err.endswith(message)


def test_a_chart_that_cannot_be_written_leaves_nothing(command: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plot, output = tmp_path / "file" / "fan.png", tmp_path / "f.csv"
    assert command("predict", "--workdir=direct", f"--output={output}", f"--plot={plot}").code != 0
    assert not output.exists()


def test_evaluate_reports_the_baselines_beside_the_model(command: Any, runs: Path) -> None:
    result = command("evaluate", "--workdir=direct", "--split=test")
    assert (result.code, result.err) == (0, "")
    printed = dict(line.split() for line in result.out.splitlines()[1:])
    names = {"mse", "mae", "mase", "smape", "nd", "nrmse", "crps", "weighted_quantile_loss", "coverage_80"}
    assert names | {"linear_mse", "seasonal_naive_mase", "last_value_mae"} <= set(printed)
    assert (runs / "direct" / "samples" / "baselines.txt").read_text().count("\n") == 6


def test_data_commands(command: Any) -> None:
    listed = command("data", "list").out
    for part in ("Datasets for forecasting", "etth1", "14,400 times, 7 variables", "csv_series", "CC BY-ND 4.0"):
        assert part in listed
    Path("recipe.py").write_text(
        f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({CONFIG!r})\n"
    )
    prepared = command("data", "prepare", "--config=recipe.py")
    assert prepared.code == 0, prepared.err
    assert "train: 2 series, 84 rows, 168 values, 0 missing" in prepared.out
    shown = command("data", "show", "--config=recipe.py", "--num=1", "--split=valid")
    assert shown.code == 0, shown.err
    assert "window 0, scaled, around its origin" in shown.out
    assert "sold: ... " in shown.out
