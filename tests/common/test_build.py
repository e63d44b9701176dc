"""Objects from config, and what a mistake in a config is told."""

import dataclasses
import functools
from typing import Literal

import ml_collections
import pytest

from lstm_research.common.build import build, check_keywords
from lstm_research.common.errors import UserError, nearest, unknown


@dataclasses.dataclass(frozen=True)
class Plain:
    size: int
    rate: float = 0.5
    flag: bool = False
    label: str | None = None
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    part: object = None

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must not be negative")


class Plainer:
    """Nothing to choose."""


def make(size: int, *, given: str, rest: int = 2, **others: int) -> tuple:
    return size, given, rest, others


TABLE = {"plain": Plain, "plainer": Plainer, "made": make, "fixed": functools.partial(Plain, rate=0.25)}


def test_builds_by_name():
    assert build(TABLE, {"name": "plain", "size": 3, "rate": 1}, where="model") == Plain(3, rate=1)
    assert isinstance(build(TABLE, {"name": "plainer"}, where="model"), Plainer)
    assert build(TABLE, {"name": "fixed", "size": 3}, where="model") == Plain(3, rate=0.25)


@pytest.mark.usefixtures("unchecked_shapes")  # a ConfigDict is not registered as a Mapping, but does as one
def test_builds_from_a_config_dict_and_leaves_it_as_it_was():
    config = ml_collections.ConfigDict({"name": "plain", "size": 3, "pair": (0.5, 1)}).lock()
    assert build(TABLE, config, where="model") == Plain(3, pair=(0.5, 1))
    assert config.to_dict() == {"name": "plain", "size": 3, "pair": (0.5, 1)}


def test_further_arguments_come_from_code():
    assert build(TABLE, {"name": "made", "size": 3}, where="model", given="here") == (3, "here", 2, {})
    with pytest.raises(UserError, match=r"unknown config key model\.given of 'made'"):
        build(TABLE, {"name": "made", "size": 3, "given": "there"}, where="model", given="here")


def test_parts_are_built_first():
    spec = {"name": "plain", "size": 3, "part": {"name": "plain", "size": 4}}
    assert build(TABLE, spec, where="model", parts={"part": TABLE}) == Plain(3, part=Plain(4))
    spec["part"] = {"size": 5}
    assert build(TABLE, spec, where="model", parts={"part": Plain}) == Plain(3, part=Plain(5))
    assert build(TABLE, {"name": "plain", "size": 3, "part": None}, where="model", parts={"part": TABLE}) == Plain(3)
    spec["part"] = {"size": 5, "rat": 0.1}
    with pytest.raises(UserError, match=r"model\.part\.rat .*did you mean 'rate'"):
        build(TABLE, spec, where="model", parts={"part": Plain})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (7, "model must be a group of keys, got int 7"),
        ({"size": 3}, "model.name is missing; valid: fixed, made, plain, plainer"),
        ({"name": "plan"}, "unknown model.name 'plan'; did you mean 'plain'"),
        ({"name": "zzz"}, "unknown model.name 'zzz'; valid: fixed, made, plain, plainer"),
        ({"name": None}, "unknown model.name None"),
        ({"name": "plain"}, "model.size is missing; 'plain' needs size"),
        (
            {"name": "plain", "size": 1, "flg": True},
            "unknown config key model.flg of 'plain': 'flg'; did you mean 'flag'",
        ),
        ({"name": "plainer", "size": 1}, "unknown config key model.size of 'plainer'"),
        ({"name": "fixed", "size": 1, "rate": 0.1}, "unknown config key model.rate of 'fixed'"),
        ({"name": "made", "size": 1, "others": 2}, "unknown config key model.others of 'made'"),
        ({"name": "plain", "size": "1"}, "model.size must be int, got str '1'"),
        ({"name": "plain", "size": 1.0}, "model.size must be int, got float 1.0"),
        ({"name": "plain", "size": True}, "model.size must be int, got bool True"),
        ({"name": "plain", "size": None}, "model.size must be int, got NoneType None"),
        ({"name": "plain", "size": 1, "rate": "fast"}, "model.rate must be float, got str 'fast'"),
        ({"name": "plain", "size": 1, "rate": False}, "model.rate must be float, got bool False"),
        ({"name": "plain", "size": 1, "flag": 1}, "model.flag must be bool, got int 1"),
        ({"name": "plain", "size": 1, "label": 2}, "model.label must be str or None, got int 2"),
        ({"name": "plain", "size": 1, "kind": "c"}, "model.kind must be one of 'a', 'b', got str 'c'"),
        ({"name": "plain", "size": 1, "pair": (1.0,)}, "model.pair must be tuple[float, float], got tuple (1.0,)"),
        ({"name": "plain", "size": 1, "many": (1, "2")}, "model.many must be tuple[int, ...], got tuple (1, '2')"),
        ({"name": "plain", "size": -1}, "model: size must not be negative"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_mistake_is_told_in_one_line(spec, message):
    with pytest.raises(UserError) as error:
        build(TABLE, spec, where="model", **({"given": "x"} if spec and "made" in str(spec) else {}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"label": "x"},
        {"label": None},
        {"kind": "b"},
        {"rate": 2},
        {"pair": (1, 2.5)},
        {"pair": [1, 2.5]},
        {"many": ()},
        {"many": (1, 2, 3)},
        {"part": object()},
    ],
)
def test_what_fits_is_passed_on(spec):
    built = build(TABLE, {"name": "plain", "size": 1} | spec, where="model")
    assert all(getattr(built, key) == value for key, value in spec.items())


def test_one_group_of_keys_for_several_functions():
    check_keywords(
        [Plain, make], {"size": 3, "rest": 1, "rate": 0.1}, where="x", what="both", given_by_code={"given": 1}
    )
    with pytest.raises(UserError, match=r"unknown config key x\.rset of both: 'rset'; did you mean 'rest'"):
        check_keywords([Plain, make], {"size": 3, "rset": 1}, where="x", what="both", given_by_code={"given": 1})


def test_nearest_names():
    assert nearest("lstmm", ["gru", "lstm", "rnn"]) == ["lstm"]
    assert nearest("zzz", ["gru", "lstm", "rnn"]) == []
    assert (
        str(unknown("cell", "lstmm", ["rnn", "lstm"])) == "unknown cell 'lstmm'; did you mean 'lstm'? valid: lstm, rnn"
    )
    assert str(unknown("cell", "zzz", ["rnn", "lstm"])) == "unknown cell 'zzz'; valid: lstm, rnn"
