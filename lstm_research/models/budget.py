"""Models of a given number of parameters: which width fits."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from lstm_research.common.errors import UserError

Section = Mapping[str, Any]


def with_width(section: Section, width: int | None = None, *, embedding: bool = True) -> dict[str, Any]:
    """Returns the config's section `model` with its width filled in, where `num_params` stands for it.

    The width is `cell.hidden_size`, and `embedding_size` too where that is left out.

    Args:
      section: the section; without `num_params` it is returned as it is.
      width: None is one that serves to check the rest of the section.
      embedding: whether the model has an `embedding_size`.

    Raises:
      UserError: the section has `num_params` and a width, or no cell.
    """
    section = dict(section)
    num_params = section.pop("num_params", None)
    if num_params is None:
        return section
    if not isinstance(num_params, int) or isinstance(num_params, bool):
        raise UserError(f"model.num_params must be int or None, got {type(num_params).__name__} {num_params!r}")
    cell = section.get("cell")
    if not isinstance(cell, Mapping):
        raise UserError("model.num_params needs model.cell, whose width it picks")
    if cell.get("hidden_size") is not None:
        raise UserError(
            f"model.num_params = {num_params:,} picks model.cell.hidden_size, which is set to {cell['hidden_size']}; "
            "set one of them to None"
        )
    if section.get("embedding_size") is None:
        section.pop("embedding_size", None)
    if width is None:
        width = section.get("embedding_size", 8)
    widths = {"embedding_size": width} if embedding else {}
    return {**widths, **section, "cell": {**cell, "hidden_size": width}}


def fit_width(
    section: Section, make: Callable[[dict[str, Any]], nnx.Module], *, embedding: bool = True
) -> dict[str, Any]:
    """Returns the section `model` with the largest width that keeps all parameters within its `num_params`.

    All parameters of the model count: embeddings and output layer too, tied weights once.

    Args:
      section: see `with_width`.
      make: builds the model of a section; the number of parameters must grow with the width.
      embedding: see `with_width`.

    Raises:
      UserError: even the smallest model has too many; see `with_width` too.
    """
    sized = functools.partial(with_width, section, embedding=embedding)
    checked = sized()
    if section.get("num_params") is None:
        return checked
    return sized(widest(lambda width: make(sized(width)), section["num_params"]))


def width_notes(section: Section, sized: Section) -> tuple[str, ...]:
    """Returns what is worth saying of the width that `fit_width` found: nothing without `num_params`."""
    if section.get("num_params") is None:
        return ()
    return (f"model.num_params: model.cell.hidden_size = {sized['cell']['hidden_size']}",)


def check_tied(section: Section) -> None:
    """Raises a `UserError` where `num_params` would give the tied weights of a language model two sizes."""
    sizes = [section.get(name) for name in ("embedding_size", "last_hidden_size")]
    latent = (section.get("softmax") or {}).get("latent_size")
    if section.get("num_params") is not None and section.get("tied") and sizes[0] != sizes[1] and not latent:
        raise UserError(
            "model.tied with model.num_params: leave model.embedding_size and model.last_hidden_size both out, or give "
            f"both the same number, got {sizes[0]} and {sizes[1]}"
        )


def widest(make: Callable[[int], nnx.Module], num_params: int) -> int:
    """Returns the largest width for which `make(width)` has at most `num_params` parameters.

    Raises:
      UserError: `make(1)` has more.
    """
    low, high = 1, 2
    if (smallest := count_params(make, low)) > num_params:
        raise UserError(f"model.num_params = {num_params:,} is too few: a model of width 1 has {smallest:,} parameters")
    while count_params(make, high) <= num_params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_params(make, middle) <= num_params else (low, middle)
    return low


def count_params(make: Callable[[int], nnx.Module], width: int) -> int:
    """Returns the number of parameters of `make(width)`, of which no array is made."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(lambda: make(width)), nnx.Param)))
