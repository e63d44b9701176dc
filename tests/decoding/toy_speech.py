"""What tests of speech decoders share: random predictions, all of their alignments, and a language model of numbers."""

import itertools

import numpy as np


def draw(seed, T, V, scale=2.0):
    logits = scale * np.random.default_rng(seed).normal(size=(T, V))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def collapse(path, blank_id):
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id)


def alignments(log_probs, blank_id):
    """Every labelling with all of its alignments and their log-probabilities."""
    T, V = log_probs.shape
    result = {}
    for path in itertools.product(range(V), repeat=T):
        total = sum(log_probs[t, symbol] for t, symbol in enumerate(path))
        result.setdefault(collapse(path, blank_id), []).append((total, path))
    return result


class ToyFusion:
    """Numbers drawn for every prefix; a state is the prefix."""

    def __init__(self, V):
        self.V = V

    def initial(self):
        return ()

    def scores(self, states):
        return np.stack([np.random.default_rng([1, *state]).normal(size=self.V) for state in states])

    def extend(self, states, symbols):
        return [(*state, int(symbol)) for state, symbol in zip(states, symbols, strict=True)]

    def end(self, states):
        return np.array([np.random.default_rng([2, *state]).normal() for state in states])

    def total(self, labelling):
        gains = [self.scores([labelling[:i]])[0, symbol] for i, symbol in enumerate(labelling)]
        return sum(gains) + self.end([labelling])[0]
