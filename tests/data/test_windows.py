"""Training and evaluation windows, checked against the stream they are cut from."""

import itertools
import pickle
import sys

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.data.windows import Batch, ContiguousWindows, EvaluationWindows, join_documents

LENGTHS = (37, 1, 80, 3, 0, 120)


def numbered(lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    """Documents in which every token is its own position in the stream, plus 1000 to tell it from padding."""
    ends = np.cumsum(lengths)
    return [np.arange(end - length, end) + 1000 for end, length in zip(ends, lengths, strict=True)]


def starts(lengths: tuple[int, ...] = LENGTHS) -> set[int]:
    return {int(document[0]) for document in numbered(lengths) if len(document)}


def epoch(windows: ContiguousWindows, number: int) -> list[Batch]:
    first = number * windows.windows_per_epoch
    return [windows[step] for step in range(first, first + windows.windows_per_epoch)]


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


GRID = list(itertools.product((1, 3, 8), (1, 5, 16)))


def test_join_documents_marks_starts_and_skips_empty_documents() -> None:
    stream = join_documents(numbered())
    assert set(stream.tokens[stream.starts].tolist()) == starts()
    assert len(stream.tokens) == sum(LENGTHS)
    assert stream.num_targets == sum(LENGTHS) - 5


@pytest.mark.parametrize(("batch_size", "unroll_length"), GRID)
def test_batches_have_the_promised_arrays(batch_size: int, unroll_length: int) -> None:
    train = ContiguousWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, seed=0)
    valid = EvaluationWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, split="valid")
    expected = {"inputs": np.int32, "targets": np.int32, "resets": np.bool_, "weights": np.float32}
    for windows in (train, valid):
        batch = windows[0]
        assert {key: array.dtype.type for key, array in batch.items()} == expected
        assert all(array.shape == (batch_size, unroll_length) for array in batch.values())
        assert all(array.flags.c_contiguous and array.flags.writeable for array in batch.values())


@pytest.mark.parametrize(("batch_size", "unroll_length"), GRID)
def test_rows_continue_over_windows(batch_size: int, unroll_length: int) -> None:
    windows = ContiguousWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, seed=5)
    for number in range(3):
        batches = epoch(windows, number)
        inputs = np.concatenate([batch["inputs"] for batch in batches], axis=1)
        targets = np.concatenate([batch["targets"] for batch in batches], axis=1)
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])  # inside windows and from window to window
        following = (inputs - 1000 + 1) % sum(LENGTHS) + 1000
        np.testing.assert_array_equal(targets, following)


@pytest.mark.parametrize(("batch_size", "unroll_length"), GRID)
def test_every_token_is_a_target_once_an_epoch_but_for_the_tail(batch_size: int, unroll_length: int) -> None:
    windows = ContiguousWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, seed=1)
    for number in range(3):
        targets = np.concatenate([batch["targets"].ravel() for batch in epoch(windows, number)])
        assert len(np.unique(targets)) == len(targets)
        assert 0 <= sum(LENGTHS) - len(targets) < batch_size * unroll_length


@pytest.mark.parametrize(("batch_size", "unroll_length"), GRID)
def test_documents_begin_with_a_reset_and_are_not_predicted_from_the_last_one(
    batch_size: int, unroll_length: int
) -> None:
    windows = ContiguousWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, seed=2)
    for number in range(3):
        for window, batch in enumerate(epoch(windows, number)):
            expected = np.isin(batch["inputs"], list(starts()))
            if window == 0:
                expected[:, 0] = True  # the carry of the epoch before does not belong to these rows
            np.testing.assert_array_equal(batch["resets"], expected)
            np.testing.assert_array_equal(batch["weights"] == 0, np.isin(batch["targets"], list(starts())))
            assert set(np.unique(batch["weights"])) <= {0.0, 1.0}


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    def make(seed: int) -> ContiguousWindows:
        return ContiguousWindows(numbered(), batch_size=3, unroll_length=5, seed=seed)

    forward, backward = make(7), make(7)
    steps = list(range(60))
    there = [forward[step] for step in steps]
    back = [backward[step] for step in reversed(steps)][::-1]
    assert all(map(same, there, back))
    assert not any(same(forward[step], make(8)[step]) for step in steps)


def test_epochs_are_rotated_differently() -> None:
    windows = ContiguousWindows(numbered(), batch_size=3, unroll_length=5, seed=0)
    firsts = [int(epoch(windows, number)[0]["inputs"][0, 0]) for number in range(10)]
    assert len(set(firsts)) > 5


