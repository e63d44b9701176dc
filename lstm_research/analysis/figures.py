"""What figures in files share: the kinds of files, and fonts that have the characters of any language."""

import io
from pathlib import Path
from typing import NamedTuple

from absl import logging
from matplotlib import font_manager
from matplotlib.figure import Figure

from lstm_research.common.errors import UserError
from lstm_research.training.files import write_atomically

SUFFIXES = (".png", ".svg", ".pdf")
"""Of the files that can be written."""

FONT_SIZE = 9.0

VISIBLE = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}", "": "\N{EMPTY SET}"}
"""How symbols are shown that leave no ink."""


def save_figure(figure: Figure, path: Path, what: str) -> None:
    """Writes a figure to a PNG, SVG or PDF file, whole or not at all.

    Args:
      figure: to write.
      path: of the file.
      what: the figure is, for messages.

    Raises:
      UserError: another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{what} {path}: give a name that ends in {', '.join(SUFFIXES)}")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, content.getvalue())


class Fonts(NamedTuple):
    """Fonts that together have some characters.

    Attributes:
      names: of the fonts, the first one first.
      missing: characters that no installed font has.
    """

    names: list[str]
    missing: frozenset[str]


def find_fonts(characters: set[str]) -> Fonts:
    """Returns fonts that together have these characters, and the characters that no installed font has."""
    names = ["DejaVu Sans"]  # comes with matplotlib
    missing = characters - _characters(font_manager.findfont(names[0]))
    if missing:
        families = {font.name for font in font_manager.fontManager.ttflist}
        families.discard("Last Resort High-Efficiency")  # has boxes for everything
        having = {name: missing & _characters(font_manager.findfont(name)) for name in sorted(families)}
        while missing and having:
            best = max(having, key=lambda name: len(having[name] & missing))
            if not having[best] & missing:
                break
            names.append(best)
            missing -= having.pop(best)
    if missing:
        some = "".join(sorted(missing)[:10]) + "..." * (len(missing) > 10)
        logging.warning(
            "no installed font has %r: pieces with them are numbered in the plot; "
            "install a font for the language, such as Noto Sans CJK",
            some,
        )
    return Fonts(names, frozenset(missing))


def _characters(file: str) -> set[str]:
    return set(map(chr, font_manager.get_font(file).get_charmap()))
