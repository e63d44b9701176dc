"""HTML pages that need nothing besides themselves, readable on a telephone and in the dark."""

import html
from collections.abc import Sequence

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --page: #fff; --ink: #1b1f24; --faint: #5c6570; --line: #d5dae0; --card: #f7f8fa; --mark: 255 150 0; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #14171a; --ink: #e8eaed; --faint: #a0a8b0; --line: #383e45; --card: #1b1f23; --mark: 214 110 0; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: {width}; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif; }}
h1 {{ font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 1rem 0 .4rem; overflow-wrap: anywhere; }}
p, li {{ overflow-wrap: anywhere; }}
.faint {{ color: var(--faint); font-size: .9rem; margin: 0 0 1rem; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  margin: 1rem 0; }}
figure {{ margin: 0; padding: .5rem; background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  min-width: 0; }}
figure.wide {{ grid-column: 1 / -1; }}
figcaption, .legend {{ font-size: .85rem; color: var(--faint); overflow-wrap: anywhere; }}
.legend span {{ display: inline-block; margin-right: .8rem; }}
.legend i {{ display: inline-block; width: 1.5rem; vertical-align: middle; }}
figure svg {{ display: block; width: 100%; height: auto; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; }}
th, td {{ text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 600; }}
td.long {{ white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }}
pre {{ background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; font-size: .82rem;
  line-height: 1.45; max-height: 28rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }}
nav a {{ margin-right: 1rem; white-space: nowrap; }}
a {{ color: inherit; }}
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}</body>
</html>
"""


def page(title: str, body: str, *, style: str = "", width: str = "80rem") -> str:
    """Returns a page.

    Args:
      title: of the page, plain text.
      body: HTML.
      style: further CSS.
      width: the largest width of the page's text, in CSS.
    """
    return _PAGE.format(title=html.escape(title), body=body, style=style, width=width)


def section(title: str, *parts: str, note: str = "") -> str:
    """Returns a section under a heading; nothing if it has no content.

    Args:
      title: plain text.
      *parts: HTML.
      note: plain text under the heading.
    """
    if not any(parts):
        return ""
    said = f'<p class="faint">{html.escape(note)}</p>\n' if note else ""
    return f'<section id="{anchor(title)}">\n<h2>{html.escape(title)}</h2>\n{said}{"".join(parts)}</section>\n'


def anchor(title: str) -> str:
    """Returns the id of the section with this title."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table, of plain text, that scrolls by itself where it is wider than the page; long texts wrap."""
    head = "".join(f"<th>{html.escape(each)}</th>" for each in header)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}</table></div>\n'


def charts(figures: Sequence[tuple[str, str]], *, wide: bool = False) -> str:
    """Returns charts, pairs of HTML and caption (plain text, may be empty), side by side where there is room.

    Args:
      figures: the charts; one that is wider than the page scrolls by itself.
      wide: gives each a row of its own.
    """
    if not figures:
        return ""
    kind = ' class="wide"' if wide else ""
    inner = ""
    for chart, caption in figures:
        said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        inner += f'<figure{kind}><div class="scroll">{chart}</div>{said}</figure>\n'
    return f'<div class="charts">\n{inner}</div>\n'


def preformatted(text: str) -> str:
    """Returns plain text as it is, in a box."""
    return f"<pre>{html.escape(text)}</pre>\n"


def _cell(value: object) -> str:
    """Returns a cell of a table: a number with five digits, and anything else as text."""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    kind = ' class="long"' if len(text) > 30 else ""
    return f"<td{kind}>{html.escape(text)}</td>"
