"""Features of an utterance as an image, and below, over the same time, what was recognised where.

Where a symbol is, CTC says by its spike, a transducer by the step that writes it, and an attention decoder by the step
that it attends to most.

Drawn without a window (matplotlib's Agg), and without matplotlib's global state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from lstm_research.analysis.figures import FONT_SIZE, VISIBLE, find_fonts, save_figure

# In inches.
_SIDE, _FEATURES, _PROBABILITIES, _TITLE, _BOTTOM = 0.7, 1.6, 1.3, 0.35, 0.55
_LABEL = 0.16  # the height of a line of text: what a label is given of the time axis at least
_LETTER = 0.1  # and a letter's width
_SECOND, _FRAME = 3.0, 0.03  # a second's, and a frame's that has no known length
_LEAST, _MOST = 4.0, 60.0  # of the whole
_FAINT = 0.1  # symbols that never get this probability are not drawn


class AlignedUtterance(NamedTuple):
    """What one pair of panels shows.

    Attributes:
      features: of the frames.
      frame_seconds: from one frame to the next.
      probabilities: of every symbol at every step of the model; None if it has none, as a transducer.
      blank_id: the symbol of these that is the blank.
      step_seconds: from one step to the next, a multiple of `frame_seconds` if the model joins frames.
      names: of the symbols by number.
      symbols: what was recognised.
      steps: for each of them the step that stands for it.
      title: over the panels; may be empty.
      in_seconds: whether these times are in seconds; otherwise they are in frames of the data, of no known length.
    """

    features: Float[np.ndarray, "T D"]
    frame_seconds: float
    probabilities: Float[np.ndarray, "S V"] | None
    blank_id: int
    step_seconds: float
    names: Sequence[str]
    symbols: Sequence[int]
    steps: Sequence[int]
    title: str = ""
    in_seconds: bool = True


def save_alignment(utterances: Sequence[AlignedUtterance], path: Path) -> None:
    """Writes the figure of `draw_alignment` to a PNG, SVG or PDF file, whole or not at all.

    Raises:
      UserError: another suffix.
    """
    save_figure(draw_alignment(utterances), path, "alignment plot")


def draw_alignment(utterances: Sequence[AlignedUtterance]) -> Figure:
    """Draws utterances below each other, time in seconds (or frames) from left to right.

    The upper panel of each has the features, the lowest at the bottom. The lower one has the probability of the blank
    (dotted) and of every symbol that was recognised or nearly; every recognised symbol is named above the step that
    stands for it, with a line where the name had to move aside.

    Args:
      utterances: at least one; one without a frame has empty panels.

    Returns:
      The figure; its axes are two for each utterance, in their order.
    """
    for each in utterances:
        if len(each.steps) != len(each.symbols):
            raise ValueError(f"{len(each.symbols)} symbols, {len(each.steps)} steps")
    shown = {VISIBLE.get(each.names[symbol], each.names[symbol]) for each in utterances for symbol in each.symbols}
    fonts = find_fonts(set("".join([*shown, *(each.title for each in utterances)])))
    labels = [_labels(each, fonts.missing) for each in utterances]
    widths = [
        max(len(each.features) * (each.frame_seconds * _SECOND if each.in_seconds else _FRAME), len(names) * _LABEL)
        for each, names in zip(utterances, labels, strict=True)
    ]
    width = min(max(_LEAST, *widths), _MOST)
    strips = [_LABEL + _LETTER * max(map(len, names), default=1) for names in labels]
    heights = [_TITLE + _FEATURES + strip + _PROBABILITIES + _BOTTOM for strip in strips]
    size = (width + 2 * _SIDE, sum(heights))
    with mpl.rc_context({"font.family": fonts.names, "font.size": FONT_SIZE}):
        figure = Figure(figsize=size)
        top = sum(heights)
        for each, names, strip, height in zip(utterances, labels, strips, heights, strict=True):
            title = "".join("?" if character in fonts.missing else character for character in each.title)
            low = top - height + _BOTTOM
            boxes = [(low + _PROBABILITIES + strip, _FEATURES), (low, _PROBABILITIES)]
            _draw(figure, each, names, title, [(_SIDE, y, width, h) for y, h in boxes], strip)
            top -= height
    return figure


def _draw(
    figure: Figure,
    each: AlignedUtterance,
    labels: list[str],
    title: str,
    boxes: list[tuple[float, float, float, float]],
    strip: float,
) -> None:
    """Draws the two panels of an utterance into boxes given in inches, names into the strip between them."""
    inches = np.array([*figure.get_size_inches()] * 2)
    upper, lower = (figure.add_axes(tuple(np.array(box) / inches)) for box in boxes)
    end = max(len(each.features), 1) * each.frame_seconds
    extent = (0.0, end, -0.5, each.features.shape[1] - 0.5)
    upper.imshow(each.features.T, cmap="magma", origin="lower", aspect="auto", interpolation="nearest", extent=extent)
    upper.set_ylabel("feature")
    upper.tick_params(labelbottom=False)
    upper.set_title(title, parse_math=False, loc="left")

    times = (np.array(each.steps, float) + 0.5) * each.step_seconds
    heights = np.zeros(len(times))
    if each.probabilities is not None:
        middles = (np.arange(len(each.probabilities)) + 0.5) * each.step_seconds
        seen = set(np.flatnonzero(each.probabilities.max(axis=0, initial=0) >= _FAINT).tolist()) | {*each.symbols}
        lower.plot(middles, each.probabilities[:, each.blank_id], color="0.6", linestyle=":", linewidth=1)
        for symbol in sorted(seen - {each.blank_id}):
            lower.plot(middles, each.probabilities[:, symbol], color=_color(symbol), linewidth=1.2)
        heights = each.probabilities[list(each.steps), list(each.symbols)]
    lower.set(xlim=(0, end), ylim=(0, 1.02), xlabel="seconds" if each.in_seconds else "frames", ylabel="probability")
    if each.probabilities is None:
        lower.set(ylabel="", yticks=[])

    width, height = boxes[1][2:]
    places = _spread(times, end * _LABEL / width, end)
    turned = 90 if any(len(label) > 1 for label in labels) else 0
    above = 1.02 * (1 + 0.5 * _LABEL / height)
    for label, symbol, time, place, level in zip(labels, each.symbols, times, places, heights, strict=True):
        style: dict[str, Any] = {"color": _color(symbol), "clip_on": False}
        lower.plot([time, time, place], [level, 1.02, above], linewidth=0.5, **style)
        lower.text(place, above, label, rotation=turned, ha="center", va="bottom", parse_math=False, **style)


def _color(symbol: int) -> str:
    return f"C{symbol % 10}"


def _labels(each: AlignedUtterance, missing: frozenset[str]) -> list[str]:
    """Returns the names of what was recognised; a number where no font has its characters."""
    names = [VISIBLE.get(each.names[symbol], each.names[symbol]) for symbol in each.symbols]
    return [f"#{number}" if missing & set(name) else name for number, name in enumerate(names, 1)]


def _spread(times: Float[np.ndarray, "n"], gap: float, end: float) -> Float[np.ndarray, "n"]:
    """Returns places from 0 to `end`, in the order of the times and close to them, at least `gap` apart.

    From the left every place is moved behind the one before, then from the right what lies beyond the end is moved
    back.
    """
    gap = min(gap, end / max(len(times), 1))
    ranks = np.arange(len(times)) * gap
    places = np.maximum.accumulate(np.maximum(times, gap / 2) - ranks) + ranks
    highest = end - gap / 2 - ranks[::-1]
    return np.minimum(places, highest)
