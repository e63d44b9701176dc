"""`lstm-research export`: writes a run's weights as safetensors, with the config in its metadata and beside it.

lstm-research export --workdir=runs/char_lm --output=char_lm
"""

from pathlib import Path

from absl import flags

from lstm_research.cli import run_flags


def define_flags() -> None:
    """Defines the flags of this command."""
    run_flags.define_flags()
    flags.DEFINE_string("output", None, "The folder to write to; WORKDIR/export if not given.")


def main(argv: list[str]) -> None:
    """Exports a run."""
    trained = run_flags.load(argv)
    folder = Path(flags.FLAGS.output or Path(flags.FLAGS.workdir) / "export")
    for path in trained.export(folder):
        print(path)
