"""Charts as SVG text for a page: drawn by matplotlib without a window, in the page's own colour of ink."""

import html
import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# A colour that nothing else has, so that it can be found in the SVG and replaced by that of the page's text.
_INK = "#010203"

COLORS = (
    "#3b82c4",
    "#e0792b",
    "#3a9d5d",
    "#c8504d",
    "#8a6fc4",
    "#9c6b50",
    "#d172b8",
    "#7f7f7f",
    "#a9a427",
    "#2ba9b8",
)
"""Of lines and points; a chart has no more of them than these."""

_STYLE: Any = {
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#80808040",
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLORS),
}
_SIZE = (4.4, 2.8)
_numbers = itertools.count(1)  # of figures, of which two may be equal


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      label: in the legend; none if empty.
      x: where.
      y: how much; what is not finite is left out.
      style: of the line, as matplotlib calls it: "-" or "--".
      color: its number in `COLORS`; None takes the line's own number.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    style: str = "-"
    color: int | None = None


def line_chart(
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> str:
    """Returns lines over a common axis, and below it which is which.

    Args:
      lines: what is drawn.
      xlabel: of the horizontal axis.
      ylabel: of the vertical axis.
      log: whether the vertical axis is logarithmic, if the values allow it; what is not positive is left out then.
    """
    colors = [COLORS[number if line.color is None else line.color] for number, line in enumerate(lines)]

    def draw(axes: Axes) -> None:
        for line, color in zip(lines, colors, strict=True):
            x, y = np.asarray(line.x, float), np.asarray(line.y, float)
            kept = np.isfinite(y) & ((y > 0) | (not log))
            marker = "o" if kept.sum() == 1 else None
            axes.plot(x[kept], y[kept], line.style, color=color, linewidth=1.4, marker=marker)
        if log and any((np.asarray(line.y, float) > 0).any() for line in lines):
            axes.set_yscale("log")
            label_logarithmic(axes.yaxis)
        axes.locator_params(axis="x", integer=True)  # steps are whole
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(visible=True)

    named = [(line.label, color, line.style) for line, color in zip(lines, colors, strict=True) if line.label]
    return _svg(draw, _SIZE, f"{ylabel} over {xlabel}") + _legend(named)


def scatter_chart(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    colors: np.ndarray | None = None,
    color_label: str = "",
) -> str:
    """Returns groups of points; with `colors` the points of the only group are coloured by a number each."""

    def draw(axes: Axes) -> None:
        # As an image: thousands of points would be most of the page.
        for (x, y), color in zip(points.values(), COLORS, strict=False):
            if colors is None:
                axes.scatter(x, y, s=9, alpha=0.6, color=color, linewidths=0, rasterized=True)
            else:
                drawn = axes.scatter(x, y, s=9, c=colors, cmap="viridis", linewidths=0, rasterized=True)
                assert axes.figure is not None
                axes.figure.colorbar(drawn, ax=axes, label=color_label)
        if limits is not None:
            axes.set(xlim=limits, ylim=limits)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(visible=True)

    named = [(label, color, "-") for label, color in zip(points, COLORS, strict=False) if label]
    return _svg(draw, _SIZE, f"{ylabel} over {xlabel}") + _legend(named)


def histogram_chart(values: Float[np.ndarray, "N"], *, xlabel: str, ylabel: str) -> str:
    """Returns how often values occur, all of them positive and finite, on a logarithmic axis."""
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=np.geomspace(low / 1.001, max(high, low * 1.01) * 1.001, 31))

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, linewidth=1.4)
        axes.set_xscale("log")
        label_logarithmic(axes.xaxis)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(visible=True)

    return _svg(draw, _SIZE, f"{ylabel} over {xlabel}")


def heat_chart(
    values: Float[np.ndarray, "rows columns"],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float],
    colors: str = "viridis",
    xticks: Sequence[str] | None = None,
    yticks: Sequence[str] | None = None,
    numbers: bool = False,
    size: tuple[float, float] = _SIZE,
) -> str:
    """Returns a table of numbers as colours.

    Args:
      values: the numbers.
      xlabel: of the columns.
      ylabel: of the rows.
      limits: the numbers at the ends of the colour scale.
      colors: the colour scale, as matplotlib calls it.
      xticks: names of the columns.
      yticks: names of the rows.
      numbers: whether the numbers stand in the cells.
      size: in inches.
    """

    def draw(axes: Axes) -> None:
        image = axes.imshow(values, aspect="auto", cmap=colors, vmin=limits[0], vmax=limits[1], interpolation="nearest")
        assert axes.figure is not None
        axes.figure.colorbar(image, ax=axes)
        if xticks is not None:
            axes.set_xticks(range(len(xticks)), xticks, rotation=90 if max(map(len, xticks), default=0) > 3 else 0)
        if yticks is not None:
            axes.set_yticks(range(len(yticks)), yticks)
        if numbers:
            middle = sum(limits) / 2
            for (row, column), value in np.ndenumerate(values):
                color = "#ffffff" if value > middle else "#101010"
                axes.text(column, row, f"{value:g}", ha="center", va="center", color=color, fontsize=8)
        axes.set(xlabel=xlabel, ylabel=ylabel)

    return _svg(draw, size, f"{ylabel} over {xlabel}")


def label_logarithmic(axis: Axis) -> None:
    """Puts numbers on a logarithmic axis; matplotlib's own are formulas, which text in an SVG is not."""
    low, high = axis.get_view_interval()
    if np.log10(high / low) < 2:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(draw: Callable[[Axes], None], size: tuple[float, float], alternative: str) -> str:
    """Returns the SVG element of what `draw` puts on its axes."""

    def make() -> Figure:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        return figure

    return figure_svg(make, alternative)


def figure_svg(make: Callable[[], Figure], alternative: str) -> str:
    """Returns the figure that `make` draws as an SVG element, for use inside of a page.

    It has the page's colours, ids of its own, and fills the width that there is as far as its text can be read.

    Args:
      make: draws with matplotlib's own settings, which are those of the page meanwhile.
      alternative: says what the figure is where it is not seen.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alternative}):
        content = io.StringIO()
        figure = make()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None}, dpi=150)
    text = content.getvalue()
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    own = f"figure{next(_numbers)}"
    element = re.sub(r'\bid="([^"]+)"', rf'id="{own}-\1"', element)
    element = re.sub(r'(xlink:href="|href="|url\()#', rf"\g<1>#{own}-", element)
    element = element.replace(_INK, "currentColor")
    width = figure.get_figwidth()
    style = f"min-width: {0.8 * width:.2f}in; max-width: {1.4 * width:.2f}in"
    return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alternative)}" style="{style}" ', 1)


def _legend(named: Iterable[tuple[str, str, str]]) -> str:
    """Returns a legend as HTML, which wraps where there is little room: label, colour and style of each."""
    keys = "".join(
        f'<span><i style="border-top: 2px {"dashed" if style == "--" else "solid"} {color}"></i> '
        f"{html.escape(label)}</span> "
        for label, color, style in named
    )
    return f'<div class="legend">{keys}</div>' if keys else ""
