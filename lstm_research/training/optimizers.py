"""Optimisers from config: clipping, then the update rule, then weight decay, then the learning rate.

The order matters. Clipping sees the raw gradient. Decay that is part of the gradient (`sgd`, `momentum`, `adam`,
`rmsprop`: L2 regularisation) enters before the rule; decoupled decay (`adamw`) enters after it and before the
learning rate, so that it shrinks weights by learning_rate * weight_decay a step and follows the schedule.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Float, Params
from lstm_research.common.build import build, check_keywords
from lstm_research.common.errors import UserError, unknown
from lstm_research.training.parallel import place_like
from lstm_research.training.schedules import SCHEDULES, Plateau, Schedule, as_float32


class LearningRateScaleState(NamedTuple):
    """State of the factor that the plateau schedule sets from outside the compiled step."""

    learning_rate_scale: Float[Array, ""]


class Optimizer(NamedTuple):
    """An optimiser with what the loop needs to know of it.

    Attributes:
      init: of `optax.GradientTransformation`.
      update: of `optax.GradientTransformation`.
      learning_rate: from (number of finished steps, optimiser state) to the learning rate of the next step.
      plateau: the plateau rule, if that is the schedule.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Params, Any]]
    learning_rate: Callable[[Any, Any], Any]
    plateau: Plateau | None


def sgd() -> optax.GradientTransformation:
    """Plain gradient descent."""
    return optax.identity()


def momentum(momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with (Nesterov) momentum: Sutskever et al., 2013."""
    _check_below_one(momentum=momentum)
    return optax.trace(decay=momentum, nesterov=nesterov)


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam: Kingma and Ba, 2015."""
    _check_below_one(b1=b1, b2=b2, eps=eps)
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def rmsprop(rms_decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0) -> optax.GradientTransformation:
    """RMSProp (Tieleman and Hinton, 2012), with momentum on the scaled gradient as in Graves, 2013."""
    _check_below_one(rms_decay=rms_decay, eps=eps, momentum=momentum)
    scale = optax.scale_by_rms(decay=rms_decay, eps=eps, eps_in_sqrt=False)
    return optax.chain(scale, optax.trace(decay=momentum)) if momentum else scale


class Rule(NamedTuple):
    """An update rule, and whether its weight decay is decoupled from the gradient."""

    make: Callable[..., optax.GradientTransformation]
    decoupled: bool = False


OPTIMIZERS: Mapping[str, Rule] = {
    "adam": Rule(adam),
    "adamw": Rule(adam, decoupled=True),
    "momentum": Rule(momentum),
    "rmsprop": Rule(rmsprop),
    "sgd": Rule(sgd),
}
"""Every update rule by the name that configs use. AdamW: Loshchilov and Hutter, 2019."""


def make_optimizer(
    *,
    name: str,
    num_steps: int,
    learning_rate: float,
    schedule: Mapping[str, Any] | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    weight_decay: float = 0.0,
    decay: Literal["matrices", "all"] = "matrices",
    layer_decay: float | None = None,
    unfreeze_steps: int | None = None,
    **rule: Any,
) -> Optimizer:
    """Makes an optimiser.

    Args:
      name: a name of `OPTIMIZERS`.
      num_steps: of the run, for schedules that end with it.
      learning_rate: the rate at factor 1 of the schedule.
      schedule: `name` of `SCHEDULES` with its keywords; constant if None.
      clip_norm: gradients are scaled down to this global norm. Pascanu, Mikolov and Bengio, 2013.
      clip_value: gradients are clipped, entry by entry, to ± this value; before `clip_norm`.
      weight_decay: see the module docstring.
      decay: "matrices" leaves biases and other vectors alone; "all" decays everything.
      layer_decay: discriminative rates: the rate of each layer is this fraction of the one above it, see
        `layer_depths`. Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018, as the
        next; they take 1/2.6.
      unfreeze_steps: gradual unfreezing: a layer starts to learn this many steps after the one above it. Until then
        its gradient is clipped and averaged like all others, so that the rule is warm when the layer begins to move.
      **rule: keywords of the update rule, such as `b1` for Adam.

    Raises:
      UserError: unknown names or keys, or numbers out of range.
    """
    for key, value in {"learning_rate": learning_rate, "clip_norm": clip_norm, "clip_value": clip_value}.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"optimizer.{key} must be above 0 and finite, got {value}")
    if not weight_decay >= 0:
        raise UserError(f"optimizer.weight_decay must be at least 0, got {weight_decay}")
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise UserError(f"optimizer.layer_decay must be above 0 and at most 1, or None, got {layer_decay}")
    if unfreeze_steps is not None and unfreeze_steps < 1:
        raise UserError(f"optimizer.unfreeze_steps must be at least 1, or None, got {unfreeze_steps}")
    shape: Schedule = as_float32(
        made := build(SCHEDULES, schedule or {"name": "constant"}, where="optimizer.schedule", num_steps=num_steps)
    )
    plateau = made if isinstance(made, Plateau) else None

    decaying = optax.add_decayed_weights(weight_decay, mask=is_matrix if decay == "matrices" else None)
    decoupled = OPTIMIZERS[name].decoupled
    parts = [
        optax.clip(clip_value) if clip_value else None,
        optax.clip_by_global_norm(clip_norm) if clip_norm else None,
        decaying if weight_decay and not decoupled else None,
        OPTIMIZERS[name].make(**rule),
        decaying if weight_decay and decoupled else None,
        optax.scale_by_schedule(lambda step: -learning_rate * shape(step)),
        by_layer(layer_decay or 1.0, unfreeze_steps) if layer_decay or unfreeze_steps else None,
        _scale_from_outside() if plateau else None,
    ]
    chain = optax.chain(*[part for part in parts if part is not None])

    def current_rate(step: Any, opt_state: Any) -> Any:
        rate = learning_rate * shape(step)
        return rate * optax.tree.get(opt_state, "learning_rate_scale") if plateau else rate

    return Optimizer(chain.init, chain.update, current_rate, plateau)


