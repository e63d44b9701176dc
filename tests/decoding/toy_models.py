"""Sequence-to-sequence models whose predictions are tables over whole histories, and searches of them in plain Python.

A hypothesis is a tuple of symbols without the end symbol, which is the last of V; the model of sentence b predicts
after each history h < V^(limit + 1) the row `log_probs[b, h]` and attends to `attention[b, h]`.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.decoding.beam_search import UNATTENDED
from lstm_research.decoding.hypotheses import sentence_keys


class Toy(NamedTuple):
    """The tables of some sentences."""

    log_probs: np.ndarray  # [sentences, histories, V]
    attention: np.ndarray  # [sentences, histories, S]
    mask: np.ndarray  # [sentences, S]

    @property
    def end(self):
        return self.log_probs.shape[-1] - 1


def make_toy(seed, *, V=3, limit=4, lengths=(3, 1, 4), scale=2.0, end_bias=0.0, dtype=np.float32):
    """Draws the tables of a model for histories of up to `limit` symbols."""
    rng = np.random.default_rng(seed)
    B, S, histories = len(lengths), max(lengths), V ** (limit + 1)
    logits = scale * rng.normal(size=(B, histories, V))
    logits[..., -1] += end_bias
    mask = np.arange(S) < np.array(lengths)[:, None]
    attention = np.where(mask[:, None], np.exp(2 * rng.normal(size=(B, histories, S))), 0)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    attention /= np.maximum(attention.sum(-1, keepdims=True), 1e-9)  # an empty sentence has none
    return Toy(log_probs.astype(dtype), attention.astype(dtype), mask)


def code(history, V):
    """The number of a history: its symbols plus 1 as digits, so that no two histories have the same."""
    number = 0
    for symbol in history:
        number = number * V + symbol + 1
    return number


def step(params, state, tokens):
    """The model as a decoder's step: the state is the sentence and the history's number."""
    log_probs, attention = params
    V = log_probs.shape[-1]
    history = jnp.where(tokens == V - 1, state["history"], state["history"] * V + tokens + 1)
    row = (state["sentence"], history)
    return {"sentence": state["sentence"], "history": history}, log_probs[row], attention[row]


def step_without_attention(params, state, tokens):
    return (*step(params, state, tokens)[:2], None)


def arguments(toy, sentences=None, seed=0):
    """What a decoder is called with, for all sentences or some."""
    sentences = np.arange(len(toy.mask)) if sentences is None else np.asarray(sentences)
    state = {"sentence": jnp.asarray(sentences), "history": jnp.zeros(len(sentences), jnp.int32)}
    params = (jnp.asarray(toy.log_probs), jnp.asarray(toy.attention))
    return params, state, jnp.asarray(toy.mask[sentences]), sentence_keys(seed, sentences)


def decode(decoder, toy, sentences=None, *, seed=0, step=step):
    """Runs a decoder and returns its result as NumPy arrays."""
    return jax.tree.map(np.asarray, _make(decoder, step, toy.end)(*arguments(toy, sentences, seed)))


@functools.cache
def _make(decoder, step, end_id):
    return decoder.make(step, end_id)


def read(result, sentence):
    """The hypotheses of a sentence as [(symbols without the end, score)], as far as there are any."""
    pairs = zip(result.tokens[sentence], result.lengths[sentence], result.scores[sentence], strict=True)
    return [(tuple(map(int, tokens[: n - 1])), float(score)) for tokens, n, score in pairs if n]


def log_prob(toy, b, symbols, *, ended=True):
    """The logarithm of P(hypothesis)."""
    V = toy.log_probs.shape[-1]
    whole = (*symbols, toy.end) if ended else symbols
    return sum(float(toy.log_probs[b, code(whole[:j], V), whole[j]]) for j in range(len(whole)))


def score(toy, b, symbols, options):
    """The score of a finished hypothesis by its definition."""
    n = len(symbols) + 1
    alpha = {"none": 0.0, "wu": 0.6, "average": 1.0}[options.length_penalty] if options.alpha is None else options.alpha
    lp = {"none": 1.0, "wu": ((5 + n) / 6) ** alpha, "average": n**alpha}[options.length_penalty]
    total = log_prob(toy, b, symbols) / lp
    if options.coverage_penalty:
        V = toy.log_probs.shape[-1]
        attended = sum(toy.attention[b, code(symbols[:j], V)].astype(float) for j in range(n))
        logs = [math.log(min(max(a, UNATTENDED), 1.0)) for a in attended[toy.mask[b]]]
        total += options.coverage_penalty * sum(logs)
    return total


def repeats(symbols, n):
    """Whether n symbols in a row are there twice."""
    grams = [symbols[i : i + n] for i in range(len(symbols) - n + 1)]
    return len(set(grams)) < len(grams)


def limit_of(toy, b, options):
    return math.floor(options.max_length_ratio * int(toy.mask[b].sum())) + options.max_length_offset


def exhaustive_search(toy, b, options):
    """All hypotheses within the limit, the best first."""
    n = options.no_repeat_ngram
    found = [
        (symbols, score(toy, b, symbols, options))
        for length in range(limit_of(toy, b, options) + 1)
        for symbols in itertools.product(range(toy.end), repeat=length)
        if n is None or not repeats(symbols, n)
    ]
    return sorted(found, key=lambda pair: -pair[1])[: options.num_best]


def plain_beam_search(toy, b, options):
    """The beam search by its definition, sentence by sentence; it never stops before the limit."""
    V, limit, n = toy.end + 1, limit_of(toy, b, options), options.no_repeat_ngram
    live, finished = [((), 0.0)], []
    for t in range(limit + 1):
        continued = []
        for symbols, total in live:
            for v in range(V):
                whole = (*symbols, v)
                if v != toy.end and (t == limit or (n is not None and repeats(whole, n))):
                    continue
                continued.append((whole, total + float(toy.log_probs[b, code(symbols, V), v])))
        continued.sort(key=lambda pair: -pair[1])
        ended = [whole[:-1] for whole, _ in continued[: options.beam_size] if whole[-1] == toy.end]
        finished += [(symbols, score(toy, b, symbols, options)) for symbols in ended]
        live = [pair for pair in continued if pair[0][-1] != toy.end][: options.beam_size]
    return sorted(finished, key=lambda pair: -pair[1])[: options.num_best]
