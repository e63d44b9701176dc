"""What the tables of config keys are made of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Config = dict[str, Any]


class Refused(NamedTuple):
    """A value that must be refused, because there is only one that is valid."""

    value: Any


class Table(NamedTuple):
    """The keys of one task.

    Attributes:
      base: a config in which most keys can be set.
      context: what is set before a key is changed, where the key means nothing otherwise; by the beginning of the key.
      knobs: another value of every key. A key is called by its dotted path, with the name of what it belongs to in
        brackets: `model.cell[lstm].forget_bias`.
      constructors: by section, the table of what a config can name there, and which keywords code gives.
      refuses_data: keys of which the value is contradicted by the data, so that the change to be seen is an error.
    """

    base: Config
    context: Mapping[str, Config]
    knobs: Mapping[str, Any]
    constructors: Mapping[str, tuple[Mapping[str, Any], set[str]]]
    refuses_data: tuple[str, ...] = ()


def rows(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with a prefix to their keys."""
    return {prefix + key: value for key, value in values.items()}


def without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Returns the values but for some keys."""
    return {key: value for key, value in values.items() if key not in keys}


DROPOUT = rows(
    "model.dropout.",
    dict.fromkeys(("input_rate", "layer_rate", "output_rate", "embedding_rate", "recurrent_rate", "weight_rate"), 0.5)
    | {"locked": True, "zoneout_c_rate": 0.5, "zoneout_h_rate": 0.5},
)
"""The rates of the dropout family, which every model has to heed."""
NUM_PARAMS = {"model.num_params": 8000}
"""What picks the width of every model."""
IN_NUM_PARAMS: dict[str, Config] = {"model.num_params": {"model.num_params": 4000, "model.cell": {"name": "lstm"}}}
IN_DROPOUT: dict[str, Config] = {
    "model.dropout.layer_rate": {"model.num_layers": 2},
    "model.dropout.locked": {"model.dropout.input_rate": 0.5},
}
TRAINING: Config = {
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "constant"}},
    "training": {"num_steps": 4, "log_every": 1, "eval_every": 2, "checkpoint_every": 2, "keep_checkpoints": 3},
}
