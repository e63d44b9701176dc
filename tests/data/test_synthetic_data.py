"""Generated sequences against independent readings of them: the answers follow from the inputs by the papers' rules."""

import csv
import io
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.dataset import SPLITS
from lstm_research.data.synthetic import SYNTHETIC_DATASETS, Examples, SyntheticDataset, digits
from lstm_research.data.synthetic.base import best_constant
from lstm_research.data.synthetic.batches import EvaluationSequences, TrainingSequences
from lstm_research.data.synthetic.mackey_glass import STEPS_PER_UNIT, integrate
from lstm_research.data.synthetic.reber import SYMBOLS
from lstm_research.data.synthetic.table import as_table

# Two sizes of each, so that no length is built in.
CHOICES = {
    "adding": ({"length": 7}, {"length": 23, "original": True}),
    "copy": ({"length": 1, "copy_length": 4}, {"length": 9, "num_symbols": 3, "copy_length": 8}),
    "digits": ({"length": 64}, {"length": 11, "unit": "row", "permuted": True}),
    "embedded_reber": ({"length": 20}, {"length": 41, "loop_rate": 0.8}),
    "even_pairs": ({"length": 12}, {"length": 8, "min_length": 5}),
    "mackey_glass": ({"length": 8}, {"length": 30, "delay": 20, "interval": 1, "horizon": 3}),
    "modular_arithmetic": ({"length": 9}, {"length": 8, "min_length": 3, "test_length": 11, "modulus": 3}),
    "noisy_sequence": ({"length": 5}, {"length": 30, "signal_length": 1, "noisy_signal": True}),
    "parity": ({"length": 12}, {"length": 9, "min_length": 9, "test_length": 20}),
    "spike_delays": ({"length": 50, "min_interval": 3}, {"length": 60, "min_interval": 7, "max_offset": 4}),
    "temporal_order": ({"length": 10}, {"length": 47, "num_relevant": 3}),
    "timed_spikes": ({"length": 50, "min_interval": 3}, {"length": 60, "min_interval": 7, "max_offset": 4}),
}
CASES = [(name, choices) for name, both in CHOICES.items() for choices in both]
each = pytest.mark.parametrize(("name", "choices"), CASES)


def make(name: str, choices: dict[str, object]) -> SyntheticDataset:
    extra = {} if name == "digits" else {"num_examples": 30}
    return build(SYNTHETIC_DATASETS, {"name": name, **extra, **choices}, where="dataset")


def drawn(name: str, choices: dict[str, object], count: int = 200) -> Examples:
    return make(name, choices).sample(np.random.default_rng(5), count, "train")


def sequences(examples: Examples) -> set[bytes]:
    return {x[:length].tobytes() for x, length in zip(examples.inputs, examples.lengths, strict=True)}


def text(inputs: np.ndarray, length: int, symbols: str) -> str:
    """Reads unit vectors as symbols."""
    assert (np.sort(inputs[:length], axis=1) == np.eye(len(symbols))[-1]).all()
    return "".join(symbols[index] for index in inputs[:length].argmax(axis=1))


def test_the_choices_cover_the_table() -> None:
    assert list(CHOICES) == list(SYNTHETIC_DATASETS)


@each
def test_arrays_are_as_they_are_said_to_be(name: str, choices: dict[str, object]) -> None:
    dataset = make(name, choices)
    for split in SPLITS:
        examples = dataset.examples(split)
        N, T, D = examples.inputs.shape
        assert (examples.inputs.dtype, D) == (np.float32, dataset.input_size)
        assert (examples.lengths.dtype, examples.lengths.shape) == (np.int32, (N,))
        assert ((examples.lengths >= 1) & (examples.lengths <= T)).all()
        assert set(np.unique(examples.weights)) <= {0, 1}
        assert examples.weights.any(axis=1).all()
        padding = np.arange(T) >= examples.lengths[:, None]
        assert not examples.inputs[padding].any()
        assert not examples.weights[padding].any()
        if dataset.tolerance is None:
            assert (examples.targets.dtype, examples.targets.shape) == (np.int32, (N, T))
            assert set(np.unique(examples.targets)) <= set(range(dataset.num_outputs))
        else:
            assert (examples.targets.dtype, examples.targets.shape) == (np.float32, (N, T, dataset.num_outputs))


