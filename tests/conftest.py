"""Set-up of all tests: the CPU backend, and shapes checked at run time against the annotations."""

import gc
import importlib.metadata
import itertools
import os
import zlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["KERAS_BACKEND"] = "jax"  # read once, when Keras is imported

from annotations import check_annotations

check_annotations()

import functools  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

# Thousands of tiny programs run once each: compiling them took most of the time. Without optimisation, and with the
# emitters that need no MLIR, it takes a sixth. Whoever sets XLA_FLAGS, if only to nothing, has them compiled by these.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know the flag, and would abort
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"


# Every program that is lowered begins with a context of its own, which takes longer to make than most programs here to
# compile. They can share one.
make_ir_context = functools.cache(mlir.make_ir_context)
mlir.make_ir_context = make_ir_context
# Nobody asks of these programs from which lines their operations come.
jax.config.update("jax_traceback_in_locations_limit", 0)

# What the tests leave behind is mostly compiled programs, millions of objects that garbage collection walks through in
# vain; at the usual thresholds that is a tenth of all time.
gc.set_threshold(200_000, 50, 1000)

MOST_MAPS = 40_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--whole`."""
    parser.addoption("--whole", action="store_true", help="also run what only a sample is run of otherwise")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and has the programs compiled fast."""
    config.addinivalue_line("markers", "whole: runs with --whole only; a sample of the same table always runs")
    config.addinivalue_line("markers", "one_in(n): one case in n, drawn by its name, always runs; all do with --whole")
    os.environ.setdefault("XLA_FLAGS", FAST_COMPILATION)  # XLA reads them at the first use of a device


def is_in_sample(item: pytest.Item) -> bool:
    """Whether a test also runs without `--whole`."""
    one_in = item.get_closest_marker("one_in")
    drawn = one_in is None or zlib.crc32(item.name.encode()) % one_in.args[0] == 0
    return drawn and item.get_closest_marker("whole") is None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is not in the sample."""
    if not config.getoption("--whole"):
        config.hook.pytest_deselected(items=[item for item in items if not is_in_sample(item)])
        items[:] = filter(is_in_sample, items)


def pytest_sessionfinish() -> None:
    """Collects what is left once, where pytest and Python would walk through all of it a dozen times."""
    gc.collect()
    gc.freeze()


_finished = itertools.count(1)


def num_memory_maps() -> int:
    """Returns the memory maps of this process; as many as there may be where the system does not say."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return MOST_MAPS


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Compiled programs are forgotten now and then: each holds memory maps, of which a process has some 65,000."""
    yield
    if next(_finished) % 100 == 0 and num_memory_maps() >= MOST_MAPS:
        jax.clear_caches()
        make_ir_context.cache_clear()


@pytest.fixture
def collected_alone() -> Iterator[None]:
    """`gc.collect()` walks through what the test itself has made; all that other tests have left takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


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
