"""What a forecast says of a number: one value, or how probable all of them are.

A distribution turns features into its parameters, in the unit of the data x: a model forecasts in the unit of its
window, u, with x = shift + scale u. Parameters are a dict of arrays of one shape, but for an axis of quantiles, the
last. Salinas, Flunkert, Gasthaus and Januschowski, "DeepAR: Probabilistic Forecasting with Autoregressive Recurrent
Networks", 2020, for all of it but the quantiles.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from lstm_research.common.arrays import Array, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError

Numbers = Float[Array, "..."]
Levels = tuple[float, ...]

_SMALLEST = 1e-3
"""Of a spread, in the unit of the window: nothing is forecast with certainty."""


@dataclasses.dataclass(frozen=True)
class Distribution(abc.ABC):
    """The parameters of a distribution, and what follows from them.

    Attributes:
      has_spread: whether it is more than one value.
      counts: whether it is one of whole numbers from 0 on.
    """

    has_spread: ClassVar[bool] = True
    counts: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_features(self) -> int:
        """P, the number of features of each number that is forecast."""

    @abc.abstractmethod
    def parameters(self, features: Float[Array, "*any P"], shift: Numbers, scale: Numbers) -> Params:
        """Returns the parameters, in the unit of the data.

        Args:
          features: any numbers.
          shift: see the top of the file; broadcasts.
          scale: see the top of the file; broadcasts.
        """

    @abc.abstractmethod
    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns what is minimised: the negative log-likelihood in nats, if there is one."""

    @abc.abstractmethod
    def mean(self, params: Params) -> Numbers:
        """Returns the expectation, or what stands for it."""

    @abc.abstractmethod
    def quantiles(self, params: Params, levels: Levels) -> Float[Array, "Q ..."] | None:
        """Returns the quantiles of these levels, which increase; None for a single value."""

    @abc.abstractmethod
    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Draws a number for each entry of the parameters."""


@dataclasses.dataclass(frozen=True)
class Point(Distribution):
    """One value, and no word on how sure it is: x̂ = shift + scale u.

    Attributes:
      error: "mse": e², with e = x̂ - x; "mae": |e|; "huber": e²/2 up to |e| = 1, and |e| - 1/2 beyond. Huber, 1964.
    """

    error: Literal["mse", "mae", "huber"] = "mse"

    has_spread: ClassVar[bool] = False

    @property
    def num_features(self) -> int:
        """One."""
        return 1

    def parameters(self, features: Float[Array, "*any 1"], shift: Numbers, scale: Numbers) -> Params:
        """Returns `location`."""
        return {"location": shift + scale * features[..., 0]}

    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns the error."""
        errors = params["location"] - targets
        return {"mse": jnp.square, "mae": jnp.abs, "huber": optax.huber_loss}[self.error](errors)

    def mean(self, params: Params) -> Numbers:
        """Returns the value."""
        return params["location"]

    def quantiles(self, params: Params, levels: Levels) -> None:
        """There are none."""
        return

    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Returns the value, of which nothing is drawn."""
        return params["location"]


@dataclasses.dataclass(frozen=True)
class Gaussian(Distribution):
    """The normal distribution: u ~ N(a, σ²), σ = softplus(b) + 1e-3."""

    @property
    def num_features(self) -> int:
        """Two."""
        return 2

    def parameters(self, features: Float[Array, "*any 2"], shift: Numbers, scale: Numbers) -> Params:
        """Returns `location` and `scale`."""
        return _location_and_scale(features, shift, scale)

    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns the negative log-likelihood."""
        return -jax.scipy.stats.norm.logpdf(targets, params["location"], params["scale"])

    def mean(self, params: Params) -> Numbers:
        """Returns the mean."""
        return params["location"]

    def quantiles(self, params: Params, levels: Levels) -> Float[Array, "Q ..."]:
        """Returns quantiles."""
        return jnp.stack([params["location"] + params["scale"] * float(scipy.special.ndtri(level)) for level in levels])

    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Draws."""
        location = params["location"]
        return location + params["scale"] * jax.random.normal(key, location.shape, location.dtype)


@dataclasses.dataclass(frozen=True)
class StudentT(Distribution):
    """Student's t with a location and a scale, for tails that are heavy.

    u = a + σ t with ν degrees of freedom, σ = softplus(b) + 1e-3, ν = 2 + softplus(c), so that the variance is finite.
    """

    @property
    def num_features(self) -> int:
        """Three."""
        return 3

    def parameters(self, features: Float[Array, "*any 3"], shift: Numbers, scale: Numbers) -> Params:
        """Returns `location`, `scale` and `freedom`."""
        freedom = 2 + jax.nn.softplus(features[..., 2])
        return _location_and_scale(features, shift, scale) | {"freedom": freedom}

    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns the negative log-likelihood."""
        return -jax.scipy.stats.t.logpdf(targets, params["freedom"], params["location"], params["scale"])

    def mean(self, params: Params) -> Numbers:
        """Returns the mean."""
        return params["location"]

    def quantiles(self, params: Params, levels: Levels) -> Float[Array, "Q ..."]:
        """Returns quantiles.

        As a function of 2/ν, from 0 to 1, a quantile of t is so smooth that a polynomial through 24 points has it to
        six digits and more.
        """
        points = np.polynomial.chebyshev.chebpts1(24)
        x = 4 / params["freedom"] - 1  # 2/ν on the interval from -1 to 1
        found = []
        for level in levels:
            standard = scipy.special.stdtrit(4 / (points + 1), level)
            coefficients = np.polynomial.chebyshev.chebfit(points, standard, len(points) - 1)
            above = before = jnp.zeros_like(x)
            for coefficient in coefficients[:0:-1].tolist():  # Clenshaw's sum of the polynomials
                above, before = coefficient + 2 * x * above - before, above
            found.append(params["location"] + params["scale"] * (float(coefficients[0]) + x * above - before))
        return jnp.stack(found)

    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Draws."""
        location, freedom = params["location"], params["freedom"]
        return location + params["scale"] * jax.random.t(key, freedom, location.shape, location.dtype)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Counts x = 0, 1, ... with mean μ and variance μ + α μ², for data that varies more than by chance.

        μ = scale (softplus(a) + 1e-3)        α = softplus(b) / √scale + 1e-3

    A window of counts has scale 1 + its mean, and no shift.
    """

    counts: ClassVar[bool] = True

    @property
    def num_features(self) -> int:
        """Two."""
        return 2

    def parameters(self, features: Float[Array, "*any 2"], shift: Numbers, scale: Numbers) -> Params:
        """Returns `mean` and `dispersion`; `shift` must be 0."""
        a, b = features[..., 0], features[..., 1]
        return {
            "mean": scale * (jax.nn.softplus(a) + _SMALLEST),
            "dispersion": jax.nn.softplus(b) / jnp.sqrt(scale) + _SMALLEST,
        }

    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns the negative log-likelihood.

        It is that of Γ(x + r) / (x! Γ(r)) (r / (r + μ))^r (μ / (r + μ))^x with r = 1/α, in which ln Γ is written as in
        `_stirling_rest`: its large parts, which would cancel, are taken together.
        """
        x, mean, r = targets, params["mean"], 1 / params["dispersion"]
        rests = _stirling_rest(x + r) - _stirling_rest(x + 1) - _stirling_rest(r)
        powers = r * jnp.log((x + r) / (mean + r)) + x * (jnp.log1p((r - 1) / (x + 1)) - jnp.log1p(r / mean))
        return -(powers + jnp.log(r / (x + r) / (x + 1)) / 2 + 1 - math.log(2 * math.pi) / 2 + rests)

    def mean(self, params: Params) -> Numbers:
        """Returns the mean."""
        return params["mean"]

    def quantiles(self, params: Params, levels: Levels) -> Float[Array, "Q ..."]:
        """Returns the smallest counts that are not exceeded with these probabilities, found by halving.

        Above a mean of 30 the distribution is taken to be a gamma distribution with the same mean, variance and
        skewness, moved and rounded: the exact one needs more digits there than single precision has.
        """
        mean, dispersion = params["mean"], params["dispersion"]
        r, is_large = 1 / dispersion, mean > 30
        small = jnp.where(is_large, 1, mean)
        variance, unit = mean * (1 + dispersion * mean), 0.5 + dispersion * mean
        shape, first = variance / unit**2, -mean / (2 * unit)

        def cumulative(count: Numbers) -> Numbers:
            exact = jax.scipy.special.betainc(r, jnp.maximum(count, 0) + 1, r / (r + small))
            gamma = jax.scipy.special.gammainc(shape, jnp.maximum(count + 0.5 - first, 0) / unit)
            return jnp.where(is_large, gamma, exact)

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = jnp.floor((low + high) / 2)
            enough = (middle >= 0) & (cumulative(middle) >= levels_)
            return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

        levels_ = jnp.asarray(levels, mean.dtype).reshape(-1, *[1] * mean.ndim)
        # Cantelli's inequality bounds every quantile.
        high = jnp.ceil(mean + jnp.sqrt(variance * levels_ / (1 - levels_))) + 1
        found = jax.lax.fori_loop(0, 40, halve, (jnp.full_like(high, -1), high))[1]
        return jax.lax.cummax(found, axis=0)  # rounding may not let them cross

    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Draws: a Poisson number whose rate has a gamma distribution."""
        rate_key, key = jax.random.split(key)
        mean, r = params["mean"], 1 / params["dispersion"]
        rates = jax.random.gamma(rate_key, r, mean.shape, mean.dtype) * mean / r
        return jax.random.poisson(key, rates, mean.shape).astype(mean.dtype)


