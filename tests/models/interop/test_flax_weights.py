"""Weights from and to the cells of Flax: the same function on both sides, and the same bits back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import GRU, LSTM, MGU, RNN, OriginalGRU
from lstm_research.models.interop import from_linen, from_nnx, to_linen, to_nnx

D, H = 4, 5
OTHER = {"gate_fn": jax.nn.hard_sigmoid, "activation_fn": jax.nn.soft_sign}
OURS = {"gate_activation": "hard_sigmoid", "activation": "softsign"}
SOFTSIGN_LSTM = LSTM(H, gate_activation="hard_sigmoid", input_activation="softsign", output_activation="softsign")
# Cell of Flax, its keywords, what its weights do not tell, and the cell that it is.
LINEN = {
    "LSTMCell": (linen.LSTMCell, {}, {}, LSTM(H)),
    "OptimizedLSTMCell": (linen.OptimizedLSTMCell, {}, {}, LSTM(H)),
    "OptimizedLSTMCell_activations": (linen.OptimizedLSTMCell, OTHER, OURS, SOFTSIGN_LSTM),
    "GRUCell": (linen.GRUCell, {}, {}, GRU(H)),
    "GRUCell_activations": (linen.GRUCell, OTHER, OURS, GRU(H, **OURS)),
    "SimpleCell": (linen.SimpleCell, {}, {}, RNN(H)),
    "SimpleCell_relu": (
        linen.SimpleCell,
        {"activation_fn": jax.nn.relu},
        {"activation": "relu"},
        RNN(H, activation="relu"),
    ),
}
NNX = {
    "LSTMCell": (nnx.LSTMCell, {}, {}, LSTM(H)),
    "OptimizedLSTMCell": (nnx.OptimizedLSTMCell, {}, {}, LSTM(H)),
    "LSTMCell_activations": (nnx.LSTMCell, OTHER, OURS, SOFTSIGN_LSTM),
    "GRUCell": (nnx.GRUCell, {}, {}, GRU(H)),
    "GRUCell_activations": (nnx.GRUCell, OTHER, OURS, GRU(H, **OURS)),
    "SimpleCell": (nnx.SimpleCell, {}, {}, RNN(H)),
}


def run_linen(cell, variables, xs):
    carry = cell.initialize_carry(jax.random.key(0), xs.shape[1:])
    return jax.lax.scan(lambda carry, x: cell.apply(variables, carry, x), carry, xs)


def run_nnx(cell, xs):
    carry = cell.initialize_carry(xs.shape[1:], nnx.Rngs(0))
    ys = []
    for x in xs:
        carry, y = cell(carry, x)
        ys.append(y)
    return carry, jnp.stack(ys)


def randomise(tree, seed=3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(leaf.dtype), tree)


def make_linen(kind):
    constructor, keywords, _, _ = LINEN[kind]
    cell = constructor(H, **keywords)
    carry = cell.initialize_carry(jax.random.key(0), (2, D))
    return cell, randomise(jax.tree.map(np.asarray, cell.init(jax.random.key(0), carry, jnp.ones((2, D)))))


def make_nnx(kind):
    constructor, keywords, _, _ = NNX[kind]
    cell = constructor(D, H, **keywords, rngs=nnx.Rngs(0))
    nnx.update(cell, randomise(nnx.state(cell, nnx.Param)))
    return cell


def states(carry):
    return jax.tree.leaves(carry)  # Flax's (c, h) and this package's agree


@pytest.mark.parametrize("kind", LINEN)
def test_a_linen_cell_computes_the_same_here_and_comes_back(ours, assert_close, assert_same_bits, kind):
    cell, variables = make_linen(kind)
    our_cell, params = from_linen(variables, **LINEN[kind][2])
    assert our_cell == LINEN[kind][3]
    carry, ys = ours.run_cell(our_cell, params, ours.xs())
    their_carry, their_ys = run_linen(cell, variables, ours.xs())
    assert_close([ys, *states(carry)], [their_ys, *states(their_carry)])
    assert_same_bits(to_linen(our_cell, params), variables)
    assert_same_bits(from_linen(variables["params"], **LINEN[kind][2])[1], params)


@pytest.mark.parametrize("kind", LINEN)
def test_a_cell_from_here_computes_the_same_in_linen_and_comes_back(ours, assert_close, assert_same_bits, kind):
    cell, our_cell = make_linen(kind)[0], LINEN[kind][3]
    params = ours.cell_params(our_cell)
    variables = to_linen(our_cell, params)
    assert_close([run_linen(cell, variables, ours.xs())[1]], [ours.run_cell(our_cell, params, ours.xs())[1]])
    assert_same_bits(from_linen(variables, **LINEN[kind][2])[1], params)


def test_linens_minimal_gated_unit_is_a_gru_with_one_gate_twice(ours, assert_close):
    cell = linen.MGUCell(H)
    carry = cell.initialize_carry(jax.random.key(0), (2, D))
    variables = randomise(cell.init(jax.random.key(0), carry, jnp.ones((2, D))))
    our_cell, params = from_linen(variables)
    assert our_cell == GRU(H)
    assert_close([ours.run_cell(our_cell, params, ours.xs())[1]], [run_linen(cell, variables, ours.xs())[1]])


@pytest.mark.parametrize("form", ["state", "pure_dict"])
@pytest.mark.parametrize("kind", NNX)
def test_an_nnx_cell_computes_the_same_here_and_comes_back(ours, assert_close, assert_same_bits, kind, form):
    cell = make_nnx(kind)
    state = nnx.state(cell, nnx.Param)
    pure = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    our_cell, params = from_nnx(state if form == "state" else pure, **NNX[kind][2])
    assert our_cell == NNX[kind][3]
    carry, ys = ours.run_cell(our_cell, params, ours.xs())
    their_carry, their_ys = run_nnx(cell, ours.xs())
    assert_close([ys, *states(carry)], [their_ys, *states(their_carry)])
    assert_same_bits(to_nnx(our_cell, params, optimized="Optimized" in kind), pure)


@pytest.mark.parametrize("kind", NNX)
def test_a_cell_from_here_computes_the_same_in_nnx_and_comes_back(ours, assert_close, assert_same_bits, kind):
    cell, our_cell = make_nnx(kind), NNX[kind][3]
    params = ours.cell_params(our_cell)
    if isinstance(our_cell, GRU):
        params["recurrent_bias"] = np.zeros_like(params["recurrent_bias"])
    nnx.update(cell, nnx.State(to_nnx(our_cell, params, optimized="Optimized" in kind)))
    assert_close([run_nnx(cell, ours.xs())[1]], [ours.run_cell(our_cell, params, ours.xs())[1]])
    assert_same_bits(from_nnx(nnx.state(cell, nnx.Param), **NNX[kind][2])[1], params)


def test_weights_that_do_not_fit():
    _, variables = make_linen("LSTMCell")
    for change, message in (
        ({"hg": {"kernel": np.zeros((5, 5), "float32")}}, r"hg\.bias is missing in the variables"),
        ({"ig": {"kernel": np.zeros((3, 5), "float32")}}, r"ig\.kernel must have the shape \[4, 5\], got \[3, 5\]"),
        ({"hx": {"kernel": np.zeros((5, 5), "float32")}}, r"hx\.kernel is unknown"),
        ({"ig": {"kernel": object()}}, r"ig\.kernel in .* must be an array, got a object"),
    ):
        with pytest.raises(UserError, match=message):
            from_linen({"params": variables["params"] | change})
    with pytest.raises(UserError, match=r"h\.kernel is missing in the variables.*; found: cell\.ii\.kernel"):
        from_linen({"params": {"cell": {"ii": {"kernel": np.zeros((4, 5))}}}})
    with pytest.raises(UserError, match=r"dense_h\.kernel must have the shape \[H, H\] \(SimpleCell\) or"):
        from_nnx({"dense_h": {"kernel": np.zeros((5, 10))}})
    with pytest.raises(UserError, match=r"dense_i\.kernel must have the shape \[any, 20\], got \[4, 15\]"):
        from_nnx({"dense_h": {"kernel": np.zeros((5, 20))}, "dense_i": {"kernel": np.zeros((4, 15))}})


@pytest.mark.parametrize("convert", [to_linen, to_nnx])
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (MGU(H), "Flax has no MGU; it has: GRU, LSTM, RNN"),
        (OriginalGRU(H), "Flax has no OriginalGRU"),
        (LSTM(H, input_gate="coupled"), "Flax has no LSTM with input_gate='coupled', only with 'free'"),
        (LSTM(H, output_activation="identity"), "one activation for input and output of an LSTM"),
    ],
)
def test_cells_that_flax_does_not_have(ours, convert, cell, message):
    with pytest.raises(UserError, match=message):
        convert(cell, ours.cell_params(cell))


def test_nnx_has_no_place_for_the_second_bias_of_a_gru(ours):
    with pytest.raises(UserError, match=r"recurrent_bias: it must be zero; Linen's GRUCell has one"):
        to_nnx(GRU(H), ours.cell_params(GRU(H)))
