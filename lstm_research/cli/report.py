"""`lstm-research report`: writes one HTML page about a run, or about a sweep, or one that compares several runs.

lstm-research report --workdir=runs/sentiment
lstm-research report --workdir=runs/lstm --workdir=runs/gru --output=comparison.html
lstm-research report --workdir=sweeps/rates
"""

from pathlib import Path

from absl import flags

from lstm_research.cli.places import check_place
from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_multi_string("workdir", None, "The folder of a run or a sweep; of several runs, they are compared.")
    flags.DEFINE_string("output", None, "The page to write; WORKDIR/report.html if left out, for one folder.")


def main(argv: list[str]) -> None:
    """Writes the page and says where it is."""
    if len(argv) > 1:
        raise UserError(f"report takes only flags, got {' '.join(argv[1:])}")
    FLAGS = flags.FLAGS
    paths = [Path(path) for path in FLAGS.workdir or []]
    if not paths:
        raise UserError("give the folder of a run with --workdir=FOLDER; several are compared")
    if len(paths) > 1 and not FLAGS.output:
        raise UserError("a comparison belongs to no run: say where to write it with --output=FILE.html")
    output = Path(FLAGS.output) if FLAGS.output else paths[0] / "report.html"
    if FLAGS.output or paths[0].is_dir():  # else it is the workdir that is wrong
        check_place("output", output)
    # Imported here, not above: --help and mistakes in flags must not wait for JAX.
    from lstm_research.analysis.report import comparison_report, run_report
    from lstm_research.sweeps.definition import SweepDefinition
    from lstm_research.sweeps.page import sweep_page
    from lstm_research.training.files import write_atomically

    if len(paths) == 1 and SweepDefinition.is_in(paths[0]):
        text = sweep_page(paths[0])
    else:
        for path in paths if len(paths) > 1 else ():
            if SweepDefinition.is_in(path):
                raise UserError(
                    f"--workdir: {path} is a sweep, which has a page of its own; compare runs of it, {path}/trials/0000"
                )
        text = run_report(paths[0]) if len(paths) == 1 else comparison_report(paths)
    write_atomically(output, text)
    print(f"wrote {output}")
