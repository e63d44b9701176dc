"""Fan charts: what a series was, and what it is forecast to be, the darker the likelier.

Drawn without a window (matplotlib's Agg), and without matplotlib's global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from lstm_research.analysis.figures import FONT_SIZE, find_fonts, save_figure
from lstm_research.tasks.forecasting import SeriesForecast

WIDTH, HEIGHT = 6.4, 2.4
"""Of a panel, in inches."""

COLUMNS = 2
"""Of panels, where there are several."""

LABEL_WIDTH = 1.0
"""Of an entry of the legend, in inches."""


class Fan(NamedTuple):
    """What one panel shows: a variable of a series.

    Attributes:
      title: over the panel.
      past_times: `datetime64[s]` [P].
      past: what was observed, NaN where nothing was.
      times: `datetime64[s]` [H], after those.
      mean: the forecast.
      quantiles: forecasts by their level; those of the levels q and 1 - q are the ends of a band. May be empty.
    """

    title: str
    past_times: np.ndarray
    past: Float[np.ndarray, "P"]
    times: np.ndarray
    mean: Float[np.ndarray, "H"]
    quantiles: Mapping[float, Float[np.ndarray, "H"]]


def fans_of(
    found: Sequence[SeriesForecast], variables: Sequence[str], history: int, levels: Sequence[float]
) -> list[Fan]:
    """Returns what a chart shows of forecasts: each variable of each series, with as much past as the model has read.

    Args:
      found: forecasts of series.
      variables: their names.
      history: steps of the past.
      levels: of the quantiles.
    """
    fans = []
    for each in found:
        end = len(each.series.targets)
        begin = max(end - history, 0)
        for column, variable in enumerate(variables):
            title = variable if len(found) == 1 else f"{each.series.name}: {variable}"
            quantiles = {} if each.quantiles is None else dict(zip(levels, each.quantiles[..., column], strict=True))
            past = each.series.times[begin:end], each.series.targets[begin:end, column]
            fans.append(Fan(title, *past, each.times, each.mean[:, column], quantiles))
    return fans


def save_forecasts(fans: Sequence[Fan], path: Path) -> None:
    """Writes the figure of `draw_forecasts` to a PNG, SVG or PDF file, whole or not at all.

    Raises:
      UserError: another suffix.
    """
    save_figure(draw_forecasts(fans), path, "fan chart")


def draw_forecasts(fans: Sequence[Fan], size: tuple[float, float] = (WIDTH, HEIGHT)) -> Figure:
    """Draws a panel for each variable: the past, the forecast, and bands between quantiles.

    Args:
      fans: at least one.
      size: of a panel, in inches.

    Returns:
      The figure; its axes are those of the panels in their order.
    """
    columns = min(COLUMNS, len(fans))
    rows = -(-len(fans) // columns)
    fonts = find_fonts(set("".join(fan.title for fan in fans)))
    with mpl.rc_context({"font.family": fonts.names, "font.size": FONT_SIZE}):
        figure = Figure(figsize=(columns * size[0], rows * size[1] + 0.4), layout="constrained")
        for number, fan in enumerate(fans, 1):
            _panel(figure.add_subplot(rows, columns, number), fan)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        beside = int(columns * size[0] / LABEL_WIDTH)
        figure.legend(handles, labels, loc="outside upper right", ncols=beside, frameon=False)
    return figure


def _panel(axes: Axes, fan: Fan) -> None:
    levels = sorted(level for level in fan.quantiles if level < 0.5 and round(1 - level, 6) in _rounded(fan.quantiles))
    for number, level in enumerate(levels):
        upper = _rounded(fan.quantiles)[round(1 - level, 6)]
        share = f"{100 * (1 - 2 * level):.0f} %"
        color = mpl.colormaps["Oranges"](0.15 + 0.4 * number / len(levels))
        axes.fill_between(fan.times, fan.quantiles[level], upper, color=color, lw=0, label=share)
    axes.plot(fan.past_times, fan.past, color=mpl.rcParams["text.color"], lw=1.0, label="observed")
    axes.plot(fan.times, fan.mean, color="tab:red", lw=1.2, label="forecast")
    axes.axvline(fan.times[0], color="0.6", lw=0.6, ls=":")
    axes.set_title(fan.title, loc="left", parse_math=False)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.spines[["top", "right"]].set_visible(False)


def _rounded(quantiles: Mapping[float, np.ndarray]) -> dict[float, np.ndarray]:
    """Returns quantiles by levels of which 1 - 0.9 is 0.1."""
    return {round(level, 6): values for level, values in quantiles.items()}
