"""The folder of a run: whose it is, and what is refused before anything is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from lstm_research.common.disk import is_out_of_room
from lstm_research.common.errors import UserError
from lstm_research.training.environment import differences
from lstm_research.training.workdir import Workdir, config_digest, lock_workdir, open_workdir, read_workdir


def make_config(**changes: Any) -> ConfigDict:
    return ConfigDict({"seed": 1, "model": {"cell": {"name": "lstm"}, "sizes": (1, 2)}, **changes})


def make_workdir(path: Path, config: ConfigDict | None = None) -> Workdir:
    workdir, lock = open_workdir(path, config or make_config())
    workdir.initialize(
        config or make_config(), {"vocabulary.json": "[]"}, config_source="x = 1\n", argv=["train", "--a=b c"]
    )
    lock.release()
    return workdir


def listing(path: Path) -> dict[str, int]:
    return {str(entry): entry.stat().st_mtime_ns for entry in path.rglob("*")}


def test_new_workdir_holds_what_says_where_the_run_comes_from(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "a/run")
    assert json.loads(workdir.config.read_text())["model"]["sizes"] == [1, 2]
    assert workdir.config_source.read_text() == "x = 1\n"
    assert workdir.argv.read_text() == "train '--a=b c'\n"
    environment = json.loads(workdir.environment.read_text())
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "python", "lstm-research"} <= environment["versions"].keys()
    assert environment["devices"][0]["platform"] == "cpu"
    assert environment["git"] is None or {"commit", "dirty"} == environment["git"].keys()


def test_later_starts_are_listed_and_the_first_is_kept(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run")
    first = json.loads(workdir.environment.read_text())
    make_workdir(tmp_path / "run")
    make_workdir(tmp_path / "run")
    later = json.loads(workdir.environment.read_text())
    assert len(later.pop("starts")) == 2
    assert later == first


def test_other_versions_and_devices_are_told() -> None:
    old = {"versions": {"jax": "1", "numpy": "2"}, "devices": [{"kind": "cpu"}], "git": None}
    assert differences(old, old) == []
    new = {"versions": {"jax": "3", "numpy": "2"}, "devices": [{"kind": "H100"}] * 2, "git": {"commit": "a" * 40}}
    assert differences(old, new) == ["jax 1 -> 3", "devices 1 x cpu -> 2 x H100", "commit None -> aaaaaaaaaa"]


def test_workdir_of_another_config_names_the_keys_and_writes_nothing(tmp_path: Path) -> None:
    make_workdir(tmp_path / "run")
    before = listing(tmp_path)
    other = make_config(model={"cell": {"name": "gru", "size": 3}, "sizes": (1, 2)})
    with pytest.raises(UserError) as raised:
        open_workdir(tmp_path / "run", other)
    message = str(raised.value)
    assert 'model.cell.name: "lstm" -> "gru", model.cell.size: (absent) -> 3)' in message
    assert "--overwrite_config" in message
    assert "\n" not in message
    assert listing(tmp_path) == before


def test_overwrite_config(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run")
    other = make_config(seed=2)
    _, lock = open_workdir(tmp_path / "run", other, overwrite_config=True)
    notes = workdir.initialize(other, {}, overwrite_config=True)
    lock.release()
    assert notes == ["config overwritten: seed: 1 -> 2"]
    assert json.loads(workdir.config.read_text())["seed"] == 2


def test_tuples_lists_and_key_order_are_the_same_config(tmp_path: Path) -> None:
    make_workdir(tmp_path / "run")
    same = ConfigDict({"model": {"sizes": [1, 2], "cell": {"name": "lstm"}}, "seed": 1})
    open_workdir(tmp_path / "run", same)[1].release()
    assert config_digest(same) == config_digest(make_config())
    assert config_digest(make_config(seed=2)) != config_digest(make_config())


def test_changed_data_is_refused(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run")
    before = listing(tmp_path)
    with pytest.raises(UserError, match=r"vocabulary.json is not what the data gives now"):
        workdir.initialize(make_config(), {"vocabulary.json": "[1]"})
    assert listing(tmp_path) == before
    workdir.initialize(make_config(), {"vocabulary.json": "[1]"}, overwrite_config=True)
    assert (tmp_path / "run/vocabulary.json").read_text() == "[1]"


def test_lock_is_exclusive_and_comes_free(tmp_path: Path) -> None:
    lock = lock_workdir(Workdir(tmp_path / "run"))
    with pytest.raises(UserError, match="another process is training in workdir"):
        lock_workdir(Workdir(tmp_path / "run"))
    lock.release()
    lock_workdir(Workdir(tmp_path / "run")).release()


def test_places_that_are_no_workdir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        open_workdir(tmp_path / "file", make_config())
    with pytest.raises(UserError, match="cannot write to workdir"):
        open_workdir(tmp_path / "file/run", make_config())
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds checkpoints but no config.json"):
        open_workdir(tmp_path / "other", make_config())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("")
    open_workdir(tmp_path / "mine", make_config())[1].release()


def test_read_workdir(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no workdir at"):
        read_workdir(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="is not a workdir made by train"):
        read_workdir(tmp_path / "run")
    workdir = make_workdir(tmp_path / "run")
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        read_workdir(tmp_path / "run")
    (workdir.checkpoints / "13").mkdir(parents=True)
    again, config = read_workdir(tmp_path / "run")
    assert again == workdir
    assert config.model.sizes == (1, 2)
    assert config_digest(config) == config_digest(make_config())
    workdir.config.write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        read_workdir(tmp_path / "run")


def test_status(tmp_path: Path) -> None:
    workdir = make_workdir(tmp_path / "run")
    assert workdir.read_status() == {}
    workdir.write_status("running", 7, "abc", None)
    assert workdir.read_status() == {"state": "running", "step": 7, "config_digest": "abc", "best": None}


def test_full_disk_is_recognized_wherever_it_hides() -> None:
    assert is_out_of_room(OSError(28, "No space left on device"))
    assert is_out_of_room(RuntimeError("RESOURCE_EXHAUSTED: write failed [OS error 28: No space left on device]"))
    cause = ValueError("outer")
    cause.__cause__ = ExceptionGroup("several", [KeyError(1), OSError(122, "quota")])
    assert is_out_of_room(cause)
    assert not is_out_of_room(OSError(2, "No such file"))
