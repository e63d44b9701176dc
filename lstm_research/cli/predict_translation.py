"""`lstm-research predict` for a translation run: translates lines, and draws where the model looked.

lstm-research predict --workdir=runs/en_fr --text="How are you?" --attention_plot=attention.png
lstm-research predict --workdir=runs/en_fr --input=test.en --output=test.fr --beam_size=10 --num_best=3
"""

from pathlib import Path
from typing import Any

from absl import flags

from lstm_research.cli import decoder_flags
from lstm_research.cli.predict_io import read_input, write_output
from lstm_research.common.errors import UserError

SHARED_FLAGS = ("text", "input", "output", "temperature", "top_k", "top_p", "seed", "num_best")
"""The flags of `predict` that this task reads."""

MAX_PANELS = 30
"""Sentences that one file of attention plots shows."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    flags.DEFINE_list("ensemble", [], "Further runs to translate together with: WORKDIR or WORKDIR@CHECKPOINT, ...")
    flags.DEFINE_string(
        "attention_plot", None, "Draws attention: all lines into one file (.png, .svg, .pdf), or one each to a folder."
    )


def main(trained: Any) -> None:
    """Writes one translation a line; an empty line for an empty line."""
    FLAGS = flags.FLAGS
    lines = read_input()
    decoder = decoder_flags.decoder(trained.task.decoder, trained.task.decoders)
    plots = _plot_paths(FLAGS.attention_plot, lines)
    if plots and not trained.task.attends:
        raise UserError(f"--attention_plot: the model in {FLAGS.workdir} has no attention to draw; leave the flag out")
    members = [_member(entry, trained) for entry in FLAGS.ensemble]
    params = (trained.params, *members) if members else trained.params
    found = trained.task.translate(params, lines, decoder=decoder, seed=FLAGS.seed)
    if FLAGS.num_best is None:
        written = [_one_line(translations[0].text) for translations in found]
    else:
        written = [
            f"{number}\t{each.score:.6f}\t{_one_line(each.text)}"
            for number, translations in enumerate(found, 1)
            for each in translations
        ]
    write_output("".join(line + "\n" for line in written))
    _plot(plots, found)


def _member(entry: str, trained: Any) -> Any:
    """Returns the weights of a further run.

    Raises:
      UserError: it has another model or vocabulary.
    """
    from lstm_research.training.trained_run import TrainedRun

    workdir, checkpoint = entry, "best"
    if "@" in entry and not Path(entry).is_dir():
        workdir, checkpoint = entry.rsplit("@", 1)
    try:
        other = TrainedRun.load(workdir, checkpoint)
    except UserError as error:
        raise UserError(f"--ensemble={entry}: {error}") from error
    if other.config.model.to_dict() != trained.config.model.to_dict():
        raise UserError(f"--ensemble={entry}: not the model of {flags.FLAGS.workdir}; its section model must be equal")
    for name in {*trained.files, *other.files} - {"dataset.json"}:
        if other.files.get(name) != trained.files.get(name):
            raise UserError(
                f"--ensemble={entry}: its {name} is not that of {flags.FLAGS.workdir}; "
                "only runs over the same vocabulary can translate together"
            )
    return other.params


def _plot_paths(where: str | None, lines: list[str]) -> dict[Path, list[int]]:
    """Returns the files to draw and the lines that each of them shows; empty ones are in none.

    Raises:
      UserError: a file of another kind, or more lines than one file can show.
    """
    if where is None:
        return {}
    from lstm_research.analysis.figures import SUFFIXES

    path, filled = Path(where), [index for index, line in enumerate(lines) if line.strip()]
    if path.is_dir() or not path.suffix:
        return {path / f"line_{index + 1:0{len(str(len(lines)))}}.png": [index] for index in filled}
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--attention_plot={where}: give a name that ends in {', '.join(SUFFIXES)}, or a folder")
    if len(filled) > MAX_PANELS:
        raise UserError(
            f"--attention_plot={where}: {len(filled)} lines are too many for one file (at most {MAX_PANELS}); "
            "give a folder, for a file each"
        )
    return {path: filled}


def _plot(plots: dict[Path, list[int]], found: list[list[Any]]) -> None:
    """Draws the attention of the best translation of each line."""
    from lstm_research.analysis.attention_plot import AttentionMap, save_attention

    for path, indices in plots.items():
        maps = []
        for index in indices:
            best = found[index][0]
            if best.pieces:
                maps.append(AttentionMap(best.source_pieces, best.pieces, best.attention, str(index + 1)))
        if maps:
            save_attention(maps, path)


def _one_line(text: str) -> str:
    """Returns a translation as the one line that its reader counts on."""
    return " ".join(text.splitlines())
