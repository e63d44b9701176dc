"""The equations of the LSTM family in plain NumPy, for one step of one sequence.

Each function takes the parameters, the carry as a dict, the input and the mask on the hidden state, and returns the new
carry; the output is its h. Each is one paper's equations, written out: nothing is shared but what every paper shares.
"""

import functools

import numpy as np

from lstm_research.models.cells import LSTM, MogrifierLSTM, MultiplicativeLSTM


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(params, gates):
    """Returns a function of (gate, x, h) that gives x W + h U + b with the gate's own W, U and b."""
    size = len(params["bias"]) // len(gates)

    def affine(gate, x, h):
        columns = slice(gates.index(gate) * size, (gates.index(gate) + 1) * size)
        W, U, b = params["input_kernel"][:, columns], params["recurrent_kernel"][:, columns], params["bias"][columns]
        return x @ W + h @ U + b

    return affine


def lstm(params, carry, x, mask):
    """Gers, Schmidhuber and Cummins 2000."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    c = sigmoid(a("f", x, h)) * c + sigmoid(a("i", x, h)) * np.tanh(a("g", x, h))
    return {"c": c, "h": sigmoid(a("o", x, h)) * np.tanh(c)}


def peephole_lstm(params, carry, x, mask):
    """Greff et al. 2017, section II: the vanilla LSTM."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    p_i, p_f, p_o = params["peephole"]
    i = sigmoid(a("i", x, h) + p_i * c)
    f = sigmoid(a("f", x, h) + p_f * c)
    c_new = np.tanh(a("g", x, h)) * i + c * f
    o = sigmoid(a("o", x, h) + p_o * c_new)
    return {"c": c_new, "h": np.tanh(c_new) * o}


def nig_lstm(params, carry, x, mask):
    """Greff et al. 2017, section III: no input gate, i = 1."""
    a, c, h = weights(params, "fgo"), carry["c"], carry["h"] * mask
    p_f, p_o = params["peephole"]
    c_new = np.tanh(a("g", x, h)) + c * sigmoid(a("f", x, h) + p_f * c)
    return {"c": c_new, "h": np.tanh(c_new) * sigmoid(a("o", x, h) + p_o * c_new)}


def nfg_lstm(params, carry, x, mask):
    """No forget gate, f = 1."""
    a, c, h = weights(params, "igo"), carry["c"], carry["h"] * mask
    p_i, p_o = params["peephole"]
    c_new = np.tanh(a("g", x, h)) * sigmoid(a("i", x, h) + p_i * c) + c
    return {"c": c_new, "h": np.tanh(c_new) * sigmoid(a("o", x, h) + p_o * c_new)}


def nog_lstm(params, carry, x, mask):
    """No output gate, o = 1."""
    a, c, h = weights(params, "ifg"), carry["c"], carry["h"] * mask
    p_i, p_f = params["peephole"]
    i = sigmoid(a("i", x, h) + p_i * c)
    f = sigmoid(a("f", x, h) + p_f * c)
    c_new = np.tanh(a("g", x, h)) * i + c * f
    return {"c": c_new, "h": np.tanh(c_new)}


def niaf_lstm(params, carry, x, mask):
    """No input activation function."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    p_i, p_f, p_o = params["peephole"]
    i = sigmoid(a("i", x, h) + p_i * c)
    f = sigmoid(a("f", x, h) + p_f * c)
    c_new = a("g", x, h) * i + c * f
    return {"c": c_new, "h": np.tanh(c_new) * sigmoid(a("o", x, h) + p_o * c_new)}


def noaf_lstm(params, carry, x, mask):
    """No output activation function."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    p_i, p_f, p_o = params["peephole"]
    i = sigmoid(a("i", x, h) + p_i * c)
    f = sigmoid(a("f", x, h) + p_f * c)
    c_new = np.tanh(a("g", x, h)) * i + c * f
    return {"c": c_new, "h": c_new * sigmoid(a("o", x, h) + p_o * c_new)}


def cifg_lstm(params, carry, x, mask):
    """Coupled input and forget gate, f = 1 - i."""
    a, c, h = weights(params, "igo"), carry["c"], carry["h"] * mask
    p_i, p_o = params["peephole"]
    i = sigmoid(a("i", x, h) + p_i * c)
    f = 1 - i
    c_new = np.tanh(a("g", x, h)) * i + c * f
    return {"c": c_new, "h": np.tanh(c_new) * sigmoid(a("o", x, h) + p_o * c_new)}


