"""The flag `--config`; shared by the commands that start from a recipe."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lstm_research.common.errors import UserError


def define_config_flag() -> None:
    """Defines `--config`."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The recipe, FILE.py or FILE.py:VARIANT. --config.KEY=VALUE overrides a key, also one that the recipe leaves "
        "at its default.",
        lock_config=False,  # keys that a recipe leaves out may be set; which exist is checked where they are used
        accept_new_attributes=True,
    )


def read_config() -> tuple[ConfigDict, str]:
    """Returns the config with its overrides, locked, and the text of its file.

    Raises:
      UserError: no recipe is named, or there is no such file.
    """
    flag: Any = flags.FLAGS["config"]
    if not flag.present:
        raise UserError("give a recipe with --config=FILE.py")
    path = Path(flag.config_filename.split(":")[0])
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}; give a config file with --config") from error
    config = flags.FLAGS.config
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of the recipe {path} returns a {type(config).__name__}, not a ConfigDict")
    config.lock()
    return config, source
