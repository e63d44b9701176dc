"""Forecasters: what they see, what they must not see, and how units, variables and paths behave."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.models.cells import CELLS, GRU, LSTM
from lstm_research.models.forecaster import (
    FORECASTERS,
    DeepAR,
    DirectForecaster,
    EncoderDecoderForecaster,
    Window,
    WindowSizes,
)
from lstm_research.models.forecaster.base import SMALLEST_VARIANCE
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.distributions import Gaussian, NegativeBinomial, Point, Quantiles, StudentT

C, H, B, V, K, S = 8, 4, 3, 2, 2, 1
SIZES = WindowSizes(C, H, V, K, S)
LEVELS = (0.1, 0.5, 0.9)


def window(seed: int = 0) -> Window:
    random = np.random.default_rng(seed)
    observed = (random.random((C, B, V)) > 0.25).astype(np.float32)
    values = random.normal(2.0, 3.0, (C, B, V)).astype(np.float32) * observed
    known, static = random.normal(size=(C + H, B, K)), random.normal(size=(B, S))
    return Window(*(jnp.asarray(each, jnp.float32) for each in (values, observed, known, static)))


def targets() -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(100)
    weights = (random.random((H, B, V)) > 0.2).astype(np.float32)
    return jnp.asarray(random.normal(2.0, 3.0, (H, B, V)).astype(np.float32) * weights), jnp.asarray(weights)


def keys(seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), B)


class Model(NamedTuple):
    """A forecaster as compiled functions of its parameters."""

    params: Any
    forecast: Callable[..., Any]
    losses: Callable[..., Any]
    apply: Callable[..., Any]


@functools.cache
def make(name: str, num_samples: int = 16, **options: Any) -> Model:
    options = {"cell": LSTM(6), "distribution": Gaussian()} | options
    apply, params = functional(FORECASTERS[name](SIZES, **options, rngs=nnx.Rngs(params=0)))
    random = np.random.default_rng(0)  # some weights start from zero
    params = jax.tree.map(lambda leaf: leaf + 0.2 * random.normal(size=leaf.shape).astype(leaf.dtype), params)

    def forecast(params: Any, window: Window, keys: Any) -> Any:
        return apply(params, window, keys, method="forecast", levels=LEVELS, num_samples=num_samples)

    def losses(params: Any, window: Window, targets: Any, weights: Any, key: Any = None) -> Any:
        return apply(params, window, targets, weights, key=key, method="losses")

    run = jax.jit(forecast)
    return Model(
        params, lambda window, at=None: run(params, window, keys() if at is None else at), jax.jit(losses), apply
    )


EACH: list[tuple[str, dict[str, Any]]] = [
    ("direct", {"patch_length": 3, "patch_stride": 2, "linear": True}),
    ("encoder_decoder", {}),
    ("deepar", {"lags": (1, 3)}),
]
each_model = pytest.mark.parametrize(("name", "options"), EACH, ids=[name for name, _ in EACH])


@each_model
@pytest.mark.parametrize("channels", ["shared", "mixed"])
def test_shapes(name: str, options: dict[str, Any], channels: str) -> None:
    model = make(name, channels=channels, **options)
    found = jax.eval_shape(model.forecast, window())
    assert (found.mean.shape, found.quantiles.shape) == ((H, B, V), (3, H, B, V))
    losses, counts = jax.eval_shape(model.losses, model.params, window(), *targets())
    assert losses.shape == counts.shape == ((C + H if name == "deepar" else H), B, V)


@each_model
def test_values_that_were_not_observed_change_nothing(name: str, options: dict[str, Any]) -> None:
    model, clean = make(name, **options), window()
    poisoned = clean._replace(values=jnp.where(clean.observed > 0, clean.values, 1e6))
    one, other = model.forecast(clean), model.forecast(poisoned)
    np.testing.assert_array_equal(one.mean, other.mean)
    assert (jnp.diff(one.quantiles, axis=0) > 0).all()
    # Whether a 0 was observed does matter.
    zeros = clean._replace(values=clean.values.at[3].set(0.0), observed=clean.observed.at[3].set(0.0))
    seen = zeros._replace(observed=zeros.observed.at[3].set(1.0))
    assert not np.allclose(model.forecast(zeros).mean, model.forecast(seen).mean)
    # A history without any value has a forecast.
    nothing = clean._replace(values=jnp.zeros((C, B, V)), observed=jnp.zeros((C, B, V)))
    assert np.isfinite(model.forecast(nothing).quantiles).all()


@each_model
def test_targets_are_no_input_of_the_forecast(name: str, options: dict[str, Any]) -> None:
    model = make(name, **options)
    y, weights = targets()

    @jax.jit
    def run(y: Any, weights: Any) -> Any:
        options = {"levels": LEVELS, "num_samples": 16, "method": "losses_and_forecast"}
        return model.apply(model.params, window(), y, weights, keys(), **options)

    losses, found = run(y, weights)
    poisoned_losses, poisoned = run(y + 1e9, jnp.ones_like(weights))
    for one, other in zip(found, poisoned, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (poisoned_losses > losses).all()
    np.testing.assert_allclose(found.mean, model.forecast(window()).mean, rtol=1e-5, atol=1e-6)
    alone, counts = model.losses(model.params, window(), y, weights)
    np.testing.assert_allclose(losses, alone[-H:], rtol=1e-4)
    np.testing.assert_array_equal(counts[-H:], weights)


@each_model
def test_a_window_does_not_depend_on_its_batch(name: str, options: dict[str, Any]) -> None:
    model, one = make(name, **options), window()
    whole, order = model.forecast(one), np.array([2, 0, 2])
    other = Window(one.values[:, order], one.observed[:, order], one.known[:, order], one.static[order])
    found = model.forecast(other, keys()[order])
    np.testing.assert_allclose(found.mean, whole.mean[:, order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.quantiles, whole.quantiles[:, :, order], rtol=1e-4, atol=1e-5)


@each_model
def test_a_forecast_follows_the_unit_of_its_window(name: str, options: dict[str, Any]) -> None:
    one = window()
    one = one._replace(values=100 * one.values)  # the variance of a window has a floor
    other = one._replace(values=(4 * one.values - 7) * one.observed)
    for normalization, follows in (("standard" if name == "deepar" else "last", True), ("none", False)):
        model = make(name, normalization=normalization, **options)
        found, scaled = model.forecast(one), model.forecast(other)
        for before, after in zip(found, scaled, strict=True):
            assert np.allclose(after, 4 * before - 7, rtol=1e-3, atol=1e-3) == follows


@pytest.mark.parametrize("normalization", ["none", "mean", "standard", "last"])
def test_units_are_those_of_numpy(normalization: Any) -> None:
    model = DirectForecaster(
        SIZES, cell=GRU(3), distribution=Gaussian(), normalization=normalization, rngs=nnx.Rngs(params=0)
    )
    one = window()
    found = model.sequences(one)
    for b in range(B):
        for v in range(V):
            seen = np.asarray(one.values[:, b, v])[np.asarray(one.observed[:, b, v]) > 0].astype(np.float64)
            spread = np.sqrt(seen.var() + SMALLEST_VARIANCE)
            shift, scale = {
                "none": (0, 1),
                "mean": (0, 1 + abs(seen).mean()),
                "standard": (seen.mean(), spread),
                "last": (seen[-1], spread),
            }[normalization]
            np.testing.assert_allclose(found.shift[b * V + v, 0], shift, rtol=1e-5)
            np.testing.assert_allclose(found.scale[b * V + v, 0], scale, rtol=1e-5)


@each_model
def test_shared_channels_treat_variables_alike(name: str, options: dict[str, Any]) -> None:
    def swapped(each: Window) -> Window:
        return each._replace(values=each.values[..., ::-1], observed=each.observed[..., ::-1])

    one, (y, weights) = window(), targets()
    # Another first value of the second variable.
    changed = one._replace(values=one.values.at[5, :, 1].add(3 * one.observed[5, :, 1]))
    cases: list[tuple[dict[str, Any], bool, bool]] = [
        ({}, True, False),
        ({"identify_variables": True}, False, False),
        ({"channels": "mixed"}, False, True),
    ]
    for extra, alike, sees_others in cases:
        model = make(name, **options, **extra)
        losses = model.losses(model.params, one, y, weights)[0]
        other = model.losses(model.params, swapped(one), y[..., ::-1], weights[..., ::-1])[0]
        assert np.allclose(other[..., ::-1], losses, rtol=1e-4, atol=1e-4) == alike
        beside = model.losses(model.params, changed, y, weights)[0][-H:, :, 0]
        assert np.allclose(beside, losses[-H:, :, 0], rtol=1e-6) != sees_others


@each_model
def test_covariates_of_the_horizon_are_heeded(name: str, options: dict[str, Any]) -> None:
    model, one = make(name, **options), window()
    found = model.forecast(one).mean
    for step in (0, H - 1):
        other = one._replace(known=one.known.at[C + step].add(3.0))
        changed = ~np.isclose(model.forecast(other).mean, found, rtol=1e-5).all(axis=(1, 2))
        # The direct model adds them at their step; in the others they act on what comes after, too.
        assert changed.tolist() == [step == h if name == "direct" else step <= h for h in range(H)]
    assert not np.allclose(model.forecast(one._replace(static=one.static + 3.0)).mean, found)


def test_patches_are_those_of_brute_force() -> None:
    """The recurrent layer of a direct forecaster is fed patches by hand."""
    model = DirectForecaster(
        SIZES, cell=LSTM(6), distribution=Point(), patch_length=3, patch_stride=2, linear=True, rngs=nnx.Rngs(params=0)
    )
    for layer in (model.linear, model.horizon):
        layer.kernel[...] = jax.random.normal(jax.random.key(0), layer.kernel.shape)
    found = model(window())["location"]
    sequences = model.sequences(window())
    steps = []
    for end in (4, 6, 8):  # of 8 steps; the first is in no patch, as the last patch ends with the history
        pairs = [(sequences.values[end - 3 + n], sequences.observed[end - 3 + n]) for n in range(3)]
        steps.append(
            jnp.concatenate([*(each for pair in pairs for each in pair), sequences.covariates[end - 1]], axis=-1)
        )
    _, ys = model.stack(jnp.stack(steps))
    features = ys[-1] @ model.output.kernel[...] + model.output.bias[...]
    features += sequences.values[..., 0].T @ model.linear.kernel[...]
    by_hand = features.T[..., None] + sequences.covariates[C:] @ model.horizon.kernel[...]
    np.testing.assert_allclose(found, sequences.shift + sequences.scale * by_hand, rtol=1e-4, atol=1e-5)


def test_deepar_knows_nothing_of_later_values() -> None:
    model = make("deepar", lags=(1, 3), normalization="none")
    one, (y, weights) = window(), targets()
    losses = model.losses(model.params, one, y, weights)[0]
    for step in range(C + H):
        seen = one.observed[step] if step < C else weights[step - C]
        if step < C:
            other = one._replace(values=one.values.at[step].add(2.0 * seen)), y, weights
        else:
            other = one, y.at[step - C].add(2.0 * seen), weights
        changed = ~np.isclose(model.losses(model.params, *other)[0], losses, rtol=1e-6)
        assert not changed[:step].any()
        assert changed[step][np.asarray(seen) > 0].all()


def test_the_likelihood_of_deepar_is_that_of_one_step_after_the_other() -> None:
    """Each value's distribution, from what is before it and nothing else."""
    model = DeepAR(SIZES, cell=LSTM(6), distribution=StudentT(), lags=(1, 2), rngs=nnx.Rngs(params=0))
    y, weights = targets()
    losses = model.losses(window(), y, weights)[0]
    sequences = model.sequences(window())
    horizon = (model.split(y) - sequences.shift) / sequences.scale * model.split(weights)
    values = jnp.concatenate([sequences.values, horizon])
    observed = jnp.concatenate([sequences.observed, model.split(weights)])
    written = model.split(jnp.concatenate([window().values, y]))
    carry, zeros = None, jnp.zeros_like(values[0])
    for t in range(C + H):
        pairs = [(values[t - lag], observed[t - lag]) if t >= lag else (zeros, zeros) for lag in (1, 2)]
        x = jnp.concatenate([*(each for pair in pairs for each in pair), sequences.covariates[t]], axis=-1)
        carry, out = model.stack.step(x, carry)
        here = model.distribution.loss(model.parameters(model.output(out), sequences), written[t])
        np.testing.assert_allclose(losses[t], model.join(here), rtol=2e-4, atol=1e-5)


