"""Charts of a sweep's page: what was tried, and what came of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lstm_research.analysis.charts import COLORS, figure_svg, label_logarithmic
from lstm_research.sweeps.trial import show

_LOG_FROM = 30.0
"""Positive numbers whose largest is this many times the smallest are drawn on a logarithmic axis."""


class Scale:
    """Where the values of one swept key lie on an axis: as numbers, or one beside the other.

    Attributes:
      values: what the key was set to, each once, in the order of the axis.
      is_number: whether they are finite numbers, more than two.
      log: whether the axis is logarithmic.
    """

    def __init__(self, values: Sequence[Any]):
        distinct = list({repr(value): value for value in values}.values())
        self.is_number = len(distinct) > 2 and all(_is_number(value) for value in distinct)
        self.values = sorted(distinct) if all(map(_is_number, distinct)) else sorted(distinct, key=str)
        low, high = (self.values[0], self.values[-1]) if self.is_number else (0, 0)
        self.log = self.is_number and low > 0 and high / low >= _LOG_FROM

    def place(self, value: Any) -> float:
        """Returns the coordinate of a value: the number itself, or which of the values it is."""
        return float(value) if self.is_number else float([repr(each) for each in self.values].index(repr(value)))

    def fraction(self, value: Any) -> float:
        """Returns the coordinate as a part of the whole axis, from 0 to 1."""
        low, high, at = (self.place(each) for each in (self.values[0], self.values[-1], value))
        if self.log:
            low, high, at = map(math.log, (low, high, at))
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Returns fractions of the axis, with what stands there."""
        if not self.is_number:
            return [(self.fraction(value), _short(value)) for value in self.values]
        low, high = self.values[0], self.values[-1]
        middle = math.sqrt(low * high) if self.log else (low + high) / 2
        return [(0.0, f"{low:.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{high:.3g}")]


def parallel_chart(
    trials: Sequence[tuple[Mapping[str, Any], float]], *, keys: Sequence[str], metric: str, higher_is_better: bool
) -> str:
    """Returns parallel coordinates: a line a trial, an axis a key, and the metric as the last axis and as colour.

    Inselberg, "The plane with parallel coordinates", 1985. Good trials are drawn last and dark. A trial without a key
    goes below its axis.

    Args:
      trials: what each set, by key, and its value.
      keys: in the order of their axes.
      metric: the value's name.
      higher_is_better: whether more of it is better.
    """
    scales = [Scale([overrides[key] for overrides, _ in trials if key in overrides]) for key in keys]
    scales.append(Scale([value for _, value in trials]))
    with_absent = [any(key not in overrides for overrides, _ in trials) for key in keys] + [False]
    rank = _ranks([value for _, value in trials], higher_is_better)
    colors = colormaps["viridis"]

    def make() -> Figure:
        figure = Figure(figsize=(max(4.4, 1.5 * len(scales)), 3.4), layout="constrained")
        axes = figure.add_subplot()
        for index in np.argsort(-rank, kind="stable"):  # the best on top
            overrides, value = trials[index]
            row = [*(overrides.get(key, _ABSENT) for key in keys), value]
            y = [_BELOW if each is _ABSENT else scale.fraction(each) for each, scale in zip(row, scales, strict=True)]
            axes.plot(range(len(scales)), y, color=colors(0.9 * rank[index]), linewidth=1.1, alpha=0.8)
        for x, scale in enumerate(scales):
            axes.axvline(x, color="#808080", linewidth=0.8)
            for height, text in [*scale.ticks(), *([(_BELOW, "not set")] if with_absent[x] else [])]:
                axes.text(x + 0.03, height, text, fontsize=8, va="bottom")
        axes.set_xticks(range(len(scales)), [_break(key) for key in [*keys, metric]], fontsize=8)
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(scales) - 0.6)
        axes.set_ylim((_BELOW if any(with_absent) else 0.0) - 0.05, 1.1)
        axes.spines[:].set_visible(False)
        return figure

    return figure_svg(make, f"parallel coordinates of {len(trials)} trials")


