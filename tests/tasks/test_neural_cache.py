"""The neural cache: a loop in NumPy, however the text is cut into windows, and what must not reach the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.tasks.neural_cache import NeuralCache

B, N, H, V = 3, 24, 5, 4


def stream(seed=0):
    rng = np.random.default_rng(seed)
    resets = np.zeros((B, N), bool)
    resets[:, 0] = True
    resets[0, [5, 6, 17]] = True
    resets[2, 9] = True
    valid = np.ones((B, N), bool)
    valid[:, :-1] = ~resets[:, 1:]  # the last symbol of a document is followed by none of its own
    valid[1, 20:] = False  # padding
    return {
        "hs": rng.standard_normal((B, N, H)).astype(np.float32),
        "targets": rng.integers(0, V, (B, N)).astype(np.int32),
        "losses": rng.uniform(0.5, 3, (B, N)).astype(np.float32),
        "resets": resets,
        "valid": valid,
    }


def by_loop(cache, hs, targets, losses, resets, valid):
    expected = np.array(losses, np.float64)
    for b in range(B):
        start = 0
        for t in range(N):
            if resets[b, t]:
                start = t
            seen = [i for i in range(max(start, t - cache.window), t) if valid[b, i]]
            if not seen:
                continue
            weights = np.exp(cache.theta * np.array([float(hs[b, t] @ hs[b, i]) for i in seen]))
            hits = weights[[targets[b, i] == targets[b, t] for i in seen]].sum()
            p = (1 - cache.mixing) * np.exp(-losses[b, t]) + cache.mixing * hits / weights.sum()
            expected[b, t] = -np.log(p)
    return expected


def in_windows(cache, arrays, lengths):
    memory = cache.empty(jnp.zeros((1, B, H)))
    found, first = [], 0
    step = jax.jit(cache.mix)
    for length in lengths:
        window = {name: jnp.asarray(array[:, first : first + length]) for name, array in arrays.items()}
        memory, losses = step(memory, **window)
        found.append(losses)
        first += length
    assert first == N
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("window", [1, 4, 7, 100])
@pytest.mark.parametrize("lengths", [(N,), (7, 7, 10), (1,) * N])
def test_equals_a_loop_over_the_text(window, lengths):
    cache, arrays = NeuralCache(window, 0.8, 0.25), stream()
    expected = by_loop(cache, **arrays)
    np.testing.assert_allclose(in_windows(cache, arrays, lengths), expected, rtol=2e-5)
    assert (expected != arrays["losses"]).sum() > N


def test_padding_and_other_documents_reach_nothing():
    cache, arrays = NeuralCache(6, 0.8, 0.25), stream()
    before = in_windows(cache, arrays, (8, 8, 8))
    rng = np.random.default_rng(1)
    other = {name: array.copy() for name, array in arrays.items()}
    other["hs"][1, 20:] = 100 * rng.standard_normal((4, H))  # padding
    other["targets"][~arrays["valid"]] = 0  # what follows a document's last symbol
    other["hs"][0, :5] += 1  # another document
    after = in_windows(cache, other, (8, 8, 8))
    counted = arrays["valid"].copy()
    counted[0, :5] = False
    np.testing.assert_array_equal(after[counted], before[counted])


def test_without_mixing_or_similarity():
    arrays = stream()
    np.testing.assert_allclose(in_windows(NeuralCache(6, 0.8, 0.0), arrays, (N,)), arrays["losses"], rtol=1e-6)
    # θ = 0 counts words: the unigram distribution of the last words.
    cache = NeuralCache(100, 0.0, 0.5)
    found = in_windows(cache, arrays, (N,))
    count = (arrays["targets"][1, :10] == arrays["targets"][1, 10]).mean()
    assert found[1, 10] == pytest.approx(-np.log(0.5 * np.exp(-arrays["losses"][1, 10]) + 0.5 * count), rel=1e-5)


def test_probabilities_sum_to_one():
    cache, arrays = NeuralCache(6, 0.8, 0.25), stream()
    logits = np.random.default_rng(3).standard_normal((B, N, V)).astype(np.float32)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    total = np.zeros((B,))
    for v in range(V):
        last = {name: array.copy() for name, array in arrays.items()}
        last["targets"][:, -1] = v
        last["losses"] = -np.take_along_axis(log_p, last["targets"][..., None], axis=-1)[..., 0]
        total += np.exp(-in_windows(cache, last, (N,))[:, -1])
    np.testing.assert_allclose(total, 1, rtol=1e-5)
