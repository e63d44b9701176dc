"""The transducer loss equals brute force over all alignments, with its gradient; padding; the memory it takes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.models.layers import functional
from lstm_research.models.layers.transducer import Joint, lattice, transducer_loss

T, B, U, V, J = 4, 5, 3, 6, 5
LENGTHS = jnp.array([4, 3, 1, 4, 0])
LABEL_LENGTHS = jnp.array([3, 2, 3, 0, 0])
loss = jax.jit(transducer_loss)


def draw(seed=0):
    """Log-probabilities of labels and blanks, of which both together are less than 1."""
    rng = np.random.default_rng(seed)
    of_labels, of_blanks = -rng.exponential(size=(T, B, U)) - 0.7, -rng.exponential(size=(T, B, U + 1)) - 0.7
    return jnp.asarray(of_labels), jnp.asarray(of_blanks)


def brute_force(of_labels, of_blanks, T, U):
    """The sum over all ways from (0, 0) to (T, U) that end with a blank; of one utterance."""
    if T == 0:
        return 0.0 if U == 0 else math.inf
    total = -math.inf
    for places in itertools.combinations_with_replacement(range(T), U):  # the frame at which each label is written
        u, log_prob = 0, 0.0
        for t in range(T):
            while u < U and places[u] == t:
                log_prob += of_labels[t, u]
                u += 1
            log_prob += of_blanks[t, u]
        total = np.logaddexp(total, log_prob)
    return -total


def test_equals_brute_force(x64):
    for seed in range(3):
        of_labels, of_blanks = draw(seed)
        found = loss(of_labels, of_blanks, LENGTHS, LABEL_LENGTHS)
        expected = [
            brute_force(of_labels[:, b], of_blanks[:, b], int(LENGTHS[b]), int(LABEL_LENGTHS[b])) for b in range(B)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradient_equals_that_of_brute_force_and_differences(x64):
    arrays, weights = draw(1), np.arange(1.0, B + 1)

    def total(of_labels, of_blanks):
        return jnp.sum(loss(of_labels, of_blanks, LENGTHS, LABEL_LENGTHS) * weights)

    gradients = jax.grad(total, argnums=(0, 1))(*arrays)
    for which, gradient in enumerate(map(np.asarray, gradients)):
        for index in np.ndindex(gradient.shape):
            t, b, u = index
            inside = t < LENGTHS[b] and u < LABEL_LENGTHS[b] + which
            changed = [[np.array(each) for each in arrays] for _ in range(2)]
            changed[0][which][index] += 1e-5
            changed[1][which][index] -= 1e-5
            values = [
                brute_force(of_labels[:, b], of_blanks[:, b], int(LENGTHS[b]), int(LABEL_LENGTHS[b]))
                for of_labels, of_blanks in changed
            ]
            difference = weights[b] * (values[0] - values[1]) / 2e-5
            assert gradient[index] == pytest.approx(difference, abs=1e-8)
            assert inside or gradient[index] == 0
    # Every alignment has one blank a frame.
    np.testing.assert_allclose(gradients[1].sum(axis=(0, 2)), -weights * np.asarray(LENGTHS), atol=1e-12)


def test_labels_without_a_frame_have_an_infinite_loss_and_no_gradient():
    def total(*arrays):
        losses = loss(*arrays, jnp.array([0, 0, 4, 4, 4]), jnp.array([1, 0, 3, 0, 1]))
        return jnp.sum(jnp.where(jnp.isfinite(losses), losses, 0)), losses

    gradients, losses = jax.grad(total, argnums=(0, 1), has_aux=True)(*draw())
    assert np.isfinite(losses).tolist() == [False, True, True, True, True]
    assert losses[1] == 0
    assert all(np.isfinite(each).all() for each in gradients)


def test_padding_and_the_order_of_the_batch_change_nothing():
    of_labels, of_blanks = draw()
    losses = loss(of_labels, of_blanks, LENGTHS, LABEL_LENGTHS)
    more = [jnp.pad(each, ((0, 2), (0, 0), (0, 3)), constant_values=-0.1) for each in (of_labels, of_blanks)]
    t, u = jnp.arange(T + 2)[:, None, None], jnp.arange(U + 4)
    more = [
        jnp.where((t < LENGTHS[:, None]) & (u[: U + 3 + extra] < LABEL_LENGTHS[:, None] + extra), each, -0.1)
        for extra, each in enumerate(more)
    ]
    order = np.array([3, 1, 4, 0, 2])
    again = loss(*(each[:, order] for each in more), LENGTHS[order], LABEL_LENGTHS[order])
    np.testing.assert_allclose(again, losses[order], rtol=1e-5)


def test_improbable_labels_lose_no_precision():
    """In float32: losses of thousands of nats, and a label that is nearly impossible."""
    of_labels, of_blanks = (np.asarray(each, "f4") for each in draw())
    of_labels = of_labels * 300
    of_labels[1] = -1e20
    found = loss(jnp.asarray(of_labels), jnp.asarray(of_blanks), LENGTHS, LABEL_LENGTHS)
    for b in (0, 1, 3):
        expected = brute_force(of_labels[:, b].astype(float), of_blanks[:, b], int(LENGTHS[b]), int(LABEL_LENGTHS[b]))
        assert found[b] == pytest.approx(expected, rel=1e-6)


def make_joint():
    apply, params = functional(Joint(4, 3, J, V, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    encoded, predicted = rng.normal(size=(T, B, J)), rng.normal(size=(U + 1, B, J))
    labels = rng.integers(1, V, (U, B))
    return apply, params, *(jnp.asarray(each, "f4") for each in (encoded, predicted)), jnp.asarray(labels)


def test_the_lattice_is_the_joint_network_at_every_place():
    apply, params, encoded, predicted, labels = make_joint()
    found = lattice(lambda e, p: apply(params, e, p), encoded, labels, predicted, blank_id=0)
    hidden = np.tanh(np.asarray(encoded)[:, :, None] + np.swapaxes(predicted, 0, 1))  # [T, B, U + 1, J]
    log_probs = jax.nn.log_softmax(hidden @ params["output"]["kernel"] + params["output"]["bias"])
    np.testing.assert_allclose(found[1], log_probs[..., 0], atol=1e-5)
    for u in range(U):
        for b in range(B):
            np.testing.assert_allclose(found[0][:, b, u], log_probs[:, b, u, labels[u, b]], atol=1e-5)


def sizes(jaxpr):
    """The number of elements of every array of a program."""
    for equation in jaxpr.eqns:
        yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)


def test_the_logits_of_all_places_are_never_in_memory_at_once():
    apply, params, _, _, _ = make_joint()
    T, B, U = 50, 3, 7

    def total(params, encoded, predicted, labels):
        arrays = lattice(lambda e, p: apply(params, e, p), encoded, labels, predicted, blank_id=0)
        return transducer_loss(*arrays, jnp.full(B, T), jnp.full(B, U)).sum()

    arrays = jnp.zeros((T, B, J)), jnp.zeros((U + 1, B, J)), jnp.zeros((U, B), int)
    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(params, *arrays)
    assert max(sizes(program.jaxpr)) <= T * B * max(J, U + 1) < T * B * (U + 1) * V
