"""`linear_map` under every transformation, against the same function without a transpose of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.recurrence.linear_map import linear_map

CALLS = []


def function(residuals, operands):
    A, n = residuals
    x, y = operands
    return {"sum": jnp.sin(A) @ x + n * y, "last": x[-1] * A[0, 0]}


def transpose(residuals, cotangents):
    CALLS.append("transpose")
    A, n = residuals
    into_x = jnp.sin(A).T @ cotangents["sum"]
    return into_x.at[-1].add(cotangents["last"] * A[0, 0]), n * cotangents["sum"]


def with_own(A, n, x, y):
    out = linear_map(function, transpose, (A, n), (x, y))
    return jnp.sum(out["sum"] ** 2) + out["last"]


def plain(A, n, x, y):
    out = function((A, n), (x, y))
    return jnp.sum(out["sum"] ** 2) + out["last"]


@pytest.fixture
def inputs(x64):
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.normal(size=(3, 4))),
        jnp.asarray(2),
        jnp.asarray(rng.normal(size=4)),
        jnp.asarray([1.0, 2, 3]),
    )


def close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), actual, expected)


def agree(transform, *inputs):
    expected = jax.jit(transform(plain))(*inputs)
    for wrap in (lambda f: f, jax.jit):
        close(wrap(transform(with_own))(*inputs), expected)


def test_value_and_gradients(inputs):
    CALLS.clear()
    agree(lambda f: f, *inputs)
    assert not CALLS
    agree(lambda f: jax.grad(f, argnums=(2, 3)), *inputs)
    assert CALLS, "reverse mode must use the given transpose"
    for argnums in (0, 2, 3, (0, 2), (0, 2, 3)):
        agree(lambda f, argnums=argnums: jax.grad(f, argnums), *inputs)


def test_forward_mode_of_each_argument(inputs):
    A, n, x, y = inputs
    for moved in ((A,), (x,), (A, x, y)):

        def tangent(f, moved=moved):
            def of_moved(*values):
                A_, x_, y_ = values if len(values) == 3 else (values[0], x, y) if moved[0] is A else (A, values[0], y)
                return f(A_, n, x_, y_)

            return lambda *values: jax.jvp(of_moved, values, tuple(v + 1 for v in values))[1]

        agree(tangent, *moved)


def test_second_derivatives(inputs):
    A, n, x, y = inputs
    for make in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f))):
        agree(lambda f, make=make: make(lambda moved: f(moved[0], n, moved[1], y)), (A, x))


@pytest.mark.parametrize("axes", [(0, None, None, None), (None, None, 0, None), (1, 0, 0, 0), (None, None, None, 1)])
def test_vmap_of_gradient_and_gradient_of_vmap(inputs, axes):
    batched = [
        leaf if axis is None else jnp.stack([leaf, leaf + 1, leaf - 2], axis)
        for leaf, axis in zip(inputs, axes, strict=True)
    ]
    agree(lambda f: jax.vmap(jax.grad(f, argnums=(0, 2, 3)), axes), *batched)
    agree(lambda f: jax.grad(lambda *a: jax.vmap(f, axes)(*a).sum(), argnums=(0, 2, 3)), *batched)


def test_inside_checkpoint_and_scan(inputs):
    def looped(f):
        def total(A, n, x, y):
            def body(carry, scale):
                return carry + jax.checkpoint(f)(A * scale, n, x + carry, y), None

            return jax.lax.scan(body, 0.0, jnp.arange(1.0, 4))[0]

        return jax.grad(total, argnums=(0, 2, 3))

    agree(looped, *inputs)
