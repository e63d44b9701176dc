"""The report of a run, and of several side by side, each as one HTML page."""

import html
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from lstm_research.analysis.attention_html import ATTENTION_STYLE
from lstm_research.analysis.charts import COLORS, Line, line_chart
from lstm_research.analysis.dynamics import Dynamics, batch_of, first_jacobian, random_weights
from lstm_research.analysis.layer_charts import jacobian_chart, layer_section, training_section
from lstm_research.analysis.page import anchor, charts, page, preformatted, section, table
from lstm_research.analysis.pictures import DRAWN_SAMPLES, pictures
from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError
from lstm_research.training.environment import differences
from lstm_research.training.metrics import Line as MetricsLine
from lstm_research.training.metrics import read_metrics
from lstm_research.training.trained_run import TrainedRun
from lstm_research.training.workdir import Workdir, flat_config, read_workdir

NOT_CURVES = ("step", "split", "seconds")

MAX_CHECKPOINTS = len(COLORS) - 2
"""Of which gradients are shown, beside random weights and the best; of more, as many at even distances."""

STYLE = ATTENTION_STYLE + ".text { white-space: pre-wrap; line-height: 1.9; }\n"


class RunRecord(NamedTuple):
    """What a workdir says of its run.

    Attributes:
      workdir: where it is.
      config: nested dicts.
      lines: of `metrics.jsonl`.
      status: of `status.json`.
      environment: of `environment.json`.
    """

    workdir: Workdir
    config: dict[str, Any]
    lines: list[MetricsLine]
    status: dict[str, Any]
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.workdir.path.resolve().name

    def split(self, name: str) -> list[MetricsLine]:
        """Returns the lines of a split."""
        return [line for line in self.lines if line["split"] == name]

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Reads a workdir.

        Raises:
          UserError: it is none, has no weights yet, or is damaged.
        """
        workdir, config = read_workdir(path)
        lines = read_metrics(workdir.metrics) if workdir.metrics.exists() else []
        try:
            environment = json.loads(workdir.environment.read_text()) if workdir.environment.exists() else {}
            if not isinstance(environment, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            raise UserError(f"{workdir.environment} is damaged: {error}; a report does without it, move it") from error
        status = workdir.read_status()
        best = status.get("best")
        if best is not None and not (isinstance(best, dict) and {"metric", "step", "value"} <= best.keys()):
            raise UserError(f"{workdir.status} is damaged: no metric, step and value of the best; restore or move it")
        return cls(workdir, config.to_dict(), lines, status, environment)

    def load(self) -> tuple[str, TrainedRun]:
        """Returns the run with its best weights, or its latest where none were validated yet; and which these are."""
        which = "best" if self.workdir.best_weights.exists() else "latest"
        run = TrainedRun.load(self.workdir.path, which)
        return f"{which} (step {run.step})", run

    def checkpoints(self, but: int) -> dict[str, Params]:
        """Returns the weights of at most `MAX_CHECKPOINTS` checkpoints, but for one step, the oldest first.

        Reading them takes a moment, in which a run that goes on may remove one: that is left out, with a warning.
        """
        folder = self.workdir.checkpoints
        names = [path.name for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
        steps = sorted({int(name) for name in names} - {but})
        found = {}
        for step in steps[:: -(-len(steps) // MAX_CHECKPOINTS) or 1]:
            try:
                found[f"step {step}"] = TrainedRun.load(self.workdir.path, str(step)).params
            except UserError:
                if (folder / str(step)).exists():
                    raise
                logging.warning("the checkpoint of step %d is gone, as the run goes on: the report is without it", step)
        return found


def run_report(path: Path) -> str:
    """Returns the page of one run: results, curves, predictions, gates and gradients, config.

    Its recurrent layers are observed on sequences of the validation split (see `batch_of`) with the best weights; how
    far gradients reach in them also with random weights, and with those of checkpoints that are still there.

    Raises:
      UserError: no such workdir, or data that is not that of the run.
    """
    record = RunRecord.read(path)
    which, run = record.load()
    checkpoints = record.checkpoints(but=run.step)
    dynamics = Dynamics(run.task, batch_of(run.task), run.params)
    weights = {"random weights": random_weights(run.task, record.config["seed"]), **checkpoints, which: run.params}
    moments = {moment: dynamics.flows(params) for moment, params in weights.items()}
    parts = [
        section("Results", _results([record])),
        section("Curves", _curves([record])),
        pictures(run),
        section("Predictions", *_samples(record)),
        *(layer_section(name, layer) for name, layer in dynamics.layers.items()),
        training_section(moments, _beginning(record)),
        section("Config", preformatted(json.dumps(record.config, indent=2, sort_keys=True))),
        section("Where it comes from", _origin(record)),
    ]
    return _page(f"{record.name}: {record.config['task']['name']}", parts)


def comparison_report(paths: Sequence[Path]) -> str:
    """Returns the page of several runs: differing config keys, results, curves, and how far their gradients reach.

    Raises:
      UserError: no such workdir, two that are the same, or more than there are colours.
    """
    records = [RunRecord.read(path) for path in paths]
    if len({record.workdir.path.resolve() for record in records}) < len(records):
        raise UserError("--workdir names a run twice; name each once")
    if len(records) > len(COLORS):
        raise UserError(f"{len(records)} runs cannot be told apart in a chart; compare at most {len(COLORS)}")
    names = run_names(records)
    jacobians = {}
    for name, record in zip(names, records, strict=True):
        _, run = record.load()
        jacobians[name] = first_jacobian(run.task, batch_of(run.task), run.params)
    parts = [
        section("Results", _results(records, names)),
        section("Differing config keys", _differences(records, names), note="All other keys are the same."),
        section("Curves", _curves(records, names)),
        section("How far gradients reach", charts(jacobian_chart(jacobians))),
    ]
    return _page(f"{len(records)} runs compared", parts)


def run_names(records: Sequence[RunRecord]) -> list[str]:
    """Returns a short name for each run: its folder's, or its path where two folders are called the same."""
    names = [record.name for record in records]
    return names if len(set(names)) == len(names) else [str(record.workdir.path) for record in records]


