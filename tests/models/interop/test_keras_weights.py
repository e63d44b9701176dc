"""Weights from and to Keras 3: the same function on both sides, and the same bits back."""

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, RNN, OriginalGRU
from lstm_research.models.interop import from_keras, to_keras

# Keras' variables are older than the keyword `copy` of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Layer, its keywords, what its weights do not tell, and the cell that it is.
KINDS = {
    "lstm": ("LSTM", {}, {}, LSTM(5)),
    "lstm_activations": (
        "LSTM",
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
        LSTM(5, gate_activation="hard_sigmoid", input_activation="softsign", output_activation="softsign"),
    ),
    "gru": ("GRU", {}, {}, GRU(5)),
    "original_gru": ("GRU", {"reset_after": False}, {"reset_after": False}, OriginalGRU(5)),
    "gru_activations": (
        "GRU",
        {"activation": "linear", "recurrent_activation": "hard_sigmoid"},
        {"activation": "linear", "recurrent_activation": "hard_sigmoid"},
        GRU(5, gate_activation="hard_sigmoid", activation="identity"),
    ),
    "rnn": ("SimpleRNN", {}, {}, RNN(5)),
    "rnn_relu": ("SimpleRNN", {"activation": "relu"}, {"activation": "relu"}, RNN(5, activation="relu")),
}


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


def make_layer(keras, ours, kind, *, bidirectional=False, use_bias=True):
    """Returns a layer with random weights, and what gives its outputs and final states for `[B, T, D]` and a mask."""
    name, keywords, _, _ = KINDS[kind]
    layer = getattr(keras.layers, name)(
        ours.H, return_sequences=True, return_state=True, use_bias=use_bias, zero_output_for_mask=True, **keywords
    )
    layer = keras.layers.Bidirectional(layer) if bidirectional else layer
    layer.build((ours.B, ours.T, ours.D))
    rng = np.random.default_rng(3)
    layer.set_weights([0.6 * rng.normal(size=array.shape) for array in layer.get_weights()])
    return layer


def run_theirs(layer, xs, lengths):
    """Keras' outputs `[T, B, ...]` and final states, in the order h, c of each direction."""
    mask = np.arange(len(xs)) < lengths[:, None]
    ys, *final = layer(xs.swapaxes(0, 1), mask=mask)
    return np.asarray(ys).swapaxes(0, 1), [np.asarray(state) for state in final]


def states(carry):
    return [getattr(carry, field) for field in ("h", "c") if field in carry._fields]


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_keras_computes_the_same_here(keras, ours, assert_close, kind, use_bias):
    layer = make_layer(keras, ours, kind, use_bias=use_bias)
    options = dict(KINDS[kind][2])
    if not use_bias and "GRU" in KINDS[kind][0]:
        options.setdefault("reset_after", True)
    cell, params = from_keras(layer.get_weights(), **options)
    assert cell == KINDS[kind][3]
    carry, ys = ours.run_cell(cell, params, ours.xs(), lengths=ours.lengths)
    their_ys, their_states = run_theirs(layer, ours.xs(), ours.lengths)
    assert_close([ys, *states(carry)], [their_ys, *their_states])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bidirectional_layer_of_keras_computes_the_same_here(keras, ours, assert_close, kind):
    layer = make_layer(keras, ours, kind, bidirectional=True)
    cell, params = from_keras(layer.get_weights(), **KINDS[kind][2])
    assert cell == KINDS[kind][3]
    (forward, backward), ys = ours.run_bidirectional(cell, params, ours.xs(), lengths=ours.lengths)
    their_ys, their_states = run_theirs(layer, ours.xs(), ours.lengths)
    assert_close([ys, *states(forward), *states(backward)], [their_ys, *their_states])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_from_here_computes_the_same_in_keras_and_comes_back(
    keras, ours, assert_close, assert_same_bits, kind, bidirectional
):
    cell = KINDS[kind][3]
    params = ours.bidirectional_params(cell) if bidirectional else ours.cell_params(cell)
    layer = make_layer(keras, ours, kind, bidirectional=bidirectional)
    layer.set_weights(to_keras(cell, params))
    run = ours.run_bidirectional if bidirectional else ours.run_cell
    _, ys = run(cell, params, ours.xs(), lengths=ours.lengths)
    assert_close([ys], [run_theirs(layer, ours.xs(), ours.lengths)[0]])
    back_cell, back = from_keras(layer.get_weights(), **KINDS[kind][2])
    assert back_cell == cell
    assert_same_bits(back, params)


