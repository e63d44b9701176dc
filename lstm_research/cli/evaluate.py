"""`lstm-research evaluate`: the metrics of a run over one whole split, as a table or as JSON.

lstm-research evaluate --workdir=runs/char_lm --split=test
lstm-research evaluate --workdir=runs/char_lm --checkpoint=latest --json
lstm-research evaluate --workdir=runs/en_fr --decoder=beam --beam_size=10
lstm-research evaluate --workdir=runs/word_lm --neural_cache=2000,0.3,0.1 --dynamic_evaluation=0.00005,0.0005
"""

import json
from typing import Any

from absl import flags

from lstm_research.cli import decoder_flags, fusion_flags, run_flags
from lstm_research.common.errors import UserError


def define_flags() -> None:
    """Defines the flags of this command."""
    run_flags.define_flags()
    flags.DEFINE_string("split", "test", "The split to evaluate: train, valid or test.")
    decoder_flags.define_flags()
    fusion_flags.define_flags()
    flags.DEFINE_bool("json", False, "Print one JSON object instead of a table.")
    of_config = "Overrides task.{0} of the run's config; none leaves it out."
    flags.DEFINE_string(
        "neural_cache",
        None,
        "Of a language model: also its perplexity with a neural cache of WINDOW,THETA,MIXING. "
        + of_config.format("neural_cache"),
    )
    flags.DEFINE_string(
        "dynamic_evaluation",
        None,
        "Of a language model: also its perplexity with dynamic evaluation, LEARNING_RATE,DECAY. "
        + of_config.format("dynamic_evaluation"),
    )


def main(argv: list[str]) -> None:
    """Evaluates a run."""
    trained = run_flags.load(argv)
    trained.task.scored_splits = (flags.FLAGS.split,)
    _set_adaptations(trained)
    _set_decoder(trained)
    metrics = trained.evaluate(flags.FLAGS.split)
    if flags.FLAGS.json:
        from lstm_research.training.metrics import json_value

        line = {"step": trained.step, "split": flags.FLAGS.split, **metrics}
        print(json.dumps({name: json_value(value) for name, value in line.items()}, allow_nan=False))
        return
    print(f"{flags.FLAGS.workdir}: {flags.FLAGS.split} split, weights of step {trained.step}")
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"  {name:<{width}}  {value:.6g}")


def _set_adaptations(trained: Any) -> None:
    """Has the task of a language model adapt to the text as the flags say, on the split that is evaluated."""
    FLAGS, task = flags.FLAGS, trained.task
    values = {name: FLAGS[name].value for name in ("neural_cache", "dynamic_evaluation")}
    given = {name: value for name, value in values.items() if value is not None}
    if not hasattr(task, "adaptations"):
        for name in given:
            raise UserError(f"--{name} is for language models, which the run in {FLAGS.workdir} is not; leave it out")
        return
    from lstm_research.tasks.dynamic_evaluation import DynamicEvaluation
    from lstm_research.tasks.neural_cache import NeuralCache

    kinds: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "neural_cache": ("perplexity_cache", NeuralCache, {"window": int, "theta": float, "mixing": float}),
        "dynamic_evaluation": ("perplexity_dynamic", DynamicEvaluation, {"learning_rate": float, "decay": float}),
    }
    for name, text in given.items():
        metric, kind, types = kinds[name]
        section = None if text == "none" else {**(trained.config.task.get(name) or {}), **_numbers(name, text, types)}
        task.adaptations[metric] = kind.from_config(section)


def _set_decoder(trained: Any) -> None:
    """Has the task decode as the flags say, if it decodes at all."""
    FLAGS, task = flags.FLAGS, trained.task
    has = {decoder_flags.__name__: hasattr(task, "decoder"), fusion_flags.__name__: hasattr(task, "fusion")}
    for name in FLAGS:
        module = str(FLAGS.find_module_defining_flag(name))
        if module not in has or not FLAGS[name].present:
            continue
        if not has[module]:
            raise UserError(
                f"--{name} is for tasks that decode with it, which {trained.config.task.name} does not; leave it out"
            )
    if has[decoder_flags.__name__]:
        task.decoder = decoder_flags.decoder(task.decoder, task.decoders)
    if has[fusion_flags.__name__]:
        task.fusion = fusion_flags.fusion(trained)


def _numbers(name: str, text: str, types: dict[str, Any]) -> dict[str, Any]:
    """Returns the numbers of a flag by the names that the config has for them."""
    parts = text.split(",")
    try:
        return {key: number(part) for (key, number), part in zip(types.items(), parts, strict=True)}
    except ValueError:
        raise UserError(f"--{name}={text}: give {','.join(key.upper() for key in types)} as numbers, or none") from None
