"""Cells equal PyTorch's, in outputs, final states and every gradient."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.models.cells import GRU, LSTM, RNN, LSTMCarry
from lstm_research.models.layers.functional import functional
from lstm_research.models.layers.stack import RecurrentStack
from lstm_research.models.recurrence import unroll

if os.environ.get("CI"):
    import torch  # In continuous integration a missing PyTorch is a failure, not a skip.
else:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install '.[parity]'")

D, H, T, B, L = 3, 4, 6, 5, 2
LENGTHS = np.array([4, 6, 1, 3, 6])
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
KINDS = {
    "lstm": (LSTM(H), lambda **kw: torch.nn.LSTM(D, H, **kw)),
    "gru": (GRU(H), lambda **kw: torch.nn.GRU(D, H, **kw)),
    "rnn_tanh": (RNN(H), lambda **kw: torch.nn.RNN(D, H, nonlinearity="tanh", **kw)),
    "rnn_relu": (RNN(H, activation="relu"), lambda **kw: torch.nn.RNN(D, H, nonlinearity="relu", **kw)),
}


def cell_params(weights, suffix):
    """Makes our parameters from PyTorch's: transposed kernels, and one bias where two are always added."""
    b_ih, b_hh = weights[f"bias_ih_{suffix}"], weights[f"bias_hh_{suffix}"]
    params = {"input_kernel": weights[f"weight_ih_{suffix}"].T, "recurrent_kernel": weights[f"weight_hh_{suffix}"].T}
    if b_ih.shape == (3 * H,):
        # The reset gate of a GRU stands between the candidate's two biases.
        bias = b_ih + jnp.concatenate([b_hh[: 2 * H], jnp.zeros_like(b_hh[2 * H :])])
        return params | {"bias": bias, "recurrent_bias": b_hh[2 * H :]}
    return params | {"bias": b_ih + b_hh}


def make_carry(cell, states, index):
    fields = {"h": states[0][index]} | ({"c": states[1][index]} if isinstance(cell, LSTM) else {})
    return type(cell.initial_carry({}, (1,)))(**fields)


def stack_by_unroll(cell, weights, xs, states, lengths, bidirectional):
    """PyTorch's stacking, from calls of `unroll`."""
    finals = []
    directions = (False, True) if bidirectional else (False,)
    for layer in range(L):
        outputs = []
        for reverse in directions:
            params = cell_params(weights, f"l{layer}" + "_reverse" * reverse)
            carry = make_carry(cell, states, len(finals))
            final, ys = unroll(cell, params, xs, carry, lengths=lengths, reverse=reverse)
            outputs.append(ys)
            finals.append(final)
        xs = jnp.concatenate(outputs, axis=-1)
    return xs, finals


@functools.cache
def make_stack(cell, bidirectional):
    """The package's stack as a function of parameters; made once, so that `jit` compiles it once."""
    from flax import nnx

    return functional(RecurrentStack(cell, D, num_layers=L, bidirectional=bidirectional, rngs=nnx.Rngs(0)))[0]


def stack_by_layers(cell, weights, xs, states, lengths, bidirectional):
    """The same by `RecurrentStack`."""
    if bidirectional:
        params = {
            f"layer_{i}": {
                "forward": {"params": cell_params(weights, f"l{i}")},
                "backward": {"params": cell_params(weights, f"l{i}_reverse")},
            }
            for i in range(L)
        }
        carry = tuple(tuple(make_carry(cell, states, 2 * i + j) for j in range(2)) for i in range(L))
    else:
        params = {f"layer_{i}": {"params": cell_params(weights, f"l{i}")} for i in range(L)}
        carry = tuple(make_carry(cell, states, i) for i in range(L))
    final, ys = make_stack(cell, bidirectional)(params, xs, carry, lengths=lengths)
    return ys, jax.tree.leaves(final, is_leaf=lambda node: hasattr(node, "_fields"))


@functools.cache
def reference(kind, bidirectional, packed, dtype):
    """PyTorch's outputs, final states and gradients, with what went in."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = KINDS[kind][1](num_layers=L, bidirectional=bidirectional).to(getattr(torch, dtype))
    num_states = L * (2 if bidirectional else 1)
    x = torch.tensor(rng.normal(size=(T, B, D)).astype(dtype), requires_grad=True)
    states = [
        torch.tensor(rng.normal(size=(num_states, B, H)).astype(dtype), requires_grad=True)
        for _ in range(2 if kind == "lstm" else 1)
    ]
    given = tuple(states) if kind == "lstm" else states[0]
    if packed:
        sequence = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
        ys, finals = module(sequence, given)
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=T)
    else:
        ys, finals = module(x, given)
    results = [ys, *(finals if kind == "lstm" else [finals])]
    loss_weights = [rng.normal(size=tuple(result.shape)).astype(dtype) for result in results]
    sum((result * torch.tensor(w)).sum() for result, w in zip(results, loss_weights, strict=True)).backward()
    weights = dict(module.named_parameters())
    return (
        {name: w.detach().numpy() for name, w in weights.items()},
        x.detach().numpy(),
        [s.detach().numpy() for s in states],
        loss_weights,
        [r.detach().numpy() for r in results],
        ({name: w.grad.numpy() for name, w in weights.items()}, x.grad.numpy(), [s.grad.numpy() for s in states]),
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("packed", [False, True], ids=["full", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_pytorch(kind, bidirectional, packed, dtype):
    check_equals_pytorch(kind, bidirectional, packed, dtype, stack_by_unroll)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", KINDS)
def test_stack_equals_pytorch(kind, bidirectional):
    check_equals_pytorch(kind, bidirectional, True, "float64", stack_by_layers)


def check_equals_pytorch(kind, bidirectional, packed, dtype, stack):
    cell = KINDS[kind][0]
    weights, x, states, loss_weights, expected, expected_gradients = reference(kind, bidirectional, packed, dtype)

    def loss(weights, x, states, lengths):
        ys, finals = stack(cell, weights, x, states, lengths, bidirectional)
        results = [ys, jnp.stack([final.h for final in finals])]
        if isinstance(finals[0], LSTMCarry):
            results.append(jnp.stack([final.c for final in finals]))
        return sum((result * w).sum() for result, w in zip(results, loss_weights, strict=True)), results

    with jax.enable_x64(dtype == "float64"):
        lengths = jnp.asarray(LENGTHS) if packed else None
        differentiate = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
        gradients, results = differentiate(*jax.tree.map(jnp.asarray, (weights, x, states)), lengths)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves((gradients, results)))
    errors = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), results, expected)
    gradient_errors = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), gradients, expected_gradients)
    assert max(errors) <= TOLERANCE[dtype]
    assert max(jax.tree.leaves(gradient_errors)) <= TOLERANCE[dtype], gradient_errors
