"""Every recipe in `configs/`, with each of its variants: what it builds, that it trains, that it compiles elsewhere.

What a recipe builds is kept in `tests/golden/`, so that a changed default shows in review. To renew these files:

    UPDATE_GOLDEN=1 python -m pytest tests/test_configs.py -k golden
"""

import ast
import functools
import importlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.export
import jaxtyping
import numpy as np
import pytest
from knobs.files import write_files
from ml_collections import ConfigDict

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.series.datasets import ORIGINS
from lstm_research.data.series.scaling import SeriesScaler, Statistics
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.data.synthetic import SYNTHETIC_DATASETS
from lstm_research.data.synthetic.batches import TrainingSequences
from lstm_research.data.vocabulary import Bytes, Characters, Subwords, Words
from lstm_research.sweeps.sweep_file import read_sweep_file
from lstm_research.tasks import TASKS
from lstm_research.tasks.text_classification import Labels
from lstm_research.training.experiment import Experiment
from lstm_research.training.loop import run
from lstm_research.training.metrics import read_metrics

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = CONFIGS.parent / "experiments"
GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def recipe(name: str) -> ModuleType:
    """Returns the module of a recipe."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases() -> list[tuple[str, str]]:
    """Returns all pairs of recipe and variant."""
    names = sorted(path.stem for path in CONFIGS.glob("*.py"))
    return [(name, variant) for name in names for variant in getattr(recipe(name), "VARIANTS", ("",))]


each_recipe = pytest.mark.parametrize(("name", "variant"), cases())
# What takes seconds is run of every recipe as it is, and with --whole of its variants too.
each_recipe_and_whole_variants = pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*case, marks=[pytest.mark.whole] if case[1] else []) for case in cases()]
)


def get_config(name: str, variant: str) -> ConfigDict:
    """Returns a recipe's config, as `--config=NAME.py:VARIANT` does."""
    get: Any = recipe(name).get_config
    return get(variant) if variant else get()


def vocabulary_size(config: ConfigDict) -> int:
    """Stands in for the number of symbols, which the data decides: mostly a prime, so that no other size is like it."""
    if "name" not in config.vocabulary:
        return 0
    if (config.vocabulary.get("max_size") or 0) > 10000:
        return 29989
    return {"characters": 67, "words": 9973, "subwords": 1999, "bytes": 256}[config.vocabulary.name]


def make_vocabulary(config: ConfigDict) -> bytes:
    """Returns a vocabulary of that size, as a run stores it."""
    name, size = config.vocabulary.name, vocabulary_size(config)
    symbols = list(map(chr, range(0x4E00, 0x4E00 + size)))
    vocabulary: Any
    if name == "words":
        vocabulary = Words().fit([" ".join(symbols[:-2])])  # <unk> and <eos> come on top
    elif name == "characters":
        vocabulary = Characters().fit(["".join(symbols[:-1]) + "\n"])  # a newline ends what has an end
    elif name == "subwords":  # the pieces are as many characters, which all occur
        text = "\n".join(" ".join(symbols[i] + symbols[i + 1] for i in range(j, j + 3)) for j in range(size - 400))
        vocabulary = Subwords(size=size, character_coverage=1.0).fit([text])
    else:
        vocabulary = Bytes().fit([""])
    assert len(vocabulary) == size
    return vocabulary.to_json().encode()


def stored_files(config: ConfigDict) -> dict[str, bytes]:
    """Returns what stands for the files that a run of this config stores."""
    vocabulary = make_vocabulary(config) if "name" in config.vocabulary else b""
    files = dict.fromkeys(TASKS[config.task.name].file_names, vocabulary) | {"dataset.json": b"{}"}
    if config.task.name == "text_classification":
        scores = config.dataset.get("target") == "score"
        files["labels.json"] = Labels(None if scores else ("negative", "positive")).to_json().encode()
    if config.task.name == "speech_recognition":
        dataset = SPEECH_DATASETS[config.dataset.name]
        statistics = [[0.0] * 13, [1.0] * 13] if config.task.features.normalize == "global" else None
        signals = {"sample_rate": dataset.sample_rate, "num_features": dataset.num_features}
        files["features.json"] = json.dumps({**signals, "statistics": statistics}).encode()
    if config.task.name == "forecasting":
        files["series.json"] = series_scaler(config).to_json().encode()
    return files


