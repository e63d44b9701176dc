"""Set-up of all tests: the CPU backend, and shapes checked at run time against the annotations."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

# Before any module of the package is imported: the hook rewrites functions as they are loaded.
install_import_hook("lstm_research", "beartype.beartype")

from collections.abc import Iterator  # noqa: E402

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def x64() -> Iterator[None]:
    """The test computes in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switches the annotations' run-time check off, so that the package's own checks are reached, as in production."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
