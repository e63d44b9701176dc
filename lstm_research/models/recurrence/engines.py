"""Every way to run a cell through time, and which one to take."""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from lstm_research.common.arrays import Array, Params
from lstm_research.common.errors import UserError, unknown
from lstm_research.models.cells.base import Carry, Cell
from lstm_research.models.recurrence.chunked import chunked, chunked_refusal
from lstm_research.models.recurrence.cudnn import cudnn, cudnn_refusal
from lstm_research.models.recurrence.fused import fused
from lstm_research.models.recurrence.masks import RecurrentMasks
from lstm_research.models.recurrence.mesh import are_stacked
from lstm_research.models.recurrence.scan import scan


def _serves_all(*_: Any, **__: Any) -> None:
    return None


Run = Callable[..., tuple[Carry, Array]]
"""The arguments are those of `unroll`, checked, with padding zeroed in `xs` and `valid` for `lengths`."""


class Engine(NamedTuple):
    """One way to run a cell through time.

    Attributes:
      run: runs the cell.
      refusal: for the arguments of `run`, what keeps the engine from serving them, or None.
    """

    run: Run
    refusal: Callable[..., str | None] = _serves_all


ENGINES: Mapping[str, Engine] = {
    "chunked": Engine(chunked, chunked_refusal),
    "cudnn": Engine(cudnn, cudnn_refusal),
    "fused": Engine(fused),
    "scan": Engine(scan),
}
"""Every engine by the name that configs use; "auto" picks one of them."""


_portable_cudnn = functools.partial(cudnn, portable=True)


def check_engine(name: str) -> None:
    """Raises a `UserError` for a name that is neither "auto" nor one of `ENGINES`."""
    if name != "auto" and name not in ENGINES:
        raise unknown("engine", name, [*ENGINES, "auto"])


def pick_engine(
    name: str,
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    *,
    resets: Array | None = None,
    masks: RecurrentMasks | None = None,
) -> tuple[str, Run]:
    """Returns the engine that serves a call, by its name and as a function.

    "auto" is "cudnn" where that can serve the call on the only device of the program, and "fused" elsewhere; its choice
    and the reason are logged, once each, for `--verbosity=1`. An engine that is named is never replaced by another.

    Raises:
      UserError: the engine is unknown, or cannot serve the call.
    """
    check_engine(name)
    engine = ENGINES["cudnn" if name == "auto" else name]
    refusal = engine.refusal(cell, params, xs, carry, resets=resets, masks=masks or RecurrentMasks())
    if name != "auto":
        if refusal:
            raise UserError(f"engine {name!r} cannot serve this call: {refusal}; take engine 'fused' or 'auto'")
        return name, engine.run
    if refusal is None and are_stacked():
        refusal = "it would run stacked models one after another"
    elif refusal is None and jax.device_count() > 1:
        refusal = f"a batch that is divided among {jax.device_count()} devices would be gathered on each"
    taken = "fused" if refusal else "cudnn"
    why = f"engine 'cudnn' cannot serve it: {refusal}" if refusal else "it is the device's own"
    _say_once(f"engine 'auto' takes {taken!r} for {cell} on {jax.devices()[0].device_kind}, because {why}")
    return taken, ENGINES["fused"].run if refusal else _portable_cudnn


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger("lstm_research").debug(message)
