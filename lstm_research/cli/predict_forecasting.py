"""`lstm-research predict` for a forecasting run: what comes after the end of series, as CSV and as a fan chart.

lstm-research predict --workdir=runs/etth1 --output=forecast.csv --plot=fan.png
lstm-research predict --workdir=runs/sales --input=sales.csv --output=forecast.csv --num_samples=1000

The column `mean` is the expectation: the mean of the paths that are drawn, or that of the distribution; of a model that
gives quantiles at once it is the median, which is all it knows of it.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lstm_research.cli.places import check_place
from lstm_research.cli.predict_io import check_output, write_output
from lstm_research.common.errors import UserError

SHARED_FLAGS = ("input", "output", "seed", "num_samples")
"""The flags of `predict` that this task reads."""

MAX_PANELS = 30
"""Variables that one fan chart shows."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    flags.DEFINE_string("plot", None, "Draws history and forecast into this file (.png, .svg, .pdf).")
    flags.DEFINE_string(
        "time_column", None, "The column of times in --input; that of training, or 'time', if left out."
    )
    flags.DEFINE_string(
        "id_column", None, "The column that tells series apart in --input; that of training if left out."
    )


def main(trained: Any) -> None:
    """Writes one line for each series, variable and step of the horizon: mean (see the top of the file), quantiles."""
    from lstm_research.tasks.forecast_metrics import LEVELS

    FLAGS, task = flags.FLAGS, trained.task
    if FLAGS.num_samples is not None and not task.draws:
        raise UserError(f"--num_samples: the model in {FLAGS.workdir} draws no paths; leave the flag out")
    if FLAGS.input is None:
        for name in ("time_column", "id_column"):
            if FLAGS[name].value is not None:
                raise UserError(f"--{name} names a column of --input; give both or neither")
    check_output()
    if FLAGS.plot is not None:
        check_place("plot", Path(FLAGS.plot))
    series = task.own_series() if FLAGS.input is None else _read_series(trained)
    panels = len(series) * len(task.scaler.targets)
    if FLAGS.plot is not None:
        from lstm_research.analysis.figures import SUFFIXES

        if Path(FLAGS.plot).suffix.lower() not in SUFFIXES:
            raise UserError(f"--plot={FLAGS.plot}: give a name that ends in {', '.join(SUFFIXES)}")
        if panels > MAX_PANELS:
            raise UserError(
                f"--plot={FLAGS.plot}: {panels} variables are too many for one figure (at most {MAX_PANELS}); give an "
                "--input with fewer series"
            )
    found = task.predict(trained.params, series, num_samples=FLAGS.num_samples, seed=FLAGS.seed)
    if FLAGS.plot is not None:
        from lstm_research.analysis.forecast_plot import fans_of, save_forecasts

        # First, as it is more likely to fail even now: then nothing is written.
        save_forecasts(fans_of(found, task.scaler.targets, task.history, LEVELS), Path(FLAGS.plot))
    write_output(_table(found, task.scaler.targets, LEVELS))


def _read_series(trained: Any) -> list[Any]:
    """Returns the series of the table `--input`, read as that of training was, if it was one."""
    from lstm_research.common.build import build
    from lstm_research.data.series.csv_series import CSVSeries

    FLAGS, scaler = flags.FLAGS, trained.task.scaler

    class Input(CSVSeries):
        """The table of the flags."""

        keys = {"path": "--input", "time_column": "--time_column", "id_column": "--id_column"}  # noqa: RUF012
        can_set = False

    section = dict(trained.config.dataset)
    if section["name"] != "csv_series":
        section = {"name": "csv_series", "gaps": "fill"}  # as in the built-in data
    path = "/dev/stdin" if FLAGS.input == "-" else FLAGS.input
    given = {"path": path, "time_column": FLAGS.time_column, "id_column": FLAGS.id_column}
    section |= {key: value for key, value in given.items() if value is not None}
    section |= {"target_columns": scaler.targets, "frequency": scaler.frequency}
    return build({"csv_series": Input}, section, where="dataset").series()


def _table(found: list[Any], variables: tuple[str, ...], levels: tuple[float, ...]) -> str:
    """Returns the forecasts as CSV."""
    has_quantiles = found[0].quantiles is not None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", "id", "variable", "mean", *(f"quantile_{level:g}" for level in levels if has_quantiles)])
    for each in found:
        times = _written(each.times)
        for column, variable in enumerate(variables):
            for step, time in enumerate(times):
                quantiles = each.quantiles[:, step, column] if has_quantiles else []
                numbers = [each.mean[step, column], *quantiles]
                writer.writerow([time, each.series.name, variable, *(f"{number:.8g}" for number in numbers)])
    return text.getvalue()


def _written(times: np.ndarray) -> list[str]:
    """Returns times as ISO 8601 has them: days where they are whole days, else seconds."""
    days = times.astype("datetime64[D]")
    if (days == times).all():
        return np.datetime_as_string(days).tolist()
    return [text.replace("T", " ") for text in np.datetime_as_string(times).tolist()]
