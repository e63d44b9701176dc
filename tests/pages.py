"""Checks of HTML pages: that they are whole, need nothing besides themselves, and can be read in a browser."""

import html.parser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page, and fails where tags do not nest."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
        for key in ("href", "xlink:href", "src"):
            if values.get(key):
                self.targets.append(values[key] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


WIDTHS = (390, 1280)  # a phone's, a small screen's

MEASURE = """<!DOCTYPE html><title>measure</title><pre id="found"></pre><script>
const measure = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  const size = each => parseFloat(getComputedStyle(each).fontSize);
  const small = [...page.querySelectorAll("body *")].filter(
    each => each.textContent.trim() && !each.closest("svg") && size(each) < 12).length;
  const charts = [...page.querySelectorAll("figure svg")];
  const empty = charts.filter(each => each.getBoundingClientRect().height < 40).length;
  const scale = svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const faint = charts.filter(
    svg => [...svg.querySelectorAll("text")].some(each => size(each) * scale(svg) < 8.4)).length;
  const height = cell => {
    const range = page.createRange();
    range.selectNodeContents(cell);
    return range.getBoundingClientRect().height;
  };
  const broken = [...page.querySelectorAll("th, td:not(.long)")].filter(each => height(each) > 30).length;
  return [root.scrollWidth, small, empty, faint, broken];
};
const found = {};
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style = `border:0;width:${width}px;height:2000px`;
  frame.onload = () => {
    found[width] = measure(frame);
    document.querySelector("#found").textContent = JSON.stringify(found);
  };
  frame.srcdoc = PAGE;
  document.body.append(frame);
}
</script>
"""


def browser() -> str:
    """Returns the command of a browser."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("continuous integration needs a browser: install the system's package chromium")
    pytest.skip("no browser is installed")


def check_page(text: str) -> Page:
    """Checks that a page is whole and needs nothing besides itself."""
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    inside = {f"#{each}" for each in page.ids}
    # Nothing is fetched, nothing leads nowhere.
    assert {each for each in page.targets if not each.startswith("data:")} <= inside
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= inside
    assert "<script" not in text
    assert "$\\mathdefault" not in text  # a formula of matplotlib is no text
    # No ink but the page's own, or one that was chosen: without one it is black, also in the dark.
    assert [each for each in re.findall(r"<text [^>]*>", text) if "fill" not in each] == []
    assert "#000000" not in text
    return page


def look_at(text: str, folder: Path) -> None:
    """Has a browser show a page at several widths, and checks what it shows."""
    page = json.dumps(text).replace("</", "<\\/")
    (folder / "measure.html").write_text(MEASURE.replace("WIDTHS", str(list(WIDTHS))).replace("PAGE", page))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}/user",
    ]
    command = [browser(), *options, "--virtual-time-budget=5000", "--dump-dom", f"file://{folder}/measure.html"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in result.stderr
    found = re.search(r'<pre id="found">(.*?)</pre>', result.stdout)
    assert found is not None, result.stderr[-2000:]
    measures = json.loads(found[1])
    assert {int(width) for width in measures} == set(WIDTHS)
    for width, (scroll_width, small, empty, faint, broken) in measures.items():
        assert scroll_width <= int(width)  # nothing sticks out
        assert small == 0  # no text below 12 pixels
        assert empty == 0  # no chart without a size
        assert faint == 0  # none shrunk until its text is below 8.4
        assert broken == 0  # no word or number of a table cut in pieces