def test_grain_reads_the_same_batches_in_every_way() -> None:
    windows = ContiguousWindows(numbered(), batch_size=3, unroll_length=5, seed=0)
    assert len(windows) == sys.maxsize
    assert same(windows[20:][0], windows[20])
    assert same(windows[5:40:3][4], windows[17])
    assert same(windows.map(lambda batch: batch)[4], windows[4])
    assert same(pickle.loads(pickle.dumps(windows))[33], windows[33])
    for step, batch in zip(range(20, 60), windows[20:].to_iter_dataset(), strict=False):
        assert same(batch, windows[step])
    valid = EvaluationWindows(numbered(), batch_size=3, unroll_length=5, split="valid")
    assert all(map(same, valid.to_iter_dataset(), [valid[index] for index in range(len(valid))]))
    assert len(list(valid)) == len(valid)


def test_an_index_outside_is_refused() -> None:
    valid = EvaluationWindows(numbered(), batch_size=3, unroll_length=5, split="valid")
    assert same(valid[-1], valid[len(valid) - 1])
    with pytest.raises(IndexError):
        valid[len(valid)]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50, 400])
@pytest.mark.parametrize("unroll_length", [1, 4, 16, 240])
def test_evaluation_counts_every_target_inside_a_document_once(batch_size: int, unroll_length: int) -> None:
    windows = EvaluationWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, split="valid")
    batches = [windows[index] for index in range(len(windows))]
    counted = np.concatenate([batch["targets"][batch["weights"] == 1] for batch in batches])
    everything = set(np.concatenate(numbered()).tolist())
    assert sorted(counted.tolist()) == sorted(everything - starts())
    assert windows.num_targets == len(counted) == sum(batch["weights"].sum() for batch in batches)
    for batch in batches:
        weighted = batch["weights"] == 1
        np.testing.assert_array_equal(batch["inputs"][weighted], batch["targets"][weighted] - 1)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("unroll_length", [1, 4, 16])
def test_evaluation_rows_continue_and_reset(batch_size: int, unroll_length: int) -> None:
    windows = EvaluationWindows(numbered(), batch_size=batch_size, unroll_length=unroll_length, split="valid")
    joined = {
        key: np.concatenate([windows[index][key] for index in range(len(windows))], axis=1)
        for key in ("inputs", "targets", "resets", "weights")
    }
    real = (joined["inputs"] > 0) & (joined["targets"] > 0)
    both = real[:, 1:] & real[:, :-1]
    np.testing.assert_array_equal(joined["inputs"][:, 1:][both], joined["targets"][:, :-1][both])
    assert joined["resets"][:, 0].all()
    np.testing.assert_array_equal(joined["resets"][:, 1:], np.isin(joined["inputs"][:, 1:], list(starts())))


def test_a_split_shorter_than_one_window_is_named_with_the_way_out() -> None:
    with pytest.raises(UserError, match=r"split 'train' has 10 tokens.* 4 × 5 = 20; reduce"):
        ContiguousWindows([np.arange(10)], batch_size=4, unroll_length=5, seed=0)
    with pytest.raises(UserError, match=r"split 'test' has 10 tokens.*unroll_length"):
        EvaluationWindows([np.arange(10)], batch_size=4, unroll_length=10, split="test")
    with pytest.raises(UserError, match="split 'valid' has 0 tokens"):
        EvaluationWindows([], batch_size=4, unroll_length=10, split="valid")
    with pytest.raises(UserError, match="at least 1"):
        EvaluationWindows([np.arange(10)], batch_size=0, unroll_length=10, split="valid")
    with pytest.raises(UserError, match="seed must be 0 or more"):
        ContiguousWindows([np.arange(99)], batch_size=4, unroll_length=5, seed=-1)


def test_a_split_of_exactly_one_window_works() -> None:
    windows = ContiguousWindows([np.arange(20)], batch_size=4, unroll_length=5, seed=0)
    assert windows.windows_per_epoch == 1
    assert sorted(windows[3]["targets"].ravel()) == list(range(20))
    assert len(EvaluationWindows([np.arange(11)], batch_size=1, unroll_length=10, split="valid")) == 2


def test_rows_are_reset_at_the_reset_rate_and_nothing_else_changes() -> None:
    documents = [np.zeros(4 * 6 * 300, np.int32)]
    plain = ContiguousWindows(documents, batch_size=6, unroll_length=4, seed=2)
    reset = ContiguousWindows(documents, batch_size=6, unroll_length=4, seed=2, reset_rate=0.25)
    count = 0
    for step in range(1, 290):
        batch, other = reset[step], plain[step]
        assert same(batch, reset[step])
        assert all(np.array_equal(batch[key], other[key]) for key in batch if key != "resets")
        assert np.array_equal(batch["resets"][:, 1:], other["resets"][:, 1:])
        assert (batch["resets"] | ~other["resets"]).all()
        count += int((batch["resets"] & ~other["resets"]).sum())
    assert count / (289 * 6) == pytest.approx(0.25, abs=0.04)


def variable(documents: list[np.ndarray], *, seed: int = 0, **options: float) -> ContiguousWindows:
    return ContiguousWindows(documents, batch_size=3, unroll_length=20, seed=seed, unroll_deviation=4.0, **options)


