"""The command `lstm-research`: finds the command, runs it, and turns a user's mistake into one line."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lstm_research.common.errors import UserError, unknown

COMMANDS = {
    "data": "list, prepare and show datasets",
    "train": "train a model from a config, or go on with a run",
    "evaluate": "evaluate a run on a split",
    "predict": "let a run predict: generate text",
    "export": "write a run's weights and config for use elsewhere",
}
USAGE_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one command and exits.

    Exit codes: 0 done, 2 a mistake that the user can correct (one line on stderr), 1 a run that diverged or a fault of
    this program (with a traceback), 143 a run that was told to stop and saved its state, 130 interrupted.
    """
    arguments = list(sys.argv if argv is None else argv)
    if len(arguments) < 2 or arguments[1] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0 if len(arguments) > 1 else USAGE_ERROR)
    if arguments[1] not in COMMANDS:
        sys.exit(_report(unknown("command", arguments[1], COMMANDS)))
    sys.exit(run(arguments[1], arguments[2:]))


def run(command: str, arguments: Sequence[str]) -> int:
    """Runs one command as an absl app and returns its exit code.

    Args:
      command: a name of `COMMANDS`.
      arguments: what follows it on the command line.
    """
    # Imported here, not above: the usage line must not cost the start of JAX.
    from absl import app, flags, logging

    module = importlib.import_module(f"lstm_research.cli.{command}")
    module.define_flags()
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(list(argv))
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)  # the libraries' own reports are for --verbosity=0 and up
            return rest
        except Exception as error:  # a recipe is a program of the user's and may fail in any way
            if "--debug" in argv:
                raise
            raise SystemExit(_report(error)) from error

    def guarded(argv: list[str]) -> int:
        try:
            return module.main(argv) or 0
        except UserError as error:
            if flags.FLAGS.debug:
                raise
            return _report(error)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # The reader (head, less) has seen enough. Python would complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    try:
        app.run(guarded, argv=[command, *arguments], flags_parser=parse)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _report(error: BaseException) -> int:
    """Prints an error as one line and returns the exit code for it."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Traceback (most recent call last)" in text:  # a recipe that failed: its own error is the last line
        text = text.strip().splitlines()[-1].removeprefix("lstm_research.common.errors.UserError: ")
    elif isinstance(error, KeyError | AttributeError):  # config_flags: an override below a group that is not there
        text = f"unknown config key {text} (a group of keys that a recipe leaves out has to be added to it first)"
    elif isinstance(error, SyntaxError):
        text = f"{error.filename}, line {error.lineno}: {error.msg}"
    elif "Failed loading config file" in text:
        text = "cannot read the recipe: " + text.strip().splitlines()[-1]
    print(f"lstm-research: error: {' '.join(text.split())}", file=sys.stderr)
    return USAGE_ERROR


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: lstm-research COMMAND [--flags]\n\n"
        f"{commands}\n\n"
        "lstm-research COMMAND --help shows the flags of a command."
    )
