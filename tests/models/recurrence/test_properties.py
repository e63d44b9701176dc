"""The property table: every property of `unroll`, for every engine and every cell.

A row added to `CELLS` or `ENGINES` is tested by everything here. A property is a function of a `Case` whose name
starts with `property_`; it computes in float64 unless it says otherwise.
"""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lstm_research.models.cells import CELLS, Cell
from lstm_research.models.recurrence import ENGINES, RecurrentMasks, unroll

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
        return random_like(0, init(self.cell), np.zeros((T, B, D)), self.cell.initial_carry({}, (B,)))

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


# Time.


def property_equals_loop_of_steps(case):
    params, xs, carry = case.inputs
    state, ys = carry, []
    for x in xs:
        state, y = compiled_step(case.cell)(params, state, x)
        ys.append(y)
    assert_close(case.run(*case.inputs), (state, np.stack(ys)))


def property_equals_two_halves(case):
    params, xs, carry = case.inputs
    for reverse in (False, True):
        pieces = (xs[2:], xs[:2]) if reverse else (xs[:2], xs[2:])
        middle, first = case.run(params, pieces[0], carry, reverse)
        final, second = case.run(params, pieces[1], middle, reverse)
        ys = np.concatenate([second, first] if reverse else [first, second])
        assert_close((final, ys), case.run(*case.inputs, reverse))


def property_starts_from_the_initial_carry(case):
    params, xs, _ = case.inputs
    zero = fetch(case.cell.initial_carry(params, (B,), xs.dtype))
    assert_equal(case.run(params, xs, None), case.run(params, xs, zero))


def property_equals_oracle(case):
    """Lengths, resets and direction together, in results and in gradients."""
    for reverse in (False, True):
        slow = functools.partial(oracle, case.cell, reverse=reverse, lengths=LENGTHS, resets=case.options["resets"])
        gradients, results = case.differentiate(*case.inputs, reverse, **case.options)
        assert_close(results, slow(*case.inputs))
        if not reverse:
            slow_gradient = jax.jit(jax.grad(lambda *inputs: weighted_sum(slow(*inputs)), argnums=(0, 1, 2)))  # noqa: B023
            assert_close(gradients, slow_gradient(*case.inputs))


def property_lengths(case):
    """Each sequence gives what it gives alone and unpadded; then zeros, and the carry stays."""
    params, xs, carry = case.inputs
    final, ys = case.run(params, xs, carry, lengths=case.options["lengths"])
    for b, length in enumerate(LENGTHS):
        alone = slice(b, b + 1)
        expected_final, expected_ys = case.run(params, xs[:length, alone], pick(carry, alone))
        assert_close((pick(final, alone), ys[:length, alone]), (expected_final, expected_ys))
        assert not ys[length:, b].any()
    assert_equal(pick(final, LENGTHS.index(0)), pick(carry, LENGTHS.index(0)))
    full = case.run(params, xs, carry, lengths=np.full(B, T))
    assert_close(full, case.run(params, xs, carry))
    assert_equal(case.run(params, xs, carry, lengths=np.zeros(B, int)), (carry, np.zeros((T, B, H))))


def property_resets(case):
    """A reset at t is a new call at t from the initial carry, whatever came before; earlier steps do not notice."""
    params, xs, carry = case.inputs
    for reverse in (False, True):
        without = case.run(params, xs, carry, reverse)
        # Of the same number of steps in either direction, which saves compilations.
        for t, after in ((T - 1, slice(None)), (1, slice(2))) if reverse else ((0, slice(None)), (2, slice(2, T))):
            resets = np.arange(T)[:, None] == np.full(B, t)
            final, ys = case.run(params, xs, carry, reverse, resets=resets)
            assert_close((final, ys[after]), case.run(params, xs[after], None, reverse))
            before = slice(t + 1, T) if reverse else slice(t)
            assert_close(ys[before], without[1][before])
        assert_close(case.run(params, xs, carry, reverse, resets=np.zeros((T, B), bool)), without)


def property_resets_cut_the_gradient(case):
    _, into_xs, into_carry = case.gradient(*case.inputs, resets=np.arange(T)[:, None] == np.zeros(B))
    assert not any(leaf.any() for leaf in jax.tree.leaves(into_carry))
    assert into_xs.all()


def property_resets_on_padding_do_nothing(case):
    padding = np.arange(T)[:, None] >= np.array(LENGTHS)
    for reverse in (False, True):
        quiet = case.options | {"resets": case.options["resets"] & ~padding}
        loud = case.options | {"resets": case.options["resets"] | padding}
        call = functools.partial(case.differentiate, *case.inputs, reverse)
        assert_equal(call(**loud), call(**quiet))


def property_reverse(case):
    """Reading backwards is reading each sequence flipped by its own length."""
    params, xs, carry = case.inputs
    resets = case.options["resets"]

    def flip(array):
        out = np.zeros_like(array)
        for b, length in enumerate(LENGTHS):
            out[:length, b] = array[:length, b][::-1]
        return out

    final, ys = case.run(params, flip(xs), carry, lengths=case.options["lengths"], resets=flip(resets))
    assert_close(case.differentiate(*case.inputs, True, **case.options)[1], (final, flip(ys)))


