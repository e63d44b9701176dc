"""What a run takes over from another one (`training.init_from`): vocabulary and weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Params
from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Vocabulary, from_json
from lstm_research.models.budget import with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.layers.attention import ATTENTIONS

WIRING: dict[str, Any] = {
    **dict.fromkeys(("residual", "highway", "skip", "skip_output", "input_feeding", "copy"), False),
    "attend_from": "top",
    "merge": "concat",
}
"""Keys of the section `model` that say how layers are connected, with what they are if left out."""


def check_wiring(model: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Refuses weights that mean something else here, though their shapes may fit.

    Args:
      model: the config's section `model`.
      source: that of the other run.

    Raises:
      UserError: cells, attention or the connections between layers differ.
    """
    for key, table in {"cell": CELLS, "attention": ATTENTIONS}.items():
        own, other = (_described(with_width(each).get(key), table, key) for each in (model, source))
        # A language model has no attention, and a classifier that starts from it needs none.
        if own != other and own and other:
            if own["type"] != other["type"]:
                name, found = "name", [each[key]["name"] for each in (model, source)]
            else:
                name = min(name for name in own if own[name] != other[name])
                found = [each[name] for each in (own, other)]
            raise _differs(f"{key}.{name}", *found)
    if model.get("bidirectional"):  # of which only the first layer is taken
        return
    for key, default in WIRING.items():
        own, other = model.get(key, default), source.get(key, default)
        if own != other:
            raise _differs(key, own, other)


def _differs(key: str, own: Any, other: Any) -> UserError:
    return UserError(f"training.init_from: model.{key} is {own!r} here and {other!r} in that run; make it the same")


def _described(section: Mapping[str, Any] | None, table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns what the built part computes: its fields, but for those that only say how weights are drawn."""
    if section is None:
        return {}
    part = build(table, section, where=f"model.{key}")
    drawn = ("initializer", "bias", "chrono", "hidden_size")
    fields = {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}
    return {"type": type(part)} | {k: v for k, v in fields.items() if not any(word in k for word in drawn)}


def source_vocabulary(files: Mapping[str, bytes], kind: str, name: str = "vocabulary.json") -> Vocabulary:
    """Returns the vocabulary of the other run.

    Args:
      files: what that run stored.
      kind: `vocabulary.name` of the config.
      name: the file of the vocabulary.

    Raises:
      UserError: the file is not there, or is a vocabulary of another kind.
    """
    if name not in files:
        raise UserError(f"training.init_from: that run has no {name}; name the run of a task that has one")
    vocabulary = from_json(files[name].decode())
    if vocabulary.kind != kind:
        raise UserError(
            f"vocabulary.name is {kind!r}, and the run in training.init_from has {vocabulary.kind!r}; make it "
            "the same, for its vocabulary is taken over"
        )
    return vocabulary


def take_all(params: Params, source_params: Params) -> tuple[Params, str]:
    """Takes all weights over from a model of the same shape; for arguments and errors see `take_layers`."""
    source = _named(source_params)
    _check_shapes(_named(params), source, "the section model")
    return _put(params, source), f"all {_size(source):,} weights taken over"


def take_layers(params: Params, source_params: Params) -> tuple[Params, str]:
    """Takes `embedding.*` and `stack.*` of a language model over.

    Fine-tuning a language model to classify: Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification", 2018; Dai and Le, "Semi-supervised Sequence Learning", 2015. What a language model has and a
    classifier has not (its output layer) is left out. A language model reads forward: its first layer becomes the
    forward direction of a bidirectional first layer; the layers above that read both directions and stay as drawn.

    Args:
      params: of the classifier, arrays or their shapes.
      source_params: of the language model.

    Returns:
      The classifier's parameters, and one line on what was taken.

    Raises:
      UserError: a weight is missing on one side or has another shape; the message names it and both shapes.
    """
    own = _named({name: params[name] for name in ("embedding", "stack")})
    source = _named({name: part for name, part in source_params.items() if name in ("embedding", "stack")})
    if not source:
        raise UserError(
            "training.init_from: that run has neither embedding.* nor stack.*, only "
            f"{', '.join(sorted(source_params))}; name the run of a language model"
        )
    if any(".forward." in name for name in own):
        source = {
            name.replace(".params.", ".forward.params."): leaf
            for name, leaf in source.items()
            if name.startswith(("embedding.", "stack.layer_0."))
        }
        own = {name: leaf for name, leaf in own.items() if name.startswith(("embedding.", "stack.layer_0.forward."))}
    _check_shapes(
        own, source, "model.embedding_size, model.cell, model.num_layers and the connections around the layers"
    )
    parts = sorted({".".join(name.split(".")[: 2 if name.startswith("stack") else 1]) for name in source})
    return _put(params, source), f"{_size(source):,} weights taken over: {', '.join(parts)}"


def _check_shapes(own: dict[str, Any], source: dict[str, Any], keys: str) -> None:
    for name in sorted(own.keys() | source.keys()):
        shapes = [list(side[name].shape) if name in side else "nothing" for side in (own, source)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"training.init_from: {name} is {shapes[0]} in this model and {shapes[1]} in that run; make {keys} the "
                "same"
            )


def _put(params: Params, source: dict[str, Any]) -> Params:
    """Returns the parameters with those of the source that bear the same names."""

    def pick(path: Any, leaf: Any) -> Any:
        name = _name(path)
        return jnp.asarray(source[name], leaf.dtype) if name in source else leaf

    return jax.tree_util.tree_map_with_path(pick, params)


def _size(named: dict[str, Any]) -> int:
    return sum(leaf.size for leaf in named.values())


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _named(params: Params) -> dict[str, Any]:
    """Returns the leaves by their dotted names."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