def series_scaler(config: ConfigDict) -> SeriesScaler:
    """Returns what a forecasting run knows of its series, of the variables that the dataset has."""
    dataset = config.dataset
    targets = ("a", "b")
    if dataset.name in ORIGINS:
        targets = dataset.get("targets") or ORIGINS[dataset.name].columns
    statistics = Statistics(*[(1.0,) * len(targets)] * 3)
    return SeriesScaler("h", 24, targets, {}, {}, dataset.get("calendar", ()), False, {"series": statistics})


def batch_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a training batch, the longest there is."""
    task = config.task
    if task.name == "synthetic":
        dataset = build(SYNTHETIC_DATASETS, config.dataset.to_dict(), where="dataset")
        batch = TrainingSequences(dataset, batch_size=task.batch_size, seed=0)[0]
        return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch.items()}
    if task.name == "forecasting":
        B, C, H = task.batch_size, task.history, task.horizon
        scaler = series_scaler(config)
        V = len(scaler.targets)
        sizes = {"history": (C, V), "history_observed": (C, V), "targets": (H, V), "weights": (H, V)}
        sizes |= {"known": (C + H, scaler.num_known), "static": (0,), "units": (4, V)}
        floats = {name: jax.ShapeDtypeStruct((B, *size), np.float32) for name, size in sizes.items()}
        return floats | {"window": jax.ShapeDtypeStruct((B,), np.int32)}
    B, T = task.batch_size, task.get("max_length", task.get("unroll_length"))
    if task.name == "speech_recognition":
        features = Experiment.from_config(config, files=stored_files(config)).task.features
        shapes = {"frames": ((B, T, features.size), np.float32), "labels": ((B, 60), np.int32)}
        shapes |= {"lengths": ((B,), np.int32), "label_lengths": ((B,), np.int32), "weights": ((B,), np.float32)}
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "language_modelling": {
            "inputs": ((B, T), np.int32),
            "targets": ((B, T), np.int32),
            "resets": ((B, T), np.bool_),
            "weights": ((B, T), np.float32),
        },
        "text_classification": {
            "tokens": ((B, T), np.int32),
            "lengths": ((B,), np.int32),
            "labels": ((B,), np.float32 if config.dataset.get("target") == "score" else np.int32),
            "weights": ((B,), np.float32),
        },
        "translation": {
            "source": ((B, T), np.int32),
            "source_lengths": ((B,), np.int32),
            "inputs": ((B, T), np.int32),
            "targets": ((B, T), np.int32),
            "weights": ((B, T), np.float32),
        },
    }[task.name]
    if task.get("unroll_deviation") is not None:
        shapes["lengths"] = ((B,), np.int32)
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}


def abstract(config: ConfigDict) -> tuple[Experiment, Any]:
    """Builds an experiment at full size without data, and its state without arrays."""
    experiment = Experiment.from_config(config, files=stored_files(config))
    return experiment, experiment.state_shapes


@each_recipe
def test_golden(name: str, variant: str) -> None:
    config = get_config(name, variant)
    size = vocabulary_size(config)
    params = abstract(config)[1].params
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="."): " ".join(
            [str(leaf.dtype), *("V" if length == size else str(length) for length in leaf.shape)]
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    found = json.dumps({"config": config.to_dict(), "parameters": shapes}, indent=1, sort_keys=True) + "\n"
    file = GOLDEN / f"{name}{'.' if variant else ''}{variant}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert file.exists(), f"no {file.name}: see the top of this file"
    assert found == file.read_text(), f"{file.name} is another: if that is meant, see the top of this file"


def runs_of_studies() -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns study, recipe and overrides of every run that `experiments/` lists."""
    with pytest.MonkeyPatch.context() as context:
        context.syspath_prepend(str(EXPERIMENTS))
        studies = [path.parent.name for path in sorted(EXPERIMENTS.glob("*/runs.py"))]
        groups = {study: importlib.import_module(f"{study}.runs").GROUPS for study in studies}
    runs = {study: [each for group in groups[study].values() for each in group] for study in studies}
    for study in studies:
        assert len({each.name for each in runs[study]}) == len(runs[study])  # a run's folder has its name
    return [(study, each.config, each.overrides) for study in studies for each in runs[study]]