def slice_chart(points: Sequence[tuple[Any, float]], *, key: str, metric: str, log: bool) -> str:
    """Returns the metric of all trials over what they set one key to; what is not a number stands side by side.

    Args:
      points: what each trial set the key to, and its value.
      key: its name.
      metric: the value's name.
      log: whether the metric's axis is logarithmic.
    """
    scale = Scale([value for value, _ in points])

    def draw(axes: Axes) -> None:
        x = np.array([scale.place(value) for value, _ in points])
        if not scale.is_number:  # so that points of one place do not hide each other
            x = x + 0.3 * (np.arange(len(x)) * 0.618034 % 1 - 0.5)  # no trend, though points come in an order
            names = [_short(value) for value in scale.values]
            axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 5 else 0)
        axes.scatter(x, [value for _, value in points], s=14, alpha=0.7, color=COLORS[0], linewidths=0)
        if scale.log:
            axes.set_xscale("log")
            label_logarithmic(axes.xaxis)
        _value_axis(axes, metric, log)
        axes.set_xlabel(key)

    return _figure(draw, f"{metric} over {key}")


def curves_chart(
    finished: Sequence[Mapping[int, float]], others: Sequence[Mapping[int, float]], *, metric: str, log: bool
) -> str:
    """Returns curves over the steps: those of finished trials, the first in colour, and dotted those of others."""

    def draw(axes: Axes) -> None:
        styles = [(curve, ":", "#808080", 1.0, 0.7) for curve in others]
        styles += [(curve, "-", "#808080", 0.8, 0.5) for curve in reversed(finished[1:])]
        styles += [(curve, "-", COLORS[1], 2.0, 1.0) for curve in finished[:1]]
        for curve, style, color, width, alpha in styles:
            x, y = list(curve), list(curve.values())
            marker = "." if len(curve) == 1 else None
            axes.plot(x, y, style, color=color, linewidth=width, alpha=alpha, marker=marker)
        axes.locator_params(axis="x", integer=True)
        _value_axis(axes, metric, log)
        axes.set_xlabel("step")

    return _figure(draw, f"{metric} over step")


def bar_chart(shares: Mapping[str, float], *, xlabel: str) -> str:
    """Returns horizontal bars, the longest on top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])

    def draw(axes: Axes) -> None:
        axes.barh([key for key, _ in ordered], [share for _, share in ordered], color=COLORS[0])
        axes.set_xlabel(xlabel)

    return _figure(draw, xlabel, height=1.0 + 0.3 * len(ordered))


def interval_chart(groups: Sequence[tuple[str, Sequence[float], tuple[float, float]]], *, metric: str) -> str:
    """Returns groups of values below each other: every value, the mean, and its interval.

    Args:
      groups: name, values, and the ends of the interval.
      metric: the values' name.
    """

    def draw(axes: Axes) -> None:
        for y, (_, values, interval) in enumerate(reversed(groups)):
            axes.plot(values, [y] * len(values), ".", color="#808080", markersize=5)
            axes.plot([np.mean(values)], [y], "D", color=COLORS[1], markersize=5)
            axes.plot(interval, [y, y], color=COLORS[1], linewidth=1.4)
        axes.set_yticks(range(len(groups)), [name for name, _, _ in reversed(groups)], fontsize=8)
        axes.set_xlabel(metric)
        axes.grid(visible=True, axis="x")

    return _figure(draw, f"{metric} by group", height=1.0 + 0.28 * len(groups), width=6.4)


_ABSENT = object()
_BELOW = -0.15
"""Where a trial without the key of an axis crosses it."""


def _figure(draw: Any, alternative: str, *, height: float = 2.8, width: float = 4.4) -> str:
    def make() -> Figure:
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        return figure

    return figure_svg(make, alternative)


def _value_axis(axes: Axes, metric: str, log: bool) -> None:
    if log:
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)
    axes.set_ylabel(metric)
    axes.grid(visible=True)


def _ranks(values: Sequence[float], higher_is_better: bool) -> np.ndarray:
    """Returns 0 for the best value, 1 for the worst, and what is between in even steps."""
    order = np.argsort(np.argsort([-value if higher_is_better else value for value in values], kind="stable"))
    return order / max(1, len(values) - 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


def _break(key: str) -> str:
    """Returns a key in lines that fit between two axes: its last part is what tells it from others."""
    *groups, name = key.split(".")
    return "\n".join([*groups[-1:], name])
