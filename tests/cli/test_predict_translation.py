"""`lstm-research predict` of a translation run: what is read, what is asked of the task, and what is written."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_collections
import numpy as np
import pytest
from absl import flags

from lstm_research import decoding
from lstm_research.cli import decoder_flags, predict_translation
from lstm_research.common.errors import UserError
from lstm_research.decoding import BeamSearch, Greedy, Sample
from lstm_research.tasks.translation import Translation
from lstm_research.training.trained_run import TrainedRun


class _Task:
    """Translates into capitals, and notes what it was asked for."""

    def __init__(self, decoder: Any, attention: bool = True):
        self.decoder, self.attention, self.attends = decoder, attention, attention
        self.decoders = decoding.DECODERS

    def translate(self, params: Any, lines: Any, *, decoder: Any, seed: int) -> list[list[Translation]]:
        self.asked = SimpleNamespace(params=params, lines=list(lines), decoder=decoder, seed=seed)
        return [
            [self.translation(line, rank) for rank in range(getattr(decoder, "num_best", 1) if line.strip() else 1)]
            for line in lines
        ]

    def translation(self, line: str, rank: int) -> Translation:
        pieces = tuple(line.upper().split())
        if not pieces:
            return Translation("", 0.0, 0.0, (), (), None)
        attention = np.eye(len(pieces), dtype=np.float32) if self.attention else None
        text = " ".join(pieces) + "!" * rank
        return Translation(text, -0.5 - rank, -2.0 - rank, pieces, tuple(line.split()), attention)


def _trained(
    decoder: Any = None, *, attention: bool = True, hidden_size: int = 8, params: Any = "weights", **files: bytes
) -> Any:
    config = ml_collections.ConfigDict({"model": {"name": "seq2seq", "hidden_size": hidden_size}})
    files = {"vocabulary.source.json": b"{}", "dataset.json": b"{}"} | files
    task = _Task(BeamSearch(beam_size=4) if decoder is None else decoder, attention)
    return SimpleNamespace(config=config, task=task, files=files, params=params)


@pytest.fixture
def predict() -> Iterator[Callable[..., Any]]:
    """Runs the command's part for translation with the flags that `lstm-research predict` shares among tasks."""
    FLAGS = flags.FLAGS
    before = set(FLAGS)

    def run(*arguments: str, trained: Any = None) -> Any:
        for name in set(FLAGS) - before:
            delattr(FLAGS, name)
        for name in ("workdir", "input", "output", "text"):
            flags.DEFINE_string(name, None, "")
        flags.DEFINE_float("temperature", 1.0, "")
        flags.DEFINE_integer("top_k", None, "")
        flags.DEFINE_float("top_p", 1.0, "")
        flags.DEFINE_integer("seed", 0, "")
        flags.DEFINE_integer("num_best", None, "", lower_bound=1)
        decoder_flags.define_flags()
        predict_translation.define_flags()
        FLAGS(["predict", "--workdir=runs/en_fr", *arguments])
        trained = trained or _trained()
        predict_translation.main(trained)
        return getattr(trained.task, "asked", None)

    yield run
    for name in set(FLAGS) - before:
        delattr(FLAGS, name)
    FLAGS.unparse_flags()


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return pipe


def test_one_line_each_from_a_text(predict: Any, capsys: Any) -> None:
    asked = predict("--text=a cat")
    assert capsys.readouterr().out == "A CAT\n"
    assert asked.params == "weights"
    assert asked.decoder == BeamSearch(beam_size=4)


def test_one_line_each_from_a_pipe(predict: Any, piped: Any, capsys: Any) -> None:
    piped("\ufeffune idée\r\n\n  \nb\u2028c\n".encode())
    asked = predict("--input=-", "--output=-")
    assert asked.lines == ["une idée", "", "  ", "b\u2028c"]
    assert capsys.readouterr().out == "UNE IDÉE\n\n\nB C\n"


def test_a_file_and_an_output(predict: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in.txt").write_text("a\n\nb c")
    predict(f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'new' / 'out.txt'}")
    assert (tmp_path / "new" / "out.txt").read_text() == "A\n\nB C\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.txt"]
    assert capsys.readouterr().out == ""


def test_an_empty_pipe_gives_nothing(predict: Any, piped: Any, capsys: Any) -> None:
    piped(b"")
    assert predict("--input=-").lines == []
    assert capsys.readouterr().out == ""


def test_several_translations_of_a_line(predict: Any, capsys: Any) -> None:
    asked = predict("--text=a\n\nb", "--num_best=2")
    assert asked.decoder.num_best == 2
    expected = ["1\t-0.500000\tA", "1\t-1.500000\tA!", "2\t0.000000\t", "3\t-0.500000\tB", "3\t-1.500000\tB!"]
    assert capsys.readouterr().out.splitlines() == expected
    predict("--text=a", "--num_best=1")
    assert capsys.readouterr().out == "1\t-0.500000\tA\n"