def _page(title: str, parts: Sequence[str]) -> str:
    titles = re.findall(r"<h2>(.*?)</h2>", "".join(parts))
    links = "".join(f'<a href="#{anchor(html.unescape(each))}">{each}</a> ' for each in titles)
    return page(title, f"<nav>{links}</nav>\n{''.join(parts)}", style=STYLE)


def _results(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> str:
    """A row a metric, a column a run: the best validation, and the test split."""
    names = names or [record.name for record in records]
    rows: list[list[object]] = [["state", *(record.status.get("state", "?") for record in records)]]
    rows.append(["steps", *(record.status.get("step", "?") for record in records)])
    rows.append(["seconds", *(round(record.lines[-1]["seconds"]) if record.lines else "" for record in records)])
    best = [record.status.get("best") or {} for record in records]
    for metric in dict.fromkeys(each["metric"] for each in best if each.get("metric")):
        values = (each["value"] if each.get("metric") == metric else "" for each in best)
        rows.append([f"best valid {metric}", *values])
    last = [record.split("test")[-1] if record.split("test") else {} for record in records]
    for metric in dict.fromkeys(key for line in last for key in line if key not in NOT_CURVES):
        values = (line.get(metric, "") for line in last)
        rows.append([f"test {metric}", *("undefined" if value is None else value for value in values)])
    return table(["", *names], rows)


def _curves(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> str:
    """A chart for every metric of training and validation."""
    metrics = dict.fromkeys(
        key for record in records for line in record.lines if line["split"] != "test" for key in line
    )
    figures = []
    for metric in metrics:
        if metric in NOT_CURVES:
            continue
        lines = []
        for color, record in enumerate(records):
            for split, style in (("train", "--"), ("valid", "-")):
                found = [line for line in record.split(split) if isinstance(line.get(metric), int | float)]
                if found:
                    label = split if names is None else f"{names[color]}, {split}"
                    place = color if names is not None else (0 if split == "train" else 1)
                    lines.append(
                        Line(label, [each["step"] for each in found], [each[metric] for each in found], style, place)
                    )
        if lines:
            figures.append((line_chart(lines, xlabel="step", ylabel=metric, log=metric == "learning_rate"), ""))
    return charts(figures)


def _samples(record: RunRecord) -> list[str]:
    """The text files that a run keeps, whatever else may lie beside them."""
    files = sorted(record.workdir.samples.glob("[!.]*")) if record.workdir.samples.is_dir() else []
    return [
        f"<h3>{html.escape(file.name)}</h3>\n{preformatted(file.read_text(encoding='utf-8', errors='replace'))}"
        for file in files
        if file.is_file() and file.name not in DRAWN_SAMPLES
    ]


def _differences(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    configs = [dict(flat_config(record.config)) for record in records]
    keys = sorted({key for config in configs for key in config})
    rows = []
    for key in keys:
        values = [json.dumps(config[key]) if key in config else "(absent)" for config in configs]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return table(["key", *names], rows) if rows else "<p>None: the configs are the same.</p>\n"


def _beginning(record: RunRecord) -> str:
    """Says which other weights than random ones the run began from."""
    keys = ("training.init_from", "task.vectors")
    flat = dict(flat_config(record.config))
    given = [f"{key}={flat[key]}" for key in keys if flat.get(key)]
    return f"The run did not begin from the random weights but from {' and '.join(given)}." if given else ""


def _origin(record: RunRecord) -> str:
    environment = record.environment
    git = environment.get("git") or {}
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    rows = [
        ("command", shlex.join(environment.get("argv", []))),
        ("begun", environment.get("time", "?")),
        ("commit", f"{git.get('commit', 'unknown')}{' with changes' if git.get('dirty') else ''}"),
        ("devices", ", ".join(str(each.get("kind", each)) for each in environment.get("devices", []))),
        ("versions", versions),
        ("config digest", record.status.get("config_digest", "?")),
    ]
    for start in environment.get("starts", []):
        other = differences(environment, start)
        rows.append(("gone on", f"{start.get('time', '?')}{''.join(f', {each}' for each in other)}"))
        environment = start
    return table(["", ""], rows)