@pytest.mark.one_in(12)
@pytest.mark.parametrize(("study", "config", "overrides"), runs_of_studies())
def test_a_run_of_a_study_builds(study: str, config: str, overrides: tuple[str, ...]) -> None:
    built = with_overrides(config, overrides)
    Experiment.from_config(built, files=stored_files(built))


def with_overrides(config: str, overrides: Sequence[str]) -> ConfigDict:
    """Returns a recipe's config with its keys overridden, as the command does."""
    name, _, variant = config.partition(":")
    built = get_config(name.removesuffix(".py"), variant)
    for override in overrides:
        path, _, value = override.partition("=")
        *groups, key = path.split(".")
        section = functools.reduce(lambda section, name: section[name], groups, built)
        with section.ignore_type():
            section[key] = None if key == "init_from" else literal(value)
    return built


@pytest.mark.parametrize("gpu", [pytest.param(False, id="cpu"), pytest.param(True, id="gpu")])
@pytest.mark.parametrize("task", ["language", "speech", "sentiment", "order"])
def test_a_trial_of_the_odyssey_builds(task: str, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    _, config, *flags = importlib.import_module("odyssey.run").command(task, Path("runs"), gpu)
    overrides = [flag.removeprefix("--config.") for flag in flags if flag.startswith("--config.")]
    sweep = next(Path(flag.removeprefix("--sweep=")) for flag in flags if flag.startswith("--sweep="))
    points = read_sweep_file(sweep).points
    assert points is not None
    assert len(points) == 9 * (200 if gpu else 12)
    built = with_overrides(
        config.removeprefix("--config=configs/"), [*overrides, *(f"{key}={value}" for key, value in points[-1].items())]
    )
    Experiment.from_config(built, files=stored_files(built))


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("study", "run"),
    [(path.parent.name, run) for path in EXPERIMENTS.glob("*/configs.json") for run in json.loads(path.read_text())],
)
def test_a_frozen_config_of_a_study_builds(study: str, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    config = importlib.import_module("frozen").get_config(f"{study},{run}")
    Experiment.from_config(config, files=stored_files(config))


@pytest.mark.parametrize(
    ("name", "message"),
    [("oddyssey,order", "no study 'oddyssey'"), ("odyssey,ordr", "no run 'ordr' in .*language, order")],
)
def test_a_frozen_config_that_is_not_there_is_one_line(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    with pytest.raises(UserError, match=message):
        importlib.import_module("frozen").get_config(name)


def test_groups_of_a_study_may_stand_after_its_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.setattr("sys.argv", ["study.py", "speech", "--runs=runs", "digts"])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("study").main()
    assert "speech has no group 'digts'; valid: digits" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["long_dependencies/gradients.py", "timing/curves.py"])
def test_a_figure_is_not_drawn_of_runs_that_are_not_there(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("figure", EXPERIMENTS / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "save_figure", None)
    monkeypatch.setattr("sys.argv", [script, f"--runs={tmp_path}"])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    assert f"{tmp_path} holds no run of" in capsys.readouterr().err


def literal(value: str) -> Any:
    """Returns what an override says: a Python value, or the text as it is."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def test_no_golden_file_is_left_over() -> None:
    names = {f"{name}{'.' if variant else ''}{variant}.json" for name, variant in cases()}
    assert {path.name for path in GOLDEN.iterdir()} == names


@each_recipe_and_whole_variants
def test_train_step_lowers_for_accelerators(name: str, variant: str) -> None:
    config = get_config(name, variant)
    experiment, state = abstract(config)
    exported = jax.export.export(experiment.train_step, platforms=("tpu", "cuda"))(state, batch_shapes(config))
    assert exported.platforms == ("tpu", "cuda")
    # The state that comes out is of the kind that went in.
    new_state, metrics = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new_state)] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)
    ]
    assert {"loss", "gradient_norm", "learning_rate"} <= metrics.keys()


SENTENCES = "To be or not to be,\nthat is the question.\n"


def shrink(config: ConfigDict) -> None:
    """Makes the recipe small, and takes its data from files that this writes to the current folder."""
    config.training.update(num_steps=2, init_from=None)
    config.task.update(batch_size=4)
    model = config.model
    with model.ignore_type(), model.cell.ignore_type(), model.unlocked():
        if "num_params" in model:
            model.num_params = 20_000
        else:
            if "embedding_size" in model:
                model.embedding_size = 16
            model.cell.hidden_size = 16
        if "last_hidden_size" in model:
            model.last_hidden_size = 16
        if "latent_size" in model.get("softmax", {}):
            model.softmax.latent_size = 16
        if "cutoffs" in model.get("softmax", {}):
            model.softmax.cutoffs = (4, 8)
    if config.vocabulary.get("name") == "subwords":
        config.vocabulary.size = 20
    for split in ("train", "valid", "test"):
        Path(f"{split}.txt").write_text(SENTENCES * 4)
    if config.task.name == "speech_recognition":
        write_files()
        config.dataset = {"name": "manifest", "sample_rate": 2000}
        config.dataset.update({split: f"{split}_speech.csv" for split in ("train", "valid", "test")})
        config.task.features = {"name": "log_mel", "num_mels": 4, "hop_seconds": 0.005}
    elif config.task.name == "forecasting":
        write_files()
        calendar = config.dataset.get("calendar", ())
        config.dataset = {
            "name": "csv_series",
            "path": "series.csv",
            "target_columns": ("a", "b"),
            "calendar": calendar,
        }
        with config.task.ignore_type(), config.task.unlocked():
            config.task.update(history=24, horizon=2, season=4, eval_stride=1)
            if model.name == "deepar":
                config.task.num_samples = 4
                model.lags = (1, 4)
    elif config.task.name == "synthetic":
        with config.dataset.unlocked():
            config.dataset.update({} if config.dataset.name == "digits" else {"num_examples": 8})
    elif config.task.name == "language_modelling":
        config.task.unroll_length = 10 if config.task.get("unroll_deviation") else 8
        config.dataset = {"name": "text_files", "train": "train.txt", "valid": "valid.txt", "test": "test.txt"}
    elif config.task.name == "text_classification":
        rows = [f"to be {text},{label}" for text, label in zip("abcdefgh", "01011010", strict=True)]
        Path("train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        target = config.dataset.get("target", "classes")
        config.dataset = {"name": "csv", **dict.fromkeys(("train", "valid", "test"), "train.csv"), "target": target}
    else:
        splits = ("train", "valid", "test")
        config.dataset = {"name": "parallel_files"} | {
            f"{split}_{side}": f"{split}.txt" for split in splits for side in ("source", "target")
        }


@each_recipe_and_whole_variants
def test_trains_two_steps(name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = get_config(name, variant)
    # Of the recipe all but the sizes that cost time, and the data where it would have to be fetched.
    shrink(config)
    assert run(Experiment.from_config(config), tmp_path / "run") == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in lines] == [(2, "train"), (2, "valid"), (2, "test")]
    # CTC's loss is that of a whole utterance.
    assert all(0 < line["loss"] < (100 if name == "speech" else 15) for line in lines)


@pytest.mark.whole
@pytest.mark.parametrize("variant", ["", "czech", "dutch", "prompts"])
def test_a_recogniser_has_room_for_its_data(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = get_config("speech", variant)
    try:
        build(SPEECH_DATASETS, config.dataset.to_dict(), where="dataset").examples("train")
    except UserError as error:  # no network, or no packages of Debian on this machine
        pytest.skip(str(error))
    task = Experiment.from_config(config).task  # which refuses what is too long, too fast, or has other characters
    assert len(task.train_batches(0)[0]["labels"]) == config.task.batch_size


@each_recipe
def test_docstring_states_command_cost_and_result(name: str, variant: str) -> None:
    text = recipe(name).__doc__ or ""
    assert f"lstm-research train --config=configs/{name}.py" in text
    assert not variant or f"--config=configs/{name}.py:{variant}" in text
