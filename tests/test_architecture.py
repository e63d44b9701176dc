"""What the documents say of the code is true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lstm_research"
FOLDERS = ("lstm_research", "configs", "benchmarks", "tests")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_500_lines():
    assert {str(path.relative_to(ROOT)): lines(path) for path in SOURCES if lines(path) > 500} == {}


def test_a_function_lives_where_its_noun_says():
    assert [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "misc")] == []


def lines_of_code(path):
    """The lines that are neither blank, nor comments, nor docstrings."""
    source = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [
        node.body[0] for node in ast.walk(ast.parse(source)) if isinstance(node, documented) if ast.get_docstring(node)
    ]
    of_docstrings = {number for node in docstrings for number in range(node.lineno, node.end_lineno + 1)}
    numbered = enumerate(source.splitlines(), 1)
    return sum(n not in of_docstrings and bool(line.strip()) and line.strip()[0] != "#" for n, line in numbered)


def test_one_training_step_is_readable_in_eight_files_and_900_lines_of_code():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## One training step, end to end")[1].split("\n## ")[0]
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)
    assert 1 <= len(files) <= 8
    assert sum(lines_of_code(PACKAGE / name) for name in files) <= 900


def test_paths_that_the_documents_name_exist():
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/architecture.md"))
    named = set(re.findall(r"(?:configs|docs|tests|lstm_research)/[\w/.]*\w", text))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_the_cell_example_of_the_readme_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["y"].shape == (32, 64)


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_have_no_unfinished_figures(name):
    assert re.findall(r"\b(?:TODO|TBD|XXX|[A-Z]+_COST)\b", (ROOT / name).read_text(encoding="utf-8")) == []
