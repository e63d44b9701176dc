"""Data: fetching, builders of prepared datasets, vocabularies, and batches as functions of (seed, step)."""
