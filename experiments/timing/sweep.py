"""Shorter intervals, fewer units, more seeds: what `runs.py` leaves open."""


def get_hyper(hyper):
    """Returns both cells with eight seeds each."""
    return hyper.product([hyper.sweep("model.cell.name", ["peephole_lstm", "lstm"]), hyper.sweep("seed", range(8))])
