"""The equations of the GRU family and of the simple networks, in plain NumPy, for one step of one sequence.

Each function takes the parameters, the carry as a dict, the input and the mask on the hidden state, and returns the new
carry; the output is its h.
"""

import functools

import numpy as np

from lstm_research.models.cells import GRU, JANET, MGU, IndRNN, OriginalGRU


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(a):
    return np.clip(a / 6 + 0.5, 0, 1)


def softsign(a):
    return a / (1 + np.abs(a))


def gru(params, carry, x, mask, gate=sigmoid, activation=np.tanh):
    W, U, b, h = params["input_kernel"], params["recurrent_kernel"], params["bias"], carry["h"]
    H = len(h)
    hd = h * mask
    r = gate(x @ W[:, :H] + hd @ U[:, :H] + b[:H])
    u = gate(x @ W[:, H : 2 * H] + hd @ U[:, H : 2 * H] + b[H : 2 * H])
    n = activation(x @ W[:, 2 * H :] + b[2 * H :] + r * (hd @ U[:, 2 * H :] + params["recurrent_bias"]))
    return {"h": (1 - u) * n + u * h}


def original_gru(params, carry, x, mask, gate=sigmoid, activation=np.tanh):
    W, U, b, h = params["input_kernel"], params["recurrent_kernel"], params["bias"], carry["h"]
    H = len(h)
    hd = h * mask
    r = gate(x @ W[:, :H] + hd @ U[:, :H] + b[:H])
    u = gate(x @ W[:, H : 2 * H] + hd @ U[:, H : 2 * H] + b[H : 2 * H])
    n = activation(x @ W[:, 2 * H :] + (r * hd) @ U[:, 2 * H :] + b[2 * H :])
    return {"h": (1 - u) * n + u * h}


def rnn(params, carry, x, mask):
    h = carry["h"] * mask
    return {"h": np.tanh(x @ params["input_kernel"] + h @ params["recurrent_kernel"] + params["bias"])}


def normalised(a):
    return (a - a.mean()) / np.sqrt(a.var() + 1e-5)


def layer_norm_gru(params, carry, x, mask):
    W, U, b, h = params["input_kernel"], params["recurrent_kernel"], params["bias"], carry["h"]
    H, into_x, into_h = len(h), [], []
    for k in range(0, 3 * H, H):
        gate = slice(k, k + H)
        into_x.append(params["input_norm_scale"][gate] * normalised(x @ W[:, gate]) + b[gate])
        into_h.append(params["recurrent_norm_scale"][gate] * normalised((h * mask) @ U[:, gate]))
    r, u = sigmoid(into_x[0] + into_h[0]), sigmoid(into_x[1] + into_h[1])
    n = np.tanh(into_x[2] + r * (into_h[2] + params["recurrent_bias"]))
    return {"h": (1 - u) * n + u * h}


def mgu(params, carry, x, mask, gate=sigmoid, activation=np.tanh):
    """The concatenated form in which the paper gives it: [h, x] against one matrix a gate."""
    h, H = carry["h"], len(carry["h"])
    weights = np.concatenate([params["recurrent_kernel"], params["input_kernel"]])
    hd = h * mask
    f = gate(np.concatenate([hd, x]) @ weights[:, :H] + params["bias"][:H])
    n = activation(np.concatenate([f * hd, x]) @ weights[:, H:] + params["bias"][H:])
    return {"h": h - f * h + f * n}


def janet(params, carry, x, mask, beta=1.0, gate=sigmoid, activation=np.tanh):
    c, H = carry["h"], len(carry["h"])
    U_f, U_c = params["recurrent_kernel"][:, :H], params["recurrent_kernel"][:, H:]
    W_f, W_c = params["input_kernel"][:, :H], params["input_kernel"][:, H:]
    s = (c * mask) @ U_f + x @ W_f + params["bias"][:H]
    candidate = activation((c * mask) @ U_c + x @ W_c + params["bias"][H:])
    return {"h": gate(s) * c + (1 - gate(s - beta)) * candidate}


def irnn(params, carry, x, mask):
    h = carry["h"] * mask
    return {"h": np.maximum(x @ params["input_kernel"] + h @ params["recurrent_kernel"] + params["bias"], 0)}


def indrnn(params, carry, x, mask, activation=lambda a: np.maximum(a, 0)):
    u = np.diag(params["recurrent_kernel"])
    return {"h": activation(x @ params["input_kernel"] + (carry["h"] * mask) @ u + params["bias"])}


EQUATIONS = {
    "gru": gru,
    "indrnn": indrnn,
    "irnn": irnn,
    "janet": janet,
    "layer_norm_gru": layer_norm_gru,
    "mgu": mgu,
    "original_gru": original_gru,
    "piecewise_gru": functools.partial(gru, gate=hard_sigmoid, activation=softsign),
    "piecewise_janet": functools.partial(janet, beta=0.3, gate=hard_sigmoid, activation=softsign),
    "piecewise_mgu": functools.partial(mgu, gate=hard_sigmoid, activation=softsign),
    "piecewise_original_gru": functools.partial(original_gru, gate=hard_sigmoid, activation=softsign),
    "rnn": rnn,
    "tanh_indrnn": functools.partial(indrnn, activation=np.tanh),
}
OTHER_ACTIVATIONS = {"gate_activation": "hard_sigmoid", "activation": "softsign"}
VARIANTS = {
    "piecewise_gru": functools.partial(GRU, **OTHER_ACTIVATIONS),
    "piecewise_janet": functools.partial(JANET, beta=0.3, **OTHER_ACTIVATIONS),
    "piecewise_mgu": functools.partial(MGU, **OTHER_ACTIVATIONS),
    "piecewise_original_gru": functools.partial(OriginalGRU, **OTHER_ACTIVATIONS),
    "tanh_indrnn": functools.partial(IndRNN, activation="tanh"),
}
"""Cells with options that no row of `CELLS` sets, by the name of their equations: what takes `hidden_size`."""