def test_paths_of_deepar_follow_its_one_step_distributions() -> None:
    """Almost without noise, a path is where the density of each step is highest given the steps before."""
    model = make("deepar", lags=(1, 3), normalization="none", num_samples=64)
    output = model.params["output"]
    quiet = {"kernel": output["kernel"].at[:, 1].set(0.0), "bias": output["bias"].at[1].set(-30.0)}
    params = model.params | {"output": quiet}  # a deviation of 1e-3
    found = model.apply(params, window(), keys(), method="forecast", levels=LEVELS, num_samples=64)
    y = jnp.zeros((H, B, V))
    for step in range(H):

        def loss(y: Any, step: int = step) -> Any:
            return jnp.sum(model.losses(params, window(), y, jnp.ones_like(y))[0][C + step])

        # (x - mean)² / 2 σ² has its derivative there.
        y = y.at[step].set(-jax.grad(loss)(y)[step] * 1e-6)
    np.testing.assert_allclose(found.mean, y, atol=2e-3)
    np.testing.assert_allclose(found.quantiles[2] - found.quantiles[0], 2 * 1.28e-3, atol=2e-3)


def test_paths_are_a_function_of_their_key() -> None:
    model = make("deepar", lags=(1, 3))
    one, again, other = model.forecast(window()), model.forecast(window()), model.forecast(window(), keys(5))
    np.testing.assert_array_equal(one.quantiles, again.quantiles)
    assert not np.allclose(one.quantiles, other.quantiles)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_cell_can_forecast(cell: str) -> None:
    for name, options in EACH:

        def run(name: str = name, options: dict[str, Any] = options) -> Any:
            model = FORECASTERS[name](
                SIZES, cell=CELLS[cell](4), distribution=Quantiles(), num_layers=2, **options, rngs=nnx.Rngs(params=0)
            )
            return model.forecast(window(), keys(), levels=LEVELS, num_samples=2)

        assert jax.eval_shape(run).quantiles.shape == (3, H, B, V)


