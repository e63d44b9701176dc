"""Every Python block of the documents runs, in order, each by itself."""

import os
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parent.parent / "docs" / "reuse.md"
BLOCK = re.compile(r"^## (.+?)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    """The heading over each block with its number below it, its line in the document, and its code."""
    text = DOCUMENT.read_text(encoding="utf-8")
    heading, found = "", []
    for match in BLOCK.finditer(text):
        if match[1]:
            heading, number = match[1].replace(" ", "_").lower(), 1
        else:
            found.append(pytest.param(text[: match.start(2)].count("\n"), match[2], id=f"{heading}_{number}"))
            number += 1
    return found


@pytest.mark.parametrize(("line", "code"), blocks())
@pytest.mark.usefixtures("unchecked_shapes")  # as in a reader's program; and NumPy arrays may be given for JAX's
def test_block_runs(line, code):
    if "import torch" in code and not os.environ.get("CI"):  # In continuous integration its absence is a failure.
        pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")
    # So that a failure shows its line in the document.
    exec(compile("\n" * line + code, str(DOCUMENT), "exec"), {"__name__": "__main__"})


def test_the_document_has_all_its_blocks():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert len(blocks()) == text.count("```python") == text.count("```") / 2 > 0
