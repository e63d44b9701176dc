"""Functions that differ in numbers, as one program: whatever JAX has to put a number in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lstm_research.training import packed_function
from lstm_research.training.packed_function import PackedFunction
from lstm_research.training.packed_program import NotPackableError, TracedProgram

Function = Callable[[Any], Any]


def loop(a: float) -> Function:
    """Numbers in the start, the step and the end of loops."""

    def function(x: Any) -> Any:
        count, steps = lax.while_loop(lambda s: (s[0] < 10 * a) & (s[1] < 50), lambda s: (s[0] + a, s[1] + 1), (0.0, 0))
        kept = lax.fori_loop(
            0, 3, lambda i, k: lax.dynamic_update_index_in_dim(k, x * a * i, i, 0), jnp.zeros((3, 3, 2))
        )
        halved = lax.while_loop(lambda x: jnp.abs(x).sum() > a, lambda x: x * 0.5, x)
        return count, steps, kept, halved, lax.scan(lambda c, row: (c * a + row.sum(), c), a, x)

    return function


def branch(a: float) -> Function:
    """Numbers that choose a branch, that one computes with, and that one returns as they are."""

    def function(x: Any) -> Any:
        chosen = lax.switch(jnp.int32(4 * a), [lambda x: x * a, lambda x: x + a, lambda x: x * x], x)
        return chosen, lax.cond(x.sum() > a, lambda x: (a, 1), lambda x: (2 * a, 0), x), a

    return function


def noise(a: float) -> Function:
    """A rate, and keys that the function is closed over."""
    key, other = jax.random.key(3), jax.random.key(int(100 * a))

    def function(x: Any) -> Any:
        return jax.random.bernoulli(key, a, x.shape), jax.random.normal(jax.random.fold_in(other, 1), x.shape)

    return function


@jax.custom_vjp
def scaled(x: Any, a: Any) -> Any:
    return x * a


scaled.defvjp(lambda x, a: (x * a, a), lambda a, g: (g * a * 3, jnp.zeros_like(a)))


def gradient(a: float) -> Function:
    """A derivative of one's own, one that is computed again, and an array that the function is closed over."""
    weights = np.arange(6, dtype=np.float32).reshape(2, 3) * a

    def function(x: Any) -> Any:
        again = jax.checkpoint(lambda x: jnp.sin(x @ weights) * a)
        return jax.grad(lambda x: scaled(x, a).sum() + (again(x) ** 2).sum())(x), scaled(x, a)

    return function


@pytest.mark.parametrize("make", [loop, branch, noise, gradient])
@pytest.mark.parametrize("cache", [0, 2**30], ids=["in turn", "at once"])
def test_one_program_computes_what_each_function_does(
    make: Callable[[float], Function], cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_function, "_CACHE", cache)
    functions, xs = [make(a) for a in (0.25, 0.4, 0.75)], jax.random.normal(jax.random.key(1), (3, 3, 2))
    programs = [TracedProgram(function, xs[0]) for function in functions]
    packed = PackedFunction("evaluation", programs[0])
    numbers, active = packed.numbers(programs), np.ones(3, bool)
    assert numbers
    results = packed.compiled(None, numbers, (active, xs), (False,))(numbers, active, xs)
    for row, function in enumerate(functions):
        ours, theirs = jax.tree.map(lambda each: each[row], results), jax.jit(function)(xs[row])  # noqa: B023
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6), ours, theirs)


def test_a_number_where_none_can_be_put_is_refused() -> None:
    program = TracedProgram(
        lambda x: lax.reduce(x, np.float32(0), lambda p, q: p + q * np.float32(2), (0,)), jnp.ones(2)
    )
    (index,) = (at for at, number in enumerate(program.numbers) if number == 2)
    with pytest.raises(NotPackableError, match="a number inside of the operation 'reduce' differs"):
        program.run({index: np.float32(3)}, jnp.ones(2))


def test_an_operation_that_is_not_known_is_left_as_it_is() -> None:
    replaced = jax.custom_batching.custom_vmap(lambda x: lax.dynamic_update_slice(x, 2 * x[:1], (1,)))
    replaced.def_vmap(lambda size, batched, x: (x, True))
    x = jnp.arange(1.0, 4.0)
    assert TracedProgram(lambda x: replaced(x) + 1, x).run({}, x).tolist() == [2, 3, 4]


def test_a_turn_is_as_many_as_the_cache_holds_weights_and_loops_of(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, xs = np.ones(500, np.float32), np.ones(250, np.float32)
    program = TracedProgram(lambda w, xs: lax.scan(lambda c, x: (c + x, c * x), w.sum(), xs), weights, xs)
    assert program.size == 4 * (500 + 250 + 1 + 250)
    monkeypatch.setattr(packed_function, "_CACHE", 3 * program.size)
    assert [PackedFunction("update", program).at_once(rows) for rows in (1, 2, 4, 6)] == [1, 2, 2, 3]


def test_other_operations_are_other_programs() -> None:
    x = jnp.ones(2)
    assert not TracedProgram(lambda x: x * 2.0, x).is_like(TracedProgram(lambda x: x + 2.0, x))
    assert not TracedProgram(lambda x: x**2, x).is_like(TracedProgram(lambda x: x**3, x))
    assert TracedProgram(lambda x: x * 2.0, x).is_like(TracedProgram(lambda x: x * 3.0, x))
    assert not TracedProgram(lambda x: x * 2.0, x).equals(TracedProgram(lambda x: x * 3.0, x))