@pytest.mark.parametrize("kind", KINDS)
def test_kerass_weights_come_back(keras, ours, assert_same_bits, kind):
    """All bits but those of a GRU's second bias, which is added to the first."""
    weights = make_layer(keras, ours, kind).get_weights()
    options = KINDS[kind][2]
    back = to_keras(*from_keras(weights, **options))
    assert_same_bits(back[:2], weights[:2])
    if back[2].ndim == 2:
        np.testing.assert_array_equal(back[2].sum(0), weights[2].sum(0))
        weights[2][1, : 2 * ours.H] = 0
    assert_same_bits(to_keras(*from_keras(weights, **options)), weights)
    without = make_layer(keras, ours, kind, use_bias=False).get_weights()
    options = options | ({"reset_after": isinstance(KINDS[kind][3], GRU)} if "gru" in kind else {})
    assert_same_bits(to_keras(*from_keras(without, **options), use_bias=False), without)


W, U, b = np.zeros((4, 15), "float32"), np.zeros((5, 15), "float32"), np.zeros((2, 15), "float32")


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([W], {}, "got 1 arrays"),
        ([W, U[:, :13], b], {}, r"recurrent_kernel must have the shape \[H, H\] \(SimpleRNN\) or .*got \[5, 13\]"),
        ([W[:, :10], U, b], {}, r"kernel must have the shape \[any, 15\], got \[4, 10\]"),
        ([W, U, b[:, :4]], {}, r"bias must have the shape \[2, 15\], got \[2, 4\]"),
        ([W, U, b], {"reset_after": False}, r"bias must have the shape \[15\], got \[2, 15\]"),
        ([W, U], {}, "give reset_after=True or False"),
        ([W, U, b, W, U, b[0]], {}, "one kind of cell"),
        ([W, U, b, W[:3], U, b], {}, r"backward kernel must have the shape \[4, 15\], got \[3, 15\]"),
        ([W[:, :5], U[:, :5], b[0, :5]], {"activation": "gelu"}, "unknown activation 'gelu'"),
    ],
)
def test_weights_that_do_not_fit(weights, options, message):
    with pytest.raises(UserError, match=message):
        from_keras(weights, **options)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (LSTM(5, peepholes=True), "Keras has no LSTM with peepholes=True"),
        (LSTM(5, projection_size=2), "Keras has no LSTM with projection_size=2"),
        (LSTM(5, output_activation="identity"), "one activation for input and output of an LSTM"),
    ],
)
def test_cells_that_keras_does_not_have(ours, cell, message):
    with pytest.raises(UserError, match=message):
        to_keras(cell, ours.cell_params(cell))


def test_parameters_that_do_not_fit(ours):
    params = ours.bidirectional_params(LSTM(5))
    params["backward"]["params"]["bias"] = np.zeros(5, "float32")
    with pytest.raises(UserError, match=r"backward\.params\.bias must have the shape \[20\], got \[5\]"):
        to_keras(LSTM(5), params)
    with pytest.raises(UserError, match="no place for bias: it is not zero"):
        to_keras(RNN(5), ours.cell_params(RNN(5)), use_bias=False)
    with pytest.raises(UserError, match="recurrent_bias is missing"):
        to_keras(GRU(5), ours.cell_params(OriginalGRU(5)))
    with pytest.raises(UserError, match="recurrent_bias is unknown"):
        to_keras(OriginalGRU(5), ours.cell_params(GRU(5)))
