"""The trials of this study on a GPU: as `sweep.py`, with as many draws as Greff et al. (2017) had."""

import runpy
from pathlib import Path

SWEEP = runpy.run_path(str(Path(__file__).with_name("sweep.py")))


def get_hyper(hyper):
    """Returns every variant with each of 200 draws."""
    return SWEEP["get_hyper"](hyper, num_draws=200)
