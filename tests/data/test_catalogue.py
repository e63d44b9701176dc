"""The catalogue names what there is, and only that."""

import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.catalogue import CATALOGUE, OWN_FILES, TABLES, spec_of


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: f"{entry.name}:{entry.part}")
def test_every_entry_can_be_built_as_it_is_named(entry: object) -> None:
    task, spec = spec_of(f"{entry.name}:{entry.part}" if entry.part else entry.name)  # type: ignore[attr-defined]
    dataset = build(TABLES[task], spec, where="dataset")
    if entry.prepared is not None:  # type: ignore[attr-defined]
        assert entry.prepared.package.version in dataset.describe()  # type: ignore[attr-defined]
    assert isinstance(entry.is_prepared(), bool)  # type: ignore[attr-defined]


def test_every_dataset_is_in_the_catalogue_once() -> None:
    names = {entry.name for entry in CATALOGUE} | {name.partition(":")[0] for name in OWN_FILES}
    assert names == set().union(*TABLES.values())
    assert len({(entry.name, entry.part) for entry in CATALOGUE}) == len(CATALOGUE)


def test_pairs_that_are_not_listed_can_be_named() -> None:
    assert spec_of("tatoeba:ja-sv") == ("translation", {"name": "tatoeba", "source": "ja", "target": "sv"})
    assert spec_of("shakespeare") == ("language_modelling", {"name": "shakespeare"})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tatoba", "did you mean 'tatoeba'"),
        ("tatoeba:en", "unknown part of dataset 'tatoeba': 'en'; valid: en-de"),
        ("imdb:large", "dataset 'imdb' has no parts; leave out :large"),
        ("csv", "consists of your own files"),
        ("tfds:toy", "consists of your own files"),
    ],
)
def test_wrong_names_get_one_line(name: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        spec_of(name)
    assert part in str(error.value)
