"""What holds of `unroll` itself, whatever the cell."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.cells import LSTM
from lstm_research.models.recurrence import unroll

D, H = 2, 3
CELL = LSTM(H)


def sum_of_squares(engine, params, xs, lengths):
    return (unroll(CELL, params, xs, lengths=lengths, engine=engine)[1] ** 2).sum()


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
