"""Weights from and to PyTorch: the same function on both sides, and the same bits back."""

import importlib
import os

import jax
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, RNN, OriginalGRU
from lstm_research.models.interop import cell_from_pytorch, cell_to_pytorch, from_pytorch, to_pytorch

# Module, its keywords, and the cell that it is.
KINDS = {
    "lstm": ("LSTM", {}, LSTM(5)),
    "lstm_projected": ("LSTM", {"proj_size": 3}, LSTM(5, projection_size=3)),
    "gru": ("GRU", {}, GRU(5)),
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}, RNN(5)),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}, RNN(5, activation="relu")),
}
FORMS = [
    {"num_layers": 1},
    {"num_layers": 3},
    {"num_layers": 1, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True},
]


@pytest.fixture(scope="module")
def torch():
    if os.environ.get("CI"):  # In continuous integration a missing PyTorch is a failure, not a skip.
        return importlib.import_module("torch")
    return pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")


def form_id(form):
    return f"{form['num_layers']}_layers" + "_bidirectional" * form.get("bidirectional", False)


def run_theirs(torch, module, xs, lengths):
    """PyTorch's outputs and final states `[L·directions, B, ...]`, of sequences of the given lengths."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(xs), torch.tensor(lengths), enforce_sorted=False)
    with torch.no_grad():
        ys, final = module(packed)
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=len(xs))
    return ys.numpy(), [state.numpy() for state in (final if isinstance(final, tuple) else (final,))]


def states(carry):
    """The final states in PyTorch's order: all h, then all c."""
    nodes = jax.tree.leaves(carry, is_leaf=lambda node: hasattr(node, "_fields"))
    return [np.stack([getattr(node, field) for node in nodes]) for field in ("h", "c") if field in nodes[0]._fields]


def nonlinearity(keywords):
    return {name: value for name, value in keywords.items() if name == "nonlinearity"}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_of_pytorch_computes_the_same_here(torch, ours, assert_close, kind, form, bias):
    name, keywords, expected_cell = KINDS[kind]
    torch.manual_seed(0)
    module = getattr(torch.nn, name)(ours.D, ours.H, bias=bias, **form, **keywords)
    cell, params = from_pytorch(module.state_dict(), **nonlinearity(keywords))
    assert cell == expected_cell
    carry, ys = ours.run_stack(cell, params, ours.xs(), ours.lengths, **form)
    their_ys, their_states = run_theirs(torch, module, ours.xs(), ours.lengths)
    assert_close([ys, *states(carry)], [their_ys, *their_states])


@pytest.mark.parametrize("form", FORMS, ids=form_id)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_from_here_computes_the_same_in_pytorch_and_comes_back(
    torch, ours, assert_close, assert_same_bits, kind, form
):
    name, keywords, cell = KINDS[kind]
    params = ours.stack_params(cell, **form)
    arrays = to_pytorch(cell, params)
    module = getattr(torch.nn, name)(ours.D, ours.H, **form, **keywords)
    module.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    carry, ys = ours.run_stack(cell, params, ours.xs(), ours.lengths, **form)
    their_ys, their_states = run_theirs(torch, module, ours.xs(), ours.lengths)
    assert_close([ys, *states(carry)], [their_ys, *their_states])
    back_cell, back = from_pytorch(module.state_dict(), **nonlinearity(keywords))
    assert back_cell == cell
    assert_same_bits(back, params)