@dataclasses.dataclass(frozen=True)
class Quantiles(Distribution):
    """The quantiles of some levels themselves; nothing is supposed of the distribution.

    The one of level 1/2 is a feature; those away from it add softplus of further features, so that they never cross.
    The loss is twice the mean over the levels τ of max(τ e, (τ - 1) e), e = x - x̂_τ, an approximation of the continuous
    ranked probability score. What stands for the mean is the median. Koenker and Bassett, "Regression Quantiles", 1978.

    Between the levels quantiles are interpolated. Beyond them the density falls exponentially, from what it is inside:
    with the lowest levels τ1 and τ2,

        x̂_τ = x̂_τ1 - β ln(τ1 / τ),    β = (x̂_τ2 - x̂_τ1) τ1 / (τ2 - τ1)        for τ < τ1

    and likewise above. Park et al., "Learning Quantile Functions without Quantile Crossing for Distribution-free Time
    Series Forecasting", 2022.

    Attributes:
      levels: increasing, 0.5 among them, from 0.1 or less to 0.9 or more, as the 80 % interval is reported.
    """

    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        steps = np.diff((0.0, *self.levels, 1.0))
        if (steps <= 0).any() or 0.5 not in self.levels:
            raise UserError(
                f"model.distribution.levels must increase between 0 and 1 with 0.5 among them, got {self.levels}"
            )
        if self.levels[0] > 0.1 or self.levels[-1] < 0.9:
            raise UserError(
                "model.distribution.levels must reach from 0.1 or less to 0.9 or more, which are reported, "
                f"got {self.levels}"
            )

    @property
    def num_features(self) -> int:
        """One a level."""
        return len(self.levels)

    def parameters(self, features: Float[Array, "*any Q"], shift: Numbers, scale: Numbers) -> Params:
        """Returns `values`, with an axis of levels."""
        middle = self.levels.index(0.5)
        # An even step between levels is at first about a quarter of a deviation.
        steps = jax.nn.softplus(features - 1.5)
        above = jnp.cumsum(steps[..., middle + 1 :], axis=-1)
        below = jnp.flip(jnp.cumsum(jnp.flip(steps[..., :middle], axis=-1), axis=-1), axis=-1)
        median = features[..., middle : middle + 1]
        values = jnp.concatenate([median - below, median, median + above], axis=-1)
        return {"values": shift[..., None] + scale[..., None] * values}

    def loss(self, params: Params, targets: Numbers) -> Numbers:
        """Returns twice the mean pinball loss."""
        return 2 * jnp.mean(pinball(targets[..., None] - params["values"], jnp.asarray(self.levels)), axis=-1)

    def mean(self, params: Params) -> Numbers:
        """Returns the median."""
        return params["values"][..., self.levels.index(0.5)]

    def quantiles(self, params: Params, levels: Levels) -> Float[Array, "Q ..."]:
        """Returns quantiles, see the class."""
        return jnp.stack([self._quantile(params["values"], jnp.asarray(level)) for level in levels])

    def sample(self, params: Params, key: PRNGKeyArray) -> Numbers:
        """Draws the quantile of a random level."""
        values = params["values"]
        smallest = jnp.finfo(values.dtype).eps  # the quantile of 0 is infinite
        return self._quantile(values, jax.random.uniform(key, values.shape[:-1], values.dtype, minval=smallest))

    def _quantile(self, values: Float[Array, "*any Q"], level: Numbers) -> Numbers:
        """Returns quantiles of levels above 0 and below 1, which broadcast."""
        knots, level = jnp.asarray(self.levels, values.dtype), level.astype(values.dtype)
        steps, widths = jnp.diff(values, axis=-1), jnp.diff(knots)
        shares = jnp.clip((level[..., None] - knots[:-1]) / widths, 0, 1)  # of each step that is passed
        low, high = knots[0], 1 - knots[-1]
        below = steps[..., 0] * low / widths[0] * jnp.log(jnp.maximum(low / level, 1))
        above = steps[..., -1] * high / widths[-1] * jnp.log(jnp.maximum(high / (1 - level), 1))
        return values[..., 0] + jnp.sum(shares * steps, axis=-1) - below + above


