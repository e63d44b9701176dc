"""The measurements, loaded as the command loads them, and the command itself, run as the tests of commands run it."""

import importlib.util
from pathlib import Path

import pytest

from lstm_research.cli.benchmark import load

_spec = importlib.util.spec_from_file_location("cli_fixtures", Path(__file__).parents[1] / "cli" / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
_production, command, project, refused = (
    getattr(_fixtures, name) for name in ("_production", "command", "project", "refused")
)


@pytest.fixture
def recurrence():
    return load("recurrence")


@pytest.fixture
def entries():
    return load("entries")


@pytest.fixture
def peers():
    return load("peers")


@pytest.fixture
def training():
    return load("training")
