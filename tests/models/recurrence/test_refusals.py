"""What `unroll` refuses, and what it says."""

import re

import jax
import jax.numpy as jnp
import pytest

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.recurrence import RecurrentMasks, unroll

D, H, T, B = 2, 3, 5, 4
CELL = LSTM(H)
PARAMS = {name: jnp.zeros(shape) for name, shape in {"input_kernel": (D, 12), "recurrent_kernel": (H, 12)}.items()}
PARAMS["bias"] = jnp.zeros(12)
ones = jnp.ones


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"xs": ones((T, D))}, ["xs", "[T, B, D]", "float32[5, 2]"]),
        ({"xs": [[[1.0, 2.0]]]}, ["xs", "[T, B, D]", "a list"]),
        ({"xs": ones((T, B, 3))}, ["xs", "2 features", "float32[5, 4, 3]"]),
        ({"lengths": ones(3, int)}, ["lengths", "[4]", "int32[3]"]),
        ({"lengths": ones(B)}, ["lengths", "whole numbers", "float32[4]"]),
        ({"lengths": [1, 2, 3, 4]}, ["lengths", "[4]", "a list"]),
        ({"resets": ones((B, T), bool)}, ["resets", "[5, 4]", "bool[4, 5]"]),
        ({"resets": ones((T, B), int)}, ["resets", "booleans", "int32[5, 4]"]),
        ({"carry": CELL.initial_carry({}, (3,))}, ["carry", "(4, 3)", "(3, 3)"]),
        ({"carry": CELL.initial_carry({}, (1,))}, ["carry", "(4, 3)", "(1, 3)"]),
        ({"carry": GRU(H).initial_carry({}, (B,))}, ["carry", "LSTMCarry", "HiddenCarry"]),
        ({"masks": RecurrentMasks(dropout=ones((3, H)))}, ["dropout", "(4, 3)", "(3, 3)"]),
        ({"masks": RecurrentMasks(dropout=ones((2, B, H)))}, ["dropout", "(5, 4, 3)", "(2, 4, 3)"]),
        ({"masks": RecurrentMasks(zoneout_h=ones((2, B, H)))}, ["zoneout_h", "(5, 4, 3)", "(2, 4, 3)"]),
        ({"masks": RecurrentMasks(zoneout_c=ones((T, B, 2)))}, ["zoneout_c", "(5, 4, 3)", "(5, 4, 2)"]),
        ({"masks": RecurrentMasks(dropout=ones((B, H), bool))}, ["dropout", "numbers", "bool"]),
        ({"masks": RecurrentMasks(zoneout_h=ones(()))}, ["zoneout_h", "(5, 4, 3)", "()"]),
    ],
)
def test_shapes_that_do_not_agree(arguments, parts):
    with pytest.raises(ValueError, match="got") as error:
        unroll(CELL, PARAMS, **({"xs": ones((T, B, D))} | arguments))
    for part in parts:
        assert re.search(re.escape(part), str(error.value)), (part, str(error.value))


@pytest.mark.parametrize(
    "name", [name for name, cell in CELLS.items() if "c" not in cell(H).initial_carry({}, ())._fields]
)
def test_zoneout_on_a_memory_that_is_not_there(name):
    cell = CELLS[name](H)
    params = cell.init(jax.random.key(0), D)
    with pytest.raises(ValueError, match=f"memory c; {type(cell).__name__} has only h"):
        unroll(cell, params, ones((T, B, D)), masks=RecurrentMasks(zoneout_c=ones((T, B, H))))


def test_unknown_engine_names_the_valid_ones():
    with pytest.raises(UserError, match=r"unknown engine 'skan'; did you mean 'scan'.* valid: .*auto.*scan"):
        unroll(CELL, PARAMS, ones((T, B, D)), engine="skan")


def test_chunks_need_a_number_of_steps():
    steps = jax.export.symbolic_shape("t")[0]
    xs = jax.ShapeDtypeStruct((steps, B, D), "float32")
    with pytest.raises(UserError, match=r"engine 'chunked' .* number of steps that is known .*take engine 'fused'"):
        jax.export.export(jax.jit(lambda xs: unroll(CELL, PARAMS, xs, engine="chunked")))(xs)