@each
def test_a_training_batch_is_a_function_of_seed_and_step(name: str, choices: dict[str, object]) -> None:
    first, again, other = (TrainingSequences(make(name, choices), batch_size=9, seed=seed) for seed in (3, 3, 4))
    later = again[7:]
    for key, array in first[7].items():
        assert len(array) == 9
        np.testing.assert_array_equal(array, later[0][key])
    assert len({batch["inputs"].tobytes() for batch in (first[7], first[8], other[7])}) == 3
    assert first[0]["inputs"].shape == first[7]["inputs"].shape
    assert len(first) == sys.maxsize


@each
def test_no_sequence_is_in_two_splits(name: str, choices: dict[str, object]) -> None:
    dataset = make(name, choices)
    batches = TrainingSequences(dataset, batch_size=50, seed=0)
    found = {"train": set.union(*(sequences(Examples(**batches[k])) for k in range(20)))}
    for split in ("valid", "test"):
        examples = dataset.examples(split)
        found[split] = sequences(examples)
        assert len(found[split]) == len(examples.lengths)
        assert name == "digits" or len(examples.lengths) == 30
    assert not found["train"] & found["valid"]
    assert not found["train"] & found["test"]
    assert not found["valid"] & found["test"]


def test_held_out_sequences_are_always_the_same() -> None:
    digest = make("parity", {"length": 12}).fingerprint()
    assert make("parity", {"length": 12}).fingerprint() == digest
    assert make("parity", {"length": 13}).fingerprint() != digest
    assert make("even_pairs", {"length": 12}).fingerprint() != digest


