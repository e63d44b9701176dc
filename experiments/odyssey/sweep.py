"""The trials of this study: nine variants of the LSTM, each with the same random draws.

The variants, and what is drawn, are those of Greff et al. (2017), where this project has them: learning rate, momentum
(of Adam's first moment) and noise on the inputs (here dropout). The size is not drawn; all variants have equally many
parameters.
"""

import numpy as np

VARIANTS = (
    "peephole_lstm",  # V, the vanilla LSTM of the paper
    "lstm",  # NP: no peepholes
    "nig_lstm",
    "nfg_lstm",
    "nog_lstm",
    "niaf_lstm",
    "noaf_lstm",
    "cifg_lstm",
    "fgr_lstm",
)


def get_hyper(hyper, num_draws=12):
    """Returns every variant with each of the draws."""
    generator = np.random.default_rng(2017)
    draws = [
        {
            "optimizer.learning_rate": float(10 ** generator.uniform(-4, -1.5)),
            "optimizer.b1": float(1 - 10 ** generator.uniform(-2, 0)),
            "model.dropout.input_rate": float(generator.uniform(0, 0.5)),
        }
        for _ in range(num_draws)
    ]
    return hyper.product([hyper.sweep("model.cell.name", VARIANTS), draws])
