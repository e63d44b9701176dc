"""The config keys of every task with another value for each; `tests/test_knobs.py` proves that none is ignored."""
