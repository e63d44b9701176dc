"""A cell, an engine and inputs for them; and what `unroll` means, in Python loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.models.cells import Cell
from lstm_research.models.recurrence import RecurrentMasks, unroll

D, H, T, B = 2, 3, 4, 3
LENGTHS = (T, 0, 3)


@dataclasses.dataclass(frozen=True)
class Case:
    """A cell, an engine, and inputs to run them on."""

    cell: Cell
    engine: str

    @functools.cached_property
    def inputs(self):
        """Params, xs and a carry, all non-zero."""
        return random_like(0, init(self.cell), np.zeros((T, B, D)), zero_carry(self.cell))

    @functools.cached_property
    def options(self):
        """Lengths and resets: at the start, in the middle, on padding."""
        resets = np.zeros((T, B), bool)
        resets[[0, 2, 0, 3, 1, 3], [0, 0, 1, 1, 2, 2]] = True
        return {"lengths": np.array(LENGTHS), "resets": resets}

    def run(self, params, xs, carry, reverse=False, **options):
        return fetch(compiled(self.cell, self.engine, reverse)(params, xs, carry, **options))

    def loss(self, params, xs, carry, **options):
        """A sum over outputs and final states, each number with a weight of its own."""
        return fetch(compiled_loss(self.cell, self.engine, False)(params, xs, carry, **options))

    def differentiate(self, params, xs, carry, reverse=False, **options):
        """The gradients of `loss` and the results of `run`, for one compilation."""
        return fetch(compiled_gradient(self.cell, self.engine, reverse)(params, xs, carry, **options))

    @property
    def sizes(self):
        return self.cell.carry_sizes

    def gradient(self, *inputs, **options):
        return self.differentiate(*inputs, **options)[0]


@functools.cache
def compiled(cell, engine, reverse):
    return jax.jit(functools.partial(unroll, cell, reverse=reverse, engine=engine))


@functools.cache
def compiled_step(cell):
    return jax.jit(cell.step)


@functools.cache
def compiled_loss(cell, engine, reverse):
    return jax.jit(lambda *inputs, **options: weighted_sum(compiled(cell, engine, reverse)(*inputs, **options)))


@functools.cache
def compiled_gradient(cell, engine, reverse):
    def loss(*inputs, **options):
        results = compiled(cell, engine, reverse)(*inputs, **options)
        return weighted_sum(results), results

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))


def zero_carry(cell, batch_size=B):
    return cell.carry_type(**{field: np.zeros((batch_size, size)) for field, size in cell.carry_sizes.items()})


@functools.cache
def init(cell):
    return cell.init(jax.random.key(0), D)


def random_like(seed, *trees):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: 0.7 * rng.normal(size=a.shape), trees)


def fetch(tree):
    """NumPy arrays, whose slices cost no compilation; what is being traced stays as it is."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.core.Tracer) else np.asarray(leaf), tree)


def weighted_sum(tree):
    """A sum in which every step and unit has a weight of its own, and so is the sum of those of the sequences."""

    def of_leaf(leaf):
        shape = (*leaf.shape[:-2], 1, leaf.shape[-1])
        return (leaf * np.cos(1.0 + np.arange(np.prod(shape))).reshape(shape)).sum()

    return sum(map(of_leaf, jax.tree.leaves(tree)))


def assert_close(actual, expected, tolerance=1e-12):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), actual, expected)


def assert_equal(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), actual, expected)


def pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def oracle(cell, params, xs, carry, *, lengths=None, resets=None, reverse=False, masks=None):
    """The semantics of `unroll` in Python loops over sequences and steps, without a batch axis anywhere."""
    masks = masks or RecurrentMasks()
    T, B = xs.shape[:2]
    ys, finals = [[np.zeros(cell.output_size)] * T for _ in range(B)], []
    for b in range(B):
        state = pick(carry, b)
        steps = range(T if lengths is None else int(lengths[b]))
        for t in reversed(steps) if reverse else steps:
            if resets is not None and resets[t, b]:
                state = cell.initial_carry(params, (), xs.dtype)
            dropout = None if masks.dropout is None else masks.dropout[t, b]
            new, y = fetch(compiled_step(cell)(params, state, xs[t, b], dropout))
            if masks.zoneout_c is not None:
                d = masks.zoneout_c[t, b]
                new = new._replace(c=d * state.c + (1 - d) * new.c)
            if masks.zoneout_h is not None:
                d = masks.zoneout_h[t, b]
                y = d * state.h + (1 - d) * new.h
                new = new._replace(h=y)
            state, ys[b][t] = new, y
        finals.append(state)
    stack = (jnp if isinstance(xs, jax.core.Tracer) else np).stack
    return jax.tree.map(lambda *leaves: stack(leaves), *finals), stack([stack(row) for row in ys], axis=1)
