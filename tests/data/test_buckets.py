"""Batches by length: every example once, one shape per bucket, a function of (seed, step)."""

import itertools
import pickle
import sys
import time

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.batches import Batch
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets, limit_lengths

BOUNDARIES = (4, 7, 20)


def draw_lengths(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, BOUNDARIES[-1] + 1, count)


def collate(indices: np.ndarray, valid: np.ndarray, length: int) -> Batch:
    return {"example": indices, "weights": valid.astype(np.float32), "tokens": np.zeros((len(indices), length))}


def training(lengths: np.ndarray, *, batch_size: int = 4, seed: int = 0) -> TrainingBuckets:
    return TrainingBuckets(lengths, collate, batch_size=batch_size, boundaries=BOUNDARIES, seed=seed)


def evaluation(lengths: np.ndarray, *, batch_size: int = 4) -> EvaluationBuckets:
    return EvaluationBuckets(lengths, collate, batch_size=batch_size, boundaries=BOUNDARIES)


def epoch(batches: TrainingBuckets, number: int) -> list[Batch]:
    first = number * batches.batches_per_epoch
    return [batches[step] for step in range(first, first + batches.batches_per_epoch)]


def valid_examples(batches: list[Batch]) -> np.ndarray:
    return np.concatenate([batch["example"][batch["weights"] == 1] for batch in batches])


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("count", "batch_size"), list(itertools.product((1, 7, 64, 301), (1, 4, 64))))
def test_every_example_is_in_one_row_of_every_epoch(count: int, batch_size: int) -> None:
    batches = training(draw_lengths(count), batch_size=batch_size)
    for number in range(3):
        np.testing.assert_array_equal(np.sort(valid_examples(epoch(batches, number))), np.arange(count))
    held_out = evaluation(draw_lengths(count), batch_size=batch_size)
    np.testing.assert_array_equal(valid_examples(list(held_out)), held_out.order)
    np.testing.assert_array_equal(np.sort(held_out.order), np.arange(count))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_batch_has_the_smallest_boundary_that_holds_it(batch_size: int) -> None:
    lengths = draw_lengths(301)
    for batch in epoch(training(lengths, batch_size=batch_size), 2):
        padded = batch["tokens"].shape[1]
        smaller = max([boundary for boundary in BOUNDARIES if boundary < padded], default=-1)
        assert batch["tokens"].shape == (batch_size, padded)
        assert padded in BOUNDARIES
        assert (smaller < lengths[batch["example"]]).all()
        assert (lengths[batch["example"]] <= padded).all()  # the rows that fill a batch fit too
    for batch in evaluation(lengths, batch_size=batch_size):
        longest = lengths[batch["example"]].max()
        assert batch["tokens"].shape == (batch_size, min(boundary for boundary in BOUNDARIES if boundary >= longest))


def test_few_rows_fill() -> None:
    lengths = draw_lengths(301)
    filled = [int((batch["weights"] == 0).sum()) for batch in epoch(training(lengths, batch_size=8), 0)]
    assert sum(n > 0 for n in filled) <= len(BOUNDARIES)
    assert max(filled) < 8
    weights = np.concatenate([batch["weights"] for batch in evaluation(lengths, batch_size=8)])
    np.testing.assert_array_equal(weights, np.arange(304) < 301)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    lengths = draw_lengths(100)
    steps = range(200)
    there = [training(lengths, seed=7)[step] for step in steps]
    backward = training(lengths, seed=7)
    back = [backward[step] for step in reversed(steps)][::-1]
    assert all(map(same, there, back))
    other = training(lengths, seed=8)
    assert sum(same(there[step], other[step]) for step in steps) < 20


def test_epochs_differ_in_the_batches_and_in_their_order() -> None:
    batches = training(draw_lengths(300))
    first, second = (
        [(batch["tokens"].shape[1], frozenset(batch["example"])) for batch in epoch(batches, n)] for n in (0, 1)
    )
    assert [length for length, _ in first] != [length for length, _ in second]
    assert len(set(first) & set(second)) < 5
    assert [length for length, _ in first] != sorted(length for length, _ in first)


def test_evaluation_goes_from_the_longest_to_the_shortest() -> None:
    lengths = np.array([3, 9, 0, 9, 20, 3, 9])
    held_out = evaluation(lengths, batch_size=3)
    assert held_out.order.tolist() == [4, 1, 3, 6, 0, 5, 2]
    assert [batch["tokens"].shape[1] for batch in held_out] == [20, 20, 4]


def test_grain_reads_the_same_batches_in_every_way() -> None:
    batches = training(draw_lengths(100))
    assert len(batches) == sys.maxsize
    assert same(batches[20:][0], batches[20])
    assert same(batches[5:40:3][4], batches[17])
    assert same(pickle.loads(pickle.dumps(batches))[33], batches[33])
    for step, batch in zip(range(20, 90), batches[20:].to_iter_dataset(), strict=False):
        assert same(batch, batches[step])
    held_out = evaluation(draw_lengths(100))
    assert same(held_out[-1], held_out[len(held_out) - 1])
    with pytest.raises(IndexError):
        held_out[len(held_out)]


def test_of_pairs_the_larger_length_counts() -> None:
    pairs = draw_lengths(120).reshape(60, 2)
    larger = pairs.max(axis=1)
    assert all(map(same, epoch(training(pairs), 1), epoch(training(larger), 1)))
    assert all(map(same, evaluation(pairs), evaluation(larger)))


def test_the_plan_of_an_epoch_is_cheap() -> None:
    batches = training(draw_lengths(200_000), batch_size=64)
    start = time.perf_counter()
    for step in range(1000):
        batches[step]
    assert time.perf_counter() - start < 1.0


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 of 4 sequences are longer than the largest boundary, 20 \(the longest: 33"):
        training(np.array([1, 21, 33, 20]))
    with pytest.raises(UserError, match=r"1 of 2 sequences"):
        evaluation(np.array([[1, 21], [3, 4]]))
    for boundaries in ((), (0, 3), (4, 4), (5, 3)):
        with pytest.raises(UserError, match="boundaries must be positive and increasing"):
            EvaluationBuckets(np.array([1]), collate, batch_size=1, boundaries=boundaries)
    with pytest.raises(UserError, match="batch_size"):
        training(np.array([1]), batch_size=0)
    with pytest.raises(UserError, match="seed"):
        training(np.array([1]), seed=-1)
    with pytest.raises(UserError, match="no examples"):
        training(np.array([], np.int64))
    assert len(evaluation(np.array([], np.int64))) == 0


def test_lengths_are_cut_only_on_request() -> None:
    lengths, pairs = np.array([3, 9, 5, 7]), np.array([[9, 1], [2, 8], [5, 5]])
    assert limit_lengths(lengths, max_length=9, truncate=False, where="split 'train'")[1] == 0
    cut, count = limit_lengths(lengths, max_length=5, truncate=True, where="split 'train'")
    assert (cut.tolist(), count) == ([3, 5, 5, 5], 2)
    cut, count = limit_lengths(pairs, max_length=5, truncate=True, where="split 'train'")
    assert (cut.tolist(), count) == ([[5, 1], [2, 5], [5, 5]], 2)
    message = (
        r"split 'train': 2 of 4 sequences are longer than task.max_length=5 \(the longest: 9\).*task.truncate=True"
    )
    with pytest.raises(UserError, match=message):
        limit_lengths(lengths, max_length=5, truncate=False, where="split 'train'")
    with pytest.raises(UserError, match=r"task\.max_length"):
        limit_lengths(lengths, max_length=0, truncate=True, where="split 'train'")
