"""Every cell against its equations written in plain NumPy, with recurrent noise, lengths and resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.cells import CELLS
from lstm_research.models.recurrence import RecurrentMasks, unroll

D, H, T, B = 2, 3, 5, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(params, c, h, x, mask):
    W, U, b = params["input_kernel"], params["recurrent_kernel"], params["bias"]
    a = [x @ W[:, k : k + H] + (h * mask) @ U[:, k : k + H] + b[k : k + H] for k in range(0, 4 * H, H)]
    i, f, g = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2])
    c = f * c + i * g
    return c, sigmoid(a[3]) * np.tanh(c)


def peephole_lstm(params, c, h, x, mask):
    W, U, b = params["input_kernel"], params["recurrent_kernel"], params["bias"]
    p_i, p_f, p_o = params["peephole"][0], params["peephole"][1], params["peephole"][2]
    a = [x @ W[:, k : k + H] + (h * mask) @ U[:, k : k + H] + b[k : k + H] for k in range(0, 4 * H, H)]
    i = sigmoid(a[0] + p_i * c)
    f = sigmoid(a[1] + p_f * c)
    c_new = f * c + i * np.tanh(a[2])
    o = sigmoid(a[3] + p_o * c_new)
    return c_new, o * np.tanh(c_new)


def gru(params, c, h, x, mask):
    W, U, b = params["input_kernel"], params["recurrent_kernel"], params["bias"]
    hd = h * mask
    r = sigmoid(x @ W[:, :H] + hd @ U[:, :H] + b[:H])
    u = sigmoid(x @ W[:, H : 2 * H] + hd @ U[:, H : 2 * H] + b[H : 2 * H])
    n = np.tanh(x @ W[:, 2 * H :] + b[2 * H :] + r * (hd @ U[:, 2 * H :] + params["recurrent_bias"]))
    return c, (1 - u) * n + u * h


def original_gru(params, c, h, x, mask):
    W, U, b = params["input_kernel"], params["recurrent_kernel"], params["bias"]
    hd = h * mask
    r = sigmoid(x @ W[:, :H] + hd @ U[:, :H] + b[:H])
    u = sigmoid(x @ W[:, H : 2 * H] + hd @ U[:, H : 2 * H] + b[H : 2 * H])
    n = np.tanh(x @ W[:, 2 * H :] + (r * hd) @ U[:, 2 * H :] + b[2 * H :])
    return c, (1 - u) * n + u * h


def rnn(params, c, h, x, mask):
    return c, np.tanh(x @ params["input_kernel"] + (h * mask) @ params["recurrent_kernel"] + params["bias"])


EQUATIONS = {"gru": gru, "lstm": lstm, "original_gru": original_gru, "peephole_lstm": peephole_lstm, "rnn": rnn}


def transcription(name, params, xs, carry, lengths, resets, reverse, dropout, zoneout_c, zoneout_h):
    """Runs the equations one sequence and one step at a time; masks are `[T, B, H]`."""
    ys = np.zeros((T, B, H))
    final_c, final_h = np.zeros((B, H)), np.zeros((B, H))
    for b in range(B):
        c, h = carry.get("c", np.zeros((B, H)))[b], carry["h"][b]
        steps = range(lengths[b])
        for t in reversed(steps) if reverse else steps:
            if resets[t, b]:
                c, h = np.zeros(H), np.zeros(H)
            c_new, h_new = EQUATIONS[name](params, c, h, xs[t, b], dropout[t, b])
            c = zoneout_c[t, b] * c + (1 - zoneout_c[t, b]) * c_new
            h = zoneout_h[t, b] * h + (1 - zoneout_h[t, b]) * h_new
            ys[t, b] = h
        final_c[b], final_h[b] = c, h
    return ({"c": final_c} if "c" in carry else {}) | {"h": final_h}, ys


def make_arguments(name, noisy):
    rng = np.random.default_rng(1)
    cell = CELLS[name](hidden_size=H)
    draw = lambda shape, scale=1.0: scale * rng.normal(size=shape)  # noqa: E731
    params = {k: draw(v.shape, 0.7) for k, v in sorted(cell.init(jax.random.key(0), D).items())}
    carry = {field: draw((B, H)) for field in cell.initial_carry(params, ())._fields}
    lengths, resets = np.array([T, 0, 3, 4]), rng.random((T, B)) < 0.3
    resets[0, 0] = True
    zeros = np.zeros((T, B, H))
    dropout = (rng.random((T, B, H)) < 0.6) / 0.6 if noisy else zeros + 1
    zoneout_h = np.where(np.arange(T)[:, None, None] % 2, rng.random((T, B, H)) < 0.4, 0.3) if noisy else zeros
    zoneout_c = rng.random((T, B, H)) if noisy and "c" in carry else zeros
    return cell, params, draw((T, B, D)), carry, lengths, resets, dropout, zoneout_c, zoneout_h


def run(cell, params, xs, carry, lengths, resets, reverse, dropout, zoneout_c, zoneout_h):
    state = cell.initial_carry(params, (B,), xs.dtype)
    masks = RecurrentMasks(dropout, zoneout_c if "c" in carry else None, zoneout_h)
    final, ys = unroll(
        cell, params, xs, type(state)(**carry), lengths=lengths, resets=resets, reverse=reverse, masks=masks
    )
    return final._asdict(), ys


def test_every_cell_is_transcribed():
    assert set(EQUATIONS) == set(CELLS), "write the equations of a new cell here in plain NumPy"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", CELLS)
def test_equals_equations(name, reverse, noisy):
    cell, params, xs, carry, lengths, resets, *masks = make_arguments(name, noisy)
    expected = transcription(name, params, xs, carry, lengths, resets, reverse, *masks)
    arrays = jax.tree.map(jnp.asarray, (params, xs, carry, lengths, resets))
    actual = run(cell, *arrays, reverse, *map(jnp.asarray, masks))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), actual, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CELLS)
def test_gradients_equal_differences_of_the_equations(name):
    """Central differences of the NumPy transcription, parameter by parameter: no JAX on that side."""
    cell, params, xs, carry, lengths, resets, *masks = make_arguments(name, noisy=True)
    rng = np.random.default_rng(2)
    weights = {field: rng.normal(size=(B, H)) for field in carry}, rng.normal(size=(T, B, H))

    def weighted(results):
        return sum(map(lambda a, w: (a * w).sum(), *map(jax.tree.leaves, (results, weights))))

    def loss(params, xs, carry):
        return weighted(run(cell, params, xs, carry, lengths_, resets_, False, *masks_))

    lengths_, resets_, *masks_ = map(jnp.asarray, (lengths, resets, *masks))
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*jax.tree.map(jnp.asarray, (params, xs, carry)))
    inputs = (params, xs, carry)
    for array, gradient in zip(jax.tree.leaves(inputs), jax.tree.leaves(gradients), strict=True):
        for index in np.ndindex(array.shape):
            value, difference = array[index], []
            for array[index] in (value + 1e-5, value - 1e-5):
                difference.append(weighted(transcription(name, *inputs, lengths, resets, False, *masks)))
            array[index] = value
            np.testing.assert_allclose(gradient[index], (difference[0] - difference[1]) / 2e-5, atol=1e-8)
