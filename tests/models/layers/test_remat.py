"""Layers that are computed again on the way back: the same gradients from less that is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates, RecurrentStack, functional
from lstm_research.models.recurrence.observe import observe

T, B, D, H = 64, 8, 16, 32
RATES = DropoutRates(input_rate=0.2, layer_rate=0.2, recurrent_rate=0.2, weight_rate=0.2, zoneout_h_rate=0.1)


def make(remat, **options):
    stack = RecurrentStack(
        CELLS["lstm"](H), D, num_layers=3, rates=RATES, remat=remat, rngs=nnx.Rngs(params=jax.random.key(0)), **options
    )
    apply, params = functional(stack)

    def loss(params, xs, lengths):
        carry, ys = apply(params, xs, lengths=lengths, key=jax.random.key(1))
        return (ys**2).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(carry))

    return loss, params


XS = jax.random.normal(jax.random.key(2), (T, B, D))
LENGTHS = jnp.arange(B) * T // (B - 1)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"engine": "scan"}])
def test_the_gradients_are_the_same(options):
    (kept, params), (again, _) = make(False, **options), make(True, **options)
    expected, actual = (jax.jit(jax.value_and_grad(loss))(params, XS, LENGTHS) for loss in (kept, again))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), actual, expected)


def test_a_layer_keeps_its_input_alone():
    # That of the whole program tells nothing here: the CPU's compiler drops the barriers between forward and back.
    sizes = []
    for remat in (False, True):
        loss, params = make(remat)
        kept = jax.tree.leaves(jax.eval_shape(lambda params, loss=loss: jax.vjp(loss, params, XS, LENGTHS)[1], params))
        sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in kept if leaf.ndim == 3))
    inputs = T * B * (D + 2 * H) * 4
    # The stack's own dropout and the loss keep something too.
    assert inputs <= sizes[1] < 3 * inputs < sizes[0], (inputs, sizes)


def test_what_is_observed_is_seen():
    stack = RecurrentStack(CELLS["lstm"](H), D, num_layers=2, remat=True, rngs=nnx.Rngs(params=jax.random.key(0)))
    apply, params = functional(stack)

    def states(params):
        with observe() as layers:
            apply(params, XS)
        return [layer.states.h for layer in layers]

    assert [leaf.shape for leaf in jax.jit(states)(params)] == [(T, B, H)] * 2
