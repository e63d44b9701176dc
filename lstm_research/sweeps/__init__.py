"""Sweeps: many trials of one recipe, each an ordinary run, chosen by a sweep file and driven by an engine."""
