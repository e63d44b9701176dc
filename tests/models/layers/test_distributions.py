"""Distributions against SciPy's, their gradients against differences, and their draws against their quantiles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from lstm_research.common.errors import UserError
from lstm_research.models.layers.distributions import (
    DISTRIBUTIONS,
    Distribution,
    Gaussian,
    NegativeBinomial,
    Point,
    Quantiles,
    StudentT,
    pinball,
)

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.8, 0.9, 0.999)
DENSE: list[Distribution] = [Gaussian(), StudentT(), NegativeBinomial()]
pytestmark = pytest.mark.usefixtures("x64")


def draw(distribution: Distribution, seed: int = 0, size: int = 40) -> tuple[Any, Any, Any, Any]:
    """Returns features, shift and scale, and targets that are whole numbers where these are counts."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(size, distribution.num_features)) * 2
    shift, scale = random.normal(size=size), np.exp(random.normal(size=size))
    targets = random.normal(size=size) * 3
    if distribution.counts:
        shift, scale, targets = 0 * shift, 1 + 5 * scale, random.poisson(8, size).astype(float)
    return tuple(map(jnp.asarray, (features, shift, scale, targets)))


def frozen(distribution: Distribution, params: Any) -> Any:
    """Returns SciPy's distribution of the same parameters."""
    p = {name: np.asarray(value) for name, value in params.items()}
    if isinstance(distribution, Gaussian):
        return scipy.stats.norm(p["location"], p["scale"])
    if isinstance(distribution, StudentT):
        return scipy.stats.t(p["freedom"], p["location"], p["scale"])
    r = 1 / p["dispersion"]
    return scipy.stats.nbinom(r, r / (r + p["mean"]))


@pytest.mark.parametrize("distribution", DENSE, ids=lambda each: type(each).__name__)
def test_likelihoods_means_and_quantiles_are_those_of_scipy(distribution: Distribution) -> None:
    features, shift, scale, targets = draw(distribution)
    params = distribution.parameters(features, shift, scale)
    reference = frozen(distribution, params)
    density = reference.logpmf if distribution.counts else reference.logpdf
    np.testing.assert_allclose(-distribution.loss(params, targets), density(np.asarray(targets)), rtol=1e-9)
    np.testing.assert_allclose(distribution.mean(params), reference.mean(), rtol=1e-9)
    quantiles = distribution.quantiles(params, LEVELS)
    assert quantiles is not None
    np.testing.assert_allclose(quantiles, [reference.ppf(level) for level in LEVELS], rtol=1e-6, atol=1e-6)