@each_model
def test_gradients_reach_every_parameter_and_dropout_needs_a_key(name: str, options: dict[str, Any]) -> None:
    model = make(name, dropout=DropoutRates(input_rate=0.3, output_rate=0.3), **options)

    @jax.jit
    @jax.value_and_grad
    def loss(params: Any, key: Any = None) -> Any:
        losses, counts = model.losses(params, window(), *targets(), key)
        return jnp.sum(losses * counts)

    plain, gradients = loss(model.params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        assert np.isfinite(leaf).all(), path
        assert (leaf != 0).any(), path
    one, other = (loss(model.params, jax.random.key(seed))[0] for seed in (0, 1))
    assert len({float(plain), float(one), float(other)}) == 3


@each_model
def test_gradients_are_those_of_differences(name: str, options: dict[str, Any], x64: None) -> None:
    model = make(name, **options)
    params, one, (y, weights) = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (model.params, window(), targets()))

    @jax.jit
    def loss(values: Any) -> Any:
        losses, counts = model.apply(params, one._replace(values=values), y, weights, method="losses")
        return jnp.sum((losses * counts)[-H:])

    direction = np.random.default_rng(0).normal(size=one.values.shape) * np.asarray(one.observed)
    slope = (loss(one.values + 1e-3 * direction) - loss(one.values - 1e-3 * direction)) / 2e-3
    np.testing.assert_allclose(jnp.sum(jax.jit(jax.grad(loss))(one.values) * direction), slope, rtol=1e-2)


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "model.patch_length=9 is longer than task.history=8": (DirectForecaster, {"patch_length": 9}),
    "model.patch_stride must be at least 1": (DirectForecaster, {"patch_stride": 0}),
    "model.dropout.embedding_rate drops words": (
        EncoderDecoderForecaster,
        {"dropout": DropoutRates(embedding_rate=0.1)},
    ),
    "model.identify_variables is for model.channels='shared'": (
        *(DirectForecaster, {"identify_variables": True, "channels": "mixed"}),
    ),
    "model.normalization='standard' makes numbers that are no counts": (
        *(DirectForecaster, {"distribution": NegativeBinomial()}),
    ),
    "model.normalization='last' makes the last value of every history 0": (DeepAR, {"normalization": "last"}),
    "model.name='deepar' draws its forecasts": (DeepAR, {"distribution": Point()}),
    "model.lags must be different, 1 among them and none above task.history=8, got (2,)": (DeepAR, {"lags": (2,)}),
    "none above task.history=8, got (1, 9)": (DeepAR, {"lags": (1, 9)}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_choices_that_do_not_go_together(message: str) -> None:
    constructor, options = REFUSED[message]
    with pytest.raises(UserError) as error:
        constructor(SIZES, **{"cell": LSTM(4), "distribution": Gaussian()} | options, rngs=nnx.Rngs(params=0))
    assert message in str(error.value)