def cut_short(batch: Batch) -> Batch:
    """A batch of windows of their own lengths without its padding."""
    length = int(batch["lengths"][0])
    return {key: array[:, :length] for key, array in batch.items() if key != "lengths"}


LONG = (3700, 1, 800, 3, 0, 1201)


def test_windows_of_their_own_lengths_tile_the_stream() -> None:
    windows = variable(numbered(LONG))
    for number in range(5):
        batches = [cut_short(batch) for batch in epoch(windows, number)]
        inputs, targets, resets, weights = (
            np.concatenate([batch[key] for batch in batches], axis=1)
            for key in ("inputs", "targets", "resets", "weights")
        )
        assert len(np.unique(targets)) == targets.size == sum(LONG) // 3 * 3  # fewer than B tokens are left out
        np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
        np.testing.assert_array_equal(targets, (inputs - 1000 + 1) % sum(LONG) + 1000)
        expected = np.isin(inputs, list(starts(LONG)))
        expected[:, 0] = True
        np.testing.assert_array_equal(resets, expected)
        np.testing.assert_array_equal(weights == 0, np.isin(targets, list(starts(LONG))))


def test_padding_weighs_nothing_and_makes_few_shapes() -> None:
    windows = variable(numbered(LONG), reset_rate=0.5)
    shapes = set()
    for step in range(4 * windows.windows_per_epoch):
        batch = windows[step]
        lengths = batch.pop("lengths")
        assert lengths.shape == (3,)
        assert lengths.dtype == np.int32
        assert len(set(lengths.tolist())) == 1
        assert len({array.shape for array in batch.values()}) == 1
        padded = batch["inputs"].shape[1]
        assert padded % 8 == 0
        assert 0 <= padded - lengths[0] < 8
        assert not any(array[:, lengths[0] :].any() for array in batch.values())
        shapes.add(padded)
    assert len(shapes) <= 8


def test_a_batch_of_its_own_length_is_a_function_of_seed_and_step() -> None:
    steps = list(range(2 * variable(numbered(LONG)).windows_per_epoch))
    forward, backward = variable(numbered(LONG), seed=7), variable(numbered(LONG), seed=7)
    there = [forward[step] for step in steps]
    back = [backward[step] for step in reversed(steps)][::-1]
    assert all(map(same, there, back))
    assert all(same(a, b) for a, b in zip(there[30:], forward[30:].to_iter_dataset(), strict=False))
    assert same(pickle.loads(pickle.dumps(forward))[33], there[33])
    other = variable(numbered(LONG), seed=8)
    assert not any(same(there[step], other[step]) for step in steps)
    lengths = [int(batch["lengths"][0]) for batch in there]
    assert lengths[: len(lengths) // 2] != lengths[len(lengths) // 2 :]  # every epoch is cut at other places


@pytest.mark.parametrize("short_rate", [0.0, 0.05, 0.5, 1.0])
def test_lengths_are_drawn_as_in_the_paper(short_rate: float) -> None:
    documents = [np.zeros(400_000, np.int32)]
    windows = ContiguousWindows(
        documents, batch_size=2, unroll_length=70, seed=0, unroll_deviation=5.0, short_rate=short_rate
    )
    lengths = np.concatenate([np.diff(windows._cuts(number)) for number in range(10)])
    assert lengths.min() >= 5
    assert lengths.max() <= 87  # T + 3 σ, but for the scaling
    short = lengths < 52.5
    assert short.mean() == pytest.approx(short_rate, abs=0.015)
    for group, mean in ((lengths[short], 35), (lengths[~short], 70)):
        if len(group) > 1000:
            assert group.mean() == pytest.approx(mean, rel=0.01)
            assert group.std() == pytest.approx(5, rel=0.1)


def test_a_stream_of_few_windows_has_no_empty_one() -> None:
    for length in (*range(10, 60), 500):
        windows = ContiguousWindows([np.arange(length)], batch_size=1, unroll_length=10, seed=0, unroll_deviation=5.0)
        for step in range(5 * windows.windows_per_epoch):
            assert windows[step]["lengths"][0] > 0
        targets = np.concatenate([cut_short(batch)["targets"].ravel() for batch in epoch(windows, 3)])
        assert sorted(targets.tolist()) == list(range(length))


def test_wrong_deviations_are_refused() -> None:
    document = [np.arange(999)]
    for deviation, unroll_length in ((0.0, 20), (-1.0, 20), (11.0, 20), (2.0, 9)):
        with pytest.raises(UserError, match="unroll_deviation must be above 0"):
            ContiguousWindows(document, batch_size=2, unroll_length=unroll_length, seed=0, unroll_deviation=deviation)
    with pytest.raises(UserError, match="short_rate"):
        variable(document, short_rate=1.5)