def test_large_counts_in_single_precision() -> None:
    """Quantiles, likelihoods and their gradients, where sums of large parts would leave no digit of them."""
    means, dispersions = (1, 30, 100, 1e3, 1e4, 1e5, 1e6, 1e7), (0.001, 0.05, 0.5, 2)
    mean, dispersion = (each.astype(np.float32) for each in np.meshgrid(means, dispersions))
    params = {"mean": jnp.asarray(mean), "dispersion": jnp.asarray(dispersion)}
    distribution, r = NegativeBinomial(), 1 / dispersion.astype(float)
    reference = scipy.stats.nbinom(r, r / (r + mean))

    found = np.asarray(jax.jit(lambda params: distribution.quantiles(params, LEVELS))(params))
    expected = np.array([reference.ppf(level) for level in LEVELS])
    assert (np.abs(found - expected) <= np.maximum(1, 1e-3 * expected)).all()
    assert (np.diff(found, axis=0) >= 0).all()

    counts = np.round(mean * np.array([0, 0.5, 0.99, 1.02, 3])[:, None, None])

    def loss(params: Any, counts: Any) -> Any:
        losses = distribution.loss(params, counts)
        return jnp.sum(losses), losses

    each = jax.vmap(jax.grad(loss, has_aux=True), (None, 0))
    gradients, losses = jax.jit(each)(params, jnp.asarray(counts, jnp.float32))
    x = counts.astype(float)
    # SciPy's own likelihood has lost digits where counts are 1e7.
    powers = r * np.log(r / (r + mean)) - x * np.log1p(r / mean)
    np.testing.assert_allclose(losses, -powers + scipy.special.betaln(r, x + 1) + np.log(x + r), rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(gradients["mean"], r * (mean - x) / (mean * (r + mean)), rtol=1e-3, atol=1e-6)
    change = scipy.special.digamma(x + r) - scipy.special.digamma(r) + np.log(r / (r + mean)) + (mean - x) / (r + mean)
    np.testing.assert_allclose(gradients["dispersion"], r**2 * change, rtol=2e-3, atol=0.15)


@pytest.mark.parametrize("distribution", DENSE[:2], ids=lambda each: type(each).__name__)
def test_the_unit_of_the_data_changes_the_density_as_it_must(distribution: Distribution) -> None:
    features, shift, scale, targets = draw(distribution)
    in_data = distribution.loss(distribution.parameters(features, shift, scale), targets)
    in_window = distribution.loss(
        distribution.parameters(features, 0 * shift, 1 + 0 * scale), (targets - shift) / scale
    )
    np.testing.assert_allclose(in_data, in_window + jnp.log(scale), rtol=1e-9)


def test_features_are_parameters_as_documented() -> None:
    features = jnp.array([[0.3, -0.5, 1.2]])
    softplus = np.logaddexp(0, np.asarray(features)[0])
    ones = jnp.ones(1)
    student = StudentT().parameters(features, 2 * ones, 3 * ones)
    np.testing.assert_allclose(
        [student["location"][0], student["scale"][0], student["freedom"][0]],
        [2 + 3 * 0.3, 3 * (softplus[1] + 1e-3), 2 + softplus[2]],
    )
    counts = NegativeBinomial().parameters(features[:, :2], 0 * ones, 4 * ones)
    np.testing.assert_allclose(
        [counts["mean"][0], counts["dispersion"][0]], [4 * (softplus[0] + 1e-3), softplus[1] / 2 + 1e-3]
    )


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_gradients_are_those_of_differences(name: str) -> None:
    distribution = DISTRIBUTIONS[name]()
    features, shift, scale, targets = draw(distribution, size=12)

    def loss(features: Any) -> Any:
        return jnp.sum(distribution.loss(distribution.parameters(features, shift, scale), targets))

    found, step = jax.jit(jax.grad(loss))(features), 1e-6
    value = jax.jit(loss)
    direction = np.random.default_rng(1).normal(size=features.shape)
    slope = (value(features + step * direction) - value(features - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(found * direction), slope, rtol=1e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["gaussian", "student_t", "negative_binomial", "quantiles"])
def test_draws_fall_under_each_quantile_as_often_as_its_level_says(name: str) -> None:
    distribution = DISTRIBUTIONS[name]()
    features, shift, scale, _ = draw(distribution, size=3)
    params = distribution.parameters(features, shift, scale)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: distribution.sample(params, key)))(keys))
    assert drawn.shape == (4000, 3)
    if distribution.counts:
        np.testing.assert_allclose(drawn, np.round(drawn))
        np.testing.assert_allclose(drawn.mean(axis=0), distribution.mean(params), rtol=0.1)
        np.testing.assert_allclose(drawn.var(axis=0), frozen(distribution, params).var(), rtol=0.2)
        return
    levels = (0.2, 0.5, 0.8)
    quantiles = distribution.quantiles(params, levels)
    shares = (drawn[:, None] <= np.asarray(quantiles)).mean(axis=0)
    np.testing.assert_allclose(shares, np.array(levels)[:, None] * np.ones(3), atol=0.03)


@pytest.mark.parametrize("error", ["mse", "mae", "huber"])
def test_errors_of_single_values(error: Any) -> None:
    point = Point(error)
    params = point.parameters(jnp.array([[0.5], [-1.0], [2.0]]), jnp.full(3, 1.0), jnp.full(3, 2.0))
    np.testing.assert_allclose(point.mean(params), [2, -1, 5])
    e = np.array([2, -1, 5]) - np.array([1.5, 1, 5])
    expected = {"mse": e**2, "mae": abs(e), "huber": scipy.special.huber(1, e)}[error]
    np.testing.assert_allclose(point.loss(params, jnp.array([1.5, 1, 5])), expected)
    assert point.quantiles(params, LEVELS) is None