@pytest.mark.parametrize("kind", KINDS)
def test_pytorchs_weights_come_back(torch, ours, assert_same_bits, kind):
    """All bits where the second bias is zero; else the sum of the two, and the same function."""
    name, keywords, _ = KINDS[kind]
    module = getattr(torch.nn, name)(ours.D, ours.H, num_layers=2, bidirectional=True, **keywords)
    arrays = {key: tensor.numpy().copy() for key, tensor in module.state_dict().items()}
    back = to_pytorch(*from_pytorch(arrays, **nonlinearity(keywords)))
    assert_same_bits(
        {k: v for k, v in back.items() if "bias" not in k}, {k: v for k, v in arrays.items() if "bias" not in k}
    )
    for key in [key for key in arrays if key.startswith("bias_hh")]:
        twin = key.replace("hh", "ih")
        np.testing.assert_allclose(back[key] + back[twin], arrays[key] + arrays[twin], rtol=0, atol=1e-7)
        arrays[key][: 2 * ours.H if name == "GRU" else None] = 0
    assert_same_bits(to_pytorch(*from_pytorch(arrays, **nonlinearity(keywords))), arrays)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_single_cells_both_ways(torch, ours, assert_close, assert_same_bits, kind, bias):
    name, keywords, expected_cell = KINDS[kind]
    torch.manual_seed(0)
    module = getattr(torch.nn, name + "Cell")(ours.D, ours.H, bias=bias, **keywords)
    cell, params = cell_from_pytorch(module.state_dict(), **nonlinearity(keywords))
    assert cell == expected_cell
    if not bias:
        assert_same_bits(
            cell_to_pytorch(cell, params, bias=False), {k: v.numpy() for k, v in module.state_dict().items()}
        )
    else:
        params = ours.cell_params(cell)
        arrays = cell_to_pytorch(cell, params)
        module.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
        assert_same_bits(cell_from_pytorch(arrays, **nonlinearity(keywords))[1], params)
    carry, ys = None, []
    with torch.no_grad():
        for x in torch.tensor(ours.xs()):
            carry = module(x, carry)
            ys.append((carry[0] if isinstance(carry, tuple) else carry).numpy())
    assert_close([ours.run_cell(cell, params, ours.xs())[1]], [np.stack(ys)])


def test_a_module_inside_a_larger_one_by_its_prefix(torch, ours, assert_same_bits):
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(7, 4)
            self.encoder = torch.nn.LSTM(4, 5, num_layers=2)

    module = Tagger()
    cell, params = from_pytorch(module.state_dict(), prefix="encoder.")
    assert_same_bits(params, from_pytorch(module.encoder.state_dict())[1])
    names = [name for name in module.state_dict() if name.startswith("encoder.")]
    assert set(to_pytorch(cell, params, prefix="encoder.")) == set(names)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_types_are_kept_and_parameters_with_gradients_taken(torch, dtype):
    module = torch.nn.LSTM(4, 5).to(getattr(torch, dtype))
    _, params = from_pytorch(dict(module.named_parameters()))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtype}
    kernel = params["layer_0"]["params"]["input_kernel"].astype("float64")
    np.testing.assert_array_equal(kernel, module.weight_ih_l0.detach().double().numpy().T)


@pytest.fixture
def arrays(ours):
    return to_pytorch(LSTM(5), ours.stack_params(LSTM(5), num_layers=2, bidirectional=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "weight_hh_l0 is missing"),
        ({"bias_hh_l1_reverse": None}, "bias_hh_l1_reverse is missing"),
        ({"weight_ih_l1": (20, 5)}, r"weight_ih_l1 must have the shape \[20, 10\], got \[20, 5\]"),
        ({"weight_ih_l0_reverse": (20, 3)}, r"weight_ih_l0_reverse must have the shape \[20, 4\], got \[20, 3\]"),
        (
            {"weight_hh_l0": (19, 5)},
            r"weight_hh_l0 must have the shape \[H, H\] \(nn.RNN\) or \[3H, H\] .*got \[19, 5\]",
        ),
        ({"weight_ih_l3": (20, 10)}, "weight_ih_l2 is missing"),
        ({"weight_hr_l1": (2, 5)}, "weight_hr_l1 is unknown"),
        ({"weight_hr_l0": (2, 5)}, r"weight_hr_l0 must have the shape \[5, 5\], got \[2, 5\]"),
    ],
)
def test_state_dicts_that_do_not_fit(arrays, change, message):
    for name, shape in change.items():
        if shape is None:
            del arrays[name]
        else:
            arrays[name] = np.zeros(shape, "float32")
    with pytest.raises(UserError, match=message):
        from_pytorch(arrays)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (OriginalGRU(5), "PyTorch has no OriginalGRU; it has: GRU, LSTM, RNN"),
        (LSTM(5, peepholes=True), "PyTorch has no LSTM with peepholes=True, only with False"),
        (GRU(5, learned_initial_state=True), "learned_initial_state=True"),
        (RNN(5, activation="elu"), "only with 'tanh' or 'relu'"),
        (LSTM(5, projection_size=5), "projection_size=5 and hidden_size=5, only with a projection_size below"),
        (LSTM(5, projection_size=6), "no LSTM with projection_size=6 and hidden_size=5"),
    ],
)
def test_cells_that_pytorch_does_not_have(ours, cell, message):
    with pytest.raises(UserError, match=message):
        to_pytorch(cell, ours.stack_params(cell))
    with pytest.raises(UserError, match=message):
        cell_to_pytorch(cell, ours.cell_params(cell))


