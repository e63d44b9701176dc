"""A batch divided among four devices; a program of its own, because the number of devices is fixed when JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lstm_research.models.cells import CELLS
from lstm_research.models.recurrence import engines, unroll

T, B, D, H = 5, 8, 3, 4
# Of the parameters, the inputs, the lengths and the resets.
SPECS = (PartitionSpec(), PartitionSpec(None, "data"), PartitionSpec("data"), PartitionSpec(None, "data"))
COLLECTIVES = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\S*\(")


def loss(cell, engine, params, xs, lengths, resets):
    carry, ys = unroll(cell, params, xs, lengths=lengths, resets=resets, engine=engine)
    return (ys**2).sum() + sum((leaf**3).sum() for leaf in jax.tree.leaves(carry))


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), actual, expected)


def inside_and_outside_of_shard_map(of_part, arguments, expected):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def total(*arguments):
        return jax.lax.psum(of_part(*arguments), "data")

    mapped = jax.shard_map(total, mesh=mesh, in_specs=SPECS, out_specs=PartitionSpec())
    assert_close(jax.jit(jax.value_and_grad(mapped, argnums=(0, 1)))(*arguments), expected)

    def differentiated(*arguments):
        value, gradients = jax.value_and_grad(of_part, argnums=(0, 1))(*arguments)
        return jax.lax.psum(value, "data"), gradients

    mapped = jax.shard_map(differentiated, mesh=mesh, in_specs=SPECS, out_specs=(PartitionSpec(), SPECS[:2]))
    program = jax.jit(mapped).lower(*arguments).compile()
    assert_close(program(*arguments), expected)
    assert_exchanges_sums_alone(program)


def divided_by_the_compiler(of_part, arguments, expected, axis_type, once):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    shardings = tuple(NamedSharding(mesh, spec) for spec in SPECS)
    with jax.set_mesh(mesh):
        arguments = tuple(map(jax.device_put, arguments, shardings))
        program = jax.jit(jax.value_and_grad(of_part, argnums=(0, 1))).lower(*arguments).compile()
        assert_close(program(*arguments), expected)
    assert_exchanges_sums_alone(program, once)


def assert_exchanges_sums_alone(program, once=True):
    """Sums of gradients are all that devices exchange, and if `once`, not inside a loop."""
    computation = None
    for line in program.as_text().splitlines():
        computation = line if line.endswith("{") else computation
        found = COLLECTIVES.search(line)
        if found:
            assert found[1] == "all-reduce", line
            assert not once or computation.startswith("ENTRY"), (computation, line)


def auto_leaves_out_cudnn(params, xs):
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("lstm_research").addHandler(handler)
    logging.getLogger("lstm_research").setLevel("DEBUG")
    engines.ENGINES["cudnn"] = engines.ENGINES["cudnn"]._replace(refusal=lambda *_, **__: None)
    unroll(CELLS["lstm"](H), params, xs)
    (message,) = records
    assert "engine 'auto' takes 'fused'" in message
    assert "divided among 4 devices" in message


def main():
    assert jax.device_count() == 4
    lengths, resets = jnp.arange(B) % (T + 1), jax.random.bernoulli(jax.random.key(2), 0.3, (T, B))
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    for name, engine in (("lstm", "fused"), ("lstm", "chunked"), ("layer_norm_gru", "fused")):
        cell = CELLS[name](H, learned_initial_state=name == "layer_norm_gru")
        params = jax.tree.map(lambda leaf: leaf + 0.1, cell.init(jax.random.key(0), D))
        arguments = (params, xs, lengths, resets)
        expected = jax.jit(jax.value_and_grad(functools.partial(loss, cell, "scan"), argnums=(0, 1)))(*arguments)
        of_part = functools.partial(loss, cell, engine)
        inside_and_outside_of_shard_map(of_part, arguments, expected)
        # The compiler sums over the devices what each turn of a loop adds to a gradient: with "fused" that of vectors
        # like the scales of layer normalisation, with the others that of kernels too.
        once = (name, engine) == ("lstm", "fused")
        divided_by_the_compiler(of_part, arguments, expected, AxisType.Auto, once)
        if name == "lstm":
            divided_by_the_compiler(of_part, arguments, expected, AxisType.Explicit, once)
        print("checked", name, engine)
    auto_leaves_out_cudnn(CELLS["lstm"](H).init(jax.random.key(0), D), xs)


if __name__ == "__main__":
    main()