def test_evaluation_batches_hold_every_example_once() -> None:
    examples = make("spike_delays", {"length": 50, "min_interval": 3}).examples("test")
    batches = EvaluationSequences(examples, batch_size=8)
    count = len(examples.lengths)
    assert len(batches) == -(-count // 8)
    assert all(len(array) == 8 for array in batches[len(batches) - 1].values())
    for key in ("inputs", "targets", "weights", "lengths"):
        together = np.concatenate([batch[key] for batch in batches])
        np.testing.assert_array_equal(together[:count], getattr(examples, key))
    assert not np.concatenate([batch["weights"] for batch in batches])[count:].any()


# What each dataset is.


def test_adding() -> None:
    examples = drawn("adding", {"length": 9})
    values, marks = examples.inputs[..., 0], examples.inputs[..., 1]
    assert (examples.lengths == 9).all()
    assert ((values >= 0) & (values < 1)).all()
    first, second = np.nonzero(marks)[1].reshape(-1, 2).T
    assert set(first) == set(range(4))
    assert set(second) == set(range(4, 9))
    for row in range(len(values)):
        np.testing.assert_allclose(examples.targets[row, 8, 0], values[row, first[row]] + values[row, second[row]])


def test_adding_as_in_1997() -> None:
    examples = drawn("adding", {"length": 40, "original": True}, 2000)
    assert set(examples.lengths) == set(range(40, 45))
    firsts, seconds, zeros = set(), set(), 0
    for (values, marks), length, target in zip(
        examples.inputs.swapaxes(1, 2), examples.lengths, examples.targets, strict=True
    ):
        assert (marks[0], marks[length - 1]) == (-1, -1)
        assert set(marks[1 : length - 1]) == {0, 1}
        marked = np.flatnonzero(marks == 1)
        assert len(marked) in (1, 2)  # one, if the other is the first step
        zeros += len(marked) == 1
        if len(marked) == 2:
            assert marked[0] < 10
            firsts.add(marked[0])
            seconds.add(marked[1])
        np.testing.assert_allclose(target[length - 1, 0], 0.5 + values[marked].sum() / 4, rtol=1e-6)
    assert firsts >= set(range(1, 10))
    assert max(seconds) == 40 // 2 - 1  # the 19 unmarked steps that come first, of which one may be passed over
    assert examples.inputs[..., 0].min() < -0.99
    assert zeros / 2000 == pytest.approx(0.1 + 0.9 / 19, abs=0.03)


def test_copy() -> None:
    examples = drawn("copy", {"length": 5, "num_symbols": 4, "copy_length": 3})
    for inputs, targets, length in zip(examples.inputs, examples.targets, examples.lengths, strict=True):
        read = text(inputs, length, "abcd-:")
        assert re.fullmatch(r"[abcd]{3}-{4}:-{3}", read)  # T - 1 blanks, then the delimiter
        assert "".join("abcd-"[index] for index in targets) == "-" * 8 + read[:3]
    assert examples.weights.all()


@pytest.mark.parametrize(("num_relevant", "windows"), [(2, ((10, 20), (50, 60))), (3, ((10, 20), (33, 43), (66, 76)))])
def test_temporal_order(num_relevant: int, windows: tuple[tuple[int, int], ...]) -> None:
    examples = drawn("temporal_order", {"length": 100, "num_relevant": num_relevant}, 1000)
    assert set(examples.lengths) == set(range(100, 111))
    steps = []
    for inputs, targets, length in zip(examples.inputs, examples.targets, examples.lengths, strict=True):
        read = text(inputs, length, "EBabcdXY")
        assert re.fullmatch(r"E[abcdXY]+B", read)
        relevant = [(step, symbol) for step, symbol in enumerate(read) if symbol in "XY"]
        assert len(relevant) == num_relevant
        steps.append([step for step, _ in relevant])
        assert targets[length - 1] == int("".join("XY".index(symbol).__str__() for _, symbol in relevant), 2)
    for column, (earliest, latest) in zip(np.array(steps).T, windows, strict=True):
        assert set(column) == set(range(earliest, latest + 1))


@pytest.mark.parametrize("noisy", [False, True])
def test_noisy_sequence(noisy: bool) -> None:
    examples = drawn("noisy_sequence", {"length": 50, "signal_length": 3, "noisy_signal": noisy}, 1000)
    assert set(examples.lengths) == set(range(50, 56))
    labels = examples.targets[np.arange(1000), examples.lengths - 1]
    signs = np.where(labels == 1, 1, -1)[:, None]
    signal = examples.inputs[:, :3, 0] - signs
    noise = examples.inputs[:, 3:50, 0]
    assert signal.var() == pytest.approx(0.2 if noisy else 0, abs=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.var() == pytest.approx(0.2, abs=0.01)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.06)


def strings(name: str, choices: dict[str, object], symbols: str) -> list[tuple[str, int]]:
    """Returns the strings of a formal language with their classes."""
    examples = drawn(name, choices)
    assert (examples.weights.sum(axis=1) == 1).all()
    return [
        (text(inputs, length, symbols), targets[np.flatnonzero(weights)[0]])
        for inputs, targets, weights, length in zip(*examples[:4], strict=True)
        if weights[length - 1] == 1
    ]


def test_parity() -> None:
    found = strings("parity", {"length": 15}, "ab")
    assert {len(string) for string, _ in found} == set(range(1, 16))
    assert all(label == string.count("b") % 2 for string, label in found)
    assert {label for _, label in found} == {0, 1}


def test_even_pairs() -> None:
    found = strings("even_pairs", {"length": 15}, "ab")
    assert {len(string) for string, _ in found} == set(range(1, 16))
    assert all(label == (string.count("ab") + string.count("ba")) % 2 for string, label in found)
    assert {label for _, label in found} == {0, 1}


@pytest.mark.parametrize("modulus", [5, 2])
def test_modular_arithmetic(modulus: int) -> None:
    symbols = "0123456789"[:modulus] + "+*-"
    found = strings("modular_arithmetic", {"length": 15, "modulus": modulus}, symbols)
    assert {len(string) for string, _ in found} >= {3, 5, 7, 9, 11, 13, 15}
    assert all(len(string) % 2 for string, _ in found)
    for string, label in found:
        assert re.fullmatch(r"\d([+*-]\d)*", string)
        assert label == eval(string) % modulus
    assert {operator for string, _ in found for operator in string if not operator.isdigit()} == set("+*-")


def test_longer_strings_in_the_test() -> None:
    dataset = make("parity", {"length": 10, "min_length": 8, "test_length": 14})
    assert set(dataset.examples("valid").lengths) == {8, 9, 10}
    assert set(dataset.examples("test").lengths) == {11, 12, 13, 14}
    assert set(make("modular_arithmetic", {"length": 7, "test_length": 12}).examples("test").lengths) == {9, 11}


# Node 4 of the graph begins (X T* V P)* (S | X T* V V).
FROM_4 = "(?:XT*VP)*(?:S|XT*VV)"
REBER = re.compile(f"B([TP])B(?:TS*X{FROM_4}|PT*V(?:V|P{FROM_4}))E\\1E")


def test_embedded_reber() -> None:
    examples = drawn("embedded_reber", {"length": 24})
    read = []
    for inputs, targets, length in zip(examples.inputs, examples.targets, examples.lengths, strict=True):
        string = text(inputs, length, SYMBOLS) + SYMBOLS[targets[length - 1]]
        assert REBER.fullmatch(string)
        assert string[1:] == "".join(SYMBOLS[index] for index in targets[:length])
        assert 9 <= len(string) <= 24
        read.append(string)
    assert max(map(len, read)) > 20
    # A symbol may come next if some end makes a string of the grammar with it.
    ends = sorted({string[start:] for string in read for start in range(len(string) + 1) if len(string) - start < 12})
    for row, string in enumerate(read[:12]):
        for step in range(len(string) - 1):
            right = {s for s in SYMBOLS if any(REBER.fullmatch(string[: step + 1] + s + end) for end in ends)}
            assert {SYMBOLS[index] for index in np.flatnonzero(examples.allowed[row, step])} == right
        assert not examples.allowed[row, len(string) - 1 :].any()


@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_reber_loops_as_often_as_said(rate: float) -> None:
    dataset = make("embedded_reber", {"length": 300, "loop_rate": rate})
    examples = dataset.draw(np.random.default_rng(0), 2000, "train")
    loops = exits = 0
    for inputs, length in zip(examples.inputs, examples.lengths, strict=True):
        match = re.match("B[TP]BT(S*)X", text(inputs, length, SYMBOLS))
        if match:
            loops, exits = loops + len(match[1]), exits + 1
    assert exits == pytest.approx(1000, abs=100)
    assert loops / (loops + exits) == pytest.approx(rate, abs=0.03)


def test_spike_delays_and_timed_spikes() -> None:
    choices = {"length": 60, "min_interval": 7, "max_offset": 4}
    offsets_seen = set()
    for inputs, targets, weights in zip(*drawn("spike_delays", choices)[:3], strict=True):
        assert set(np.unique(inputs)) == {0, 1}
        times = np.flatnonzero(inputs)
        np.testing.assert_array_equal(np.flatnonzero(weights), times)
        offsets = np.diff(times, prepend=0) - 7
        np.testing.assert_array_equal(targets[times, 0], offsets)
        assert 60 - times[-1] <= 7 + 4  # no room for another
        offsets_seen |= set(offsets)
    assert offsets_seen == set(range(5))
    for inputs, targets, weights in zip(*drawn("timed_spikes", choices)[:3], strict=True):
        assert weights.all()
        assert set(np.unique(targets)) == {0, 1}
        begin = 0
        for time in np.flatnonzero(targets):
            # The interval is told from the step after the last spike on.
            assert set(inputs[begin + (begin > 0) : time + 1, 0]) == {time - begin - 7}
            begin = time


@pytest.mark.parametrize("delay", [17, 4])
def test_mackey_glass_is_the_solution_of_its_equation(delay: int) -> None:
    """Against SciPy, from one delay to the next, of which each is an ordinary differential equation."""
    rng, units = np.random.default_rng(0), 10 * delay
    steps = delay * STEPS_PER_UNIT
    smooth = integrate(rng.uniform(0.5, 1.5, (2, steps + 2)), 50 * steps)[:, -steps - 2 :]
    found = integrate(smooth, units * STEPS_PER_UNIT)
    for row in range(2):
        times = np.arange(-steps - 1, 1) / STEPS_PER_UNIT
        past = CubicSpline(times, smooth[row])
        for number in range(units // delay):
            span = (number * delay, (number + 1) * delay)

            def slope(t, x, past=past):
                late = past(t - delay)
                return 0.2 * late / (1 + late**10) - 0.1 * x

            times = np.arange(span[0] * STEPS_PER_UNIT, span[1] * STEPS_PER_UNIT + 1) / STEPS_PER_UNIT
            solution = solve_ivp(slope, span, [past(span[0])], t_eval=times, rtol=1e-9, atol=1e-11)
            expected = solution.y[0]
            np.testing.assert_allclose(
                found[row, span[0] * STEPS_PER_UNIT : span[1] * STEPS_PER_UNIT], expected[1:], atol=2e-5
            )
            past = CubicSpline(times, expected)


def test_mackey_glass_sequences_look_ahead() -> None:
    examples = make("mackey_glass", {"length": 40, "interval": 2, "horizon": 10}).examples("test")
    np.testing.assert_array_equal(examples.inputs[:, 5:], examples.targets[:, :-5])
    np.testing.assert_array_equal(examples.weights[0], np.arange(40) * 2 >= 17)
    assert examples.inputs.std() == pytest.approx(0.23, abs=0.02)
    assert 0.2 < examples.inputs.min() < 0.6 < 1.2 < examples.inputs.max() < 1.4


def test_digits() -> None:
    from sklearn.datasets import load_digits

    images = load_digits()
    known = {image.astype(np.float32).tobytes(): label for image, label in zip(images.data, images.target, strict=True)}
    sizes = {}
    for split in SPLITS:
        pixels, rows, late = (
            make("digits", choices).examples(split)
            for choices in ({}, {"unit": "row", "length": 8}, {"unit": "pixel", "length": 70})
        )
        sizes[split] = len(pixels.lengths)
        np.testing.assert_array_equal(pixels.inputs, rows.inputs.reshape(-1, 64, 1))
        np.testing.assert_array_equal(pixels.inputs, late.inputs[:, :64])
        assert not late.inputs[:, 64:].any()
        for examples, last in ((pixels, 63), (rows, 7), (late, 69)):
            assert examples.weights[:, last].all()
            labels = [known[(16 * image).tobytes()] for image in pixels.inputs]
            np.testing.assert_array_equal(examples.targets[:, last], labels)
    assert sizes == {"train": 1297, "valid": 200, "test": 300}


def test_permuted_digits_are_the_same_pixels_in_one_order() -> None:
    plain = make("digits", {}).examples("train").inputs[..., 0]
    permuted = make("digits", {"permuted": True}).examples("train").inputs[..., 0]
    assert (plain != permuted).any(axis=1).all()
    # Columns are so different from one another that only one can be each.
    order = [np.flatnonzero((plain == column[:, None]).all(axis=0)) for column in permuted.T]
    assert {int(found[0]) for found in order if len(found) == 1} == {
        index for index in range(64) if (plain == plain[:, [index]]).all(axis=0).sum() == 1
    }


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    digits._images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        make("digits", {}).examples("test")


# Baselines.


@pytest.mark.parametrize(
    ("name", "choices", "tolerance"),
    [
        ("adding", {"length": 6}, 0.003),
        ("adding", {"length": 14, "original": True}, 0.001),
        ("temporal_order", {"length": 12, "num_relevant": 3}, 0.002),
        ("noisy_sequence", {"length": 5}, 0.001),
        ("parity", {"length": 9}, 0.001),
    ],
)
def test_a_known_baseline_is_that_of_the_best_constant(name: str, choices: dict[str, object], tolerance: float) -> None:
    dataset = make(name, choices)
    measured = best_constant(dataset.draw(np.random.default_rng(0), 20000, "train"))
    assert dataset.baseline == pytest.approx(measured, abs=tolerance)


def test_other_baselines() -> None:
    copy = make("copy", {"length": 100})
    assert copy.baseline == pytest.approx(10 * np.log(8) / 120)
    examples = make("spike_delays", {"length": 50, "min_interval": 3}).examples("test")
    values = examples.targets[examples.weights > 0]
    losses = [np.mean((values - constant) ** 2) for constant in np.linspace(0, 1, 1001)]
    assert make("spike_delays", {"length": 50, "min_interval": 3}).baseline == pytest.approx(min(losses), abs=1e-6)
    examples = make("embedded_reber", {"length": 20}).examples("test")
    shares = np.bincount(examples.targets[examples.weights > 0]) / examples.weights.sum()
    assert make("embedded_reber", {"length": 20}).baseline == pytest.approx(-(shares @ np.log(shares)))


# What is refused, and how data is shown.


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("adding", {"length": 1}, "dataset.length must be at least 2"),
        ("adding", {"length": 11, "original": True}, "dataset.length must be at least 12"),
        ("adding", {"num_examples": 0}, "dataset.num_examples must be at least 1"),
        ("copy", {"num_symbols": 1}, "dataset.num_symbols must be at least 2"),
        ("temporal_order", {"num_relevant": 4}, "dataset.num_relevant must be one of 2, 3"),
        ("noisy_sequence", {"length": 5, "signal_length": 6}, "dataset.signal_length must be from 1 to dataset.length"),
        ("parity", {"length": 5, "min_length": 6}, "dataset.min_length must be from 1 to dataset.length"),
        ("parity", {"length": 5, "test_length": 5}, "dataset.test_length must be above dataset.length=5"),
        ("modular_arithmetic", {"length": 4, "min_length": 4}, "leave no odd length"),
        ("modular_arithmetic", {"modulus": 1}, "dataset.modulus must be at least 2"),
        ("embedded_reber", {"length": 8}, "dataset.length must be at least 9"),
        ("embedded_reber", {"loop_rate": 1.0}, "dataset.loop_rate must be at least 0 and below 1"),
        ("spike_delays", {"length": 11}, "dataset.length=11 has no room for a spike"),
        ("timed_spikes", {"max_offset": 0}, "dataset.max_offset must be at least 1"),
        ("mackey_glass", {"length": 3}, "dataset.length=3 ends before dataset.delay=17"),
        ("digits", {"length": 63}, "dataset.length must be at least 64"),
    ],
)
def test_wrong_choices_get_one_line(name: str, choices: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        make(name, choices)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("parity", {"length": 1}, r"dataset\.length=1: too few different sequences for split"),
        ("spike_delays", {"length": 200, "min_interval": 49, "num_examples": 1000}, "and 100 are wanted.*; raise it"),
        (
            *("copy", {"copy_length": 1, "num_symbols": 3}),
            r"^dataset\.copy_length=1, dataset\.num_symbols=3: too few different.*; raise one of them",
        ),
        ("parity", {"length": 5, "num_examples": 20}, "and 20 are wanted.*; raise it, or reduce dataset.num_examples"),
    ],
)
def test_what_has_too_few_sequences_is_refused(name: str, choices: dict[str, object], message: str) -> None:
    dataset = make(name, choices)
    with pytest.raises(UserError, match=message):
        [dataset.examples(split) for split in SPLITS]