def fgr_lstm(params, carry, x, mask):
    """Full gate recurrence: nine more matrices, from each gate at the step before to each gate."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    p_i, p_f, p_o = params["peephole"]
    (R_ii, R_if, R_io), (R_fi, R_ff, R_fo), (R_oi, R_of, R_oo) = (
        np.split(rows, 3, axis=1) for rows in np.split(params["gate_kernel"], 3)
    )
    i_old, f_old, o_old = np.split(carry["gates"], 3)
    i = sigmoid(a("i", x, h) + p_i * c + i_old @ R_ii + f_old @ R_fi + o_old @ R_oi)
    f = sigmoid(a("f", x, h) + p_f * c + i_old @ R_if + f_old @ R_ff + o_old @ R_of)
    c_new = np.tanh(a("g", x, h)) * i + c * f
    o = sigmoid(a("o", x, h) + p_o * c_new + i_old @ R_io + f_old @ R_fo + o_old @ R_oo)
    return {"c": c_new, "h": np.tanh(c_new) * o, "gates": np.concatenate([i, f, o])}


def original_lstm(params, carry, x, mask):
    """Hochreiter and Schmidhuber 1997, with today's tanh for its scaled logistic functions."""
    a, c, h = weights(params, "igo"), carry["c"], carry["h"] * mask
    c = c + sigmoid(a("i", x, h)) * np.tanh(a("g", x, h))
    return {"c": c, "h": sigmoid(a("o", x, h)) * np.tanh(c)}