DECODERS: dict[str, tuple[Any, Any]] = {
    "--decoder=greedy": (BeamSearch(), Greedy()),
    "--decoder=beam": (Greedy(), BeamSearch()),
    "--decoder=beam --num_best=2": (BeamSearch(beam_size=9), BeamSearch(beam_size=9, num_best=2)),
    "--beam_size=7 --no_repeat_ngram=2": (
        BeamSearch(num_best=3),
        BeamSearch(beam_size=7, num_best=3, no_repeat_ngram=2),
    ),
    "--alpha=0.2 --coverage_penalty=0.1": (
        BeamSearch(length_penalty="wu"),
        BeamSearch(length_penalty="wu", alpha=0.2, coverage_penalty=0.1),
    ),
    "--length_penalty=none": (BeamSearch(length_penalty="wu", alpha=0.2), BeamSearch()),
    "--length_penalty=average --alpha=0.5": (Greedy(), None),
    "--decoder=sample --temperature=0.5 --top_k=3 --top_p=0.9": (
        BeamSearch(),
        Sample(temperature=0.5, top_k=3, top_p=0.9),
    ),
    "--seed=5 --num_best=3": (Sample(temperature=0.5), Sample(temperature=0.5, num_best=3)),
}


@pytest.mark.parametrize("arguments", DECODERS)
def test_the_decoder_is_that_of_the_run_with_what_the_flags_set(predict: Any, arguments: str) -> None:
    configured, expected = DECODERS[arguments]
    trained = _trained(configured)
    if expected is None:
        with pytest.raises(UserError, match=r"--length_penalty is no option of the decoder 'greedy'.*--decoder=beam"):
            predict("--text=a", *arguments.split(), trained=trained)
        return
    asked = predict("--text=a", *arguments.split(), trained=trained)
    assert asked.decoder == expected
    assert asked.seed == (5 if "--seed=5" in arguments else 0)


def test_every_option_of_a_decoder_but_its_limit_is_a_flag() -> None:
    fields = {name for each in (BeamSearch, Greedy, Sample) for name in each.__dataclass_fields__}
    assert fields - set(decoder_flags.OPTIONS) == {"max_length_ratio", "max_length_offset"}
    assert set(decoder_flags.OPTIONS) <= fields


WRONG = {
    "": "either --text=TEXT or --input=FILE",
    "--text=a --input=x": "either --text=TEXT or --input=FILE",
    "--text=a --decoder=beem": "did you mean 'beam'",
    "--text=a --temperature=0.5": "--temperature is no option of the decoder 'beam'.*--decoder=sample",
    "--text=a --decoder=greedy --num_best=2": "--num_best is no option.*--decoder=beam or --decoder=sample",
    "--text=a --seed=3": "--seed is for draws.*--decoder=sample",
    "--text=a --num_best=5": r"num_best must be from 1 to beam_size \(4\)",
    "--text=a --attention_plot=plot.gif": "plot.gif.*png",
    "--input=nowhere.txt": "nowhere.txt",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_flags_are_refused(predict: Any, arguments: str) -> None:
    with pytest.raises(UserError, match=WRONG[arguments]):
        predict(*arguments.split())


def test_a_pipe_that_is_not_utf8(predict: Any, piped: Any) -> None:
    piped(b"ab\xff")
    with pytest.raises(UserError, match="byte 2"):
        predict("--input=-")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """The runs there are, by workdir and checkpoint."""
    found: dict[tuple[str, str], Any] = {}
    monkeypatch.setattr(TrainedRun, "load", lambda path, checkpoint="best": found[str(path), checkpoint])
    return found


def test_an_ensemble_of_runs_and_checkpoints(predict: Any, runs: Any) -> None:
    runs["runs/b", "best"] = _trained(params="b", **{"dataset.json": b"elsewhere"})
    runs["runs/en_fr", "400"] = _trained(params="400")
    asked = predict("--text=a", "--ensemble=runs/b,runs/en_fr@400")
    assert asked.params == ("weights", "b", "400")


def test_runs_that_do_not_fit_together(predict: Any, runs: Any, capsys: Any) -> None:
    runs["runs/b", "best"] = _trained(**{"vocabulary.source.json": b"other"})
    with pytest.raises(UserError, match=r"--ensemble=runs/b: its vocabulary.source.json is not that of runs/en_fr"):
        predict("--text=a", "--ensemble=runs/b")
    runs["runs/b", "best"] = _trained(hidden_size=16)
    with pytest.raises(UserError, match="section model"):
        predict("--text=a", "--ensemble=runs/b")
    assert capsys.readouterr().out == ""


def test_plots_one_file_each(predict: Any, tmp_path: Path) -> None:
    lines = ["the cat", "", *"abcdefghij"]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    predict(f"--input={tmp_path / 'in.txt'}", f"--attention_plot={tmp_path / 'plots'}", f"--output={tmp_path / 'out'}")
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == [f"line_{n:02}.png" for n in range(1, 13) if n != 2]
    assert (tmp_path / "plots" / names[0]).read_bytes().startswith(b"\x89PNG")


def test_plots_in_one_file(predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from lstm_research.analysis import attention_plot

    drawn: dict[Path, Any] = {}
    monkeypatch.setattr(attention_plot, "save_attention", lambda maps, path: drawn.update({path: maps}))
    predict("--text=the cat\n\nx", f"--attention_plot={tmp_path / 'plot.svg'}")
    ((path, maps),) = drawn.items()
    assert path == tmp_path / "plot.svg"
    assert [(each.source, each.target, each.title) for each in maps] == [
        (("the", "cat"), ("THE", "CAT"), "1"),
        (("x",), ("X",), "3"),
    ]
    np.testing.assert_array_equal(maps[0].weights, np.eye(2))
    many = "\n".join("a" * 31)
    with pytest.raises(UserError, match="31 lines are too many for one file"):
        predict(f"--text={many}", f"--attention_plot={tmp_path / 'plot.svg'}")


def test_a_plot_needs_attention(predict: Any, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UserError, match="no attention to draw"):
        predict("--text=a", f"--attention_plot={tmp_path / 'x.png'}", trained=_trained(attention=False))
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
