"""Checkpoints come back bit for bit, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.training.checkpoints import Checkpoints
from lstm_research.training.metrics import DivergedError


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    carry: Any
    key: Any
    average: Any


def make_state(seed: int = 0, width: int = 8) -> State:
    rng = np.random.default_rng(seed)
    kernel = jnp.asarray(rng.standard_normal((64, width)), jnp.float32)
    params = {"cell": {"kernel": kernel, "half": kernel[0].astype(jnp.bfloat16), "none": jnp.zeros((0, 3))}}
    moments = ({"mu": kernel * 2, "count": jnp.int32(seed)}, ())
    return State(
        jnp.int32(seed), params, moments, (jnp.ones((2, 4)), jnp.zeros((2,), bool)), jax.random.key(seed), None
    )


def equal(a: Any, b: Any) -> bool:
    def same(x: Any, y: Any) -> bool:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        return x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()

    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(jax.tree.map(same, a, b)))


def saved(directory: Path, *steps: int, keep: int = 3) -> tuple[Checkpoints, list[str]]:
    warnings: list[str] = []
    checkpoints = Checkpoints(directory, keep, warnings.append)
    for step in steps:
        checkpoints.save(step, make_state(step), {"best": None, "value": step / 3})
    return checkpoints, warnings


def test_round_trip_of_every_kind_of_leaf(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 4)
    restored = checkpoints.restore_latest(make_state(0))
    checkpoints.close()
    assert restored is not None
    step, state, host = restored
    assert (step, host) == (4, {"best": None, "value": 4 / 3})
    assert equal(state, make_state(4))
    assert jax.random.uniform(state.key) == jax.random.uniform(jax.random.key(4))


def test_restored_state_can_be_donated(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 1)
    restored = checkpoints.restore_latest(make_state(0))
    checkpoints.close()
    assert restored is not None
    after = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s.params), donate_argnums=0)(restored[1])
    assert equal(after, jax.tree.map(lambda x: x * 2, make_state(1).params))


def test_restored_state_does_not_recompile(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 1)
    bound = jax.device_put(make_state(0), jax.devices()[0])
    for template in (make_state(0), bound):
        step = jax.jit(lambda s: jax.tree.map(lambda x: x, s))
        step(template)
        restored = checkpoints.restore_latest(template)
        assert restored is not None
        step(restored[1])
        assert step._cache_size() == 1
    checkpoints.close()


def test_keeps_the_newest(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 1, 5, 9, 12, keep=2)
    assert checkpoints.steps() == [9, 12]
    checkpoints.close()
    again, _ = saved(tmp_path / "checkpoints", 13, keep=2)
    assert again.steps() == [12, 13]
    again.close()


def test_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    assert checkpoints.steps() == []
    assert checkpoints.restore_latest(make_state()) is None
    assert not (tmp_path / "checkpoints").exists()


def test_saving_a_step_twice_is_an_error(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 3)
    with pytest.raises(FileExistsError, match="step 3"):
        checkpoints.save(3, make_state(3), {})
    checkpoints.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_saved(value: float, tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 3)
    state = make_state(4)
    state.params["cell"]["half"] = state.params["cell"]["half"].at[1].set(value)
    with pytest.raises(DivergedError, match=r"diverged at step 4: params.cell.half holds"):
        checkpoints.save(4, state, {})
    assert checkpoints.steps() == [3]
    checkpoints.close()


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder: Path) -> None:
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(folder: Path) -> None:
    path = largest(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def flip_bit_of_record(folder: Path) -> None:
    path = folder / "record/metadata"
    text = path.read_text()
    path.write_text(text.replace('\\"value\\": 3.0', '\\"value\\": 3.5'))
    assert path.read_text() != text


def delete_file(folder: Path) -> None:
    largest(folder).unlink()


def delete_record(folder: Path) -> None:
    (folder / "record/metadata").unlink()


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip_bit, flip_bit_of_record, delete_file, delete_record, empty])
def test_damaged_newest_falls_back_to_the_one_before(damage: Callable[[Path], None], tmp_path: Path) -> None:
    checkpoints, warnings = saved(tmp_path / "checkpoints", 3, 6, 9)
    damage(tmp_path / "checkpoints/9")
    remains = {path.relative_to(tmp_path / "checkpoints/9") for path in (tmp_path / "checkpoints/9").rglob("*")}
    restored = checkpoints.restore_latest(make_state(0))
    assert restored is not None
    assert restored[0] == 6
    assert equal(restored[1], make_state(6))
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint of step 9 is damaged (")
    assert "\n" not in warnings[0]
    moved = tmp_path / "damaged/9"
    assert {path.relative_to(moved) for path in moved.rglob("*")} == remains
    # The step can be saved again, and be damaged again.
    checkpoints.save(9, make_state(9), {})
    assert checkpoints.steps() == [3, 6, 9]
    empty(tmp_path / "checkpoints/9")
    assert checkpoints.restore_latest(make_state(0)) is not None
    assert (tmp_path / "damaged/9.1").is_dir()
    checkpoints.close()


def test_every_flipped_bit_and_shortened_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 3, 6)
    rng = np.random.default_rng(0)
    files = [path for path in (tmp_path / "checkpoints/6").rglob("*") if path.is_file()]
    for path in files:
        original = path.read_bytes()
        for position in rng.integers(0, len(original), 4):
            data = bytearray(original)
            data[position] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(data[:position] if position % 4 == 0 else data)
            restored = checkpoints.restore_latest(make_state(0))
            assert restored is not None
            assert equal(restored[1], make_state(restored[0])), (path, position)
            if restored[0] == 3:
                (tmp_path / "damaged/6").rename(tmp_path / "checkpoints/6")
            path.write_bytes(original)
    checkpoints.close()


def test_all_damaged_is_one_line_and_moves_nothing(tmp_path: Path) -> None:
    checkpoints, warnings = saved(tmp_path / "checkpoints", 3, 6)
    for step in (3, 6):
        empty(tmp_path / f"checkpoints/{step}")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(step 6") as raised:
        checkpoints.restore_latest(make_state(0))
    assert "\n" not in str(raised.value)
    assert checkpoints.steps() == [3, 6]
    assert not warnings
    checkpoints.close()


def test_restore_of_one_step(tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 3, 6)
    state, host = checkpoints.restore(3, make_state(0))
    assert equal(state, make_state(3))
    assert host["value"] == 1.0
    empty(tmp_path / "checkpoints/6")
    with pytest.raises(UserError, match=r"checkpoint of step 6 in .* is damaged"):
        checkpoints.restore(6, make_state(0))
    assert checkpoints.steps() == [3, 6]
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: make_state(0, width=9), r"params.cell.half is bfloat16\[8\] there and bfloat16\[9\] here"),
        (lambda s: s._replace(carry=(jnp.ones((2, 4), jnp.bfloat16), s.carry[1])), r"carry.0 is float32\[2, 4\] there"),
        (lambda s: s._replace(average=s.params), "average.cell.half is missing there"),
        (lambda s: s._replace(opt_state=()), "opt_state.0.count there is unknown here"),
    ],
)
def test_state_that_does_not_fit_is_one_line(change: Callable[[State], State], words: str, tmp_path: Path) -> None:
    checkpoints, _ = saved(tmp_path / "checkpoints", 3)
    with pytest.raises(UserError, match=f"step 3 in .* does not fit this config: {words}") as raised:
        checkpoints.restore_latest(change(make_state(0)))
    assert "\n" not in str(raised.value)
    assert checkpoints.steps() == [3]
    checkpoints.close()


def test_what_a_killed_writer_left_is_ignored_and_cleared(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoints", 3)[0].close()
    left = tmp_path / "checkpoints/6.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    restored = checkpoints.restore_latest(make_state(0))
    assert restored is not None
    assert restored[0] == 3
    checkpoints.save(6, make_state(6), {})
    assert checkpoints.steps() == [3, 6]
    assert not left.exists()
    checkpoints.close()
