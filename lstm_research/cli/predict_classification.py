"""`lstm-research predict` for a text classifier: labels and probabilities of texts, and a page of its attention.

lstm-research predict --workdir=runs/sentiment --text="a gripping, funny film"
lstm-research predict --workdir=runs/sentiment --input=reviews.csv --text_column=review --output=labels.csv
"""

import csv
import io
from pathlib import Path
from typing import Any

from absl import flags

from lstm_research.cli.predict_io import read_input, write_output
from lstm_research.common.errors import UserError

SHARED_FLAGS = ("text", "input", "output")
"""The flags of `predict` that this task reads."""


def define_flags() -> None:
    """Defines the flags of this command that no other task has."""
    flags.DEFINE_string(
        "text_column",
        None,
        "The column of the texts, if --input is a table (.csv, .tsv); that of training, or 'text', if left out.",
    )
    flags.DEFINE_string("attention_html", None, "Writes a page with the words coloured by attention to this file.")


def main(trained: Any) -> None:
    """Writes one line a text, as CSV: the label and the probability of each class, or the predicted number."""
    FLAGS = flags.FLAGS
    texts = _read_texts(trained.config.dataset)
    predictions = trained.task.predict(trained.params, texts)
    page = None
    if FLAGS.attention_html is not None:
        if any(prediction.attention is None for prediction in predictions):
            raise UserError(
                f"--attention_html: the model in {FLAGS.workdir} has no attention to show; leave the flag out, or "
                "train with 'attention' in model.pooling"
            )
        from lstm_research.analysis.attention_html import attention_page

        separator = " " if trained.task.vocabulary.kind == "words" else ""
        page = attention_page(predictions, title=f"Attention of {FLAGS.workdir}", separator=separator)
    table = _table(predictions, trained.task.labels.names)
    write_output(table)
    if page is not None:
        from lstm_research.training.files import write_atomically

        write_atomically(Path(FLAGS.attention_html), page)


def _read_texts(dataset: Any) -> list[str]:
    """Returns the texts that the flags name, empty ones too.

    Args:
      dataset: the config's section; a table is read like the ones of training, if those were tables.
    """
    FLAGS = flags.FLAGS
    suffix = Path(FLAGS.input or "").suffix.lower()
    if FLAGS.text_column is None and suffix not in (".csv", ".tsv"):
        return read_input()
    if FLAGS.input in (None, "-"):
        raise UserError("--text_column names a column of a table, which must be a file: give it with --input=FILE")
    if FLAGS.text is not None:
        read_input()  # says that these are two inputs
    from lstm_research.data.delimited import read_rows

    column = dataset.get("text_column", "text") if FLAGS.text_column is None else FLAGS.text_column
    delimiter = "\t" if suffix == ".tsv" else dataset.get("delimiter", ",")
    return [row.values[0] for row in read_rows(FLAGS.input, "--input", {"--text_column": column}, delimiter)]


def _table(predictions: list[Any], names: tuple[str, ...] | None) -> str:
    """Returns the predictions as CSV."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    if names is None:
        writer.writerow(["score"])
        writer.writerows([f"{prediction.score:.6g}"] for prediction in predictions)
    else:
        writer.writerow(["label", *(f"probability_{name}" for name in names)])
        writer.writerows([each.label, *(f"{p:.6f}" for p in each.probabilities)] for each in predictions)
    return table.getvalue()
