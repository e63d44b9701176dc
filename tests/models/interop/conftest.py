"""Parameters and inputs for the comparisons with other libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.layers import Bidirectional, RecurrentStack, functional
from lstm_research.models.recurrence import unroll

T, B, D, H = 6, 3, 4, 5


def draw(tree, dtype="float32", seed=0):
    """Random arrays in the shapes of a tree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(dtype), tree)


class Ours:
    """This package's side of a comparison."""

    T, B, D, H = T, B, D, H
    lengths = np.array([4, T, 1])

    def xs(self, dtype="float32"):
        return np.random.default_rng(7).normal(size=(T, B, D)).astype(dtype)

    def cell_params(self, cell, dtype="float32"):
        """Random parameters, biases too."""
        return draw(dict(sorted(cell.init(jax.random.key(0), D).items())), dtype)

    def stack_params(self, cell, dtype="float32", **options):
        return draw(functional(RecurrentStack(cell, D, rngs=nnx.Rngs(0), **options))[1], dtype)

    def bidirectional_params(self, cell):
        return draw(functional(Bidirectional(cell, D, rngs=nnx.Rngs(0)))[1])

    def run_cell(self, cell, params, xs, *, lengths=None, reverse=False):
        return compiled_cell(cell, reverse)(*as_jax((params, xs)), lengths=as_jax(lengths))

    def run_stack(self, cell, params, xs, lengths=None, **options):
        return compiled_stack(cell, **options)(*as_jax((params, xs)), lengths=as_jax(lengths))

    def run_bidirectional(self, cell, params, xs, *, lengths=None):
        return compiled_bidirectional(cell)(*as_jax((params, xs)), lengths=as_jax(lengths))


# Each is compiled once, whoever asks.


@functools.cache
def compiled_cell(cell, reverse):
    return jax.jit(lambda params, xs, lengths: unroll(cell, params, xs, lengths=lengths, reverse=reverse))


@functools.cache
def compiled_stack(cell, **options):
    return jax.jit(functional(RecurrentStack(cell, D, rngs=nnx.Rngs(0), **options))[0])


@functools.cache
def compiled_bidirectional(cell):
    return jax.jit(functional(Bidirectional(cell, D, rngs=nnx.Rngs(0)))[0])


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


@pytest.fixture(scope="session")
def ours():
    return Ours()


@pytest.fixture(scope="session")
def assert_close():
    """Compares arrays one by one."""

    def check(actual, expected, tolerance=2e-6):
        actual, expected = list(actual), list(expected)
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture(scope="session")
def assert_same_bits():
    """Compares two trees: structure, types, shapes and bytes."""

    def check(actual, expected):
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            assert isinstance(a, np.ndarray)
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes())

    return check
