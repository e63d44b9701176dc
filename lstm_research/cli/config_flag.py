"""The flag `--config`; shared by the commands that start from a recipe."""

import ast
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from lstm_research.common.errors import UserError

# What the flag cannot read: None for a key that holds a number, and keys of a section that a recipe may leave out.
_PUT_IN_LATER = re.compile(r"--?config\.([\w.]+)=(None)|--?config\.(parallel\.\w+)=(.*)")
_OVERRIDE = re.compile(r"--?(no)?config\.")


class _AnyValue(flags.ArgumentParser):
    """Reads what overrides a None: a Python value, or else the text as it is; its type is checked where it is used."""

    def parse(self, argument: Any) -> Any:
        """Returns the value."""
        try:
            return ast.literal_eval(argument.capitalize() if argument in ("true", "false") else argument)
        except (SyntaxError, ValueError):
            return argument


def define_config_flag(flag_values: Any = flags.FLAGS, arguments: Sequence[str] | None = None) -> None:
    """Defines `--config`.

    Args:
      flag_values: where.
      arguments: the command line that says which keys are overridden; None is that of this process.
    """
    config_flags.register_flag_parser_for_type(type(None), _AnyValue())  # type: ignore[type-var]
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The recipe, FILE.py or FILE.py:VARIANT. --config.KEY=VALUE overrides a key, also one that the recipe leaves "
        "at its default.",
        flag_values=flag_values,
        lock_config=False,  # keys that a recipe leaves out may be set; which exist is checked where they are used
        accept_new_attributes=True,
        sys_argv=for_the_flag(sys.argv if arguments is None else arguments),
    )


def parse_config(arguments: Sequence[str]) -> ConfigDict:
    """Returns the config that a command line with these arguments gives, locked.

    Args:
      arguments: `--config=RECIPE` and overrides.

    Raises:
      UserError: what the command would have said.
    """
    command = ["lstm-research", *arguments]
    values = flags.FlagValues()
    define_config_flag(values, command)
    try:
        values(for_the_flag(command))
    except Exception as error:
        raise UserError(explain(error, list(arguments))) from error
    return read_config(values, command)[0]


def overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments that override keys of the config.

    Raises:
      UserError: one is not written as `--config.key=value`.
    """
    found = [argument for argument in arguments if _OVERRIDE.match(argument)]
    for argument in found:
        if "=" not in argument or "noconfig." in argument.split("=")[0]:
            raise UserError(f"{argument}: a sweep hands this on to its trials; write it as --config.key=value")
    return found


def for_the_flag(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without overrides that the flag cannot read; `read_config` puts them in."""
    return [argument for argument in arguments if not _PUT_IN_LATER.fullmatch(argument)]


def read_config(flag_values: Any = flags.FLAGS, arguments: Sequence[str] | None = None) -> tuple[ConfigDict, str]:
    """Returns the config with its overrides, locked, and the text of its file.

    Args:
      flag_values: where `--config` was defined and parsed.
      arguments: the command line; None is that of this process.

    Raises:
      UserError: no recipe is named, or there is no such file, or it gives no config.
    """
    flag: Any = flag_values["config"]
    if not flag.present:
        raise UserError("give a recipe with --config=FILE.py")
    path = Path(flag.config_filename.split(":")[0])
    source = _read(path)
    config = flag_values.config
    try:
        getattr(config, "seed", None)
    except OSError as error:  # the recipe itself could not read something, which the flag keeps until now
        raise UserError(f"recipe {path}: {error.__cause__ or error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of the recipe {path} returns a {type(config).__name__}, not a ConfigDict")
    for match in filter(None, map(_PUT_IN_LATER.fullmatch, sys.argv if arguments is None else arguments)):
        *groups, key = (match[1] or match[3]).split(".")
        section = config
        if match[3] and "parallel" not in config:
            config.parallel = ConfigDict()
        for name in groups:
            section = section.get(name)
            if not isinstance(section, ConfigDict):
                raise UserError(f"unknown config key {match[1] or match[3]}: the recipe {path} has no group {name}")
        with section.ignore_type():
            section[key] = _AnyValue().parse(match[2] or match[4])
    config.lock()
    return config, source


def explain(error: BaseException, arguments: list[str]) -> str:
    """Says in one line why flags could not be parsed, given the command's arguments.

    Three things meet there: flags, a recipe, which is a program and may fail in any way, and overrides of its keys.
    """
    recipe = _recipe(arguments)
    file = recipe.split(":")[0]
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, SyntaxError):
        return f"recipe {error.filename}, line {error.lineno}: {error.msg}"
    if "Traceback (most recent call last)" in text:  # the recipe failed: its own error comes after the last frame
        lines = text.strip().splitlines()
        text = " ".join(lines[max(i for i, line in enumerate(lines[:-1]) if line.startswith("  ")) + 1 :])
        if "get_config() takes 0 positional arguments" in text:
            return f"recipe {file} has no variants: give --config={file}"
        kind, _, what = text.partition(": ")
        return f"recipe {file}: {what if kind.endswith('.UserError') else text}"
    if isinstance(error, flags.DuplicateFlagError):  # an override is defined anew for every --config
        return "--config is given more than once"
    if isinstance(error, flags.Error):
        flag, found, _ = text.partition(": Failed to parse")
        return f"{flag}: it is a group of keys; override the keys in it one by one" if found else text
    if isinstance(error, OSError) and recipe:  # deferred by the flag until the config is used
        try:
            _read(Path(file))
        except UserError as unreadable:
            return str(unreadable)
    if "module 'config_config' has no attribute 'get_config'" in text:
        return f"recipe {file} has no function get_config()"
    if "does not support indexing" in text:
        return f"unknown config key {text.rpartition('lookup: ')[2]}: no group of keys of the recipe {file} leads to it"
    own = {Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)}
    if isinstance(error, KeyError | AttributeError) and Path(file) not in own:  # an override that leads nowhere
        text = text.replace("' Did you mean", "'; did you mean")
        hint = (
            "" if "did you mean" in text else " (a group of keys that a recipe leaves out has to be added to it first)"
        )
        return f"unknown config key {text}{hint}"
    return f"recipe {file}: {type(error).__name__}: {text}"


def _recipe(arguments: list[str]) -> str:
    """Returns the value of `--config` among the arguments, or an empty text."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return value if equals else following
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror}; give a config file with --config") from error
