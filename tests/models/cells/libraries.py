"""Other libraries' cells, and what it means to equal them."""

import functools
import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

D, H, T, B = 3, 4, 5, 2


def library(name):
    """Imports a library to compare with; in continuous integration a missing one is a failure, not a skip."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def check_equals(cell, theirs):
    """Asserts that `theirs`, a step `(our parameters, x, h) -> h'`, has the states and all gradients of `cell`."""
    rng = np.random.default_rng(0)
    shapes = cell.init(jax.random.key(0), D)
    params = {key: jnp.asarray(0.7 * rng.normal(size=shapes[key].shape)) for key in sorted(shapes)}
    xs, h, weights = (jnp.asarray(rng.normal(size=shape)) for shape in ((T, B, D), (B, H), (T, B, H)))

    def loss(step, params, xs, h):
        states = []
        for x in xs:
            h = step(params, x, h)
            states.append(h)
        return (jnp.stack(states) * weights).sum(), jnp.stack(states)

    def ours(params, x, h):
        return cell.step(params, cell.carry_type(h=h), x)[0].h

    results = [
        jax.jit(jax.grad(functools.partial(loss, step), argnums=(0, 1, 2), has_aux=True))(params, xs, h)
        for step in (ours, theirs)
    ]
    assert all(leaf.dtype == "float64" and leaf.any() for leaf in jax.tree.leaves(results))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), *results)
