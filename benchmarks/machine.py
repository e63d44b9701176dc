"""What a measurement ran on; a time without it says nothing."""

import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstm_research.training.environment import command_line, describe_start


def usable_cores() -> int:
    """Returns the number of cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe(versions: dict[str, str] | None = None) -> dict[str, Any]:
    """Returns the machine, the versions, the source commit and the command, in types that JSON has.

    Args:
      versions: of libraries beside those that every run records.
    """
    start = describe_start(command_line())
    return {
        "date": start["time"],
        "command": command(start["argv"]),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "cores_of_machine": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "platform": start["platform"],
        "devices": start["devices"],
        "versions": {**start["versions"], **(versions or {})},
        "xla_flags": start["xla_flags"],
        "git": start["git"],
    }


def command(argv: Sequence[str]) -> str:
    """Returns a command line as it is typed, whatever the folder of the program."""
    program = "lstm-research" if Path(argv[0]).stem in ("lstm-research", "__main__") else Path(argv[0]).name
    return shlex.join([program, *argv[1:]])


def cpu_model(information: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the name of the CPU as the system knows it."""
    try:
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Returns the size of the machine's memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
