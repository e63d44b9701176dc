"""`lstm-research predict`: lets a run predict; what that is depends on its task.

A language model continues a prompt:

lstm-research predict --workdir=runs/char_lm --prompt="ROMEO:" --length=500 --temperature=0.8

A classifier gives the labels of texts, a translation model translates lines:

lstm-research predict --workdir=runs/sentiment --text="a masterpiece"
lstm-research predict --workdir=runs/sentiment --input=reviews.csv --output=labels.csv
lstm-research predict --workdir=runs/translation --input=english.txt --output=french.txt

A recogniser writes down what is said in sound files:

lstm-research predict --workdir=runs/czech --audio=recordings --output=transcripts.jsonl

A forecaster says what comes after the end of series:

lstm-research predict --workdir=runs/etth1 --input=series.csv --output=forecast.csv --plot=fan.png

A model of a generated problem answers sequences of the test split:

lstm-research predict --workdir=runs/adding --count=10 --output=answers.csv
"""

from types import ModuleType
from typing import Any

from absl import flags

from lstm_research.cli import (
    decoder_flags,
    fusion_flags,
    predict_classification,
    predict_forecasting,
    predict_language_model,
    predict_speech,
    predict_synthetic,
    predict_translation,
    run_flags,
)
from lstm_research.common.errors import UserError

PREDICTORS: dict[str, ModuleType] = {
    "forecasting": predict_forecasting,
    "language_modelling": predict_language_model,
    "speech_recognition": predict_speech,
    "synthetic": predict_synthetic,
    "text_classification": predict_classification,
    "translation": predict_translation,
}
"""What predicts, by the name of the task."""
FURTHER_FLAGS = {predict_speech: (decoder_flags, fusion_flags), predict_translation: (decoder_flags,)}
"""The flags of further modules that some of them read."""


def define_flags() -> None:
    """Defines the flags of this command: what several tasks share, then what only one has."""
    run_flags.define_flags()
    flags.DEFINE_string("text", None, "One text to read, instead of --input.")
    flags.DEFINE_string("input", None, "A file to read, or - for standard input.")
    flags.DEFINE_string("output", None, "The file to write; standard output if left out, or -.")
    flags.DEFINE_float("temperature", 1.0, "Divides the logits; 0 always takes the most likely symbol.")
    flags.DEFINE_integer("top_k", None, "Draw only from the k most likely symbols.")
    flags.DEFINE_float("top_p", 1.0, "Draw only from the most likely symbols that together reach this probability.")
    same = "Of the draws: the same seed writes the same text."
    flags.DEFINE_integer("seed", 0, same, lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_integer(
        "num_samples", None, "How many texts to write, or paths to draw of each forecast.", lower_bound=1
    )
    flags.DEFINE_integer(
        "num_best", None, "Write this many translations or transcripts, each with its score.", lower_bound=1
    )
    decoder_flags.define_flags()
    for module in PREDICTORS.values():
        module.define_flags()


def main(argv: list[str]) -> None:
    """Predicts with the run's own task."""
    trained = run_flags.load(argv)
    module = PREDICTORS[trained.config.task.name]
    _refuse_foreign_flags(module, trained.config.task.name)
    module.main(trained)


def _refuse_foreign_flags(module: Any, task: str) -> None:
    """Raises a `UserError` for a flag that was given and that this task does not read."""
    own = {module.__name__, run_flags.__name__, *(each.__name__ for each in FURTHER_FLAGS.get(module, ()))}
    for name in flags.FLAGS:
        defined = str(flags.FLAGS.find_module_defining_flag(name))
        of_a_task = defined.startswith("lstm_research.cli.predict") or defined in (
            decoder_flags.__name__,
            fusion_flags.__name__,
        )
        if not of_a_task or not flags.FLAGS[name].present or defined in own:
            continue
        if defined != __name__ or name not in module.SHARED_FLAGS:
            raise UserError(f"--{name} means nothing to the task {task!r} of this run; leave it out")
