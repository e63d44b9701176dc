"""The property table: every property of `unroll`, for every engine and every cell.

A row added to `CELLS` or `ENGINES` is tested by everything here. A property is a function of a `Case` whose name
starts with `property_`; it computes in float64 unless it says otherwise. The whole table runs with `--whole`
(`make test-all`), otherwise a sample in which every cell meets every engine, and every engine every property.
"""

import dataclasses
import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    LENGTHS,
    B,
    Case,
    D,
    H,
    T,
    assert_close,
    assert_equal,
    compiled,
    compiled_step,
    fetch,
    oracle,
    pick,
    random_like,
    weighted_sum,
    zero_carry,
)
from jax.test_util import check_grads

from lstm_research.models.cells import CELLS
from lstm_research.models.recurrence import ENGINES, RecurrentMasks, unroll

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
    assert_equal(case.run(params, xs, carry, lengths=np.zeros(B, int)), (carry, np.zeros((T, B, case.sizes["h"]))))


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
    assert all(np.any(step) for step in into_xs)


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
    assert_equal(case.run(params, xs[:0], carry), (carry, np.zeros((0, B, case.sizes["h"]))))
    into_params, _, into_carry = case.gradient(params, xs[:0], carry)
    assert not any(leaf.any() for leaf in jax.tree.leaves(into_params))
    assert all(leaf.all() for leaf in jax.tree.leaves(into_carry))
    none = {"lengths": np.zeros(0, int), "resets": np.zeros((T, 0), bool)}
    assert case.run(params, xs[:, :0], pick(carry, slice(0)), **none)[1].shape == (T, 0, case.sizes["h"])
    small = dataclasses.replace(case.cell, hidden_size=1)
    (params,) = random_like(1, small.init(jax.random.key(0), 1))
    carry = zero_carry(small, 1)
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

    @jax.jit
    def at(shift):
        return loss(*jax.tree.map(lambda a, v: a + shift * v, case.inputs, tangents))

    # Of fourth order: third derivatives are large where layer normalisation divides by a small deviation.
    h = 1e-4
    differences = 8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))
    assert_close(tangent, differences / (12 * h), 1e-8)
    products = jax.tree.map(np.vdot, case.gradient(*case.inputs, **case.options), tangents)
    assert_close(tangent, sum(jax.tree.leaves(products)))


def property_second_derivatives(case):
    """First and second derivatives in both modes, against finite differences."""
    vector, unravel = jax.flatten_util.ravel_pytree(case.inputs)

    @jax.jit
    def loss(vector):
        return case.loss(*unravel(vector), **case.options)

    # Forward over forward; then forward and reverse over reverse. (`property_jvp` has reverse alone.)
    check_grads(loss, (vector,), order=2, modes=("fwd",), rtol=1e-5, atol=1e-5, eps=1e-5)
    check_grads(jax.jit(jax.grad(loss)), (vector,), order=1, modes=("fwd", "rev"), rtol=1e-5, atol=1e-5, eps=1e-5)


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


def property_engines_agree(case):
    """Results and gradients are those of the reference engine, in float64 and in float32."""
    for reverse in (False, True):
        expected = Case(case.cell, "scan").differentiate(*case.inputs, reverse, **case.options)
        assert_close(case.differentiate(*case.inputs, reverse, **case.options), expected, 1e-10)
    single = jax.tree.map(lambda a: a.astype("float32"), case.inputs)
    expected = Case(case.cell, "scan").differentiate(*single, **case.options)
    assert_close(case.differentiate(*single, **case.options), expected, 1e-5)


def property_mixed_precision(case):
    """Kernels in bfloat16, all else in float32: states stay in float32, and errors those of rounded kernels."""
    params, xs, carry = jax.tree.map(lambda a: a.astype("float32"), case.inputs)
    expected = case.differentiate(params, xs, carry, **case.options)
    low = {k: v.astype("bfloat16") if k.endswith("kernel") else v for k, v in params.items()}
    gradients, results = case.differentiate(low, xs, carry, **case.options)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((results, gradients[1:])))
    assert {k: v.dtype for k, v in gradients[0].items()} == {k: v.dtype for k, v in low.items()}
    as_float32 = jax.tree.map(lambda a: a.astype("float32"), (gradients, results))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * scale), as_float32, expected)


