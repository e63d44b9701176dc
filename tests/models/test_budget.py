"""Models of a given number of parameters: the width is the largest that fits, and what is counted is what there is."""

import jax
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.models.budget import count_params, fit_width, widest, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.softmax import SOFTMAXES

V = 50


def make(section):
    return build(
        {"language_model": LanguageModel},
        section,
        where="model",
        parts={"cell": CELLS, "dropout": DropoutRates, "softmax": SOFTMAXES},
        vocabulary_size=V,
        rngs=nnx.Rngs(0),
    )


def count(section):
    return sum(leaf.size for leaf in jax.tree.leaves(functional(make(section))[1]))


MIXTURE = {"name": "mixture", "num_experts": 3, "latent_size": 12}
SECTIONS = {
    "plain": {"embedding_size": 12, "num_layers": 2},
    "embedding left out": {},
    "tied": {"tied": True, "num_layers": 2},
    "last layer": {"tied": True, "embedding_size": 12, "num_layers": 2, "last_hidden_size": 12},
    "mixture": {
        "tied": True,
        "embedding_size": 12,
        "softmax": {"name": "mixture", "num_experts": 3, "latent_size": 12},
    },
    "adaptive": {"softmax": {"name": "adaptive", "cutoffs": (5, 20)}},
    "mogrifier": {"cell": {"name": "mogrifier_lstm", "rank": 3}, "embedding_size": 12},
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "num_params"), [("plain", 60_000), *((name, 4_000) for name in SECTIONS)])
def test_the_width_is_the_largest_that_fits(name, num_params):
    section = {"name": "language_model", "cell": {"name": "lstm"}, **SECTIONS[name]}
    found = fit_width(section | {"num_params": num_params}, make)
    assert "num_params" not in found
    width = found["cell"]["hidden_size"]
    assert count(found) <= num_params
    assert count(with_width(section | {"num_params": num_params}, width + 1)) > num_params
    assert found["embedding_size"] == section.get("embedding_size", width)


def test_every_number_of_parameters_up_to_some():
    """Also those that are met exactly, and those around them."""

    def make_linear(width):
        return nnx.Linear(3, width, rngs=nnx.Rngs(0))

    assert [count_params(make_linear, width) for width in (1, 2, 3)] == [4, 8, 12]
    assert [widest(make_linear, number) for number in range(4, 20)] == [number // 4 for number in range(4, 20)]


def test_counts_make_no_arrays():
    huge = count_params(lambda width: nnx.Linear(10**6, width, rngs=nnx.Rngs(0)), 10**6)
    assert huge == 10**12 + 10**6


def test_without_num_params_nothing_changes():
    section = {"name": "language_model", "cell": {"name": "lstm", "hidden_size": 7}, "embedding_size": 3}
    assert fit_width(section, make) == with_width(section) == section
    assert fit_width(section | {"num_params": None}, make) == section


def test_none_stands_for_what_is_left_out():
    section = {"name": "language_model", "cell": {"name": "gru", "hidden_size": None}, "embedding_size": None}
    found = fit_width(section | {"num_params": 5000}, make)
    assert found["embedding_size"] == found["cell"]["hidden_size"] > 1
    assert with_width(section | {"num_params": 5000})["cell"]["hidden_size"] > 0
    np.testing.assert_equal(section["cell"]["hidden_size"], None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_params": 100}, r"model.num_params = 100 is too few: a model of width 1 has \d+ parameters"),
        ({"num_params": 0}, "model.num_params = 0 is too few"),
        ({"num_params": "24M"}, "model.num_params must be int or None, got str '24M'"),
        ({"num_params": 1e6}, "model.num_params must be int or None, got float"),
        ({"cell": {"name": "lstm", "hidden_size": 7}}, "picks model.cell.hidden_size, which is set to 7; set one of"),
        ({"cell": "lstm"}, "model.num_params needs model.cell"),
        ({"cell": {"name": "lstn"}}, "unknown model.cell.name 'lstn'"),
    ],
)
def test_impossible_sections_are_refused_in_one_line(changes, message):
    section = {"name": "language_model", "cell": {"name": "lstm"}, "num_params": 5000, **changes}
    with pytest.raises(UserError, match=message) as caught:
        fit_width(section, make)
    assert "\n" not in str(caught.value)