def test_quantiles_never_cross_and_are_interpolated() -> None:
    distribution = Quantiles((0.1, 0.3, 0.5, 0.9))
    features, shift, scale, targets = draw(distribution)
    params = distribution.parameters(features, shift, scale)
    values = np.asarray(params["values"])
    assert (np.diff(values, axis=-1) > 0).all()
    np.testing.assert_allclose(distribution.mean(params), shift + scale * features[:, 2])
    found = np.asarray(distribution.quantiles(params, (0.1, 0.2, 0.5, 0.6, 0.9)))
    for row, knots in enumerate(values):
        np.testing.assert_allclose(found[:, row], np.interp([0.1, 0.2, 0.5, 0.6, 0.9], distribution.levels, knots))
    by_hand = [
        2 * max(tau * (y - q), (tau - 1) * (y - q))
        for y, row in zip(targets, values, strict=True)
        for tau, q in zip(distribution.levels, row, strict=True)
    ]
    np.testing.assert_allclose(distribution.loss(params, targets), np.reshape(by_hand, (-1, 4)).mean(axis=1))


def test_beyond_the_levels_quantiles_have_exponential_tails() -> None:
    distribution = Quantiles((0.1, 0.3, 0.5, 0.9))
    params = {"values": jnp.array([[-3.0, -1.0, 0.0, 4.0]])}
    found = distribution.quantiles(params, (0.01, 0.1 / np.e, 1 - 0.1 / np.e, 0.99))
    # The density at both ends is 0.2 / 2 = 0.4 / 4, and a share of 0.1 lies beyond: a scale of 1.
    np.testing.assert_allclose(found[:, 0], [-3 - np.log(10), -4, 5, 4 + np.log(10)])


def test_sums_of_draws_of_quantiles_are_spread_as_they_must_be() -> None:
    """A random walk with normal steps: paths of draws whose tails are cut off would be too narrow."""
    distribution = Quantiles()
    values = jnp.broadcast_to(scipy.special.ndtri(np.array(distribution.levels)), (4000, 48, 9))
    walks = np.asarray(distribution.sample({"values": values}, jax.random.key(0))).cumsum(axis=1)
    for steps in (1, 8, 48):
        low, high = np.quantile(walks[:, steps - 1] / np.sqrt(steps), (0.1, 0.9))
        assert scipy.special.ndtr(high) - scipy.special.ndtr(low) == pytest.approx(0.8, abs=0.025)


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    sample = np.random.default_rng(0).gamma(2.0, size=5001)
    candidates = np.linspace(0, 8, 801)
    for level in (0.1, 0.5, 0.9):
        losses = np.asarray(pinball(jnp.asarray(sample[:, None] - candidates), jnp.asarray(level))).mean(axis=0)
        assert abs(candidates[losses.argmin()] - np.quantile(sample, level)) < 0.02


@pytest.mark.parametrize("levels", [(0.1, 0.9), (0.5, 0.1), (0.0, 0.5), (0.5, 0.5), ()])
def test_levels_that_are_none(levels: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"model.distribution.levels must increase between 0 and 1 with 0.5 among them"):
        Quantiles(levels)


@pytest.mark.parametrize("levels", [(0.25, 0.5, 0.75), (0.1, 0.5, 0.8), (0.2, 0.5, 0.9)])
def test_levels_that_do_not_reach_what_is_reported(levels: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"model.distribution.levels must reach from 0.1 or less to 0.9 or more"):
        Quantiles(levels)


def test_large_features_stay_finite_in_single_precision() -> None:
    for distribution in DENSE:
        features = jnp.asarray(np.random.default_rng(0).normal(size=(50, distribution.num_features)) * 20, jnp.float32)
        ones = jnp.ones(50, jnp.float32)
        params = distribution.parameters(features, 0 * ones, ones)
        gradient = jax.grad(lambda f, d=distribution, o=ones: jnp.sum(d.loss(d.parameters(f, 0 * o, o), 3 * o)))(
            features
        )
        assert np.isfinite(distribution.loss(params, 3 * ones)).all()
        assert np.isfinite(gradient).all()
