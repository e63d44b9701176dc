"""Weights from and to ONNX operators: onnxruntime computes what the cell here computes, and the same bits come back."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, RNN, OriginalGRU
from lstm_research.models.interop import from_onnx, to_onnx

H = 5
# Operator, its attributes, whether it has peepholes, and the cell that it is.
KINDS = {
    "lstm": ("LSTM", {}, False, LSTM(H)),
    "lstm_peepholes": ("LSTM", {}, True, LSTM(H, peepholes=True)),
    "lstm_coupled": ("LSTM", {"input_forget": 1}, False, LSTM(H, input_gate="coupled")),
    "lstm_coupled_peepholes": ("LSTM", {"input_forget": 1}, True, LSTM(H, input_gate="coupled", peepholes=True)),
    "lstm_activations": (
        "LSTM",
        {
            "activations": ["HardSigmoid", "Softsign", "Affine"],
            "activation_alpha": [1 / 6, 1.0],
            "activation_beta": [0.5, 0.0],
        },
        False,
        LSTM(H, gate_activation="hard_sigmoid", input_activation="softsign", output_activation="identity"),
    ),
    "gru": ("GRU", {"linear_before_reset": 1}, False, GRU(H)),
    "original_gru": ("GRU", {}, False, OriginalGRU(H)),
    "gru_activations": (
        "GRU",
        {
            "linear_before_reset": 1,
            "activations": ["HardSigmoid", "Relu"],
            "activation_alpha": [1 / 6],
            "activation_beta": [0.5],
        },
        False,
        GRU(H, gate_activation="hard_sigmoid", activation="relu"),
    ),
    "rnn": ("RNN", {}, False, RNN(H)),
    "rnn_relu": ("RNN", {"activations": ["Relu"]}, False, RNN(H, activation="relu")),
    "rnn_softplus": ("RNN", {"activations": ["Softplus"]}, False, RNN(H, activation="softplus")),
}
DIRECTIONS = ["forward", "reverse", "bidirectional"]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def both_ways(attributes, direction):
    """Lists of activations name those of both directions."""
    times = 2 if direction == "bidirectional" else 1
    return {name: value * times if isinstance(value, list) else value for name, value in attributes.items()}


def make_arrays(kind, direction, D, bias=True):
    op_type, _, peepholes, _ = KINDS[kind]
    rng, G, directions = np.random.default_rng(4), GATES[op_type], 2 if direction == "bidirectional" else 1
    shapes = (
        {"W": (G * H, D), "R": (G * H, H)}
        | ({"B": (2 * G * H,)} if bias else {})
        | ({"P": (3 * H,)} if peepholes else {})
    )
    return {name: (0.5 * rng.normal(size=(directions, *shape))).astype("float32") for name, shape in shapes.items()}


def make_model(op_type, arrays, attributes, shape):
    """A model of one operator that reads X and the lengths, and what it gives."""
    inputs = ["X", "W", "R", "B" if "B" in arrays else "", "lengths", "", "", "P"]
    inputs = inputs[:8] if "P" in arrays else inputs[:5]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    T, B, _ = shape
    directions = arrays["W"].shape[0]
    shapes = {"Y": (T, directions, B, H), "Y_h": (directions, B, H), "Y_c": (directions, B, H)}
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, outputs, **attributes)],
        "recurrent",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, (B,)),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_theirs(model, xs, lengths):
    """Outputs `[T, B, directions · H]` and final states `[directions, B, H]`."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ys, *final = session.run(None, {"X": xs, "lengths": lengths.astype("int32")})
    return [ys.transpose(0, 2, 1, 3).reshape(*xs.shape[:2], -1), *final]


