"""What `predict` reads and where it writes, by the flags `--text`, `--input` and `--output` that its tasks share."""

import sys
from pathlib import Path

from absl import flags

from lstm_research.cli.places import check_place
from lstm_research.common.errors import UserError


def read_input() -> list[str]:
    """Returns the lines of `--text`, of the file `--input` or of standard input (`--input=-`), empty ones too.

    Raises:
      UserError: neither or both are given, there is no such file, or it is not UTF-8.
    """
    FLAGS = flags.FLAGS
    if (FLAGS.text is None) == (FLAGS.input is None):
        raise UserError("give what to read: either --text=TEXT or --input=FILE (- is standard input)")
    if FLAGS.text is not None:
        return FLAGS.text.split("\n")
    if FLAGS.input != "-":
        from lstm_research.data.text_files import read_lines

        return read_lines(FLAGS.input, "--input", blank=True)
    try:
        lines = sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"the standard input is not UTF-8 (byte {error.start}); convert it to UTF-8") from error
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def check_output() -> None:
    """Raises a `UserError` if `write_output` could not write, before minutes are spent on what it is to write."""
    if flags.FLAGS.output not in (None, "-"):
        check_place("output", Path(flags.FLAGS.output))


def write_output(text: str) -> None:
    """Writes to the file `--output`, or to standard output if there is none or it is `-`."""
    if flags.FLAGS.output in (None, "-"):
        print(text, end="")
        return
    from lstm_research.training.files import write_atomically

    write_atomically(Path(flags.FLAGS.output), text)
