"""Heat maps of attention: source words on one axis, target words on the other.

Drawn without a window (matplotlib's Agg), and without matplotlib's global state.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lstm_research.analysis.figures import FONT_SIZE, VISIBLE, find_fonts, save_figure

CELL = 0.2
"""Width and height of a cell in inches: a line of text at this font size fits into it, so no labels overlap."""
_WORD = "\N{LOWER ONE EIGHTH BLOCK}"  # what sentencepiece puts where a word begins
_GAP = 0.3  # inches between panels
_ROW_WIDTH = 14.0  # inches; panels that do not fit go into the next row


class AttentionMap(NamedTuple):
    """What one panel shows.

    Attributes:
      source: the source's pieces, words for instance.
      target: the target's pieces.
      weights: attention of each target piece on each source piece, from 0 to 1.
      title: over the panel; may be empty.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: Float[np.ndarray, "T S"]
    title: str = ""


def save_attention(maps: Sequence[AttentionMap], path: Path) -> None:
    """Writes the figure of `draw_attention` to a PNG, SVG or PDF file, whole or not at all.

    Raises:
      UserError: another suffix.
    """
    save_figure(draw_attention(maps), path, "attention plot")


def draw_attention(maps: Sequence[AttentionMap]) -> Figure:
    """Draws heat maps side by side, in rows; 0 is white, 1 is dark. The figure is as large as its labels ask for.

    Subword pieces with sentencepiece's mark are shown as words: a piece that goes on with a word begins with "·".
    Characters that no installed font has are not drawn as boxes: the piece gets its number, and a warning says so.

    Args:
      maps: at least one; `weights` must be [len(target), len(source)].

    Returns:
      The figure; its axes are those of the maps in their order, and the colour scale.
    """
    for each in maps:
        T, S = len(each.target), len(each.source)
        if each.weights.shape != (T, S) or not each.weights.size:
            raise ValueError(f"weights of shape {each.weights.shape} for {T} target and {S} source pieces")
    texts = (VISIBLE.get(text, text) for each in maps for text in (*each.source, *each.target, each.title))
    fonts = find_fonts(set("".join(texts)))
    with mpl.rc_context({"font.family": fonts.names, "font.size": FONT_SIZE}):
        figure = Figure(figsize=(1.0, 1.0))  # one inch, so that fractions of it are inches until all is placed
        renderer = FigureCanvasAgg(figure).get_renderer()
        panels = [_panel(figure, each, fonts.missing) for each in maps]
        boxes = []
        for axes, each in zip(panels, maps, strict=True):
            # Twice: where a label is depends on ticks that the first time places.
            axes.get_tightbbox(renderer)
            box = axes.get_tightbbox(renderer)
            assert box is not None
            size = np.array([len(each.source), len(each.target)]) * CELL
            boxes.append((np.asarray(box.extents) / figure.dpi, size))
        _place(figure, panels, boxes)
    return figure


def _panel(figure: Figure, each: AttentionMap, missing: frozenset[str]) -> Axes:
    """Draws one map at the lower left of the figure."""
    T, S = each.weights.shape
    axes = figure.add_axes((0.0, 0.0, S * CELL, T * CELL))
    axes.imshow(each.weights, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    # A dollar sign is a dollar sign and begins no formula.
    axes.set_xticks(range(S), _labels(each.source, missing), rotation=90, parse_math=False)
    axes.set_yticks(range(T), _labels(each.target, missing), parse_math=False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(np.arange(S + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(T + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    if each.title:
        title = "".join("?" if character in missing else character for character in each.title)
        axes.set_title(title, parse_math=False, loc="left", pad=6)
    return axes


def _place(figure: Figure, panels: list[Axes], boxes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Sizes the figure and moves the panels to their places, row by row from the top; adds the colour scale.

    Args:
      figure: of one inch.
      panels: its axes.
      boxes: of each panel the lower left and the upper right corner with labels (x, y, x, y), and the size without
        labels, in inches.
    """
    corners, x, top, bottom, width = [], _GAP, 0.0, 0.0, 0.0
    for extents, _ in boxes:
        w, h = extents[2:] - extents[:2]
        if x > _GAP and x + w > _ROW_WIDTH:
            x, top = _GAP, bottom
        corners.append((x - extents[0], top - _GAP - extents[3]))
        x, bottom = x + w + _GAP, min(bottom, top - _GAP - h)
        width = max(width, x)
    height = _GAP - bottom
    figure.set_size_inches(width + 0.8, height)

    def move(axes: Axes, left: float, low: float, w: float, h: float) -> None:
        axes.set_position((left / (width + 0.8), 1 + low / height, w / (width + 0.8), h / height))

    for axes, (left, low), (_, (w, h)) in zip(panels, corners, boxes, strict=True):
        move(axes, left, low, w, h)
    scale = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    length = min(1.5, height - 2 * _GAP)
    move(scale, width, -_GAP - length, 0.12, length)
    figure.colorbar(panels[0].images[0], cax=scale)


def _labels(pieces: Sequence[str], missing: frozenset[str]) -> list[str]:
    """Returns what stands on an axis for the pieces of a sentence."""
    marked = any(piece.startswith(_WORD) for piece in pieces)
    labels = []
    for number, piece in enumerate(pieces, 1):
        label = VISIBLE.get(piece, piece)
        if missing & set(label):
            label = f"#{number}"
        elif marked and label.startswith(_WORD) and label != _WORD:
            label = label.removeprefix(_WORD)
        elif marked and unicodedata.category(label[0]) in ("Ll", "Lu", "Nd"):  # no signs, no scripts without spaces
            label = "·" + label
        labels.append(label)
    return labels
