"""How far gradients reach back through time, in any layer of any model, whatever engine it is trained with.

The functions here look at what a function does when JAX traces it, so the layers must run inside of it and not inside
of another compiled one that it calls. A function that is itself `jax.jit` of one is taken as that one.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Float, PRNGKeyArray
from lstm_research.models.recurrence.observe import Observed, observe

NUM_PROBES = 16
"""Random vectors with which the norm of a Jacobian is estimated."""


class NoLayersError(ValueError):
    """A function in which no recurrent layer was seen."""


class Flow(NamedTuple):
    """Norms along time in one layer, in one direction.

    Attributes:
      norms: for each field of the state (h, and c where there is one) `[T, B]`, of the state before step t in the order
        of reading; NaN on padding, and up to a sequence's last reset, across which nothing flows.
      reverse: whether the layer reads from the last step to the first.
    """

    norms: dict[str, Float[np.ndarray, "T B"]]
    reverse: bool


def watch(function: Callable[..., Any]) -> Callable[..., list[Observed]]:
    """Returns a compiled function of the same arguments: what every recurrent layer does, in the order of the calls.

    A call raises `NoLayersError` if no recurrence of more than one step ran; see the top of the file.
    """
    function = _traceable(function)
    return _clear(jax.jit(lambda *arguments: _layers(function, *arguments)))


def loss_gradients(loss: Callable[..., Float[Array, ""]]) -> Callable[..., list[Flow]]:
    """Returns a function of the same arguments that gives ‖∂L/∂s_t‖ for the states s_t of every recurrent layer.

    Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen", 1991; Bengio, Simard and Frasconi, "Learning
    Long-Term Dependencies with Gradient Descent is Difficult", 1994; Pascanu, Mikolov and Bengio, "On the difficulty of
    training recurrent neural networks", 2013.

    Args:
      loss: computes L. Where it is a sum over sequences, the norms of a sequence are those of its own summand. See
        `watch` on what it must be.
    """
    loss = _traceable(loss)

    @jax.jit
    def norms(*arguments: Any) -> tuple[list[Any], list[Any]]:
        def moved(offsets: Sequence[Any]) -> tuple[Array, list[Any]]:
            with observe(offsets) as seen:
                value = loss(*arguments)
            return value, [(layer.valid, layer.resets) for layer in seen]

        zeros = _zeros(jax.eval_shape(lambda: _layers(loss, *arguments)))
        gradients, masks = jax.grad(moved, has_aux=True)(zeros)
        return jax.tree.map(_norm, gradients), masks

    @_clear
    def flows(*arguments: Any) -> list[Flow]:
        layers = jax.eval_shape(lambda: _layers(loss, *arguments))
        return [_flow(*each) for each in zip(layers, *norms(*arguments), strict=True)]

    return flows


def state_jacobians(function: Callable[..., Any]) -> Callable[..., list[Flow]]:
    """Returns a function that gives ‖∂h_T/∂s_t‖ / √P for every recurrent layer: what is left of a state at the end.

    h_T is the layer's hidden state after the last valid step, of size P, and s_t a field of its state before step t. A
    value of 1 is that of the identity. The Frobenius norm is estimated by ‖J‖² = E ‖vᵀ J‖² with vectors v of random
    signs (Hutchinson, 1990), `NUM_PROBES` of them.

    Args:
      function: runs recurrent layers; see `watch` on what it must be.

    Returns:
      A function of a random key, which draws the signs, and the arguments of `function`.
    """
    function = _traceable(function)

    @jax.jit
    def norms(key: PRNGKeyArray, *arguments: Any) -> tuple[list[Any], list[Any]]:
        layers = jax.eval_shape(lambda: _layers(function, *arguments))

        def probe(key: PRNGKeyArray) -> tuple[list[Any], list[Any]]:
            found, masks = [], []
            for index, layer in enumerate(layers):
                signs = jax.random.rademacher(jax.random.fold_in(key, index), layer.last.h.shape, jnp.float32)

                def projected(offsets: Any, index: int = index, signs: Array = signs) -> tuple[Array, Any]:
                    with observe([offsets if i == index else zeros for i, zeros in enumerate(_zeros(layers))]) as seen:
                        function(*arguments)
                    projection = jnp.sum(seen[index].last.h * signs) / np.sqrt(signs.shape[-1])
                    return projection, (seen[index].valid, seen[index].resets)

                gradient, mask = jax.grad(projected, has_aux=True)(_zeros(layers)[index])
                found.append(jax.tree.map(_norm, gradient))
                masks.append(mask)
            return found, masks

        found, masks = jax.lax.map(probe, jax.random.split(key, NUM_PROBES))
        return found, jax.tree.map(lambda mask: mask[0], masks)

    @_clear
    def flows(key: PRNGKeyArray, *arguments: Any) -> list[Flow]:
        layers = jax.eval_shape(lambda: _layers(function, *arguments))
        probes, masks = norms(key, *arguments)
        found = jax.tree.map(lambda norm: np.sqrt(np.mean(np.square(np.asarray(norm, np.float64)), axis=0)), probes)
        return [_flow(*each) for each in zip(layers, found, masks, strict=True)]

    return flows


def by_lag(norms: Float[np.ndarray, "T B"], *, reverse: bool = False) -> Float[np.ndarray, "N"]:
    """Returns the mean over sequences by distance from their ends: item k is of the states before the last k + 1 steps.

    Args:
      norms: of a `Flow`; NaN is left out.
      reverse: see `Flow`; such a sequence ends at its first step.
    """
    lagged = np.full(norms.shape, np.nan)
    for row, column in enumerate(norms.T):
        kept = column[~np.isnan(column)]
        lagged[: len(kept), row] = kept if reverse else kept[::-1]
    longest = int((~np.isnan(lagged)).any(axis=1).sum())
    return np.nanmean(lagged[:longest], axis=1)


def _traceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function itself of one that `jax.jit` has made: what that has compiled before runs unseen."""
    return inspect.unwrap(function) if isinstance(function, jax.stages.Wrapped) else function


