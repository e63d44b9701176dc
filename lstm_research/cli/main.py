"""The command `lstm-research`: finds the command, runs it, and turns a user's mistake into one line."""

import importlib
import os
import sys
from typing import Any, NoReturn

from lstm_research.common.errors import UserError, unknown

COMMANDS = {
    "data": "list, prepare and show datasets",
    "train": "train a model from a config, or go on with a run",
    "sweep": "train many trials of a config, chosen by a sweep file",
    "evaluate": "evaluate a run on a split",
    "predict": "let a run predict: text, labels, translations, transcripts, forecasts",
    "report": "write a page about a run, or one that compares several",
    "export": "write a run's weights and config for use elsewhere",
    "benchmark": "measure recurrent layers and training steps",
}
USAGE_ERROR = 2
INTERRUPTED = 130


def main() -> NoReturn:
    """Runs the command that `sys.argv` gives, and exits.

    Exit codes: 0 done, 2 a mistake that the user can correct (one line on stderr), 1 a run that diverged, a sweep
    of which no trial was finished, or a fault of this program (with a traceback), 143 a run or sweep that was told to
    stop and saved its state, 130 interrupted.
    """
    try:
        code = _main(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] not in COMMANDS:
        return _report(str(unknown("command", arguments[0], COMMANDS)))
    return run(arguments[0], arguments[1:])


def run(command: str, arguments: list[str]) -> int:
    """Runs one command as an absl app and returns its exit code.

    Args:
      command: a name of `COMMANDS`.
      arguments: what follows it on the command line of this process.
    """
    # Imported here, not above: the usage line must not cost the start of JAX.
    from absl import app, flags, logging

    from lstm_research.cli.config_flag import explain, for_the_flag

    module = importlib.import_module(f"lstm_research.cli.{command}")
    of_libraries = set(flags.FLAGS)
    module.define_flags()
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
    if {"-h", "-help", "--help"} & set(arguments):
        print(module.__doc__)
        for name in sorted(set(flags.FLAGS) - of_libraries):
            print(_flag_help(flags.FLAGS[name]))
        return 0

    def parse(argv: list[str]) -> list[str]:
        # The libraries' own reports are for --verbosity=0 and up; while a recipe is read they only double ours.
        logging.set_verbosity(logging.ERROR)
        try:
            rest = flags.FLAGS(for_the_flag(argv))
        except Exception as error:
            if "--debug" in argv:
                raise
            raise SystemExit(_report(explain(error, argv))) from error
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        return rest

    def guarded(argv: list[str]) -> int:
        try:
            return module.main(argv) or 0
        except BrokenPipeError:
            raise
        except (UserError, OSError) as error:
            if flags.FLAGS.debug:
                raise
            return _report(_explain(error))

    try:
        app.run(guarded, argv=[command, *arguments], flags_parser=parse)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _explain(error: UserError | OSError) -> str:
    if isinstance(error, UserError) or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror.lower()}; give another place, or make room or permission there"


def _report(text: str) -> int:
    """Prints a mistake as one line and returns the exit code for it."""
    print(f"lstm-research: error: {' '.join(text.split())}", file=sys.stderr)
    return USAGE_ERROR


def _flag_help(flag: Any) -> str:
    default = "" if flag.default is None else f" Default: {flag.default_as_str}."
    return f"--{'[no]' if flag.boolean else ''}{flag.name}\n    {flag.help}{default}"


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items())
    return (
        "usage: lstm-research COMMAND [--flags]\n\n"
        f"{commands}\n\n"
        "lstm-research COMMAND --help shows the flags of a command."
    )
