"""What holds of `unroll` itself, whatever the cell."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from lstm_research.common.errors import UserError
from lstm_research.models.cells import LSTM
from lstm_research.models.recurrence import unroll

D, H = 2, 3
CELL = LSTM(H)


def sum_of_squares(engine, params, xs, lengths):
    return (unroll(CELL, params, xs, lengths=lengths, engine=engine)[1] ** 2).sum()


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual, expected)


@pytest.mark.usefixtures("unchecked_shapes")  # the annotations know numbers only
@pytest.mark.parametrize("engine", ["scan", "fused"])
def test_one_program_for_any_number_of_steps_and_sequences(engine):
    """`jax.export` with symbols for T and B: the value and the gradients."""

    def differentiate(params, xs, lengths):
        return jax.value_and_grad(lambda *both: sum_of_squares(engine, *both, lengths), argnums=(0, 1))(params, xs)

    T, B = jax.export.symbolic_shape("t, b")
    params = CELL.init(jax.random.key(0), D)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    program = jax.export.export(jax.jit(differentiate))(
        shapes, jax.ShapeDtypeStruct((T, B, D), "float32"), jax.ShapeDtypeStruct((B,), "int32")
    )
    for T, B in ((5, 4), (1, 9)):
        arguments = (params, jax.random.normal(jax.random.key(1), (T, B, D)), jnp.arange(B, dtype="int32") % (T + 1))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
            program.call(*arguments),
            differentiate(*arguments),
        )


@pytest.mark.parametrize("engine", ["scan", "fused", "chunked"])
def test_a_second_call_outside_of_jit_compiles_nothing(engine, caplog):
    params = CELL.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (7, 4, D))
    lengths = jnp.arange(4)

    def compiled():
        caplog.clear()
        with jax.log_compiles(True), caplog.at_level(logging.WARNING):
            sum_of_squares(engine, params, xs, lengths)
            jax.grad(sum_of_squares, argnums=1)(engine, params, xs, lengths)
        return [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]

    assert compiled()
    assert compiled() == []


class Scaled(LSTM):
    """Not a dataclass, so that all scales are equal by the comparison it inherits."""

    def __init__(self, scale):
        super().__init__(H)
        object.__setattr__(self, "scale", scale)

    def update(self, params, carry, z, r):
        new, y = super().update(params, carry, z, r)
        return new, y * self.scale


@pytest.mark.parametrize("engine", ["scan", "fused", "chunked"])
def test_cells_that_are_equal_are_not_taken_for_the_same(engine):
    assert Scaled(1.0) == Scaled(2.0)
    params = CELL.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (4, 3, D))
    once, twice = (unroll(Scaled(scale), params, xs, engine=engine)[1] for scale in (1.0, 2.0))
    np.testing.assert_allclose(2 * once, twice, rtol=1e-6)
    assert abs(once).max() > 0.01


@pytest.mark.parametrize("engine", ["scan", "fused", "chunked", "auto"])
def test_a_mesh_of_one_device(engine):
    """Explicit axes, and `jax.shard_map`."""
    params = CELL.init(jax.random.key(0), D)
    arguments = (params, jax.random.normal(jax.random.key(1), (7, 4, D)), jnp.arange(4))
    differentiate = jax.jit(jax.value_and_grad(functools.partial(sum_of_squares, engine), argnums=(0, 1)))
    expected = differentiate(*arguments)
    specs = (PartitionSpec(), PartitionSpec(None, "data"), PartitionSpec("data"))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        actual = differentiate(*map(jax.device_put, arguments, (jax.NamedSharding(mesh, spec) for spec in specs)))
    assert_close(actual, expected)
    with jax.set_mesh(jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))):
        total = jax.shard_map(
            lambda *part: jax.lax.psum(sum_of_squares(engine, *part), "data"), in_specs=specs, out_specs=PartitionSpec()
        )
        actual = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(*arguments)
    assert_close(actual, expected)


def test_cudnn_is_not_for_arrays_that_the_program_divides():
    params = CELL.init(jax.random.key(0), D)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh), pytest.raises(UserError, match="cannot be divided among devices"):
        unroll(CELL, params, jnp.ones((7, 4, D)), engine="cudnn")


def test_a_cell_without_input():
    params = CELL.init(jax.random.key(0), 0)
    assert params["input_kernel"].shape == (0, 4 * H)
    carry = CELL.initial_carry(params, (2,))._replace(h=jnp.ones((2, H)))
    results = [unroll(CELL, params, jnp.ones((5, 2, 0)), carry, engine=engine) for engine in ("scan", "fused")]
    assert_close(*results)
    assert abs(results[0][1]).max() > 0.01