def property_padding_is_inert(case):
    """NaN and huge numbers in the padding change no bit of results and gradients, nor of second derivatives."""
    params, xs, carry = case.inputs
    padding = (np.arange(T)[:, None] >= np.array(LENGTHS))[:, :, None]
    for reverse in (False, True):
        clean = case.differentiate(params, np.where(padding, 0, xs), carry, reverse, **case.options)
        for filling in (np.nan, np.inf, 1e300):
            dirty_xs = np.where(padding, filling, xs)
            assert_equal(case.differentiate(params, dirty_xs, carry, reverse, **case.options), clean)
        _, into_xs, _ = clean[0]
        assert not np.where(padding, into_xs, 0).any()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))

    @jax.jit
    def product(xs):
        gradient = functools.partial(case.gradient, xs=xs, carry=carry, **case.options)
        return jax.jvp(gradient, (params,), (params,))[1]

    assert_equal(product(np.where(padding, np.nan, xs)), product(np.where(padding, 0, xs)))


def property_empty_and_single(case):
    params, xs, carry = case.inputs
    assert_equal(case.run(params, xs[:0], carry), (carry, np.zeros((0, B, H))))
    into_params, _, into_carry = case.gradient(params, xs[:0], carry)
    assert not any(leaf.any() for leaf in jax.tree.leaves(into_params))
    assert all(leaf.all() for leaf in jax.tree.leaves(into_carry))
    none = {"lengths": np.zeros(0, int), "resets": np.zeros((T, 0), bool)}
    assert case.run(params, xs[:, :0], pick(carry, slice(0)), **none)[1].shape == (T, 0, H)
    small = dataclasses.replace(case.cell, hidden_size=1)
    (params,) = random_like(1, small.init(jax.random.key(0), 1))
    carry = fetch(small.initial_carry(params, (1,), "float64"))
    actual = compiled(small, case.engine, False)(params, xs[:1, :1, :1], carry)
    assert_close(actual, oracle(small, params, xs[:1, :1, :1], carry))


# Transformations.


def property_jit(case):
    inputs, options = jax.tree.map(jnp.asarray, (case.inputs, case.options))
    actual = unroll(case.cell, *inputs, **options, engine=case.engine)
    assert_close(actual, case.differentiate(*case.inputs, **case.options)[1])


def property_compiles_once(case):
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def results(cell, *inputs):
        traces.append(cell)
        return unroll(cell, *inputs, engine=case.engine)

    for seed in range(3):
        # A new and equal description of the cell must not cost a compilation either.
        results(dataclasses.replace(case.cell), *random_like(seed, *case.inputs))
    assert len(traces) == 1


def property_vmap(case):
    """Over parameter sets with shared data, over data with shared parameters, and over both with options."""
    sets = [random_like(seed, *case.inputs) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
    first = sets[0]
    over_params = jax.jit(jax.vmap(case.run, in_axes=(0, None, None)))(stacked[0], *first[1:])
    over_data = jax.jit(jax.vmap(case.run, in_axes=(None, 0, 0)))(first[0], *stacked[1:])
    over_all = jax.jit(jax.vmap(functools.partial(case.run, **case.options)))(*stacked)
    for index, inputs in enumerate(sets):
        assert_close(pick(over_params, index), case.run(inputs[0], *first[1:]))
        assert_close(pick(over_data, index), case.run(first[0], *inputs[1:]))
        assert_close(pick(over_all, index), case.run(*inputs, **case.options))


def property_vmap_of_grad(case):
    """One gradient per sequence; their sum is the gradient of the batch."""
    params, xs, carry = case.inputs

    def loss(params, x, state, length, reset):
        state = jax.tree.map(lambda leaf: leaf[None], state)
        options = {"lengths": length[None], "resets": reset[:, None]}
        return weighted_sum(case.run(params, x[:, None], state, **options))

    one_each = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1, 2)), in_axes=(None, 1, 0, 0, 1), out_axes=(0, 1, 0)))
    into_params, *rest = fetch(one_each(params, xs, carry, *case.options.values()))
    total = jax.tree.map(lambda leaf: leaf.sum(0), into_params)
    assert_close((total, *rest), case.gradient(*case.inputs, **case.options))


def property_jvp(case):
    """The tangent agrees with finite differences, and is the transpose of the gradient."""
    tangents = random_like(1, *case.inputs)
    loss = functools.partial(case.loss, **case.options)
    _, tangent = jax.jit(lambda *inputs: jax.jvp(loss, inputs, tangents))(*case.inputs)
    ahead, behind = (
        loss(*jax.tree.map(lambda a, v, e=epsilon: a + e * v, case.inputs, tangents)) for epsilon in (1e-5, -1e-5)
    )
    assert_close(tangent, (ahead - behind) / 2e-5, 1e-8)
    products = jax.tree.map(np.vdot, case.gradient(*case.inputs, **case.options), tangents)
    assert_close(tangent, sum(jax.tree.leaves(products)))


