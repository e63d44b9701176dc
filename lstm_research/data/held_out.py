"""Which examples are held out: decided by hashes of their content, so by nothing that is drawn or in some order."""

import functools
import hashlib
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Example = TypeVar("Example")
PairT = TypeVar("PairT", bound=tuple[str, ...])


def hold_out(
    examples: Iterable[Example],
    key: Callable[[Example], str],
    *,
    num_valid: int,
    num_test: int,
    size: Callable[[list[Example]], int] = len,
) -> dict[str, list[Example]]:
    """Divides examples into splits; those of equal key stay together.

    The groups of examples with equal keys are put in the order of their keys' sha256. From the first on they go to the
    test split until it is large enough, then to the validation split, and the rest is for training. A split keeps that
    order, so its first examples are a fair sample of it. A group that is more than twice as large as all of a split
    should be is for training.

    Args:
      examples: all examples.
      key: of an example.
      num_valid: the size that the validation split reaches, or passes by less than a group.
      num_test: the size of the test split.
      size: what a group of examples adds to a split's size.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(key(example), []).append(example)
    splits: dict[str, list[Example]] = {"train": [], "valid": [], "test": []}
    wanted_sizes = {"test": num_test, "valid": num_valid}
    sizes = dict.fromkeys(wanted_sizes, 0)
    for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()):
        split = next((split for split, wanted in wanted_sizes.items() if sizes[split] < wanted), "train")
        if split in sizes:
            added = size(groups[name])
            if added > 2 * wanted_sizes[split]:
                split = "train"
            else:
                sizes[split] += added
        splits[split] += groups[name]
    return splits


def hold_out_pairs(pairs: Sequence[PairT], *, num_valid: int, num_test: int) -> dict[str, list[PairT]]:
    """Divides sentence pairs so that no sentence of one split is in another, not even with other punctuation or case.

    Pairs that share a sentence, directly or through others, stay together.

    Args:
      pairs: a sentence and its translation, each.
      num_valid: how many distinct sentences of the first language the validation split gets.
      num_test: how many the test split gets.
    """
    find = connected((("source", letters(source)), ("target", letters(target))) for source, target in pairs)
    # A group is known by its first sentence in alphabetical order, so not by the order of the pairs.
    names: dict[Hashable, str] = {}
    for source in sorted({source for source, _ in pairs}):
        names.setdefault(find(("source", letters(source))), source)
    return hold_out(
        pairs,
        lambda pair: names[find(("source", letters(pair[0])))],
        num_valid=num_valid,
        num_test=num_test,
        size=lambda group: len({source for source, _ in group}),
    )


def connected(links: Iterable[tuple[Hashable, Hashable]]) -> Callable[[Hashable], Hashable]:
    """Returns a function that maps each linked node to one node that stands for all it is connected to."""
    parents: dict[Hashable, Hashable] = {}

    def find(node: Hashable) -> Hashable:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]  # halves the path, so that later searches are short
            node = parents[node]
        return node

    for one, other in links:
        parents[find(one)] = find(other)
    return find


@functools.lru_cache(maxsize=4096)
def letters(text: str) -> str:
    """Returns the letters and digits of a sentence in lower case; all of it where it has none."""
    text = unicodedata.normalize("NFC", text)
    return "".join(filter(str.isalnum, text.casefold())) or text