def capped_lstm(params, carry, x, mask):
    """Melis, Dyer and Blunsom 2018, equation of the memory."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    f = sigmoid(a("f", x, h))
    c = f * c + np.minimum(sigmoid(a("i", x, h)), 1 - f) * np.tanh(a("g", x, h))
    return {"c": c, "h": sigmoid(a("o", x, h)) * np.tanh(c)}


def normalise(a, scale):
    """Ba, Kiros and Hinton 2016, with the ε that is usual."""
    return scale * (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-5)


def layer_norm_lstm(params, carry, x, mask):
    c, h = carry["c"], carry["h"] * mask
    b_i, b_f, b_g, b_o = np.split(params["bias"], 4)
    a_i, a_f, a_g, a_o = map(
        normalise,
        np.split(x @ params["input_kernel"] + h @ params["recurrent_kernel"], 4),
        np.split(params["norm_scale"], 4),
    )
    c = sigmoid(a_f + b_f) * c + sigmoid(a_i + b_i) * np.tanh(a_g + b_g)
    seen = normalise(c, params["memory_norm_scale"]) + params["memory_norm_bias"]
    return {"c": c, "h": sigmoid(a_o + b_o) * np.tanh(seen)}


def projected_lstm(params, carry, x, mask):
    """Sak, Senior and Beaufays 2014, without the non-recurrent projection (and without peepholes)."""
    new = lstm(params, carry, x, mask)
    return new | {"h": new["h"] @ params["projection_kernel"]}


def multiplicative_lstm(params, carry, x, mask):
    """Krause et al. 2016, section 3."""
    a, c, h = weights(params, "ifgo"), carry["c"], carry["h"] * mask
    m = (x @ params["multiplicative_input_kernel"]) * (h @ params["multiplicative_recurrent_kernel"])
    h_hat = a("g", x, m)
    i, o, f = sigmoid(a("i", x, m)), sigmoid(a("o", x, m)), sigmoid(a("f", x, m))
    c = f * c + i * np.tanh(h_hat)
    return {"c": c, "h": np.tanh(c) * o}


def mogrifier_lstm(params, carry, x, mask):
    """Melis, Kočiský and Blunsom 2020, section 2, five rounds: Q in rounds 1, 3, 5 and R in rounds 2, 4."""
    Q1, R2, Q3, R4, Q5 = (params[f"mogrifier_{k}_kernel"] for k in range(1, 6))
    x_minus1, h_0 = x, carry["h"] * mask
    x_1 = 2 * sigmoid(h_0 @ Q1) * x_minus1
    h_2 = 2 * sigmoid(x_1 @ R2) * h_0
    x_3 = 2 * sigmoid(h_2 @ Q3) * x_1
    h_4 = 2 * sigmoid(x_3 @ R4) * h_2
    x_5 = 2 * sigmoid(h_4 @ Q5) * x_3
    return lstm(params, {"c": carry["c"], "h": h_4}, x_5, np.ones_like(h_4))


def low_rank_mogrifier_lstm(params, carry, x, mask):
    """The same of two rounds with Q = Q_left Q_right, around a projected LSTM."""
    products = {
        f"mogrifier_{k}_kernel": params[f"mogrifier_{k}_left_kernel"] @ params[f"mogrifier_{k}_right_kernel"]
        for k in (1, 2)
    }
    h = carry["h"] * mask
    x = 2 * sigmoid(h @ products["mogrifier_1_kernel"]) * x
    h = 2 * sigmoid(x @ products["mogrifier_2_kernel"]) * h
    return projected_lstm(params, {"c": carry["c"], "h": h}, x, np.ones_like(h))


def everything_lstm(params, carry, x, mask):
    """Coupled gates, peepholes, gate recurrence, other activations, layer norm and projection at once."""
    c, h = carry["c"], carry["h"] * mask
    p_i, p_o = params["peephole"]
    b_i, b_g, b_o = np.split(params["bias"], 3)
    (R_ii, R_io), (R_oi, R_oo) = (np.split(rows, 2, axis=1) for rows in np.split(params["gate_kernel"], 2))
    i_old, o_old = np.split(carry["gates"], 2)
    a_i, a_g, a_o = np.split(x @ params["input_kernel"] + h @ params["recurrent_kernel"], 3)
    γ_i, γ_g, γ_o = np.split(params["norm_scale"], 3)
    hard_sigmoid = lambda a: np.clip(a / 6 + 0.5, 0, 1)  # noqa: E731
    softsign = lambda a: a / (1 + np.abs(a))  # noqa: E731
    i = hard_sigmoid(normalise(a_i + i_old @ R_ii + o_old @ R_oi, γ_i) + b_i + p_i * c)
    c_new = (1 - i) * c + i * softsign(normalise(a_g, γ_g) + b_g)
    o = hard_sigmoid(normalise(a_o + i_old @ R_io + o_old @ R_oo, γ_o) + b_o + p_o * c_new)
    seen = normalise(c_new, params["memory_norm_scale"]) + params["memory_norm_bias"]
    h = (o * np.log1p(np.exp(seen))) @ params["projection_kernel"]
    return {"c": c_new, "h": h, "gates": np.concatenate([i, o])}


def ungated_multiplicative_lstm(params, carry, x, mask):
    """Without input and output gates, and with projection."""
    a, c, h = weights(params, "fg"), carry["c"], carry["h"] * mask
    m = (x @ params["multiplicative_input_kernel"]) * (h @ params["multiplicative_recurrent_kernel"])
    c = sigmoid(a("f", x, m)) * c + np.tanh(a("g", x, m))
    return {"c": c, "h": np.tanh(c) @ params["projection_kernel"]}


EQUATIONS = {
    "capped_lstm": capped_lstm,
    "cifg_lstm": cifg_lstm,
    "everything_lstm": everything_lstm,
    "fgr_lstm": fgr_lstm,
    "layer_norm_lstm": layer_norm_lstm,
    "learned_lstm": lstm,
    "low_rank_mogrifier_lstm": low_rank_mogrifier_lstm,
    "lstm": lstm,
    "mogrifier_lstm": mogrifier_lstm,
    "multiplicative_lstm": multiplicative_lstm,
    "nfg_lstm": nfg_lstm,
    "niaf_lstm": niaf_lstm,
    "nig_lstm": nig_lstm,
    "noaf_lstm": noaf_lstm,
    "nog_lstm": nog_lstm,
    "original_lstm": original_lstm,
    "peephole_lstm": peephole_lstm,
    "projected_lstm": projected_lstm,
    "ungated_multiplicative_lstm": ungated_multiplicative_lstm,
}
VARIANTS = {
    "everything_lstm": functools.partial(
        LSTM,
        input_gate="coupled",
        peepholes=True,
        gate_recurrence=True,
        gate_activation="hard_sigmoid",
        input_activation="softsign",
        output_activation="softplus",
        layer_norm=True,
        projection_size=2,
    ),
    "learned_lstm": functools.partial(LSTM, learned_initial_state=True),
    "low_rank_mogrifier_lstm": functools.partial(MogrifierLSTM, rounds=2, rank=1, projection_size=4),
    "projected_lstm": functools.partial(LSTM, projection_size=2),
    "ungated_multiplicative_lstm": functools.partial(
        MultiplicativeLSTM, input_gate="none", output_gate=False, projection_size=2
    ),
}
"""Cells with options that no row of `CELLS` sets, by the name of their equations: what takes `hidden_size`."""
