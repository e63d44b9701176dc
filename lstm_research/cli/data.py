"""`lstm-research data`: the datasets there are, preparing one, and looking into one.

lstm-research data list
lstm-research data prepare shakespeare:tiny
lstm-research data prepare --config=configs/char_lm.py
lstm-research data show tatoeba:ja-en --split=test
lstm-research data show --config=configs/char_lm.py --split=valid --num=2
"""

import collections
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstm_research.cli.config_flag import define_config_flag, read_config
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, unknown
from lstm_research.data.catalogue import CATALOGUE, OWN_FILES, TABLES, spec_of
from lstm_research.data.dataset import SPLITS, Dataset
from lstm_research.data.labelled_text import LabelledDataset
from lstm_research.data.parallel_text import ParallelDataset
from lstm_research.data.series.base import Series, SeriesDataset
from lstm_research.data.speech.recordings import SpeechDataset
from lstm_research.data.synthetic import SyntheticDataset
from lstm_research.data.synthetic.table import as_table


def define_flags() -> None:
    """Defines the flags of this command."""
    define_config_flag()
    flags.DEFINE_string("split", "train", "show: the split that examples are taken from.")
    flags.DEFINE_integer("num", 3, "show: the number of examples.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Runs `data list`, `data prepare` or `data show`.

    Args:
      argv: the command's name, the action, then dataset names (`NAME` or `NAME:PART`).
    """
    actions = {"list": _list, "prepare": _prepare, "show": _show}
    if len(argv) < 2:
        raise UserError(f"data: say what to do: {', '.join(actions)}")
    if argv[1] not in actions:
        raise unknown("action of data:", argv[1], actions)
    actions[argv[1]](argv[2:])


def _list(names: list[str]) -> None:
    """Prints the catalogue of built-in datasets, and how one's own files are named."""
    if names:
        raise UserError(f"data list takes no names, got {' '.join(names)}")
    console = _console()
    for task in TABLES:
        table = Table("name", "part", "what", "size", "source and licence", "prepared", title=f"Datasets for {task}")
        for entry in CATALOGUE:
            if entry.task == task:
                prepared = "yes" if entry.is_prepared() else "no"
                table.add_row(entry.name, entry.part, entry.what, entry.size, entry.source, prepared)
        console.print(table)
    table = Table("name", "what", title="Your own files")
    for name, what in OWN_FILES.items():
        table.add_row(name, what)
    console.print(table)


def _prepare(names: list[str]) -> None:
    """Fetches, prepares and reads datasets completely."""
    console = _console()
    for dataset in _datasets(names, _config()):
        console.print(f"preparing {dataset.describe()}", markup=False, highlight=False)
        for split in SPLITS:
            sizes = ", ".join(
                f"{size} {what.removesuffix('s') if size == '1' else what}"
                for what, size in _sizes(dataset, split).items()
            )
            console.print(f"  {split}: {sizes}", markup=False, highlight=False)
        _print_notes(console, dataset)
        console.print(f"  sha256 of all examples: {dataset.fingerprint()}", highlight=False, soft_wrap=True)


def _show(names: list[str]) -> None:
    """Prints the sizes of a dataset's splits and a few examples, as the model gets them if a config says so."""
    config = _config()
    datasets = _datasets(names, config)
    if len(datasets) != 1:
        raise UserError(f"data show takes one dataset, got {len(datasets)}")
    if flags.FLAGS.split not in SPLITS:
        raise unknown("--split", flags.FLAGS.split, SPLITS)
    if config is None or isinstance(datasets[0], SyntheticDataset):  # which is what the model gets
        _show_examples(datasets[0])
    else:
        # Imported here, not above: listing and preparing must not wait for JAX.
        from lstm_research.cli.data_batches import show_batches

        show_batches(_console(), config, datasets[0], flags.FLAGS.split, flags.FLAGS.num)


def _show_examples(dataset: Dataset) -> None:
    """Prints the sizes of the splits and the beginnings of examples."""
    console = _console()
    rows = {split: _sizes(dataset, split) for split in SPLITS}
    table = Table("split", *rows["train"])
    for split, sizes in rows.items():
        table.add_row(split, *sizes.values())
    console.print(dataset.describe(), markup=False, highlight=False)
    _print_notes(console, dataset)
    console.print(table)
    split = flags.FLAGS.split
    for index, (title, text) in enumerate(_examples(dataset, split)[: flags.FLAGS.num]):
        console.rule(Text(f"{split}, {title} {index}"), align="left")
        console.print(text, markup=False, highlight=False, emoji=False)


def _print_notes(console: Console, dataset: Dataset) -> None:
    for note in dataset.notes if isinstance(dataset, SpeechDataset) else ():
        console.print(f"  {note}", markup=False, highlight=False)


def _sizes(dataset: Any, split: str) -> dict[str, str]:
    """Returns the sizes of a split, in words, by what is counted."""
    counts: dict[str, int] = {}
    if isinstance(dataset, LabelledDataset):
        examples = dataset.examples(split)
        counts = {"texts": len(examples), "characters": sum(len(text) for text, _ in examples)}
        if dataset.labels is not None:
            numbers = collections.Counter(label for _, label in examples)
            counts |= {f"labelled {label}": numbers[index] for index, label in enumerate(dataset.labels)}
    elif isinstance(dataset, ParallelDataset):
        pairs = dataset.examples(split)
        counts = {"sentences": len(pairs), "translations": sum(len(references) for _, references in pairs)}
        counts["characters"] = sum(len(source) + sum(map(len, references)) for source, references in pairs)
    elif isinstance(dataset, SpeechDataset):
        utterances = dataset.examples(split)
        counts = {"utterances": len(utterances)}
        length = sum(len(each.signal) for each in utterances)
        counts |= {"seconds": round(length / dataset.sample_rate)} if dataset.sample_rate else {"frames": length}
        counts["words"] = sum(len(each.transcript.split()) for each in utterances)
        counts["characters"] = sum(len(each.transcript) for each in utterances)
    elif isinstance(dataset, SyntheticDataset):
        drawn = dataset.examples(split)
        counts = {"sequences": len(drawn.lengths), "steps": int(drawn.lengths.sum())}
        counts["answers"] = int(drawn.weights.sum())
    elif isinstance(dataset, SeriesDataset):
        parts = [each.targets[slice(*dataset.rows(each, split))] for each in dataset.series()]
        counts = {"series": len(parts), "rows": sum(map(len, parts)), "values": sum(part.size for part in parts)}
        counts["missing"] = sum(int(np.isnan(part).sum()) for part in parts)
    else:
        documents = dataset.documents(split)
        counts = {"documents": len(documents), "characters": sum(map(len, documents))}
    return {what: f"{count:,}" for what, count in counts.items()}


def _examples(dataset: Any, split: str) -> list[tuple[str, str]]:
    """Returns what an example is called and its beginning, of all examples of a split."""
    if isinstance(dataset, LabelledDataset):
        labels = dataset.labels
        return [
            (f"{label if labels is None else labels[int(label)]}: text", text[:300])
            for text, label in dataset.examples(split)
        ]
    if isinstance(dataset, ParallelDataset):
        pairs = dataset.examples(split)
        return [("sentence", "\n".join([source, *(f"→ {text}" for text in texts)])) for source, texts in pairs]
    if isinstance(dataset, SpeechDataset):
        rate, unit = (dataset.sample_rate, "seconds") if dataset.sample_rate else (1, "frames")
        return [
            (f"{name}: {len(signal) / rate:,.4g} {unit}, utterance", text)
            for name, signal, text in dataset.examples(split)
        ]
    if isinstance(dataset, SyntheticDataset):
        drawn = dataset.examples(split)
        return [("sequence", as_table(drawn.take([row]))) for row in range(min(flags.FLAGS.num, len(drawn.lengths)))]
    if isinstance(dataset, SeriesDataset):
        return [_series_example(dataset, each, split) for each in dataset.series()]
    return [("document", document[:300]) for document in dataset.documents(split)]


def _series_example(dataset: SeriesDataset, series: Series, split: str) -> tuple[str, str]:
    """Returns what a series is called, and its first rows."""
    begin, end = dataset.rows(series, split)
    lines = [f"{'time':<20}{''.join(f'{name:>16}' for name in dataset.target_names)}"]
    for row in range(begin, min(begin + 5, end)):
        lines.append(f"{series.times[row]!s:<20}{''.join(f'{value:>16.6g}' for value in series.targets[row])}")
    return f"{end - begin:,} rows, step {dataset.step}, series {series.name!r}", "\n".join(lines)


def _config() -> ConfigDict | None:
    """Returns the config that the command line names, if it names one."""
    return read_config()[0] if flags.FLAGS["config"].present else None


def _datasets(names: list[str], config: ConfigDict | None) -> list[Any]:
    """Returns the datasets that the command line names, by `NAME:PART` or by its config."""
    if bool(names) == (config is not None):
        raise UserError("data: name a dataset (as in: data prepare shakespeare:tiny) or give --config, one of the two")
    if config is None:
        specs = [spec_of(name) for name in names]
    else:
        for key in ("dataset", "task"):
            if key not in config:
                raise UserError(f"config key {key!r} is missing")
        specs = [(config.task.get("name"), config.to_dict()["dataset"])]
    for task, _ in specs:
        if task not in TABLES:
            raise unknown("task.name", task, TABLES)
    return [build(TABLES[task], spec, where="dataset") for task, spec in specs]


def _console() -> Console:
    """A console on the current standard output; tables keep their width where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))