def pinball(errors: Numbers, levels: Numbers) -> Numbers:
    """Returns max(τ e, (τ - 1) e) with e the target less the quantile of level τ."""
    return jnp.maximum(levels * errors, (levels - 1) * errors)


def _stirling_rest(z: Numbers) -> Numbers:
    """Returns ln Γ(z) - ((z - 1/2) ln z - z + ln(2π)/2), by Stirling's series where z is large."""
    is_small = z < 10
    small, large = jnp.where(is_small, z, 1), jnp.where(is_small, 10, z)
    exact = jax.scipy.special.gammaln(small) - (small - 0.5) * jnp.log(small) + small - math.log(2 * math.pi) / 2
    w = 1 / jnp.square(large)
    return jnp.where(is_small, exact, (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680))) / large)


def _location_and_scale(features: Float[Array, "*any P"], shift: Numbers, scale: Numbers) -> Params:
    return {
        "location": shift + scale * features[..., 0],
        "scale": scale * (jax.nn.softplus(features[..., 1]) + _SMALLEST),
    }


DISTRIBUTIONS: Mapping[str, Callable[..., Distribution]] = {
    "gaussian": Gaussian,
    "negative_binomial": NegativeBinomial,
    "point": Point,
    "quantiles": Quantiles,
    "student_t": StudentT,
}
"""Every distribution by the name that configs use."""
