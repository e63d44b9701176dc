"""The alignment plot shows features and probabilities over the same seconds, every recognised symbol named in order."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lstm_research.analysis.alignment_plot import AlignedUtterance, draw_alignment, save_alignment
from lstm_research.analysis.pictures import aligned
from lstm_research.common.errors import UserError
from lstm_research.decoding.transcripts import Transcript

NAMES = ["<blank>", " ", "a", "b", "$x$"]


def make_utterance(
    seed=0, *, T=40, D=5, reduction=2, symbols=(2, 1, 3, 3), steps=(3, 4, 12, 17), names=NAMES, **fields
):
    rng = np.random.default_rng(seed)
    S = -(-T // reduction)
    probabilities = rng.dirichlet([0.1] * len(names), S)
    probabilities[:, 4] = 0.01  # never likely
    values = {
        "features": rng.normal(size=(T, D)),
        "frame_seconds": 0.01,
        "probabilities": probabilities,
        "blank_id": 0,
        "step_seconds": 0.01 * reduction,
        "names": names,
        "symbols": symbols,
        "steps": steps,
        "title": "one $",
    }
    return AlignedUtterance(**values | fields)


def render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_both_panels_show_what_they_are_given_over_the_same_seconds():
    each = make_utterance()
    upper, lower = draw_alignment([each]).axes
    np.testing.assert_array_equal(upper.images[0].get_array(), each.features.T)
    assert upper.images[0].origin == "lower"
    assert upper.images[0].get_extent() == [0, 0.4, -0.5, 4.5]
    assert upper.get_xlim() == lower.get_xlim() == (0, 0.4)
    assert upper.get_position().x0 == lower.get_position().x0
    assert upper.get_position().width == lower.get_position().width
    assert upper.get_position().y0 > lower.get_position().y1
    lines = [line for line in lower.lines if len(line.get_xdata()) == len(each.probabilities)]
    np.testing.assert_allclose(lines[0].get_xdata(), np.arange(20) * 0.02 + 0.01)
    shown = [line.get_ydata() for line in lines]
    np.testing.assert_array_equal(shown, each.probabilities[:, [0, 1, 2, 3]].T)  # all but the one never likely
    assert lower.get_xlabel() == "seconds"
    assert upper.get_title(loc="left") == "one $"


def test_frames_of_no_known_length_are_counted():
    each = make_utterance(frame_seconds=3.0, step_seconds=6.0, in_seconds=False)  # every third frame of the data
    figure = draw_alignment([each])
    upper, lower = figure.axes
    assert lower.get_xlabel() == "frames"
    assert upper.images[0].get_extent() == [0, 120, -0.5, 4.5]
    np.testing.assert_allclose(lower.lines[0].get_xdata(), np.arange(20) * 6 + 3)
    assert figure.get_figwidth() < 10


@pytest.mark.usefixtures("unchecked_shapes")
def test_frames_that_are_left_out_count_where_their_length_is_not_known():
    task = SimpleNamespace(
        features=SimpleNamespace(extract=lambda signals, statistics: [signals[0][::3]], sample_rate=None),
        statistics=None,
        model_name="transducer",
        frame_seconds=3.0,
        step_seconds=6.0,
        blank_id=0,
        vocabulary=SimpleNamespace(symbols=NAMES),
    )
    drawn = aligned(SimpleNamespace(task=task), np.ones((12, 5)), Transcript("ab", 0.0, (), (2, 3), (0, 1)), "")
    upper, lower = draw_alignment([drawn]).axes
    assert upper.images[0].get_extent() == [0, 12, -0.5, 4.5]
    assert lower.get_xlabel() == "frames"
    assert [line.get_xdata()[0] for line in lower.lines] == [3, 9]


def test_every_symbol_is_named_at_its_spike():
    each = make_utterance()
    _, lower = draw_alignment([each]).axes
    assert [text.get_text() for text in lower.texts] == ["a", "\N{OPEN BOX}", "b", "b"]
    leaders = [line for line in lower.lines if len(line.get_xdata()) == 3]
    times = [(step + 0.5) * 0.02 for step in each.steps]
    np.testing.assert_allclose([line.get_xdata()[0] for line in leaders], times)
    heights = [each.probabilities[step, symbol] for step, symbol in zip(each.steps, each.symbols, strict=True)]
    np.testing.assert_allclose([line.get_ydata()[0] for line in leaders], heights)
    for text, line in zip(lower.texts, leaders, strict=True):
        assert text.get_position()[0] == line.get_xdata()[2]
        assert text.get_color() == line.get_color()


CROWDED = [
    make_utterance(symbols=(2, 3) * 30, steps=sorted((*range(20),) * 3)),
    make_utterance(symbols=(2, 3, 2), steps=(19, 19, 19)),
    make_utterance(symbols=(2, 3, 2), steps=(0, 0, 0)),
    make_utterance(symbols=(4, 2, 4) * 5, steps=sorted((*range(5),) * 3), names=["", " ", "seven", "b", "twenty-two"]),
    make_utterance(symbols=(), steps=()),
]


def test_no_name_covers_another_or_a_panel():
    figure = draw_alignment(CROWDED)
    renderer = render(figure)
    assert len(figure.axes) == 2 * len(CROWDED)
    boxes = []
    for upper, lower in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        places = [text.get_position()[0] for text in lower.texts]
        assert places == sorted(places)
        boxes += [text.get_window_extent(renderer) for text in (*lower.texts, upper._left_title)]
        boxes += [upper.get_window_extent(renderer), lower.get_window_extent(renderer)]
    boxes = np.array([box.extents for box in boxes])  # x0, y0, x1, y1
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.all(high - low > 0.5, axis=-1) & ~np.eye(len(boxes), dtype=bool)
    assert not overlap.any()
    width, height = figure.get_size_inches() * figure.dpi
    assert (boxes[:, :2] >= -0.5).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()


def test_a_transducer_has_names_without_probabilities():
    each = make_utterance(probabilities=None)
    _, lower = draw_alignment([each]).axes
    assert len(lower.lines) == len(lower.texts) == 4
    assert not lower.get_yticks().size


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files(tmp_path, suffix):
    path = tmp_path / "new" / f"plot.{suffix}"
    save_alignment(CROWDED[:1], path)
    assert len(path.read_bytes()) > 1000
    with pytest.raises(UserError, match=r"alignment plot .*plot.gif.*\.png"):
        save_alignment(CROWDED[:1], tmp_path / "plot.gif")


def test_arrays_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="1 symbols, 2 steps"):
        draw_alignment([make_utterance(symbols=(2,), steps=(1, 2))])


@pytest.mark.parametrize("probabilities", [None, np.zeros((0, 5))])
def test_a_recording_without_a_frame_has_empty_panels(probabilities):
    empty = make_utterance(features=np.zeros((0, 5)), probabilities=probabilities, symbols=(), steps=())
    figure = draw_alignment([empty, make_utterance()])
    render(figure)
    upper, lower = figure.axes[:2]
    assert not upper.images[0].get_array().size
    assert not lower.texts
    assert not any(len(line.get_xdata()) for line in lower.lines)
    assert upper.get_xlim() == lower.get_xlim() == (0, 0.01)