def run_ours(ours, cell, params, direction):
    if direction == "bidirectional":
        carries, ys = ours.run_bidirectional(cell, params, ours.xs(), lengths=ours.lengths)
    else:
        carry, ys = ours.run_cell(cell, params, ours.xs(), lengths=ours.lengths, reverse=direction == "reverse")
        carries = [carry]
    fields = [field for field in ("h", "c") if field in carries[0]._fields]
    return [ys, *(np.stack([getattr(carry, field) for carry in carries]) for field in fields)]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_computes_the_same_here(ours, assert_close, kind, direction):
    op_type, attributes, _, expected_cell = KINDS[kind]
    attributes = {"hidden_size": H, "direction": direction, **both_ways(attributes, direction)}
    for bias in (True, False):
        arrays = make_arrays(kind, direction, ours.D, bias)
        model = make_model(op_type, arrays, attributes, ours.xs().shape)
        # As a model holds them: text as bytes, numbers in float32.
        held = {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
        cell, params = from_onnx(op_type, arrays, held)
        assert cell == expected_cell
        assert_close(run_ours(ours, cell, params, direction), run_theirs(model, ours.xs(), ours.lengths))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_from_here_computes_the_same_there_and_comes_back(ours, assert_close, assert_same_bits, kind, direction):
    cell = KINDS[kind][3]
    params = ours.bidirectional_params(cell) if direction == "bidirectional" else ours.cell_params(cell)
    op_type, arrays, attributes = to_onnx(cell, params, reverse=direction == "reverse")
    assert (op_type, attributes["direction"]) == (KINDS[kind][0], direction)
    model = make_model(op_type, arrays, attributes, ours.xs().shape)
    assert_close(run_ours(ours, cell, params, direction), run_theirs(model, ours.xs(), ours.lengths))
    back_cell, back = from_onnx(op_type, arrays, attributes)
    assert back_cell == cell
    assert_same_bits(back, params)


@pytest.mark.parametrize("kind", KINDS)
def test_their_arrays_come_back(ours, assert_same_bits, kind):
    """All bits but those of the second bias, which is added to the first, and of a forget gate that nobody reads."""
    op_type, attributes, _, cell = KINDS[kind]
    attributes = {"direction": "bidirectional", **both_ways(attributes, "bidirectional")}
    arrays = make_arrays(kind, "bidirectional", ours.D)
    gates = GATES[op_type]
    if isinstance(cell, LSTM) and cell.input_gate == "coupled":
        for name in ("W", "R", "B"):
            arrays[name].reshape(2, -1, gates, H, *arrays[name].shape[2:])[:, :, 2] = 0
        if "P" in arrays:
            arrays["P"][:, 2 * H :] = 0
    back = to_onnx(*from_onnx(op_type, arrays, attributes))[1]
    both = {name: bias["B"].reshape(2, 2, -1).sum(1) for name, bias in (("back", back), ("theirs", arrays))}
    np.testing.assert_allclose(both["back"], both["theirs"], rtol=0, atol=1e-6)
    second = arrays["B"].reshape(2, 2, -1)[:, 1]
    second[:, : 2 * H if isinstance(cell, GRU) else None] = 0
    assert_same_bits(to_onnx(*from_onnx(op_type, arrays, attributes))[1], arrays)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_exactly_the_attributes_of_the_operator_are_known(kind):
    op_type, arrays = KINDS[kind][0], make_arrays(kind, "forward", 4)
    values = {"hidden_size": H, "direction": "forward", "activations": [], "activation_alpha": []}
    values |= {"activation_beta": [], "clip": 0.0, "layout": 1, "input_forget": 0, "linear_before_reset": 0}
    theirs = set(onnx.defs.get_schema(op_type).attributes)
    assert values.keys() >= theirs
    for name, value in values.items():
        if name in theirs:
            from_onnx(op_type, arrays, {name: value})
        else:
            with pytest.raises(UserError, match=f"^unknown attribute of {op_type} '{name}'"):
                from_onnx(op_type, arrays, {name: value})


def zeros(**shapes):
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


LSTM_ARRAYS = {"W": (1, 20, 4), "R": (1, 20, 5), "B": (1, 40)}
RNN_ARRAYS = {"W": (1, 5, 4), "R": (1, 5, 5)}


@pytest.mark.parametrize(
    ("op_type", "shapes", "attributes", "message"),
    [
        ("LSTMs", LSTM_ARRAYS, {}, "unknown op_type 'LSTMs'; did you mean 'LSTM'"),
        ("LSTM", {"W": (1, 20, 4)}, {}, "R is missing in the arrays of the ONNX operator LSTM; found: W"),
        ("LSTM", LSTM_ARRAYS | {"W": (1, 16, 4)}, {}, r"W must have the shape \[1, 20, any\], got \[1, 16, 4\]"),
        ("LSTM", LSTM_ARRAYS | {"B": (1, 20)}, {}, r"B must have the shape \[1, 40\], got \[1, 20\]"),
        ("LSTM", LSTM_ARRAYS | {"P": (1, 5)}, {}, r"P must have the shape \[1, 15\], got \[1, 5\]"),
        ("GRU", LSTM_ARRAYS, {}, r"R must have the shape \[1, 15, 5\], got \[1, 20, 5\]"),
        (
            "LSTM",
            LSTM_ARRAYS,
            {"direction": "bidirectional"},
            r"R must have the shape \[2, any, any\], got \[1, 20, 5\]",
        ),
        ("LSTM", LSTM_ARRAYS | {"initial_h": (1, 2, 5)}, {}, "initial_h is unknown in the arrays"),
        ("LSTM", LSTM_ARRAYS, {"hidden_size": 6}, "hidden_size is 6, but the last axis of R has 5 entries"),
        ("LSTM", LSTM_ARRAYS, {"hidden": 5}, "unknown attribute of LSTM 'hidden'; did you mean 'hidden_size'"),
        ("LSTM", LSTM_ARRAYS, {"direction": b"backward"}, "unknown direction 'backward'"),
        ("LSTM", LSTM_ARRAYS, {"clip": 3.0}, r"clip=3\.0; it must be 0"),
        ("LSTM", LSTM_ARRAYS, {"activations": ["Sigmoid", "Tanh"]}, "activations must hold 3 names, got 2"),
        ("LSTM", LSTM_ARRAYS, {"activations": ["Sigmoid", "Tanh", "LeakyRelu"]}, "unknown activation 'LeakyRelu'"),
        (
            "LSTM",
            LSTM_ARRAYS,
            {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
            r"HardSigmoid must have alpha and beta",
        ),
        ("RNN", RNN_ARRAYS, {"activation_alpha": [0.2]}, r"\['Tanh'\] take 0 numbers of activation_alpha, got 1 more"),
        (
            "RNN",
            RNN_ARRAYS,
            {"activations": ["HardSigmoid"], "activation_alpha": [1 / 6], "activation_beta": [0.5, 0.0]},
            r"\['HardSigmoid'\] take 1 numbers of activation_beta, got 1 more",
        ),
    ],
)
def test_arrays_and_attributes_that_do_not_fit(op_type, shapes, attributes, message):
    with pytest.raises(UserError, match=message):
        from_onnx(op_type, zeros(**shapes), attributes)


def test_both_directions_must_have_one_kind_of_cell():
    arrays = zeros(W=(2, 5, 4), R=(2, 5, 5))
    with pytest.raises(UserError, match=r"the same in both directions, got \['Tanh', 'Relu'\]"):
        from_onnx("RNN", arrays, {"direction": "bidirectional", "activations": ["Tanh", "Relu"]})


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (LSTM(H, input_gate="capped"), "ONNX has no LSTM with input_gate='capped', only with 'free' or 'coupled'"),
        (LSTM(H, projection_size=2), "ONNX has no LSTM with projection_size=2"),
        (GRU(H, layer_norm=True), "ONNX has no GRU with layer_norm=True"),
        (RNN(H, activation="hard_tanh"), "ONNX has no activation 'hard_tanh' for RNN"),
    ],
)
def test_cells_that_onnx_does_not_have(ours, cell, message):
    with pytest.raises(UserError, match=message):
        to_onnx(cell, ours.cell_params(cell))


def test_reverse_is_for_one_direction(ours):
    with pytest.raises(UserError, match="reverse is for a single direction"):
        to_onnx(RNN(H), ours.bidirectional_params(RNN(H)), reverse=True)
