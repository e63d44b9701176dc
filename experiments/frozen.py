"""The configs of the studies as they were run, whatever became of the recipes since.

lstm-research train --config=experiments/frozen.py:STUDY,RUN --workdir=...

A study's `configs.json` has them, beside its results.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lstm_research.common.errors import UserError

HERE = Path(__file__).parent


def get_config(name: str = "") -> ConfigDict:
    """Returns the config of a run.

    Args:
      name: the study, a comma, and the run's name.

    Raises:
      UserError: there is no such study or run.
    """
    study, _, run = name.partition(",")
    studies = sorted(path.parent.name for path in HERE.glob("*/configs.json"))
    if study not in studies:
        raise UserError(f"no study {study!r}; give --config=experiments/frozen.py:STUDY,RUN with one of {studies}")
    configs = json.loads((HERE / study / "configs.json").read_text())
    if run not in configs:
        raise UserError(f"no run {run!r} in experiments/{study}/configs.json; it has {', '.join(configs)}")
    return ConfigDict(_with_tuples(configs[run]))


def _with_tuples(value: Any) -> Any:
    """Returns a value with the tuples that JSON has as lists."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def write_configs(study: Path, workdirs: dict[str, Path], runs: Path) -> None:
    """Keeps the configs of runs beside the results of their study.

    Args:
      study: the study's folder.
      workdirs: where each run's config is, by the run's name.
      runs: the folder of the runs, which a config may name as where its first weights come from.
    """
    configs = {}
    for name, workdir in workdirs.items():
        text = (workdir / "config.json").read_text()
        configs[name] = json.loads(text.replace(str(runs.absolute()), f"runs/{study.name}"))
    (study / "configs.json").write_text(json.dumps(configs, indent=1, sort_keys=True) + "\n")
