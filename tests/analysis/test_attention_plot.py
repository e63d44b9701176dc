"""The heat map shows the weights it is given, with every label readable."""

import io
import itertools
import xml.etree.ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from absl import logging
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from lstm_research.analysis.attention_plot import AttentionMap, draw_attention, save_attention
from lstm_research.common.errors import UserError


def make_map(source, target, title="", seed=0):
    weights = np.random.default_rng(seed).random((len(target), len(source)))
    return AttentionMap(source, target, weights / weights.sum(axis=1, keepdims=True), title)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def rendered(figure, dpi=100):
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float), canvas.get_renderer()


SENTENCES = [
    make_map(["I", "see", "nothing"], ["je", "ne", "vois", "rien"], "1: I see nothing"),
    make_map(["a"], ["x", "y"], "a title that is much longer than its panel is wide"),
    make_map([f"considerably_long_word_{i}" for i in range(45)], [f"mot{i}" for i in range(30)], "", seed=1),
    make_map(["one"] * 20, ["deux"] * 3, "4", seed=2),
]


def test_axes_have_the_weights_and_the_words():
    figure = draw_attention(SENTENCES)
    for axes, each in zip(figure.axes, SENTENCES, strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), each.weights)
        assert axes.images[0].get_clim() == (0, 1)
        assert labels(axes.xaxis) == list(each.source)
        assert labels(axes.yaxis) == list(each.target)
        assert axes.get_title(loc="left") == each.title
    assert len(figure.axes) == len(SENTENCES) + 1  # the scale


def test_every_cell_is_as_dark_as_its_weight():
    weights = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    figure = draw_attention([AttentionMap(["a", "b", "c"], ["x", "y"], weights)])
    pixels, _ = rendered(figure)
    axes = figure.axes[0]
    for row, column in itertools.product(range(2), range(3)):
        x, y = axes.transData.transform((column + 0.2, row + 0.2))
        expected = np.array(mpl.colormaps["Blues"](weights[row, column])[:3]) * 255
        np.testing.assert_allclose(pixels[len(pixels) - int(y) - 1, int(x)], expected, atol=2)
    # The first target word is at the top, the first source word at the left.
    assert axes.transData.transform((0, 0))[1] > axes.transData.transform((0, 1))[1]
    assert axes.transData.transform((0, 0))[0] < axes.transData.transform((1, 0))[0]


def test_no_label_covers_another_or_leaves_the_figure():
    figure = draw_attention(SENTENCES)
    _, renderer = rendered(figure)
    boxes = []
    for axes in figure.axes:
        texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes._left_title]
        boxes += [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    boxes = np.array([box.extents for box in boxes])  # x0, y0, x1, y1
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.all(high - low > 0.5, axis=-1) & ~np.eye(len(boxes), dtype=bool)
    assert not overlap.any()
    width, height = figure.get_size_inches() * figure.dpi
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files(tmp_path, suffix):
    path = tmp_path / "new" / f"plot.{suffix}"
    save_attention(SENTENCES[:2], path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if suffix == "png":
        pixels = imread(io.BytesIO(path.read_bytes()))
        size = draw_attention(SENTENCES[:2]).get_size_inches()
        np.testing.assert_allclose(pixels.shape[1::-1], size * 150, atol=1)
        assert (pixels[..., :3].min(axis=-1) < 0.5).any()
    elif suffix == "svg":
        assert xml.etree.ElementTree.fromstring(path.read_bytes()).tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"%PDF")


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"plot.gif.*\.png"):
        save_attention(SENTENCES[:1], tmp_path / "plot.gif")


def test_subword_pieces_are_words_and_their_continuations():
    source = ["▁un", "believ", "able", ",", "▁isn", "'", "t", "▁", "日本", "2", "▁1", "<unk>"]
    (axes, _) = draw_attention([make_map(source, ["believ", "▁", " ", "\n", ""])]).axes
    assert labels(axes.xaxis) == ["un", "·believ", "·able", ",", "isn", "'", "·t", "▁", "#9", "·2", "1", "<unk>"]
    assert labels(axes.yaxis) == ["·believ", "▁", "␣", "⏎", "∅"]
    (axes, _) = draw_attention([make_map(["believ", "able"], ["x"])]).axes
    assert labels(axes.xaxis) == ["believ", "able"]  # words: there is no mark


def test_a_dollar_sign_begins_no_formula():
    (axes, _) = draw_attention([make_map(["$x_1$", r"$\frac$"], ["$", "$"], r"$\x$")]).axes
    rendered(axes.figure)
    assert labels(axes.xaxis) == ["$x_1$", r"$\frac$"]


@pytest.fixture
def warnings_given(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda message, *args: lines.append(message % args))
    return lines


@pytest.fixture
def only_fonts_of_matplotlib(monkeypatch):
    own = [font for font in font_manager.fontManager.ttflist if mpl.get_data_path() in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


def test_pieces_that_no_font_has_are_numbered_and_one_line_says_so(warnings_given, only_fonts_of_matplotlib):
    maps = [make_map(["▁猫", "▁dog", "が"], ["a"], "猫 dog"), make_map(["犬"], ["b\x01"])]
    first, second, _ = draw_attention(maps).axes
    rendered(first.figure)  # a box would be a warning of matplotlib's, and so an error
    assert labels(first.xaxis) == ["#1", "dog", "#3"]
    assert first.get_title(loc="left") == "? dog"
    assert labels(second.xaxis) == labels(second.yaxis) == ["#1"]
    (line,) = warnings_given
    assert "猫" in line
    assert "Noto Sans CJK" in line
    assert "\n" not in line


def test_a_font_that_has_the_characters_is_found(warnings_given, only_fonts_of_matplotlib):
    def having(name):
        return set(font_manager.get_font(font_manager.findfont(name)).get_charmap())

    character = chr(max(having("STIXGeneral") - having("DejaVu Sans")))
    (axes, _) = draw_attention([make_map([character], ["a"])]).axes
    rendered(axes.figure)
    assert labels(axes.xaxis) == [character]
    assert len(axes.get_xticklabels()[0].get_fontfamily()) == 2
    assert warnings_given == []


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="2 target and 1 source"):
        draw_attention([AttentionMap(["a"], ["x", "y"], np.ones((1, 2)))])
    with pytest.raises(ValueError, match="0 target"):
        draw_attention([AttentionMap(["a"], [], np.ones((0, 1)))])