def build_optimizer(section: Mapping[str, Any], num_steps: int) -> Optimizer:
    """Makes the optimiser of the config's section `optimizer`: keywords of `make_optimizer` and of the rule it names.

    Raises:
      UserError: see `make_optimizer`; also for keys that neither takes.
    """
    name = str(section.get("name"))
    if name not in OPTIMIZERS:
        raise unknown("optimizer.name", name, OPTIMIZERS)
    constructors = (make_optimizer, OPTIMIZERS[name].make)
    check_keywords(constructors, section, where="optimizer", what=f"{name!r}", given_by_code={"num_steps": num_steps})
    return make_optimizer(**section, num_steps=num_steps)


def set_learning_rate_scale(opt_state: Any, scale: float) -> Any:
    """Returns the optimiser state with the plateau schedule's factor set."""
    old = optax.tree.get(opt_state, "learning_rate_scale")
    return optax.tree.set(opt_state, learning_rate_scale=place_like(jnp.float32(scale), old))


def is_matrix(params: Params) -> Params:
    """Returns True for weights and tables, and False for biases and peepholes, by the last part of their names."""

    def decide(path: Any, leaf: Array) -> bool:
        return str(path[-1].key).endswith(("kernel", "table"))

    return jax.tree_util.tree_map_with_path(decide, params)


def layer_depths(params: Params) -> Params:
    """Returns how far below the top of the model each parameter is.

    0 for all that is neither in a recurrent layer nor in an embedding; 1 for the last recurrent layer and so on down to
    the first; embeddings are below that. Read from the names: `layer_0`, `layer_1_highway`, `embedding`.
    """
    names = {path: [str(key.key) for key in path] for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def layer(path: Any) -> int | None:
        found = [int(name.split("_")[1]) for name in names[path] if re.fullmatch(r"layer_\d+(_\w+)?", name)]
        return found[0] if found else None

    num_layers = 1 + max((index for path in names if (index := layer(path)) is not None), default=-1)

    def depth(path: Any, leaf: Any) -> int:
        if (index := layer(path)) is not None:
            return num_layers - index
        return num_layers + 1 if any("embedding" in name for name in names[path]) else 0

    return jax.tree_util.tree_map_with_path(depth, params)


def by_layer(layer_decay: float, unfreeze_steps: int | None) -> optax.GradientTransformation:
    """Scales updates by `layer_decay ** depth`, and by 0 until step `depth * unfreeze_steps`; see `layer_depths`."""

    def init(params: Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Params, state: optax.ScaleByScheduleState, params: Params | None = None) -> Any:
        def scale(update: Array, depth: int) -> Array:
            factor = jnp.float32(layer_decay**depth)
            if unfreeze_steps:
                factor = jnp.where(state.count >= depth * unfreeze_steps, factor, 0)
            return update * factor.astype(update.dtype)

        return jax.tree.map(scale, updates, layer_depths(updates)), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def _check_below_one(**values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"optimizer.{key} must be at least 0 and below 1, got {value}")


def _scale_from_outside() -> optax.GradientTransformation:
    def init(params: Params) -> LearningRateScaleState:
        return LearningRateScaleState(jnp.ones((), jnp.float32))

    def update(updates: Params, state: LearningRateScaleState, params: Params | None = None) -> Any:
        return jax.tree.map(lambda u: u * state.learning_rate_scale.astype(u.dtype), updates), state

    return optax.GradientTransformation(init, update)
