"""The folder of one run: what lies in it, whose it is, and who may write to it."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import filelock
from ml_collections import ConfigDict

from lstm_research.common.errors import UserError
from lstm_research.training.environment import describe_start, differences
from lstm_research.training.files import write_atomically

Config: TypeAlias = ConfigDict | Mapping[str, Any]


@dataclass(frozen=True)
class Workdir:
    """Paths of a run's files.

    Attributes:
      path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The config as JSON."""
        return self.path / "config.json"

    @property
    def config_source(self) -> Path:
        """The config file the run was started with."""
        return self.path / "config_source.py"

    @property
    def argv(self) -> Path:
        """The command line of the newest start."""
        return self.path / "argv.txt"

    @property
    def environment(self) -> Path:
        """Versions, commit and devices: of the first start, and of later ones under `starts`."""
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        """State, step, config digest and best result so far."""
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The mirror of the metrics for TensorBoard."""
        return self.path / "tb"

    @property
    def checkpoints(self) -> Path:
        """Whole training states by step."""
        return self.path / "checkpoints"

    @property
    def best_weights(self) -> Path:
        """The weights with the best validation result."""
        return self.path / "best" / "model.safetensors"

    @property
    def samples(self) -> Path:
        """What the best weights predict, as the task shows it."""
        return self.path / "samples"

    @property
    def profile(self) -> Path:
        """The trace of the steps that `--profile` names."""
        return self.path / "profile"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.path / "train.log"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is any checkpoint."""
        return self.checkpoints.is_dir() and any(entry.name.isdigit() for entry in self.checkpoints.iterdir())

    def read_status(self) -> dict[str, Any]:
        """Returns the content of `status.json`, or an empty dict where there is none."""
        return _read_json(self.status) if self.status.exists() else {}

    def write_status(self, state: str, step: int, digest: str, best: dict[str, Any] | None) -> None:
        """Replaces `status.json`.

        Args:
          state: running, finished, preempted, diverged or failed.
          step: updates made.
          digest: of the config.
          best: step, metric and value of the best validation so far.
        """
        status = {"state": state, "step": step, "config_digest": digest, "best": best}
        write_atomically(self.status, json.dumps(status, indent=2) + "\n")

    def initialize(
        self,
        config: Config,
        files: Mapping[str, bytes | str],
        *,
        overwrite_config: bool = False,
        config_source: str | None = None,
        argv: Sequence[str] = (),
    ) -> list[str]:
        """Writes what says where the run comes from; on a resumed run only what is new.

        Args:
          config: the run's config.
          files: further content by file name, such as the vocabulary; a function of config and data.
          overwrite_config: whether the workdir's config and files may be replaced.
          config_source: text of the config file, if there is one.
          argv: the command line.

        Returns:
          Lines worth telling: a replaced config, another environment.

        Raises:
          UserError: `files` differ from those that are there, so the data has changed.
        """
        for name, content in files.items():
            target = self.path / name
            data = content.encode() if isinstance(content, str) else content
            if target.exists() and target.read_bytes() != data and not overwrite_config:
                raise UserError(
                    f"{target} is not what the data gives now: the data has changed; use a new workdir, or "
                    "--overwrite_config to go on with the new data"
                )
        notes = []
        old = _read_json(self.config) if self.config.exists() else None
        if old is not None:
            if changed := config_differences(old, config):
                notes.append("config overwritten: " + ", ".join(changed))
            if divided := _differences(_of_devices(old), _of_devices(config)):
                notes.append("divided among devices in another way than before: " + ", ".join(divided))
        if old is None or old != _plain(config):
            # The config comes first: a folder that holds anything of a run then also says which run's it is.
            write_atomically(self.config, json.dumps(_plain(config), indent=2, sort_keys=True) + "\n")
        for name, content in files.items():
            target = self.path / name
            data = content.encode() if isinstance(content, str) else content
            if not target.exists() or target.read_bytes() != data:
                write_atomically(target, data)
        if config_source is not None:
            write_atomically(self.config_source, config_source)
        write_atomically(self.argv, shlex.join(argv) + "\n")
        start = describe_start(argv)
        if self.environment.exists():
            first = _read_json(self.environment)
            starts = first.setdefault("starts", [])
            other = differences(starts[-1] if starts else first, start)
            if other:
                notes.append("another environment than before, so the last bits may differ: " + ", ".join(other))
            starts.append(start)
            write_atomically(self.environment, json.dumps(first, indent=2) + "\n")
        else:
            write_atomically(self.environment, json.dumps(start, indent=2) + "\n")
        return notes


def config_digest(config: Config) -> str:
    """Returns the sha256 of what a config has computed; tuples and lists count as the same."""
    return hashlib.sha256(json.dumps(_computed(config), sort_keys=True).encode()).hexdigest()


def config_differences(old: Config, new: Config) -> list[str]:
    """Returns the keys that differ between what two configs have computed, as `a.b: old -> new`."""
    return _differences(_computed(old), _computed(new))


def _computed(config: Config) -> dict[str, Any]:
    """Returns a config without `parallel`, so that a run can go on with other devices."""
    return {key: value for key, value in _plain(config).items() if key != "parallel"}


def _of_devices(config: Config) -> dict[str, Any]:
    return {key: value for key, value in _plain(config).items() if key == "parallel"}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, now = dict(flat_config(old)), dict(flat_config(new))
    absent = object()

    def show(value: Any) -> str:
        return "(absent)" if value is absent else json.dumps(value)

    return [
        f"{key}: {show(before.get(key, absent))} -> {show(now.get(key, absent))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, absent) != now.get(key, absent)
    ]


def check_workdir(path: Path, config: Config, *, overwrite_config: bool = False) -> Workdir:
    """Checks that a run with this config may use the folder; writes nothing.

    Raises:
      UserError: the folder belongs to a run with another config, or to something else.
    """
    workdir = Workdir(Path(path))
    if workdir.path.exists() and not workdir.path.is_dir():
        raise UserError(f"workdir {path} is a file; give a folder")
    if not workdir.config.exists():
        for own in (workdir.checkpoints, workdir.metrics, workdir.status):
            if own.exists():
                raise UserError(f"workdir {path} holds {own.name} but no config.json; give a new workdir")
        return workdir
    changed = [] if overwrite_config else config_differences(_read_json(workdir.config), config)
    if changed:
        raise UserError(
            f"workdir {path} was made by another config ({', '.join(changed)}); give --overwrite_config to go on with "
            "the new one, or a new workdir"
        )
    return workdir


def lock_workdir(workdir: Workdir) -> filelock.BaseFileLock:
    """Makes the folder and takes the lock that one training process at a time holds.

    The system drops the lock when its process ends, however it ends.

    Raises:
      UserError: another process holds it, or the folder cannot be made.
    """
    try:
        workdir.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir.path / ".lock", thread_local=False)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"another process is training in workdir {workdir.path}; wait for it, stop it, or give a new workdir"
        ) from None
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"cannot write to workdir {workdir.path}: {error.strerror}") from error
    return lock


def open_workdir(
    path: Path, config: Config, *, overwrite_config: bool = False
) -> tuple[Workdir, filelock.BaseFileLock]:
    """Checks the folder, makes it, and locks it; nothing is written if a check fails."""
    workdir = check_workdir(path, config, overwrite_config=overwrite_config)
    lock = lock_workdir(workdir)
    try:
        # Once more: before the lock another process may have made it a workdir of its own.
        check_workdir(path, config, overwrite_config=overwrite_config)
    except BaseException:
        lock.release()
        raise
    return workdir, lock


def read_workdir(path: Path) -> tuple[Workdir, ConfigDict]:
    """Opens a workdir for reading: to evaluate, predict or export.

    Returns:
      The workdir, and its config, locked, with lists as tuples.

    Raises:
      UserError: the folder is no workdir, or training has not written any weights to it yet.
    """
    workdir = Workdir(Path(path))
    if not workdir.path.is_dir():
        raise UserError(f"no workdir at {path}; train makes one with --workdir={path}")
    if not workdir.config.exists():
        raise UserError(f"{path} is not a workdir made by train: it holds no config.json")
    config = ConfigDict(_tuples(_read_json(workdir.config)))
    if not workdir.best_weights.exists() and not workdir.has_checkpoint:
        raise UserError(f"workdir {path} holds no checkpoint yet; train until its first evaluation or checkpoint")
    return workdir, config.lock()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: not a JSON object")
    return content


def _plain(value: Any) -> Any:
    """Returns a config in the types that JSON has, as it comes back from a file."""
    content = value.to_dict() if isinstance(value, ConfigDict) else value
    return json.loads(json.dumps(content, default=dict))


def flat_config(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested dicts with their dotted keys."""
    if isinstance(value, dict) and (value or not prefix):
        for key, item in value.items():
            yield from flat_config(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
