"""Activation regularisation: against a loop in NumPy, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lstm_research.models.layers.activation_regularization import activation_penalty

T, B, H = 6, 3, 4
WEIGHTS = np.ones((T, B))
WEIGHTS[4:, 1] = 0  # padding
WEIGHTS[2, 2] = 0  # the last symbol of a document
RESETS = np.zeros((T, B), bool)
RESETS[0] = True
RESETS[3, 2] = True


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((T, B, H))), jnp.asarray(rng.standard_normal((T, B, H)))


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (2.0, 0.0), (0.0, 1.0)])
def test_equals_a_loop(alpha, beta, x64):
    ys, raw = arrays()
    expected = 0.0
    for t in range(T):
        for b in range(B):
            expected += WEIGHTS[t, b] * alpha * float(jnp.mean(ys[t, b] ** 2))
            if t > 0 and not RESETS[t, b]:
                expected += WEIGHTS[t, b] * beta * float(np.mean((raw[t, b] - raw[t - 1, b]) ** 2))
    found = activation_penalty(ys, raw, jnp.asarray(WEIGHTS), jnp.asarray(RESETS), alpha=alpha, beta=beta)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_with_all_weights_it_is_the_papers_means(x64):
    ys, raw = arrays()
    found = activation_penalty(ys, raw, jnp.ones((T, B)), jnp.zeros((T, B), bool), alpha=2.0, beta=1.0) / (T * B)
    differences = np.mean((raw[1:] - raw[:-1]) ** 2) * (T - 1) / T
    assert float(found) == pytest.approx(float(2 * jnp.mean(ys**2) + differences), rel=1e-12)


def test_gradient(x64, unchecked_shapes):
    def penalty(ys, raw):
        return activation_penalty(ys, raw, jnp.asarray(WEIGHTS), jnp.asarray(RESETS), alpha=2.0, beta=1.5)

    ys, raw = arrays()
    check_grads(penalty, (ys, raw), order=2, modes=["rev"])
    of_ys, of_raw = jax.grad(penalty, argnums=(0, 1))(ys, raw)
    assert not of_ys[4:, 1].any()
    # The state at the end of a document knows the one before it, and not the one after.
    ahead = jax.grad(lambda r: penalty(ys, r))(jnp.where(jnp.arange(T)[:, None, None] == 3, raw + 1, raw))
    np.testing.assert_array_equal(ahead[2, 2], of_raw[2, 2])
    assert (ahead[2, 0] != of_raw[2, 0]).all()