def _clear(function: Callable[..., Any]) -> Callable[..., Any]:
    """Says in words why JAX refuses to give out what was seen inside of another function that it compiles."""

    @functools.wraps(function)
    def clear(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except jax.errors.UnexpectedTracerError as error:
            raise ValueError(
                "a recurrence runs inside of another transformed function (jax.jit, jax.checkpoint, jax.vmap) that the "
                "given one calls, where it cannot be seen; give one without the inner transformation"
            ) from error

    return clear


def _layers(function: Callable[..., Any], *arguments: Any) -> list[Observed]:
    with observe() as layers:
        function(*arguments)
    if not layers:
        raise NoLayersError(
            "no recurrence of more than one step was seen; one inside of another compiled function (jax.jit) is not"
        )
    return list(layers)


def _zeros(layers: Sequence[Observed]) -> list[Any]:
    return [jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), layer.states) for layer in layers]


def _norm(gradient: Float[Array, "T B H"]) -> Float[Array, "T B"]:
    """Returns the norm over units; scaled by the largest, since in float32 the square of 1e-23 is 0."""
    largest = jnp.max(jnp.abs(gradient), axis=-1, keepdims=True)
    scaled = gradient / jnp.where(largest > 0, largest, 1)
    return largest[..., 0] * jnp.sqrt(jnp.sum(jnp.square(scaled), axis=-1))


def _flow(layer: Observed, norms: Any, masks: tuple[Any, Any]) -> Flow:
    valid, resets = (None if mask is None else np.asarray(mask) for mask in masks)
    kept = np.ones(layer.states.h.shape[:2], bool) if valid is None else valid
    if resets is not None:
        resets = resets & kept
        # Whether there is a reset at this step or after it, in the order of reading.
        order = slice(None) if layer.reverse else slice(None, None, -1)
        kept = kept & ~np.logical_or.accumulate(resets[order], axis=0)[order]
    return Flow(
        {name: np.where(kept, np.asarray(norm, np.float64), np.nan) for name, norm in norms._asdict().items()},
        layer.reverse,
    )