def property_second_derivatives(case):
    """First and second derivatives in both modes, against finite differences."""
    vector, unravel = jax.flatten_util.ravel_pytree(case.inputs)

    @jax.jit
    def loss(vector):
        return case.loss(*unravel(vector), **case.options)

    # Forward over forward; then forward and reverse over reverse. (`property_jvp` has reverse alone.)
    check_grads(loss, (vector,), order=2, modes=("fwd",), rtol=1e-6, atol=1e-6, eps=1e-5)
    check_grads(jax.jit(jax.grad(loss)), (vector,), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6, eps=1e-5)


def property_other_platforms(case):
    """Lowers for devices that this machine need not have."""
    exported = jax.export.export(
        jax.jit(functools.partial(case.gradient, **case.options)), platforms=("tpu", "cuda", "cpu")
    )(*case.inputs)
    assert exported.platforms == ("tpu", "cuda", "cpu")


def property_pmap(case):
    one_device = jax.tree.map(lambda leaf: np.asarray(leaf)[None], (*case.inputs, case.options))
    mapped = jax.pmap(lambda params, xs, carry, options: case.gradient(params, xs, carry, **options))
    assert_close(pick(mapped(*one_device), 0), case.gradient(*case.inputs, **case.options))


# Numbers.


def property_bfloat16(case):
    expected = case.differentiate(*case.inputs, **case.options)[1]
    low = jax.tree.map(lambda a: a.astype("bfloat16"), case.inputs)
    gradients, actual = case.differentiate(*low, **case.options)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves((gradients, actual)))
    assert_close(jax.tree.map(lambda a: a.astype("float64"), actual), expected, 0.05)
    params = case.cell.init(jax.random.key(0), D, "bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    # Masks in another precision do not decide the precision; parameters in a higher one do.
    masks = RecurrentMasks(dropout=np.ones((B, H)), zoneout_h=np.zeros((T, B, H)))
    assert case.run(params, low[1], None, masks=masks)[1].dtype == jnp.bfloat16
    assert case.run(params, low[1].astype("float32"), low[2])[1].dtype == jnp.float32


def property_float64_and_float32(case):
    results = case.differentiate(*case.inputs, **case.options)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(results))
    single = jax.tree.map(lambda a: a.astype("float32"), case.inputs)
    low = case.differentiate(*single, **case.options)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low))
    assert_close(jax.tree.map(lambda a: a.astype("float64"), low), results, 3e-5)


# Noise.


def property_dropout_masks(case):
    """One mask for all steps is the same mask at every step; a mask per step does what the oracle does."""
    once = (np.random.default_rng(2).random((B, H)) < 0.6) / 0.6
    each = (np.random.default_rng(3).random((T, B, H)) < 0.6) / 0.6
    actual = case.run(*case.inputs, True, **case.options, masks=RecurrentMasks(dropout=once))
    repeated = RecurrentMasks(dropout=np.broadcast_to(once, (T, B, H)))
    assert_close(actual, case.run(*case.inputs, True, **case.options, masks=repeated))
    options = case.options | {"masks": RecurrentMasks(dropout=each)}
    assert_close(case.run(*case.inputs, True, **options), oracle(case.cell, *case.inputs, reverse=True, **options))
    ones = RecurrentMasks(dropout=np.ones((B, H)))
    assert_close(case.run(*case.inputs, True, **case.options, masks=ones), case.run(*case.inputs, True, **case.options))


def property_zoneout_masks(case):
    _, _, carry = case.inputs
    rng = np.random.default_rng(4)

    def masks(value):
        return RecurrentMasks(zoneout_c=value if "c" in carry._fields else None, zoneout_h=value)

    assert_close(case.run(*case.inputs, masks=masks(np.zeros((T, B, H)))), case.run(*case.inputs))
    kept, ys = case.run(*case.inputs, masks=masks(np.ones((T, B, H))))
    assert_equal(kept, carry)
    assert_equal(ys, np.broadcast_to(carry.h, (T, B, H)))
    for value in (rng.random((T, B, H)), (rng.random((T, B, H)) < 0.5) * 1.0):
        options = case.options | {"masks": masks(value)}
        assert_close(case.run(*case.inputs, True, **options), oracle(case.cell, *case.inputs, reverse=True, **options))
    rate = masks(np.full((T, 1, 1), 0.3))
    assert_close(case.run(*case.inputs, masks=rate), case.run(*case.inputs, masks=masks(np.full((T, B, H), 0.3))))


PROPERTIES = {
    name.removeprefix("property_"): function for name, function in globals().items() if name.startswith("property_")
}


@functools.cache
def make_case(cell, engine):
    return Case(CELLS[cell](hidden_size=H), engine)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("prop", PROPERTIES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cell", CELLS)
def test_property(cell, engine, prop):
    PROPERTIES[prop](make_case(cell, engine))
