"""Learning-rate schedules: the factor on `optimizer.learning_rate` as a function of the step."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from lstm_research.common.errors import UserError

Schedule = Callable[[Any], Any]
"""From the number of finished steps to the factor."""


def _check(warmup_steps: int, **fractions: float) -> None:
    if warmup_steps < 0:
        raise UserError(f"optimizer.schedule.warmup_steps must be at least 0, got {warmup_steps}")
    for name, fraction in fractions.items():
        if not 0 <= fraction <= 1:
            raise UserError(f"optimizer.schedule.{name} must be between 0 and 1, got {fraction}")


def _with_warmup(warmup_steps: int, schedule: Schedule) -> Schedule:
    """Prepends a linear rise to 1; `schedule` counts its own steps from the end of the rise."""
    if warmup_steps == 0:
        return schedule
    # The first step already learns: its factor is 1/warmup_steps, not 0.
    rise = optax.linear_schedule(1 / warmup_steps, 1.0, max(warmup_steps - 1, 1))
    return optax.join_schedules([rise, schedule], [warmup_steps])


def constant(*, num_steps: int, warmup_steps: int = 0) -> Schedule:
    """1 after a linear rise over `warmup_steps`."""
    _check(warmup_steps)
    return _with_warmup(warmup_steps, optax.constant_schedule(1.0))


def linear(*, num_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0) -> Schedule:
    """A straight line from 1, after the linear rise, down to `final_fraction` after the last step."""
    _check(warmup_steps, final_fraction=final_fraction)
    steps = max(num_steps - warmup_steps, 1)
    return _with_warmup(warmup_steps, optax.linear_schedule(1.0, final_fraction, steps))


def cosine(*, num_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0) -> Schedule:
    """Half a cosine from 1, after the linear rise, down to `final_fraction` after the last step.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without restarts.
    """
    _check(warmup_steps, final_fraction=final_fraction)
    steps = max(num_steps - warmup_steps, 1)
    return _with_warmup(warmup_steps, optax.cosine_decay_schedule(1.0, steps, alpha=final_fraction))


def exponential(
    *,
    num_steps: int,
    decay_steps: int,
    decay_rate: float = 0.5,
    warmup_steps: int = 0,
    staircase: bool = False,
    start_step: int = 0,
) -> Schedule:
    """`decay_rate ** (k / decay_steps)`, k steps after rise and `start_step`; a whole exponent if `staircase`."""
    _check(warmup_steps)
    if decay_steps < 1 or decay_rate <= 0:
        raise UserError(
            "optimizer.schedule needs decay_steps of at least 1 and decay_rate above 0, "
            f"got {decay_steps}, {decay_rate}"
        )
    if start_step < 0:
        raise UserError(f"optimizer.schedule.start_step must be at least 0, got {start_step}")
    decay = optax.exponential_decay(1.0, decay_steps, decay_rate, transition_begin=start_step, staircase=staircase)
    return _with_warmup(warmup_steps, decay)


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Multiplies the learning rate by `factor` when the validation metric has stopped getting better.

    Attributes:
      num_steps: of the run; not used.
      factor: by which the rate falls.
      patience: evaluations without a new best before it falls.
      min_fraction: the rate never falls below this fraction of the first one.
      warmup_steps: of the linear rise at the start.
    """

    num_steps: int
    factor: float = 0.5
    patience: int = 1
    min_fraction: float = 1e-3
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check(self.warmup_steps, min_fraction=self.min_fraction)
        if not 0 < self.factor < 1 or self.patience < 1:
            raise UserError(
                "optimizer.schedule needs a factor between 0 and 1 and a patience of at least 1, "
                f"got {self.factor}, {self.patience}"
            )

    def __call__(self, step: Any) -> Any:
        """Returns the factor of the warm-up."""
        return constant(num_steps=self.num_steps, warmup_steps=self.warmup_steps)(step)

    def update(self, value: float, state: dict[str, Any]) -> float:
        """Takes the result of one evaluation and returns the factor from now on.

        Args:
          value: the validation metric; negated where more is better.
          state: what is remembered from one evaluation to the next, saved with the run; changed in place.
        """
        if value < state.get("best", math.inf):
            state.update(best=value, waited=0)
        else:
            state["waited"] = state.get("waited", 0) + 1  # the first value, too, may be infinite
        if state["waited"] >= self.patience:
            state.update(scale=max(state.get("scale", 1.0) * self.factor, self.min_fraction), waited=0)
        return state.setdefault("scale", 1.0)


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "linear": linear,
    "plateau": Plateau,
}
"""Every schedule by the name that configs use. All take `num_steps` from `training.num_steps`."""


def as_float32(schedule: Schedule) -> Schedule:
    """Makes a schedule return a float32 scalar whatever it computes in."""
    return lambda step: jnp.asarray(schedule(step), jnp.float32)
