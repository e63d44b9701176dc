"""The layers inside Linen modules, by Flax's own bridge: the same numbers, gradients and parameter names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from lstm_research.models.cells import GRU, LSTM
from lstm_research.models.layers import Bidirectional, DropoutRates, Recurrent, RecurrentStack, functional

T, B, D, H = 5, 3, 4, 6
LAYERS = {
    "recurrent": functools.partial(Recurrent, GRU(H), D),
    "bidirectional": functools.partial(Bidirectional, LSTM(H), D),
    "stack": functools.partial(RecurrentStack, LSTM(H), D, num_layers=2, bidirectional=True),
    "dropout": functools.partial(RecurrentStack, LSTM(H), D, rates=DropoutRates(output_rate=0.5, recurrent_rate=0.5)),
}


class Tagger(linen.Module):
    """A layer of this package between the modules of Linen."""

    layer: str

    @linen.compact
    def __call__(self, xs, lengths=None, train=False):
        make = LAYERS[self.layer]
        layer = nnx.bridge.to_linen(make.func, *make.args, **make.keywords, name="layer")
        _, ys = layer(xs, lengths=lengths, key=self.make_rng("dropout") if train else None)
        return linen.Dense(2)(ys)


def make_inputs():
    return jax.random.normal(jax.random.key(1), (T, B, D)), jnp.array([T, 2, 0])


@pytest.mark.parametrize("name", ["recurrent", "bidirectional", "stack"])
def test_equals_the_layer_alone_and_names_its_parameters_alike(name):
    xs, lengths = make_inputs()
    module = Tagger(name)
    variables = module.init(jax.random.key(0), xs)
    assert set(variables) == {"params"}
    apply, params = functional(LAYERS[name](rngs=nnx.Rngs(0)))
    theirs = variables["params"]
    assert jax.tree.map(jnp.shape, theirs["layer"]) == jax.tree.map(jnp.shape, params)

    def by_hand(params, xs):
        _, ys = apply(params["layer"], xs, lengths=lengths)
        return ys @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]

    def in_linen(params, xs):
        return module.apply({"params": params}, xs, lengths)

    def differentiate(function):
        def loss(params, xs):
            ys = function(params, xs)
            return jnp.sum(jnp.sin(ys)), ys

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(theirs, xs)

    actual, expected = differentiate(in_linen), differentiate(by_hand)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), actual, expected)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(actual))


def test_other_keys_draw_other_parameters():
    xs, _ = make_inputs()
    kernels = [
        Tagger("recurrent").init(jax.random.key(seed), xs)["params"]["layer"]["params"]["input_kernel"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert jnp.abs(kernels[0] - kernels[2]).min() > 0


def test_dropout_takes_the_key_that_linen_hands_out():
    xs, _ = make_inputs()
    module = Tagger("dropout")
    variables = module.init(jax.random.key(0), xs)

    @functools.partial(jax.jit, static_argnames="train")
    def run(seed, train):
        return module.apply(variables, xs, train=train, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(run(0, True), run(0, True))
    assert jnp.any(run(0, True) != run(1, True))
    np.testing.assert_array_equal(run(0, False), run(1, False))
