"""NNX modules as pure functions of plain nested dicts."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from lstm_research.common.arrays import Params


def functional(module: nnx.Module) -> tuple[Callable[..., Any], Params]:
    """Splits a module into a pure function and its parameters.

    The parameters are a nested dict of arrays, named like the attributes; `jax.jit`, `jax.grad`, optax and checkpoints
    take it as it is. (`nnx.jit` would do the same split at every call, which costs more than a small step.)

    Args:
      module: a module whose only state is `nnx.Param`s.

    Returns:
      `apply(params, *args, method="__call__", **kwargs)`, and the parameters.
    """
    graph, state = nnx.split(module, nnx.Param)

    def apply(params: Params, *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
        return getattr(nnx.merge(graph, nnx.State(params)), method)(*args, **kwargs)

    return apply, nnx.to_pure_dict(state)