RECIPE = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "synthetic.py"))
LONGER = {"length": 1000, "min_interval": 50}  # as the recipe says


@pytest.mark.parametrize(
    "section",
    [RECIPE["get_config"](name).dataset.to_dict() for name in RECIPE["DATASETS"]]
    + [{"name": name, **LONGER} for name in ("spike_delays", "timed_spikes")],
    ids=lambda section: f"{section['name']}-{section.get('min_interval')}",
)
def test_the_recipes_have_as_many_held_out_sequences_as_they_say(section: dict[str, object]) -> None:
    dataset = build(SYNTHETIC_DATASETS, section, where="dataset")
    expected = {"digits": {"valid": 200, "test": 300}}.get(str(section["name"]))
    for split in ("valid", "test"):
        found = len(dataset.examples(split).lengths)
        if section["name"] == "embedded_reber":  # there are not many more
            assert 100 <= found <= dataset.num_examples == 200
        else:
            assert found == (expected[split] if expected else dataset.num_examples)


def test_a_table_of_sequences() -> None:
    examples = drawn("spike_delays", {"length": 12, "min_interval": 5, "max_offset": 2}, 3)
    outputs = np.arange(36, dtype=np.float32).reshape(3, 12, 1) / 4
    rows = list(csv.reader(io.StringIO(as_table(examples, outputs))))
    assert rows[0] == ["example", "step", "input_0", "target_0", "output_0"]
    assert len(rows) == 1 + 36
    for row, (inputs, targets, weights) in enumerate(zip(*examples[:3], strict=True)):
        for step, line in enumerate(rows[1 + 12 * row : 13 + 12 * row]):
            target = f"{targets[step, 0]:g}" if weights[step] else ""
            assert line == [str(row), str(step), f"{inputs[step, 0]:g}", target, f"{outputs[row, step, 0]:g}"]
