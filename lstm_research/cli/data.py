"""`lstm-research data`: the datasets there are, preparing one, and looking into one.

lstm-research data list
lstm-research data prepare shakespeare:tiny
lstm-research data prepare --config=configs/char_lm.py
lstm-research data show --config=configs/char_lm.py --split=valid --num=2
"""

from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstm_research.cli.config_flag import define_config_flag, read_config
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, unknown
from lstm_research.data.text import CATALOGUE, DATASETS, SPLITS, TextDataset


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
    table = Table("name", "part", "what", "size", "source and licence", "prepared", title="Datasets")
    for entry in CATALOGUE:
        prepared = "yes" if entry.is_prepared() else "no"
        table.add_row(entry.name, entry.part, entry.what, entry.size, entry.source, prepared)
    table.add_section()
    table.add_row("text_files", "", "your files: dataset.train, .valid, .test (UTF-8)", "any", "yours", "needs none")
    table.add_row("text_file", "", "your file: dataset.path, cut by dataset.fractions", "any", "yours", "needs none")
    _console().print(table)


def _prepare(names: list[str]) -> None:
    """Fetches, prepares and reads datasets completely."""
    console = _console()
    for spec in _dataset_specs(names, _config()):
        dataset = build(DATASETS, spec, where="dataset")
        console.print(f"preparing {dataset.describe()}", markup=False, highlight=False)
        for split in SPLITS:
            documents = dataset.documents(split)
            count = "1 document" if len(documents) == 1 else f"{len(documents):,} documents"
            console.print(f"  {split}: {count}, {sum(map(len, documents)):,} characters", highlight=False)
        console.print(f"  sha256 of all texts: {dataset.fingerprint()}", highlight=False, soft_wrap=True)


def _show(names: list[str]) -> None:
    """Prints the sizes of a dataset's splits and a few examples, as the model gets them."""
    config = _config()
    specs = _dataset_specs(names, config)
    if len(specs) != 1:
        raise UserError(f"data show takes one dataset, got {len(specs)}")
    if flags.FLAGS.split not in SPLITS:
        raise unknown("--split", flags.FLAGS.split, SPLITS)
    dataset = build(DATASETS, specs[0], where="dataset")
    if config is None:
        _show_text(dataset)
    else:
        _show_batches(dataset, config)


def _show_text(dataset: TextDataset) -> None:
    """Prints the sizes of the splits and the beginnings of documents."""
    console = _console()
    table = Table("split", "documents", "characters")
    for split in SPLITS:
        documents = dataset.documents(split)
        table.add_row(split, f"{len(documents):,}", f"{sum(map(len, documents)):,}")
    console.print(dataset.describe(), markup=False, highlight=False)
    console.print(table)
    for index, document in enumerate(dataset.documents(flags.FLAGS.split)[: flags.FLAGS.num]):
        _print_example(console, f"{flags.FLAGS.split}, document {index}", document[:300])


def _show_batches(dataset: TextDataset, config: Any) -> None:
    """Prints the tokens and windows of the splits, and rows of the first batch, exactly as training gets them."""
    # Imported here, not above: listing and preparing must not wait for JAX.
    from lstm_research.training.experiment import Experiment

    task = Experiment.from_config(config).task
    windows = {"train": task.train_batches(config.seed), **{split: task.eval_batches(split) for split in SPLITS[1:]}}
    table = Table("split", "documents", "characters", "tokens", "unknown", "batch × window", "windows")
    for split in SPLITS:
        texts, cut = dataset.documents(split), windows[split]
        tokens = cut.stream.tokens
        count = f"{cut.windows_per_epoch:,} an epoch" if split == "train" else f"{len(cut):,}"
        unseen = f"{100 * task.vocabulary.count_unknown(tokens) / len(tokens):.2f} %"
        size = f"{cut.batch_size} × {cut.unroll_length}"
        characters = f"{sum(map(len, texts)):,}"
        table.add_row(split, f"{len(texts):,}", characters, f"{len(tokens):,}", unseen, size, count)
    console = _console()
    console.print(dataset.describe(), markup=False, highlight=False)
    console.print(f"vocabulary: {len(task.vocabulary):,} {task.vocabulary.kind}", highlight=False)
    console.print(table)
    split = flags.FLAGS.split
    batch = windows[split][0]
    for row in range(min(flags.FLAGS.num, len(batch["inputs"]))):
        title = f"{split}, batch 0, row {row}, the inputs of {int(batch['weights'][row].sum())} counted targets"
        _print_example(console, title, task.vocabulary.decode(batch["inputs"][row]))


def _print_example(console: Console, title: str, text: str) -> None:
    console.rule(Text(title), align="left")
    console.print(text, markup=False, highlight=False, emoji=False)


def _config() -> ConfigDict | None:
    """Returns the config that the command line names, if it names one."""
    return read_config()[0] if flags.FLAGS["config"].present else None


def _dataset_specs(names: list[str], config: ConfigDict | None) -> list[dict[str, Any]]:
    """Returns the dataset configs that the command line names, by `NAME:PART` or by its config."""
    if bool(names) == (config is not None):
        raise UserError("data: name a dataset (as in: data prepare shakespeare:tiny) or give --config, one of the two")
    if config is not None:
        if "dataset" not in config:
            raise UserError("config key 'dataset' is missing")
        return [config.to_dict()["dataset"]]
    specs = []
    for name in names:
        dataset, _, part = name.partition(":")
        if dataset not in DATASETS:
            raise unknown("dataset", dataset, DATASETS)
        if dataset not in {entry.name for entry in CATALOGUE}:
            raise UserError(f"dataset {dataset!r} consists of your own files; name them in a config and give --config")
        parts = [entry.part for entry in CATALOGUE if entry.name == dataset]
        if part and part not in parts:
            raise unknown(f"part of dataset {dataset!r}:", part, parts)
        specs.append({"name": dataset, "part": part or parts[0]})
    return specs


def _console() -> Console:
    """A console on the current standard output; tables keep their width where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))