def property_bfloat16(case):
    expected = case.differentiate(*case.inputs, **case.options)[1]
    low = jax.tree.map(lambda a: a.astype("bfloat16"), case.inputs)
    gradients, actual = case.differentiate(*low, **case.options)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves((gradients, actual)))
    assert_close(jax.tree.map(lambda a: a.astype("float64"), actual), expected, 0.05)
    params = case.cell.init(jax.random.key(0), D, "bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    # Masks in another precision do not decide the precision; parameters in a higher one do.
    masks = RecurrentMasks(dropout=np.ones((B, case.sizes["h"])), zoneout_h=np.zeros((T, B, 1)))
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
    P = case.sizes["h"]
    once = (np.random.default_rng(2).random((B, P)) < 0.6) / 0.6
    each = (np.random.default_rng(3).random((T, B, P)) < 0.6) / 0.6
    actual = case.run(*case.inputs, True, **case.options, masks=RecurrentMasks(dropout=once))
    repeated = RecurrentMasks(dropout=np.broadcast_to(once, (T, B, P)))
    assert_close(actual, case.run(*case.inputs, True, **case.options, masks=repeated))
    options = case.options | {"masks": RecurrentMasks(dropout=each)}
    assert_close(case.run(*case.inputs, True, **options), oracle(case.cell, *case.inputs, reverse=True, **options))
    ones = RecurrentMasks(dropout=np.ones((B, P)))
    assert_close(case.run(*case.inputs, True, **case.options, masks=ones), case.run(*case.inputs, True, **case.options))


def property_zoneout_masks(case):
    _, _, carry = case.inputs
    rng = np.random.default_rng(4)

    def masks(draw):
        shapes = {field: (T, B, case.sizes[field]) for field in ("c", "h") if field in case.sizes}
        return RecurrentMasks(**{f"zoneout_{field}": draw(shape) for field, shape in shapes.items()})

    assert_close(case.run(*case.inputs, masks=masks(np.zeros)), case.run(*case.inputs))
    kept, ys = case.run(*case.inputs, masks=masks(np.ones))
    for field in {"c", "h"} & set(case.sizes):
        assert_equal(getattr(kept, field), getattr(carry, field))
    assert_equal(ys, np.broadcast_to(carry.h, ys.shape))
    half = masks(lambda shape: rng.random(shape) < 0.5)
    as_numbers = jax.tree.map(lambda mask: mask * 1.0, half)
    assert_equal(case.run(*case.inputs, masks=half), case.run(*case.inputs, masks=as_numbers))
    for draw in (rng.random, lambda shape: (rng.random(shape) < 0.5) * 1.0):
        options = case.options | {"masks": masks(draw)}
        assert_close(case.run(*case.inputs, True, **options), oracle(case.cell, *case.inputs, reverse=True, **options))
    rate = masks(lambda shape: np.full((T, 1, 1), 0.3))
    full = masks(lambda shape: np.full(shape, 0.3))
    assert_close(case.run(*case.inputs, masks=rate), case.run(*case.inputs, masks=full))


def property_gradients_of_masks(case):
    """Noise may be learned: its gradients, and those of a learned initial state after resets, are the scan's."""
    cell = dataclasses.replace(case.cell, learned_initial_state=True)
    rng = np.random.default_rng(5)
    params, xs, carry = random_like(5, cell.init(jax.random.key(0), D), np.zeros((T, B, D)), zero_carry(cell))
    masks = RecurrentMasks(
        dropout=rng.random((B, case.sizes["h"])),
        zoneout_c=rng.random((T, B, 1)) if "c" in case.sizes else None,
        zoneout_h=rng.random((T, 1, case.sizes["h"])),
    )

    def gradient(engine, *inputs):
        def loss(params, masks, xs, carry, options):
            return weighted_sum(unroll(cell, params, xs, carry, masks=masks, engine=engine, **options))

        return fetch(jax.jit(jax.grad(loss, argnums=(0, 1)))(*inputs, xs, carry, case.options))

    actual = gradient(case.engine, params, masks)
    assert_close(actual, gradient("scan", params, masks))
    assert all(np.any(leaf) for name, leaf in actual[0].items() if name.startswith("initial_"))
    each = masks._replace(dropout=rng.random((T, B, case.sizes["h"])))
    assert_close(gradient(case.engine, params, each), gradient("scan", params, each))


PROPERTIES = {
    name.removeprefix("property_"): function for name, function in globals().items() if name.startswith("property_")
}


@functools.cache
def make_case(cell, engine):
    return Case(CELLS[cell](hidden_size=H), engine)


def serves(engine):
    """Whether an engine takes a plain LSTM in float64 here: what does not (cuDNN) has a test file of its own."""
    case = make_case("lstm", engine)
    inputs = jax.tree.map(jnp.asarray, case.inputs)
    return ENGINES[engine].refusal(case.cell, *inputs, resets=None, masks=RecurrentMasks()) is None


def table():
    """Every cell, engine that this machine serves, and property; what is not in the sample is marked `whole`."""
    engines = [engine for engine in ENGINES if serves(engine)]
    for (i, cell), (j, engine), (k, prop) in itertools.product(
        enumerate(CELLS), enumerate(engines), enumerate(PROPERTIES)
    ):
        in_sample = (5 * i + 7 * j + k) % 61 == 0 or (cell, engine) == ("lstm", "fused")
        yield pytest.param(cell, engine, prop, marks=[] if in_sample else [pytest.mark.whole])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("cell", "engine", "prop"), list(table()))
def test_property(cell, engine, prop):
    PROPERTIES[prop](make_case(cell, engine))
