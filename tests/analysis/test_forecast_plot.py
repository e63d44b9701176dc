"""Fan charts: every line and band is where the numbers are, and the files are pictures."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.dates import date2num

from lstm_research.analysis.forecast_plot import Fan, draw_forecasts, save_forecasts
from lstm_research.common.errors import UserError
from lstm_research.tasks.forecast_metrics import LEVELS


def make(title: str = "sold $5 – größer", levels: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)) -> Fan:
    times = np.datetime64("2024-01-01", "s") + np.arange(12) * np.timedelta64(86400, "s")
    past = np.array([1.0, 2, np.nan, 3, 2, 4, 3, 5])
    mean = np.array([4.0, 5, 6, 7])
    return Fan(title, times[:8], past, times[8:], mean, {level: mean + 4 * (level - 0.5) for level in levels})


def test_lines_and_bands_are_the_numbers() -> None:
    fan = make()
    (axes,) = draw_forecasts([fan]).axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["observed"].get_ydata(), fan.past)
    np.testing.assert_array_equal(lines["forecast"].get_ydata(), fan.mean)
    np.testing.assert_allclose(date2num(lines["forecast"].get_xdata()), date2num(fan.times))
    bands = {band.get_label(): band.get_paths()[0].vertices[:, 1] for band in axes.collections}
    assert list(bands) == ["80 %", "40 %"]
    for label, level in (("80 %", 0.1), ("40 %", 0.3)):
        expected = {*np.round(fan.quantiles[level], 6), *np.round(fan.quantiles[1 - level], 6)}
        assert set(np.round(bands[label], 6)) == expected
    assert axes.get_title(loc="left") == fan.title


def test_panels_stand_in_order_and_without_quantiles_there_are_no_bands() -> None:
    figure = draw_forecasts([make(f"{n}", ()) for n in range(5)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("01234")
    assert not any(axes.collections for axes in figure.axes)


@pytest.mark.parametrize("size", [(4.8, 2.4), (6.4, 2.4)])
def test_the_legend_is_inside_and_off_the_panel(size: tuple[float, float]) -> None:
    figure = draw_forecasts([make("", LEVELS)], size)
    figure.draw_without_rendering()
    box, panel = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert len(figure.legends[0].get_texts()) == 6
    assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1
    assert panel.y1 <= box.y0 <= box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(("suffix", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_files(suffix: str, begin: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"fan{suffix}"
    save_forecasts([make(), make("two")], path)
    assert path.read_bytes().startswith(begin)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fan chart .*fan.jpeg: give a name that ends in .png, .svg, .pdf"):
        save_forecasts([make()], tmp_path / "fan.jpeg")
