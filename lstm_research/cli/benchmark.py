"""`lstm-research benchmark`: how fast recurrent layers and whole training steps are, and where the time goes.

lstm-research benchmark recurrence
lstm-research benchmark recurrence --cells=lstm,gru --shapes=32x128x256x256 --noise=none,zoneout --peers=flax,torch
lstm-research benchmark training
lstm-research benchmark training --config=configs/char_lm.py --override=model.cell.name=gru
lstm-research benchmark packed --config=configs/quickstart.py --packs=1,16

`packed` trains trials of recipes in packs and as processes of their own, and says how many an hour that makes.
`recurrence` times one layer forward and backward, every engine and the layers of other libraries in turn, and shows
compiled memory and compile time; of an LSTM, its products and its elementwise part alone too. `training` splits the
training step of recipes into data, host and device. Both print tables and write all they measured, and the machine, as
JSON. Give the machine nothing else to do meanwhile.
"""

import importlib
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

import lstm_research
from lstm_research.cli.config_flag import explain
from lstm_research.common.errors import UserError, unknown

_FLAGS_OF = {
    "recurrence": ("cells", "engines", "shapes", "peers", "dtype", "noise", "repeats"),
    "training": ("config", "override", "steps"),
    "packed": ("config", "override", "steps", "repeats", "packs"),
}
_RECIPES = {
    "training": ["configs/char_lm.py", "configs/word_lm.py"],
    "packed": ["configs/synthetic.py:noisy_sequence", "configs/synthetic.py", "configs/quickstart.py"],
}


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list("cells", ["lstm"], "recurrence: the cells, by the names that configs use.")
    flags.DEFINE_list("engines", None, "recurrence: the engines; all of them, and auto, if not given.")
    flags.DEFINE_list(
        "shapes", None, "recurrence: BATCHxTIMExINPUTxHIDDEN, as in 32x128x256x256; five usual ones if not given."
    )
    flags.DEFINE_list(
        "peers", None, "recurrence: other libraries: flax, torch, haiku, equinox, keras; those installed if not given."
    )
    flags.DEFINE_list(
        "dtype", None, "recurrence: of products, float32, bfloat16; both on a GPU and float32 elsewhere, if not given."
    )
    flags.DEFINE_list("noise", ["none"], "recurrence: none, recurrent_dropout, zoneout.")
    flags.DEFINE_integer("repeats", None, "recurrence, packed: how many rounds; 9 or 3 if not given.")
    flags.DEFINE_list(
        "config", None, "training, packed: the recipes, FILE.py or FILE.py:VARIANT; usual ones if not given."
    )
    flags.DEFINE_multi_string(
        "override", [], "training, packed: KEY=VALUE, a key of every recipe's config; can be given more than once."
    )
    flags.DEFINE_integer("steps", None, "training, packed: how many steps are timed; 50 or 200 if not given.")
    flags.DEFINE_list("packs", ["1", "4", "16", "64"], "packed: how many trials are in a program.")
    flags.DEFINE_string(
        "output",
        None,
        "Where results go: this name with .json, and .png for the plot; files of that name are replaced. "
        "benchmarks/results/, by benchmark, device and time, if not given.",
    )


def main(argv: list[str]) -> None:
    """Runs one of the benchmarks."""
    actions = {"recurrence": _recurrence, "training": _training, "packed": _packed}
    if len(argv) < 2:
        raise UserError(f"benchmark: say what to measure: {', '.join(actions)}")
    if argv[1] not in actions:
        raise unknown("benchmark", argv[1], actions)
    if len(argv) > 2:
        raise UserError(f"benchmark {argv[1]} takes only flags, got {' '.join(argv[2:])}")
    for action, names in _FLAGS_OF.items():
        for name in names:
            if name not in _FLAGS_OF[argv[1]] and flags.FLAGS[name].present:
                raise UserError(f"--{name} is a flag of benchmark {action}, not of benchmark {argv[1]}")
    actions[argv[1]]()


def _recurrence() -> None:
    recurrence, report = load("recurrence"), load("report")
    FLAGS = flags.FLAGS
    options = recurrence.Options(
        cells=FLAGS.cells,
        engines=FLAGS.engines,
        shapes=recurrence.SHAPES if FLAGS.shapes is None else tuple(map(recurrence.parse_shape, FLAGS.shapes)),
        peers=FLAGS.peers,
        dtypes=FLAGS.dtype,
        noise=FLAGS.noise,
        repeats=9 if FLAGS.repeats is None else FLAGS.repeats,
    )
    console, output = _console(), _output("recurrence")

    def finished(record: dict[str, Any]) -> None:
        report.write_json(record, _file(output, ".json"))
        if len(record["shapes"]) == 1:
            report.print_machine(record["machine"], console)
        report.print_shape(record["shapes"][-1], console)

    record = recurrence.run(options, finished, lambda line: _say(console, line))
    report.print_recurrence_summary(record, console)
    missing = report.plot_recurrence(record, _file(output, ".png"))
    _say(console, missing or str(_file(output, ".png")))
    _say(console, str(_file(output, ".json")))


