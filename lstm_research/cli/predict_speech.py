"""`lstm-research predict` for a speech recogniser: transcripts of sound files, with times.

lstm-research predict --workdir=runs/czech --audio=one.ogg,two.wav
lstm-research predict --workdir=runs/czech --audio=recordings --output=transcripts.jsonl --alignment_plot=plots
lstm-research predict --workdir=runs/english --audio=long.flac --streaming
"""

import collections
import json
from pathlib import Path
from typing import Any

from absl import flags, logging

from lstm_research.cli import decoder_flags, fusion_flags
from lstm_research.cli.places import check_place
from lstm_research.cli.predict_io import check_output, write_output
from lstm_research.common.errors import UserError

DRAWING_FLAGS = ("temperature", "top_k", "top_p", "seed")
"""Those for decoders that draw."""

SHARED_FLAGS = ("output", "num_best", *DRAWING_FLAGS)
"""The flags of `predict` that this task reads."""

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au")
"""Of the files in a folder that are read as sound."""

MAX_PANELS = 20
"""Recordings that one file of alignment plots shows."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    fusion_flags.define_flags()
    flags.DEFINE_list(
        "audio",
        [],
        "Sound files (wav, flac, ogg, mp3), or folders of them; for a run on ready-made features arrays [T, D] (.npy).",
    )
    flags.DEFINE_bool("streaming", False, "Reads piece by piece, and writes what is recognised as soon as it is.")
    flags.DEFINE_string(
        "alignment_plot", None, "Draws what was recognised where, into one file (.png, .svg, .pdf) or a folder."
    )


def main(trained: Any) -> None:
    """Writes one JSON object a recording: its path, the text, the score, and the words with begin and end."""
    FLAGS, task = flags.FLAGS, trained.task
    paths = _paths(FLAGS.audio, task.features.sample_rate is None)
    if FLAGS.streaming:
        _check_streaming()
    _check_drawing(trained)
    task.decoder = decoder_flags.decoder(task.decoder, task.decoders)
    task.fusion = fusion_flags.fusion(trained)
    plots = _plot_paths(FLAGS.alignment_plot, paths)
    for plot in plots:
        check_place("alignment_plot", plot)
    check_output()
    signals = _signals(paths, task)
    if FLAGS.streaming:
        found = _stream(trained, paths, signals)
    else:
        found = task.transcribe(trained.params, signals, list(map(str, paths)), seed=FLAGS.seed)
    lines = [_line(path, each, task) for path, best in zip(paths, found, strict=True) for each in best]
    write_output("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    for plot, indices in plots.items():
        _plot(plot, trained, [(paths[index], signals[index], found[index][0]) for index in indices])


def _paths(named: list[str], arrays: bool) -> list[Path]:
    """Returns the files that `--audio` names; of folders those that look like one, and says which others there are."""
    from lstm_research.data.speech.audio import find

    if not named:
        raise UserError("give sound files, or folders of them, with --audio=FILE,...")
    suffixes = (".npy",) if arrays else SUFFIXES
    paths = []
    for each in named:
        path = find(each)
        if path is None:
            raise UserError(f"--audio: there is no {each}")
        if not path.is_dir():
            paths.append(path)
            continue
        files = sorted(file for file in path.iterdir() if not file.is_dir())
        kinds = collections.Counter(file.suffix.lower() for file in files)
        files = [file for file in files if file.suffix.lower() in suffixes]
        if not files:
            raise UserError(f"--audio: the folder {each} holds no file that ends in {', '.join(suffixes)}")
        paths += files
        if others := {suffix: kinds[suffix] for suffix in kinds if suffix not in suffixes}:
            said = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.items())
            logging.warning("--audio: files of other kinds in the folder %s are left out (%s)", each, said)
    return paths


def _signals(paths: list[Path], task: Any) -> list[Any]:
    """Reads the files, and says what was done to their sound."""
    from lstm_research.data.speech.audio import conversions, read_audio

    sample_rate = task.features.sample_rate
    if sample_rate is None:
        return [_read_features(path, task) for path in paths]
    recordings = [read_audio(path, sample_rate, "--audio") for path in paths]
    for note in conversions(recordings, sample_rate, "the run's dataset.sample_rate"):
        logging.warning("--audio: %s", note)
    return [each.signal for each in recordings]


def _read_features(path: Path, task: Any) -> Any:
    import numpy as np

    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--audio: {path} is no array as numpy.save writes one ({' '.join(str(error).split())})"
        ) from error
    wanted = task.features.num_features
    if array.ndim != 2 or array.shape[1] != wanted or not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"--audio: {path} must hold features [T, {wanted}], and holds {array.dtype}{list(array.shape)}")
    if not np.isfinite(array).all():
        raise UserError(f"--audio: {path} has features that are no finite number")
    return array.astype(np.float32)


def _check_streaming() -> None:
    """Raises a `UserError` for a flag of a search, which a stream has not."""
    FLAGS = flags.FLAGS
    names = ("language_model", "lm_weight", "length_bonus", *decoder_flags.OPTIONS, "seed")
    given = [name for name in names if FLAGS[name].present]
    if FLAGS.decoder not in (None, "greedy"):
        given.insert(0, "decoder")
    for name in given:
        raise UserError(
            f"--{name} is for a search of whole recordings, and --streaming is greedy; leave one of them out"
        )


def _check_drawing(trained: Any) -> None:
    """Raises a `UserError` for a flag of draws where the model has no decoder that makes any."""
    FLAGS = flags.FLAGS
    if any(hasattr(decoder, "temperature") for decoder in trained.task.decoders.values()):
        return  # then it depends on the decoder, see `decoder_flags.decoder`
    for name in DRAWING_FLAGS:
        if FLAGS[name].present:
            raise UserError(
                f"--{name} is for draws, and no decoder of a model {trained.task.model_name!r} has any; leave it out"
            )


def _stream(trained: Any, paths: list[Path], signals: list[Any]) -> list[list[Any]]:
    """Recognises recordings in pieces of half a second, and says on the terminal what there is so far."""
    import sys

    from lstm_research.tasks.speech_stream import SpeechStream

    stream = SpeechStream(trained.task, trained.params)
    piece = (trained.task.features.sample_rate or 100) // 2
    found = []
    for path, signal in zip(paths, signals, strict=True):
        stream.reset()
        said = ""
        for first in range(0, len(signal), piece):
            text = stream.push(signal[first : first + piece])
            if text != said:
                print(f"{path}: {text}", file=sys.stderr, flush=True)
                said = text
        found.append([stream.end()])
    return found


def _line(path: Path, each: Any, task: Any) -> dict[str, Any]:
    """Returns what is written of a transcript; times are in frames where nobody knows how long these are."""
    unit = "seconds" if task.features.sample_rate else "frames"
    words = [{"word": word.text, "begin": round(word.begin, 3), "end": round(word.end, 3)} for word in each.words]
    return {"path": str(path), "text": each.text, "score": round(each.score, 6), "unit": unit, "words": words}


def _plot_paths(where: str | None, paths: list[Path]) -> dict[Path, list[int]]:
    """Returns the files to draw, and the recordings that each of them shows."""
    if where is None:
        return {}
    from lstm_research.analysis.figures import SUFFIXES

    path = Path(where)
    if path.is_dir() or not path.suffix:
        return {path / f"{number}_{each.stem}.png": [number - 1] for number, each in enumerate(paths, 1)}
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--alignment_plot={where}: give a name that ends in {', '.join(SUFFIXES)}, or a folder")
    if len(paths) > MAX_PANELS:
        raise UserError(
            f"--alignment_plot={where}: {len(paths)} recordings are too many for one file (at most {MAX_PANELS}); "
            "give a folder, for a file each"
        )
    return {path: list(range(len(paths)))}


def _plot(where: Path, trained: Any, recordings: list[tuple[Path, Any, Any]]) -> None:
    from lstm_research.analysis.alignment_plot import save_alignment
    from lstm_research.analysis.pictures import aligned

    where.parent.mkdir(parents=True, exist_ok=True)
    save_alignment([aligned(trained, signal, best, str(path)) for path, signal, best in recordings], where)
