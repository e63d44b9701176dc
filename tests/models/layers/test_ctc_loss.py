"""The CTC loss equals brute force, and PyTorch's with its gradient; what has no alignment; padding; precision."""

import importlib
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.layers.ctc_loss import ctc_loss, frames_needed

T, B, V = 9, 5, 5
LENGTHS = jnp.array([9, 7, 9, 3, 4])
LABELS = jnp.array([[0, 1, 2, 3], [2, 2, 3, 0], [0, 0, 0, 0], [3, 3, 1, 1], [3, 3, 3, 3]]).T  # below V - 1
LABEL_LENGTHS = jnp.array([4, 3, 4, 2, 0])
loss = jax.jit(ctc_loss, static_argnames="blank_id")


def draw(*shape, seed=0):
    return 2 * np.random.default_rng(seed).normal(size=shape)


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


@pytest.mark.parametrize("blank_id", [0, V - 1])
def test_equals_pytorch_with_its_gradient(torch, x64, blank_id):
    labels, logits = LABELS + (blank_id == 0), draw(T, B, V)
    theirs = torch.tensor(logits, requires_grad=True)
    lengths = [torch.tensor(np.asarray(each)) for each in (LENGTHS, LABEL_LENGTHS)]
    expected = torch.nn.CTCLoss(blank=blank_id, reduction="none")(
        theirs.log_softmax(-1), torch.tensor(np.asarray(labels.T)), *lengths
    )
    weights = np.arange(1.0, B + 1)
    (expected * torch.tensor(weights)).sum().backward()

    def total(logits):
        losses = loss(logits, LENGTHS, labels, LABEL_LENGTHS, blank_id=blank_id)
        return jnp.sum(losses * weights), losses

    gradient, losses = jax.grad(total, has_aux=True)(jnp.asarray(logits))
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-10)


def test_equals_the_sum_over_all_alignments(x64):
    blank_id, logits = 1, draw(5, 3)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    sums = {}
    for path in itertools.product(range(3), repeat=5):
        labelling = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id)
        total = sum(log_probs[t, symbol] for t, symbol in enumerate(path))
        sums[labelling] = np.logaddexp(sums.get(labelling, -np.inf), total)
    labels = jnp.array([[*y, *[0] * (5 - len(y))] for y in sums]).T
    label_lengths = jnp.array([len(y) for y in sums])
    many = jnp.asarray(np.repeat(logits[:, None], len(sums), axis=1))
    found = loss(many, jnp.full(len(sums), 5), labels, label_lengths, blank_id=blank_id)
    np.testing.assert_allclose(found, [-total for total in sums.values()], rtol=1e-12)
    assert np.exp(-found).sum() == pytest.approx(1)


def test_what_needs_more_frames_than_there_are_has_an_infinite_loss():
    labels = jnp.array([[0, 1, 0], [0, 0, 1], [0, 0, 0], [2, 2, 2]]).T
    label_lengths = jnp.array([3, 3, 3, 1])
    np.testing.assert_array_equal(frames_needed(labels, label_lengths), [3, 4, 5, 1])
    for T in range(7):
        losses = loss(jnp.asarray(draw(6, 4, 4)), jnp.full(4, T), labels, label_lengths, blank_id=3)
        np.testing.assert_array_equal(np.isfinite(losses), frames_needed(labels, label_lengths) <= T)
    empty = loss(jnp.asarray(draw(6, 4, 4)), jnp.zeros(4, int), labels, jnp.zeros(4, int), blank_id=3)
    np.testing.assert_array_equal(empty, 0)


def test_padding_and_the_order_of_the_batch_change_nothing():
    logits = jnp.asarray(draw(T, B, V))
    losses = loss(logits, LENGTHS, LABELS, LABEL_LENGTHS, blank_id=4)
    longer = np.concatenate([np.where(np.arange(T)[:, None, None] < LENGTHS[:, None], logits, 9), draw(2, B, V)])
    labels = np.concatenate([np.where(np.arange(4)[:, None] < LABEL_LENGTHS, LABELS, 2), np.full((2, B), 1)])
    order = np.array([3, 1, 4, 0, 2])
    again = loss(
        jnp.asarray(longer[:, order]),
        LENGTHS[order],
        jnp.asarray(labels[:, order]),
        LABEL_LENGTHS[order],
        blank_id=4,
    )
    np.testing.assert_allclose(again, losses[order], rtol=1e-5)


def test_an_unlikely_utterance(x64):
    """Its log-likelihood is below what the library takes for the logarithm of 0 unless it is told otherwise."""
    T, logits = 3000, jnp.array([0.0, 0.0, 40.0])
    losses = loss(jnp.tile(logits, (T, 1, 1)), jnp.array([T]), jnp.array([[1]]), jnp.array([1]), blank_id=0)
    expected = T * np.log(2 + np.exp(40)) - np.log(T * (T + 1) / 2)  # all alignments are equally likely
    assert expected > 1e5
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_products_are_in_full_precision_on_every_device():
    text = str(jax.make_jaxpr(lambda x: loss(x, LENGTHS, LABELS, LABEL_LENGTHS, blank_id=4))(jnp.zeros((T, B, V))))
    assert text.count("dot_general") == text.count("Precision.HIGHEST, Precision.HIGHEST") > 0