def test_pytorch_has_the_largest_projection_that_is_written(torch, ours):
    cell = LSTM(5, projection_size=4)
    arrays = to_pytorch(cell, ours.stack_params(cell))
    module = torch.nn.LSTM(ours.D, 5, proj_size=4)
    module.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
    with pytest.raises(ValueError, match="proj_size has to be smaller than hidden_size"):
        torch.nn.LSTM(ours.D, 5, proj_size=5)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_ways_past_the_layers_are_refused_where_the_parameters_tell(ours, assert_same_bits, bidirectional):
    options = {"num_layers": 2, "bidirectional": bidirectional}
    with pytest.raises(UserError, match="found: layer_0, layer_1, layer_1_highway"):
        to_pytorch(RNN(5), ours.stack_params(RNN(5), highway=True, **options))
    with pytest.raises(UserError, match=r"layer_1\.(forward\.)?params\.input_kernel must have the shape"):
        to_pytorch(RNN(5), ours.stack_params(RNN(5), skip=True, **options))
    plain = to_pytorch(RNN(5), ours.stack_params(RNN(5), **options))
    for way in ("residual", "skip_output"):  # of which they tell nothing, as the docstring says
        assert_same_bits(to_pytorch(RNN(5), ours.stack_params(RNN(5), **{way: True}, **options)), plain)


def test_parameters_that_do_not_fit(ours):
    cell = LSTM(5)
    params = ours.stack_params(cell, num_layers=2, bidirectional=True, merge="sum")
    with pytest.raises(
        UserError, match=r"layer_1.forward.params.input_kernel must have the shape \[10, any\], got \[5"
    ):
        to_pytorch(cell, params)
    params = ours.stack_params(cell)
    with pytest.raises(UserError, match="no bias_ih_l0, and ours is not zero"):
        to_pytorch(cell, params, bias=False)
    with pytest.raises(UserError, match="found: bias, input_kernel"):
        to_pytorch(cell, params["layer_0"]["params"])
    with pytest.raises(UserError, match=r"layer_0.params.bias is missing in the parameters of LSTM"):
        to_pytorch(cell, {"layer_0": {"params": {k: v for k, v in params["layer_0"]["params"].items() if k != "bias"}}})
    with pytest.raises(UserError, match="layer_0 must hold backward and forward, found: forward"):
        to_pytorch(cell, {"layer_0": {"forward": params["layer_0"]}})
    with pytest.raises(UserError, match=r"layer_0\.params\.bias must have the shape \[24\], got \[20\]"):
        to_pytorch(LSTM(6), params)
    with pytest.raises(UserError, match=r"nn\.LSTMCell has no projection"):
        cell_to_pytorch(LSTM(5, projection_size=2), ours.cell_params(LSTM(5, projection_size=2)))
    with pytest.raises(UserError, match="did you mean 'tanh'"):
        from_pytorch(to_pytorch(RNN(5), ours.stack_params(RNN(5))), nonlinearity="tan")
