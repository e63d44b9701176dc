"""Weights of one model in the place of another's: a language model's layers under a classifier."""

from typing import Any

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Params
from lstm_research.common.errors import UserError


def take_over(params: Params, source_params: Params) -> tuple[Params, str]:
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
    for name in sorted(own.keys() | source.keys()):
        shapes = [list(side[name].shape) if name in side else "nothing" for side in (own, source)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"training.init_from: {name} is {shapes[0]} in this model and {shapes[1]} in that run; make "
                "model.embedding_size, model.cell, model.num_layers and the connections around the layers the same"
            )

    def pick(path: Any, leaf: Any) -> Any:
        name = _name(path)
        return jnp.asarray(source[name], leaf.dtype) if name in source else leaf

    count = sum(leaf.size for leaf in source.values())
    parts = sorted({".".join(name.split(".")[: 2 if name.startswith("stack") else 1]) for name in source})
    return jax.tree_util.tree_map_with_path(pick, params), f"{count:,} weights taken over: {', '.join(parts)}"


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _named(params: Params) -> dict[str, Any]:
    """Returns the leaves by their dotted names."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
