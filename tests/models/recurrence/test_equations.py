"""Every cell against its equations written in plain NumPy, with recurrent noise, lengths and resets."""

import functools

import gru_equations
import jax
import lstm_equations
import numpy as np
import pytest

from lstm_research.models.cells import CELLS
from lstm_research.models.recurrence import RecurrentMasks, unroll

D, H, T, B = 2, 3, 5, 4

EQUATIONS = gru_equations.EQUATIONS | lstm_equations.EQUATIONS
VARIANTS = gru_equations.VARIANTS | lstm_equations.VARIANTS
"""Cells with options that no row of `CELLS` sets; each has equations too."""
CONSTRUCTORS = {**CELLS, **VARIANTS}


def transcription(name, params, xs, carry, lengths, resets, reverse, masks):
    """Runs the equations one sequence and one step at a time; the masks are `[T, B, size]`."""
    ys = np.zeros((T, *carry["h"].shape))
    final = {field: np.zeros_like(array) for field, array in carry.items()}
    for b in range(B):
        state = {field: array[b] for field, array in carry.items()}
        steps = range(lengths[b])
        for t in reversed(steps) if reverse else steps:
            if resets[t, b]:
                state = {field: params.get(f"initial_{field}", np.zeros_like(a)) for field, a in state.items()}
            new = EQUATIONS[name](params, state, xs[t, b], masks["dropout"][t, b])
            assert set(new) == set(state)
            for field in ("c", "h"):
                if field in new:
                    keep = masks[f"zoneout_{field}"][t, b]
                    new[field] = keep * state[field] + (1 - keep) * new[field]
            state, ys[t, b] = new, new["h"]
        for field, array in state.items():
            final[field][b] = array
    return final, ys


def make_arguments(name, noisy):
    rng = np.random.default_rng(1)
    cell = CONSTRUCTORS[name](hidden_size=H)
    draw = lambda shape, scale=1.0: scale * rng.normal(size=shape)  # noqa: E731
    params = {k: draw(v.shape, 0.7) for k, v in sorted(cell.init(jax.random.key(0), D).items())}
    carry = {field: draw((B, size)) for field, size in cell.carry_sizes.items()}
    lengths, resets = np.array([T, 0, 3, 4]), rng.random((T, B)) < 0.3
    resets[0, 0] = True
    shapes = {field: (T, *carry[field].shape) for field in ("h", "c") if field in carry}
    masks = {"dropout": np.ones(shapes["h"])} | {f"zoneout_{field}": np.zeros(shape) for field, shape in shapes.items()}
    if noisy:
        masks["dropout"] = (rng.random(shapes["h"]) < 0.6) / 0.6
        masks["zoneout_h"] = np.where(np.arange(T)[:, None, None] % 2, rng.random(shapes["h"]) < 0.4, 0.3)
        if "c" in carry:
            masks["zoneout_c"] = rng.random(shapes["c"])
    return cell, params, draw((T, B, D)), carry, lengths, resets, masks


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def run(cell, params, xs, carry, lengths, resets, reverse, masks):
    final, ys = unroll(
        cell,
        params,
        xs,
        type(cell.initial_carry(params, (B,), xs.dtype))(**carry),
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        masks=RecurrentMasks(**masks),
    )
    return final._asdict(), ys


def test_every_cell_is_transcribed():
    assert set(EQUATIONS) == set(CONSTRUCTORS), "write the equations of a new cell in plain NumPy, in *_equations.py"


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_equals_equations(name, reverse, noisy):
    cell, params, xs, carry, lengths, resets, masks = make_arguments(name, noisy)
    expected = transcription(name, params, xs, carry, lengths, resets, reverse, masks)
    actual = run(cell, params, xs, carry, lengths, resets, reverse, masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), actual, expected)


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_gradients_equal_differences_of_the_equations(name):
    """Central differences of the NumPy transcription, array by array in a random direction: no JAX on that side."""
    cell, params, xs, carry, lengths, resets, masks = make_arguments(name, noisy=True)
    rng = np.random.default_rng(2)
    final_weights = {field: rng.normal(size=array.shape) for field, array in carry.items()}
    weights = final_weights, rng.normal(size=(T, *carry["h"].shape))

    def weighted(results):
        return sum(map(lambda a, w: (a * w).sum(), *map(jax.tree.leaves, (results, weights))))

    def loss(*inputs):
        return weighted(run(cell, *inputs, lengths, resets, False, masks))

    inputs = (params, xs, carry)
    # Waited for: on a CPU JAX reads the memory of NumPy's arrays, which are changed below.
    gradients = jax.block_until_ready(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs))
    for array, gradient in zip(jax.tree.leaves(inputs), jax.tree.leaves(gradients), strict=True):
        value, direction, sums = array.copy(), rng.normal(size=array.shape), []
        for moved in (1e-5, -1e-5):
            array[...] = value + moved * direction
            sums.append(weighted(transcription(name, *inputs, lengths, resets, False, masks)))
        array[...] = value
        np.testing.assert_allclose((gradient * direction).sum(), (sums[0] - sums[1]) / 2e-5, rtol=1e-8, atol=1e-8)
