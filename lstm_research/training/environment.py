"""What a run ran on: versions, source commit, devices."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import lstm_research
from lstm_research.common.errors import UserError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint", "lstm-research")


def describe_start(argv: Sequence[str]) -> dict[str, Any]:
    """Returns what one start of a run ran on, in types that JSON has."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": list(argv),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "platform": platform.platform(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "git": _commit(Path(lstm_research.__file__).resolve().parent),
        "devices": [{"platform": device.platform, "kind": device.device_kind} for device in jax.devices()],
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns in words what differs between two starts among the things that a result's last bits depend on."""
    found = []
    names = sorted(set(old.get("versions", {})) | set(new["versions"]))
    for name in names:
        before, now = old.get("versions", {}).get(name), new["versions"].get(name)
        if before != now:
            found.append(f"{name} {before} -> {now}")
    if old.get("xla_flags", "") != new.get("xla_flags", ""):
        found.append(f"XLA_FLAGS {old.get('xla_flags')!r} -> {new.get('xla_flags')!r}")
    if old.get("devices") != new["devices"]:
        found.append(f"devices {_short(old.get('devices'))} -> {_short(new['devices'])}")
    before, now = (start.get("git") or {} for start in (old, new))
    if before.get("commit") != now.get("commit"):
        found.append(f"commit {str(before.get('commit'))[:10]} -> {str(now.get('commit'))[:10]}")
    return found


def keep_compiled_programs(folder: Path) -> None:
    """Lets JAX keep compiled programs in a folder, and look for them there before it compiles.

    Raises:
      UserError: the folder cannot be made. JAX itself would only warn, at every program.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--compilation_cache={folder}: {error.strerror}; give another folder") from error
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def _short(devices: Any) -> str:
    kinds = [device.get("kind") for device in devices or []]
    return f"{len(kinds)} x {kinds[0]}" if kinds else "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(package: Path) -> dict[str, Any] | None:
    """Returns the commit of the checkout that holds the package's source, and whether it was changed since.

    A package installed into an environment that happens to lie in some other project's checkout has none.
    """
    root = _git(package, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != package.parent:
        return None
    commit = _git(package, "rev-parse", "--verify", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", str(package.parent))
    return None if commit is None else {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def command_line() -> list[str]:
    """Returns the command line of this process."""
    return list(sys.argv)
