"""How a run decodes, translation or speech, by the flags that `predict` and `evaluate` share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

from lstm_research.common.errors import UserError, unknown

OPTIONS = (
    "beam_size",
    "num_best",
    "length_penalty",
    "alpha",
    "coverage_penalty",
    "no_repeat_ngram",
    "temperature",
    "top_k",
    "top_p",
)
"""Flags that set a key of the decoder, where the command has them; which decoder has which key, the decoders say."""

LIMITS = ("max_length_ratio", "max_length_offset", "max_symbols")
"""What a decoder that is named by a flag takes over from that of the config."""


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("decoder", None, "greedy, beam or sample; without it, the decoder of the run's config.")
    flags.DEFINE_integer("beam_size", None, "Live hypotheses of the beam search.", lower_bound=1)
    flags.DEFINE_string("length_penalty", None, "Of the beam search: none, wu or average.")
    flags.DEFINE_float("alpha", None, "Strength of the length penalty.", lower_bound=0.0)
    flags.DEFINE_float("coverage_penalty", None, "Of the beam search, for models with attention.", lower_bound=0.0)
    flags.DEFINE_integer("no_repeat_ngram", None, "The beam search repeats no n symbols in a row.", lower_bound=1)


def decoder(configured: Any, table: Mapping[str, Any]) -> Any:
    """Returns the decoder of the run, or that of `--decoder`, with what the flags set.

    Args:
      configured: the decoder of the run's config.
      table: all decoders that its model has.

    Raises:
      UserError: there is no such decoder, or it has no such option.
    """
    FLAGS = flags.FLAGS
    if FLAGS.decoder is not None and FLAGS.decoder not in table:
        raise unknown("--decoder", FLAGS.decoder, table)
    wanted = type(configured) if FLAGS.decoder is None else table[FLAGS.decoder]
    limits = {name: getattr(configured, name) for name in LIMITS if hasattr(configured, name)}
    decoder = configured if isinstance(configured, wanted) else wanted(**limits)
    valid = {field.name for field in dataclasses.fields(decoder)}
    given = {name: FLAGS[name].value for name in OPTIONS if name in FLAGS and FLAGS[name].present}
    for name in given:
        if name not in valid:
            (kind,) = (kind for kind, each in table.items() if each is wanted)
            having = " or ".join(f"--decoder={kind}" for kind, each in table.items() if hasattr(each, name))
            raise UserError(
                f"--{name} is no option of the decoder {kind!r}; leave it out" + (having and f", or use {having}")
            )
    if "seed" in FLAGS and FLAGS["seed"].present and not hasattr(decoder, "temperature"):
        raise UserError("--seed is for draws, and this decoder makes none; leave it out, or use --decoder=sample")
    if "length_penalty" in given:
        given.setdefault("alpha", None)  # what the config says is of another penalty
    return dataclasses.replace(decoder, **given)
