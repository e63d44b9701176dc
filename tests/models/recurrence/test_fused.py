"""What the fused engine promises beyond equality: no weight-sized sums in its loops, and less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.cells import CELLS, LSTM, RNN, GatedCell, HiddenCarry, LSTMCarry
from lstm_research.models.cells.base import apply
from lstm_research.models.recurrence import RecurrentMasks, unroll
from lstm_research.models.recurrence.mesh import stacked

# Sizes that no two axes share, so that the shape of a weight gradient is the shape of nothing else.
D, H, T, B = 5, 7, 11, 3


def subprograms(jaxpr):
    for equation in jaxpr.eqns:
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, tuple | list) else [parameter]:
                if hasattr(part, "eqns") or hasattr(part, "jaxpr"):
                    yield equation, part if hasattr(part, "eqns") else part.jaxpr


def equations_in_loops(jaxpr, inside=False):
    if inside:
        yield from jaxpr.eqns
    for equation, inner in subprograms(jaxpr):
        yield from equations_in_loops(inner, inside or equation.primitive.name in ("scan", "while"))


def gradient_program(cell, engine):
    params = cell.init(jax.random.key(0), D)
    xs = jnp.ones((T, B, D))
    options = {"lengths": jnp.array([T, 0, 3]), "resets": jnp.zeros((T, B), bool)}

    def loss(params, xs):
        carry, ys = unroll(cell, params, xs, engine=engine, **options)
        return jnp.sum(ys**2) + sum(map(jnp.sum, jax.tree.leaves(carry)))

    kernels = {value.shape for name, value in params.items() if name.endswith("kernel") and value.ndim == 2}
    return jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, xs), kernels


def weight_sized_sums(cell, engine):
    """The additions inside loops whose result has the shape of a kernel, or of one transposed."""
    program, kernels = gradient_program(cell, engine)
    shapes = kernels | {shape[::-1] for shape in kernels}
    return [
        equation
        for equation in equations_in_loops(program.jaxpr)
        if equation.primitive.name in ("add", "add_any") and equation.outvars[0].aval.shape in shapes
    ]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CELLS)
def test_no_weight_gradient_is_accumulated_in_a_loop(name):
    assert weight_sized_sums(CELLS[name](H), "fused") == []


def test_the_reference_engine_does_accumulate():
    """So the test above can fail."""
    assert len(weight_sized_sums(LSTM(H), "scan")) >= 2


@pytest.mark.parametrize("name", CELLS)
def test_the_loops_hold_no_product_of_two_sequences(name):
    """A step back holds products of `[B, .]` with a kernel: none of `[., B]` with `[B, .]`, a weight gradient."""
    program, kernels = gradient_program(CELLS[name](H), "fused")
    shapes = kernels | {shape[::-1] for shape in kernels}
    products = [e for e in equations_in_loops(program.jaxpr) if e.primitive.name == "dot_general"]
    assert all(equation.outvars[0].aval.shape not in shapes for equation in products)


def in_three_parts(cell):
    return isinstance(cell, GatedCell) and type(cell).advance in (GatedCell.advance, LSTM.advance)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if in_three_parts(cell(H))])
@pytest.mark.usefixtures("x64")
def test_additive_cells_read_the_sum_alone(name):
    """The engine keeps z + r in one array where a cell says so; where it does not, the parts must matter."""
    cell = CELLS[name](H)
    params = jax.tree.map(lambda a: a + 0.1, cell.init(jax.random.key(0), D, "float64"))
    carry = jax.tree.map(lambda a: a + 0.3, cell.initial_carry(params, (B,), "float64"))
    z = cell.project(params, jax.random.normal(jax.random.key(1), (B, D), "float64"))
    r = cell.mix(params, carry)
    apart, summed = cell.update(params, carry, z, r), cell.update(params, carry, z + r, jnp.zeros_like(r))
    equal = all(np.allclose(a, b, atol=1e-12) for a, b in zip(*map(jax.tree.leaves, (apart, summed)), strict=True))
    assert equal == cell.additive


def temporary_bytes(cell, engine, shape=(64, 32, 48), **options):
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), shape[-1]))
    xs = jax.ShapeDtypeStruct(shape, "float32")

    def loss(params, xs):
        return jnp.sum(unroll(cell, params, xs, engine=engine, **options)[1] ** 2)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, xs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("name", "share"), [("lstm", 0.6), ("peephole_lstm", 0.6), ("gru", 0.75), ("rnn", 0.8)])
def test_needs_less_memory_than_the_reference_engine(name, share):
    assert temporary_bytes(CELLS[name](64), "fused") < share * temporary_bytes(CELLS[name](64), "scan")


def test_cotangents_take_the_place_of_the_pre_activations():
    """Of arrays of all T steps there are z + r, c, h, the outputs and their cotangents: 8 H a step and sequence."""
    T, B, D, H = 128, 32, 16, 64
    assert temporary_bytes(LSTM(H), "fused", (T, B, D)) < 1.15 * (8 * H + D) * T * B * 4


def test_chunked_needs_an_eighth_of_the_memory():
    T, B, H = 4096, 16, 256
    assert temporary_bytes(LSTM(H), "chunked", (T, B, H)) <= temporary_bytes(LSTM(H), "scan", (T, B, H)) / 8


def gradients(cell, engine):
    params = jax.tree.map(lambda a: a + 0.1, cell.init(jax.random.key(0), D, "float64"))
    xs = jax.random.normal(jax.random.key(1), (T, B, D), "float64")
    return jax.grad(lambda params: jnp.sum(jnp.sin(unroll(cell, params, xs, engine=engine)[1])))(params)


@dataclasses.dataclass(frozen=True)
class OwnUpdate(RNN):
    """Reads z and r apart, and says nothing of `additive`, which its parent says of its own update."""

    def update(self, params, carry, z, r):
        h = jnp.tanh(z) * jnp.cos(r)
        return HiddenCarry(h=h), h


@dataclasses.dataclass(frozen=True)
class OwnAdvance(LSTM):
    def advance(self, params, carry, z, recurrent_mask=None, product=apply):
        c = carry.c + jnp.tanh(product(self.mix, params, carry))[..., :H] * z[..., :H]
        return LSTMCarry(c=c, h=jnp.tanh(c)), jnp.tanh(c)


@dataclasses.dataclass(frozen=True)
class OverTheBatch(RNN):
    """Operands may depend on the whole batch."""

    def advance(self, params, carry, z, recurrent_mask=None, product=apply):
        centred = carry.h - carry.h.mean(0)
        h = jnp.tanh(z + product(self.mix, params, HiddenCarry(h=centred)))
        return HiddenCarry(h=h), h


@pytest.mark.usefixtures("x64", "unchecked_shapes")
@pytest.mark.parametrize("cell", [OwnUpdate(H), OwnAdvance(H), OverTheBatch(H)], ids=str)
def test_a_cell_of_ones_own_has_the_gradients_of_the_reference_engine(cell):
    expected = gradients(cell, "scan")
    for engine in ("fused", "chunked"):
        actual = gradients(cell, engine)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), actual, expected)


@dataclasses.dataclass(frozen=True)
class ReadsKernel(LSTM):
    def update(self, params, carry, z, r):
        carry, y = super().update(params, carry, z, r)
        return carry, y + params["recurrent_kernel"].sum()


@dataclasses.dataclass(frozen=True)
class GetsKernel(LSTM):
    def update(self, params, carry, z, r):
        carry, y = super().update(params, carry, z, r)
        return carry, y + params.get("recurrent_kernel", jnp.zeros(())).sum()


@dataclasses.dataclass(frozen=True)
class OtherParams(LSTM):
    def advance(self, params, carry, z, recurrent_mask=None, product=apply):
        return self.finish(carry, *self.update(params, carry, z, product(self.mix, dict(params), carry)))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (ReadsKernel(H), r"ReadsKernel\.advance reads the parameter 'recurrent_kernel' outside of `product`"),
        (GetsKernel(H), r"GetsKernel\.advance reads the parameter 'recurrent_kernel' outside of `product`"),
        (OtherParams(H), r"OtherParams\.advance hands other parameters to `product`"),
    ],
    ids=str,
)
def test_what_would_lose_a_gradient_is_refused(cell, message):
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(TypeError, match=message):
        jax.grad(lambda params: unroll(cell, params, jnp.ones((T, B, D)), engine="fused")[1].sum())(params)


def test_a_cell_with_a_step_of_its_own_is_refused():
    with pytest.raises(TypeError, match="Stepping overrides step, which engines do not call; override advance"):
        type("Stepping", (LSTM,), {"step": LSTM.step})


def test_masks_that_are_not_differentiated_cost_no_gradient():
    """A mask drawn at random has no tangent, so nothing of its shape is summed or stacked on the way back."""
    params = LSTM(H).init(jax.random.key(0), D)

    def loss(params, masks):
        return unroll(LSTM(H), params, jnp.ones((T, B, D)), masks=masks, engine="fused")[1].sum()

    masks = RecurrentMasks(zoneout_c=jnp.ones((T, 1, H)))
    kept = [
        equation
        for equation in jax.make_jaxpr(jax.grad(loss))(params, masks).eqns
        if equation.primitive.name == "scan" and any(v.aval.shape == (T, 1, H) for v in equation.outvars)
    ]
    assert kept == []


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the product over two axes is slow on CPUs only")
def test_stacked_models_sum_over_one_axis_on_several_devices(monkeypatch):
    """Devices divide the models of a pack, not their batches, whose axis may then be merged with that of time."""

    def merges(num_devices):
        monkeypatch.setattr(jax, "device_count", lambda: num_devices)
        jax.clear_caches()  # of the loops that were traced with another number
        return f"f32[{T * B},{4 * H}]" in str(gradient_program(LSTM(H), "fused")[0])

    assert merges(1)
    assert not merges(2)
    with stacked():
        assert merges(2)
