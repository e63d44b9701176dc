"""Held-out splits: groups stay together, and only content decides."""

import itertools
import random
import unicodedata

import pytest

from lstm_research.data.held_out import connected, hold_out, hold_out_pairs


def test_every_example_is_in_one_split_with_all_of_its_group() -> None:
    examples = [(number % 300, number) for number in range(1000)]
    splits = hold_out(examples, lambda example: str(example[0]), num_valid=100, num_test=50)
    assert sorted(itertools.chain(*splits.values())) == sorted(examples)
    groups = [{group for group, _ in members} for members in splits.values()]
    assert not any(one & other for one, other in itertools.combinations(groups, 2))
    assert 100 <= len(splits["valid"]) < 104
    assert 50 <= len(splits["test"]) < 54


def test_the_order_of_examples_does_not_matter() -> None:
    examples = [str(number) for number in range(500)]
    before = hold_out(examples, str, num_valid=50, num_test=50)
    random.Random(0).shuffle(examples)
    assert hold_out(examples, str, num_valid=50, num_test=50) == before
    # More examples move few of the others: what is held out depends on each one's own hash.
    more = hold_out([*examples, "new"], str, num_valid=50, num_test=50)
    assert len(set(more["test"]) - set(before["test"])) <= 1


def test_the_beginning_of_a_split_is_a_fair_sample() -> None:
    splits = hold_out([f"{number:04d}" for number in range(4000)], str, num_valid=1000, num_test=1000)
    for members in splits.values():
        assert sum(map(int, members[:500])) / 500 == pytest.approx(2000, abs=4 * 4000 / 12**0.5 / 500**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_connected_is_the_closure_of_the_links(seed: int) -> None:
    draw = random.Random(seed)
    links = [(draw.randrange(40), draw.randrange(40)) for _ in range(25)]
    reach = {node: {node} for node in range(40)}
    for _ in range(40):
        for one, other in links:
            for node in reach:
                if reach[node] & {one, other}:
                    reach[node] |= {one, other}
    find = connected(links)
    for one, other in itertools.product(range(40), repeat=2):
        assert (find(one) == find(other)) == (other in reach[one])


@pytest.mark.parametrize("seed", range(5))
def test_no_sentence_is_on_two_sides(seed: int) -> None:
    draw = random.Random(seed)
    pairs = list({(f"{draw.randrange(400)}{draw.choice('.!?')}", f"T{draw.randrange(400)}") for _ in range(500)})
    splits = hold_out_pairs(pairs, num_valid=40, num_test=40)
    assert sorted(itertools.chain(*splits.values())) == sorted(pairs)
    for one, other in itertools.permutations(splits.values(), 2):
        for side in (0, 1):
            assert not {pair[side].strip(".!?") for pair in one} & {pair[side].strip(".!?") for pair in other}
    assert len({source for source, _ in splits["test"]}) >= 40
    draw.shuffle(pairs)
    again = hold_out_pairs(pairs, num_valid=40, num_test=40)
    assert {split: set(members) for split, members in again.items()} == {s: set(m) for s, m in splits.items()}


def test_spellings_of_one_sentence_in_unicode_are_one() -> None:
    composed, decomposed = ([unicodedata.normalize(form, f"é{n}") for n in range(400)] for form in ("NFC", "NFD"))
    pairs = [(one, f"a{n}") for n, one in enumerate(composed)] + [(one, f"b{n}") for n, one in enumerate(decomposed)]
    splits = hold_out_pairs(pairs, num_valid=80, num_test=80)
    sides = [{unicodedata.normalize("NFC", source) for source, _ in members} for members in splits.values()]
    assert all(sides)
    assert not any(one & other for one, other in itertools.combinations(sides, 2))


@pytest.mark.parametrize("seed", range(6))
def test_a_group_that_would_fill_a_split_is_for_training(seed: int) -> None:
    pairs = [(f"{seed} {number}", "OK" if number < 600 else f"T{number}") for number in range(1000)]
    splits = hold_out_pairs(pairs, num_valid=100, num_test=100)
    assert {split: len(members) for split, members in splits.items()} == {"train": 800, "valid": 100, "test": 100}
