"""cuDNN's packed weights: JAX's reference of cuDNN's LSTM computes what the stack here computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM
from lstm_research.models.interop import from_cudnn, to_cudnn
from lstm_research.models.recurrence.cudnn_weights import pack_lstm, unpack_lstm

FORMS = [(1, False), (3, False), (1, True), (2, True)]
IDS = ["layer", "stack", "bidirectional", "bidirectional_stack"]


def run_theirs(ours, weights, num_layers, bidirectional):
    """Outputs `[T, B, ...]` and final states `[pseudo-layers, B, H]` of `lstm_ref`."""
    sizes = (ours.D, ours.H, num_layers, bidirectional)
    zeros = jnp.zeros((num_layers * (1 + bidirectional), ours.B, ours.H))
    unpacked = rnn.unpack_lstm_weights(jnp.asarray(weights), *sizes)
    ys, h, c = rnn.lstm_ref(
        ours.xs().swapaxes(0, 1),
        zeros,
        zeros,
        *unpacked,
        seq_lengths=jnp.asarray(ours.lengths, "int32"),
        input_size=ours.D,
        hidden_size=ours.H,
        num_layers=num_layers,
        dropout=0.0,
        bidirectional=bidirectional,
    )
    # The reference goes on behind a sequence's end.
    valid = np.arange(ours.T)[:, None, None] < ours.lengths[:, None]
    return [np.where(valid, ys.swapaxes(0, 1), 0), h, c]


def run_ours(ours, cell, params, num_layers, bidirectional):
    carry, ys = ours.run_stack(
        cell, params, ours.xs(), ours.lengths, num_layers=num_layers, bidirectional=bidirectional
    )
    nodes = jax.tree.leaves(carry, is_leaf=lambda node: hasattr(node, "_fields"))
    return [ys, np.stack([node.h for node in nodes]), np.stack([node.c for node in nodes])]


@pytest.mark.parametrize(("num_layers", "bidirectional"), FORMS, ids=IDS)
def test_their_weights_compute_the_same_here(ours, assert_close, assert_same_bits, num_layers, bidirectional):
    weights = rnn.init_lstm_weight(jax.random.key(0), ours.D, ours.H, num_layers, bidirectional)
    cell, params = from_cudnn(
        weights, input_size=ours.D, hidden_size=ours.H, num_layers=num_layers, bidirectional=bidirectional
    )
    assert cell == LSTM(ours.H)
    assert_close(
        run_ours(ours, cell, params, num_layers, bidirectional),
        run_theirs(ours, weights, num_layers, bidirectional),
    )
    # Back: the kernels bit for bit, the biases as their sums.
    back = to_cudnn(cell, params)
    kernels = weights.size - 8 * ours.H * num_layers * (1 + bidirectional)
    np.testing.assert_array_equal(back[:kernels], weights[:kernels])
    assert_same_bits(to_cudnn(*from_cudnn(back, **sizes(ours, num_layers, bidirectional))), back)


def sizes(ours, num_layers, bidirectional):
    return {
        "input_size": ours.D,
        "hidden_size": ours.H,
        "num_layers": num_layers,
        "bidirectional": bidirectional,
    }


@pytest.mark.parametrize(("num_layers", "bidirectional"), FORMS, ids=IDS)
def test_weights_from_here_compute_the_same_there_and_come_back(
    ours, assert_close, assert_same_bits, num_layers, bidirectional
):
    cell = LSTM(ours.H)
    params = ours.stack_params(cell, num_layers=num_layers, bidirectional=bidirectional)
    weights = to_cudnn(cell, params)
    assert weights.shape == (rnn.get_num_params_in_lstm(ours.D, ours.H, num_layers, bidirectional),)
    assert_close(
        run_ours(ours, cell, params, num_layers, bidirectional),
        run_theirs(ours, weights, num_layers, bidirectional),
    )
    assert_same_bits(from_cudnn(weights, **sizes(ours, num_layers, bidirectional))[1], params)


def test_packing_is_differentiable_and_unpacking_its_inverse(ours):
    params = jax.tree.map(jnp.asarray, ours.cell_params(LSTM(ours.H)))
    weights = jnp.arange(1.0, 4 * ours.H * (ours.D + ours.H + 2) + 1)
    gradient = jax.grad(lambda params: pack_lstm([params]) @ weights)(params)
    (expected,) = unpack_lstm(weights, [ours.D], ours.H)
    np.testing.assert_array_equal(gradient["input_kernel"], expected["input_kernel"])
    np.testing.assert_array_equal(gradient["recurrent_kernel"], expected["recurrent_kernel"])
    assert gradient["bias"].tolist() == weights[-8 * ours.H : -4 * ours.H].tolist()
    (back,) = jax.jit(lambda params: unpack_lstm(pack_lstm([params]), [ours.D], ours.H))(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_what_does_not_fit(ours):
    with pytest.raises(UserError, match=r"weights must have the shape \[220\], got \[219\]"):
        from_cudnn(np.zeros(219, "float32"), input_size=4, hidden_size=5)
    with pytest.raises(UserError, match=r"weights must be float32, .* got float64"):
        from_cudnn(np.zeros(220), input_size=4, hidden_size=5)
    with pytest.raises(UserError, match="num_layers must be at least 1, got 0"):
        from_cudnn(np.zeros(220, "float32"), input_size=4, hidden_size=5, num_layers=0)
    with pytest.raises(UserError, match=r"jax\.experimental\.rnn has no GRU; it has: LSTM"):
        to_cudnn(GRU(5), ours.stack_params(GRU(5)))
    with pytest.raises(UserError, match="no LSTM with projection_size=2"):
        to_cudnn(LSTM(5, projection_size=2), ours.stack_params(LSTM(5, projection_size=2)))
    with pytest.raises(UserError, match="bias must be float32"):
        to_cudnn(LSTM(5), ours.stack_params(LSTM(5), "float64"))
    with pytest.raises(ValueError, match=r"weights must have the shape \[220\], got \[3\]"):
        unpack_lstm(jnp.zeros(3), [4], 5)
