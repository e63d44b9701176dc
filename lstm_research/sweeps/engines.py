"""The engines: what runs a sweep's trials, and where."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from lstm_research.common.build import build
from lstm_research.common.errors import UserError, unknown

ENGINES = {
    "local": "lstm_research.sweeps.local:LocalEngine",
    "packed": "lstm_research.sweeps.packed:PackedEngine",
    "ray": "lstm_research.sweeps.ray_cluster:RayEngine",
    "slurm": "lstm_research.sweeps.slurm:SlurmEngine",
}
"""Where each engine is: a class whose keyword arguments are its flags, with `run(sweep) -> exit code`. Its attribute
`trains_here` says whether it trains in the process of the command, which then leaves the devices to it."""


def make_engine(name: str, options: Mapping[str, Any]) -> Any:
    """Returns an engine.

    Args:
      name: one of `ENGINES`.
      options: its options by flag; None where a flag is not given.

    Raises:
      UserError: no such engine, an option that is another engine's, or a package that is not installed.
    """
    if name not in ENGINES:
        raise unknown("--engine", name, ENGINES)
    module, _, attribute = ENGINES[name].partition(":")
    constructor = getattr(importlib.import_module(module), attribute)
    given = {key: value for key, value in options.items() if value is not None}
    own = inspect.signature(constructor).parameters
    for key in given:
        if key not in own:
            raise UserError(f"--{key} is not for --engine={name}, which takes {', '.join(f'--{k}' for k in own)}")
    return build({name: constructor}, {"name": name, **given}, where="--engine")
