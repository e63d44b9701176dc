"""The language of sweep files, and what is said of mistakes in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.sweeps.points import Hyper
from lstm_research.sweeps.space import Parameter, Space, check_space, choose, corners, grid
from lstm_research.sweeps.sweep_file import SweepFile, read_sweep_file

HYPER, SPACE = Hyper(), Space()


def write(folder: Path, text: str) -> SweepFile:
    (folder / "sweep.py").write_text(text)
    return read_sweep_file(folder / "sweep.py")


def test_points_are_put_together_in_the_manner_of_big_vision() -> None:
    a, b = HYPER.sweep("a", [1, 2]), HYPER.sweep("b", ["x", None])
    assert a == [{"a": 1}, {"a": 2}]
    assert HYPER.product([a, b]) == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 2, "b": None}]
    assert HYPER.zipit([a, b, HYPER.fixed("c", True, length=2)]) == [
        {"a": 1, "b": "x", "c": True},
        {"a": 2, "b": None, "c": True},
    ]
    assert HYPER.chainit([a, HYPER.product([b, HYPER.fixed("a", 3)])]) == [*a, {"b": "x", "a": 3}, {"b": None, "a": 3}]


def test_values_of_numpy_and_lists_become_what_a_config_holds() -> None:
    points = HYPER.sweep("a", [*np.logspace(-3, -2, 2), np.int64(3), [1, 2]])
    assert [type(point["a"]) for point in points] == [float, float, int, tuple]


# A sweep file is called as by a user, whose calls nobody checks but the functions themselves.
as_in_production = pytest.mark.usefixtures("unchecked_shapes")


@as_in_production
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hyper.zipit([hyper.sweep('a', [1]), hyper.sweep('b', [1, 2])])", "line 2: zipit needs .* got 1, 2"),
        ("hyper.product([hyper.sweep('a', [1]), hyper.sweep('a', [2])])", "line 2: a comes from two of the sweeps"),
        ("hyper.sweep('a', [object()])", "line 2: a: a config cannot hold object"),
        ("hyper.sweep('a', [1, 2, 1])", "returns a point twice: a=1"),
        ("[{'a': 1, 'b': 2}, {'b': 2, 'a': 1}]", "returns a point twice: b=2, a=1"),
        ("hyper.sweep(3, [1])", "line 2: a config key is a text"),
        ("[]", "returns no points"),
        ("3", "must return a list of dicts by config key, got int"),
        ("missing", "line 2: NameError: name 'missing' is not defined"),
    ],
)
def test_mistakes_in_points_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"sweep file .*sweep\.py.*{message}"):
        write(tmp_path, f"def get_hyper(hyper):\n    return {text}\n")


@as_in_production
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space.uniform('a', 1, 1)]", "line 2: a: the range from 1 to 1 is empty"),
        ("[space.log_uniform('a', 0, 1)]", "line 2: a: a logarithmic range must begin above 0, got 0"),
        ("[space.integer('a', 0.5, 1)]", "line 2: a: an end of its range must be a whole number, got 0.5"),
        ("[space.uniform('a', 0, float('inf'))]", "line 2: a: an end of its range must be a number, got inf"),
        ("[space.categorical('a', [])]", "line 2: a: a categorical needs at least one value"),
        ("[space.categorical('a', [(1, 2), '(1, 2)'])]", "line 2: a: the values .* cannot be told apart"),
        (
            "[space.conditional('a', [1], [space.uniform('b', 0, 1)])]",
            "b: its condition needs a categorical 'a' before",
        ),
        (
            "[space.categorical('a', [1]), space.conditional('a', [2], [space.uniform('b', 0, 1)])]",
            "b: its condition a=2 is no value of that categorical",
        ),
        ("[space.uniform('a', 0, 1), space.uniform('a', 0, 2)]", "a is given twice, and no condition"),
        ("['a']", "a space holds what space.uniform and its like return, got str 'a'"),
        ("[]", "returns no parameters"),
        ("3", "must return a list of parameters, got int"),
    ],
)
def test_mistakes_in_a_space_name_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"sweep file .*sweep\.py.*{message}"):
        write(tmp_path, f"def get_space(space):\n    return {text}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "give one function, get_hyper.* it has neither"),
        ("def get_hyper(h): ...\ndef get_space(s): ...", "it has both"),
        ("def get_hyper(h:", "line 1: '\\(' was never closed"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        ("NUM_TRIALS = 3\ndef get_hyper(h): return h.sweep('a', [1])", "NUM_TRIALS is the budget of a space"),
        ("NUM_TRIALS = 0\ndef get_space(s): return [s.uniform('a', 0, 1)]", "NUM_TRIALS must be a number of trials"),
    ],
)
def test_mistakes_around_the_function(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"sweep file .*{message}"):
        write(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the sweep file .*none.py: No such file"):
        read_sweep_file(tmp_path / "none.py")


def conditional_space() -> tuple[Parameter, ...]:
    """Two optimisers, each with a range of its own for the same key; momentum beside one of them only."""
    return check_space(
        [
            SPACE.categorical("name", ["adam", "sgd"]),
            SPACE.conditional("name", ["adam"], [SPACE.log_uniform("rate", 1e-4, 1e-2)]),
            SPACE.conditional(
                "name",
                ["sgd"],
                [
                    SPACE.log_uniform("rate", 0.1, 10),
                    SPACE.categorical("nesterov", [False, True]),
                    SPACE.conditional("nesterov", [True], [SPACE.uniform("momentum", 0.5, 0.9)]),
                ],
            ),
            SPACE.integer("size", 1, 3),
        ]
    )


def test_a_parameter_exists_only_beside_the_values_it_was_given_for() -> None:
    space = conditional_space()
    choices: dict[str, Any] = {"name": "sgd", "nesterov": False}
    assert choose(space, lambda p: choices.get(p.key, p.high)) == {
        "name": "sgd",
        "rate": 10.0,
        "nesterov": False,
        "size": 3,
    }
    choices = {"name": "adam"}
    assert choose(space, lambda p: choices.get(p.key, p.high)) == {"name": "adam", "rate": 0.01, "size": 3}
    assert len({parameter.name for parameter in space}) == len(space)  # as Optuna has them


def test_corners_reach_every_end_of_every_range() -> None:
    found = list(corners(conditional_space()))
    assert {(point["name"], point["rate"]) for point in found} >= {
        ("adam", 1e-4),
        ("adam", 1e-2),
        ("sgd", 0.1),
        ("sgd", 10.0),
    }
    assert {point.get("momentum") for point in found} == {None, 0.5, 0.9}
    assert {point["size"] for point in found} == {1, 3}


def test_a_grid_is_every_point_of_a_space_without_fractions() -> None:
    space = check_space(
        [
            SPACE.categorical("a", ["x", "y"]),
            SPACE.conditional("a", ["y"], [SPACE.categorical("b", [True, False])]),
            SPACE.integer("c", 1, 2),
        ]
    )
    assert grid(space) == (
        {"a": "x", "c": 1},
        {"a": "x", "c": 2},
        {"a": "y", "b": True, "c": 1},
        {"a": "y", "b": True, "c": 2},
        {"a": "y", "b": False, "c": 1},
        {"a": "y", "b": False, "c": 2},
    )
    with pytest.raises(UserError, match="--sampler=grid: rate is a range of fractions"):
        grid(conditional_space())


def test_parameters_come_back_from_json() -> None:
    space = (*conditional_space(), SPACE.categorical("t", [(1, (2, None)), "text"]))
    assert tuple(Parameter.from_json(parameter.to_json()) for parameter in space) == space
