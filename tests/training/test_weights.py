"""Weights files: what goes in comes out, and damage is noticed."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from lstm_research.common.errors import UserError
from lstm_research.training.weights import load_weights, named_leaves, save_weights


def make_params() -> dict:
    kernel = jnp.arange(12.0).reshape(3, 4)
    layer = {"kernel": kernel.T, "half": jnp.ones((2,), jnp.bfloat16), "scale": jnp.float32(3)}
    return {"stack": {"layer_0": layer}, "table": jnp.zeros((0, 2))}


def test_round_trip_and_names(tmp_path: Path) -> None:
    path = tmp_path / "best/model.safetensors"
    save_weights(path, make_params(), {"step": "7"})
    params, metadata = load_weights(path)
    assert metadata == {"step": "7"}
    assert jax.tree.structure(params) == jax.tree.structure(make_params())
    for name, leaf in named_leaves(make_params()).items():
        loaded = named_leaves(params)[name]
        assert loaded.dtype == leaf.dtype
        np.testing.assert_array_equal(loaded, leaf)
    assert set(load_file(path)) == {"stack.layer_0.kernel", "stack.layer_0.half", "stack.layer_0.scale", "table"}


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    metadata = {name: name for name in "qwertzuiop"}
    for name in "ab":
        save_weights(tmp_path / name, make_params(), metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_transposed_view_is_stored_as_it_reads(tmp_path: Path) -> None:
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_weights(tmp_path / "w", {"kernel": view}, {})
    np.testing.assert_array_equal(load_weights(tmp_path / "w")[0]["kernel"], view)


def test_template_gives_the_structure(tmp_path: Path) -> None:
    class Pair(NamedTuple):
        a: np.ndarray
        b: np.ndarray

    pair = Pair(np.ones(2, np.float32), np.zeros(3, np.float32))
    save_weights(tmp_path / "w", pair, {})
    loaded, _ = load_weights(tmp_path / "w", pair)
    assert isinstance(loaded, Pair)
    with pytest.raises(UserError, match=r"does not fit the model of this config: b is float32\[3\] there"):
        load_weights(tmp_path / "w", pair._replace(b=np.zeros(4, np.float32)))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_weights(path, make_params(), {"step": "7"})
    original = path.read_bytes()
    for position in range(0, len(original), 5):
        data = bytearray(original)
        data[position] ^= 1
        path.write_bytes(data)
        if data[position] in b" " or original[position] in b" ":
            continue  # white space of the header
        with pytest.raises(UserError, match=r"damaged|no digest"):
            load_weights(path)


@pytest.mark.parametrize("length", [0, 5, 100, -3])
def test_truncated_file_is_one_line(length: int, tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_weights(path, make_params(), {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="is damaged") as raised:
        load_weights(path)
    assert "\n" not in str(raised.value)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights at"):
        load_weights(tmp_path / "w")


def test_name_with_a_dot_that_hides_another_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two leaves are called 'a\.b'"):
        named_leaves({"a": {"b": 1}, "a.b": 2})