def _training() -> None:
    training, report = load("training"), load("report")
    steps = 50 if flags.FLAGS.steps is None else flags.FLAGS.steps
    recipes = _recipes("training")
    experiments = training.prepare(recipes, steps)
    console, output = _console(), _output("training")

    def finished(record: dict[str, Any]) -> None:
        report.write_json(record, _file(output, ".json"))
        if len(record["recipes"]) == 1:
            report.print_machine(record["machine"], console)
        report.print_training(record["recipes"][-1], console)

    training.run(experiments, steps, finished, lambda line: _say(console, line))
    report.print_training_legend(console)
    _say(console, str(_file(output, ".json")))


def _packed() -> None:
    packed, report = load("packed"), load("report")
    FLAGS = flags.FLAGS
    try:
        packs = [int(pack) for pack in FLAGS.packs]
    except ValueError:
        raise UserError(f"--packs={','.join(FLAGS.packs)}: give numbers, as in --packs=1,16") from None
    steps, repeats = FLAGS.steps, FLAGS.repeats
    recipes = _recipes("packed")
    console, output = _console(), _output("packed")

    def finished(record: dict[str, Any]) -> None:
        report.write_json(record, _file(output, ".json"))
        if len(record["recipes"]) == 1:
            report.print_machine(record["machine"], console)
        report.print_packed(record["recipes"][-1], console)

    packed.run(
        recipes,
        FLAGS.override,
        packs,
        200 if steps is None else steps,
        3 if repeats is None else repeats,
        finished,
        lambda line: _say(console, line),
    )
    _say(console, str(_file(output, ".json")))


def _recipes(benchmark: str) -> dict[str, ConfigDict]:
    """Returns the configs to measure by the names of their recipes."""
    paths = _RECIPES[benchmark] if flags.FLAGS.config is None else flags.FLAGS.config
    return {path: _read_recipe(path, flags.FLAGS.override) for path in paths}


def load(name: str) -> ModuleType:
    """Imports a module of the measurements.

    They are in a folder of their own: in a checkout beside the package, in an installed wheel inside it.

    Raises:
      UserError: the folder is in neither place.
    """
    package = f"{__package__.partition('.')[0]}.benchmarks"
    if package not in sys.modules:
        inside = Path(lstm_research.__file__).resolve().parent
        for folder in (inside / "benchmarks", inside.parent / "benchmarks"):
            if (folder / "recurrence.py").is_file():
                break
        else:
            raise UserError(
                f"the measurements are missing: no folder {inside.parent / 'benchmarks'}; install a wheel of "
                "lstm-research, or run from a whole checkout"
            )
        # Under one name wherever they are, and without a look at the search path, where another `benchmarks` may be.
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(f"{package}.{name}")


def _read_recipe(path: str, overrides: list[str]) -> ConfigDict:
    """Returns the config of a recipe, read as `--config=PATH --config.KEY=VALUE` of other commands reads it."""
    arguments = ["benchmark", f"--config={path}", *(f"--config.{override}" for override in overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "", lock_config=False, accept_new_attributes=True, flag_values=values, sys_argv=arguments
    )
    sys.modules.pop("config_config", None)  # a recipe would find what the one before it has defined
    for override in overrides:
        if "=" not in override:
            raise UserError(f"--override={override}: give KEY=VALUE")
    try:
        values(arguments)
        config = values["config"].value
        getattr(config, "seed", None)  # a file that cannot be read is noticed now
    except Exception as error:
        if flags.FLAGS.debug:
            raise
        raise UserError(explain(error, arguments)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of the recipe {path} returns a {type(config).__name__}, not a ConfigDict")
    config.lock()
    return config


def _output(benchmark: str) -> Path:
    """Returns the name of the results without a suffix, in a folder that exists: hours must not end in no folder."""
    import jax

    default = f"benchmarks/results/{benchmark}_{jax.default_backend()}_{time.strftime('%Y%m%d_%H%M%S')}"
    output = Path(flags.FLAGS.output or default)
    if output.suffix in (".json", ".png"):
        output = output.with_suffix("")
    output.parent.mkdir(parents=True, exist_ok=True)
    if not flags.FLAGS.output or not output.is_dir():
        return output
    raise UserError(f"--output={flags.FLAGS.output} is a folder; give a name in it")


def _file(output: Path, suffix: str) -> Path:
    return output.with_name(output.name + suffix)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    """A console on the current standard output; tables keep their width where there is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 140))
