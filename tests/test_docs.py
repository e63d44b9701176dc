"""Every Python block of the documents runs, in order, each by itself."""

import os
import re
from pathlib import Path

import pytest

DOCUMENTS = sorted(
    path for path in (Path(__file__).parent.parent / "docs").glob("*.md") if "```python" in path.read_text("utf-8")
)
BLOCK = re.compile(r"^## (.+?)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    """The document of each block, its line there, and its code; known by the heading over it and its number below."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        heading, number = document.stem, 1
        for match in BLOCK.finditer(text):
            if match[1]:
                heading, number = f"{document.stem}_{match[1].replace(' ', '_').lower()}", 1
            else:
                line = text[: match.start(2)].count("\n")
                found.append(pytest.param(document, line, match[2], id=f"{heading}_{number}"))
                number += 1
    return found


@pytest.mark.parametrize(("document", "line", "code"), blocks())
@pytest.mark.usefixtures("unchecked_shapes")  # as in a reader's program; and NumPy arrays may be given for JAX's
def test_block_runs(document, line, code):
    if "import torch" in code and not os.environ.get("CI"):  # In continuous integration its absence is a failure.
        pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")
    # So that a failure shows its line in the document.
    exec(compile("\n" * line + code, str(document), "exec"), {"__name__": "__main__"})


def test_the_documents_have_all_their_blocks():
    assert {document.name for document in DOCUMENTS} == {"analysis.md", "reuse.md", "sweeps.md"}
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    text = "".join(texts)
    assert len(blocks()) == text.count("```python") == text.count("```") / 2 > 0
