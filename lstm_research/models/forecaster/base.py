"""What all forecasters share: windows, their units, and distributions made of features."""

import abc
from typing import ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Key

from lstm_research.common.arrays import Array, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.layers import DropoutRates
from lstm_research.models.layers.distributions import Distribution, Levels

Channels = Literal["shared", "mixed"]
Normalization = Literal["none", "mean", "standard", "last"]
DType = Literal["float32", "bfloat16"]

SMALLEST_VARIANCE = 1e-2
"""Added to that of a window: a share of the training rows' variance, without which all that happens after a window in
which next to nothing happens would be all but impossible."""


class WindowSizes(NamedTuple):
    """The axes of a window.

    Attributes:
      history: C, its steps of history.
      horizon: H, the steps after them.
      num_variables: V.
      num_known: K, features that are known in advance.
      num_static: S, features that are constant.
    """

    history: int
    horizon: int
    num_variables: int
    num_known: int
    num_static: int


class Window(NamedTuple):
    """All that a forecast may see.

    Attributes:
      values: the history, 0 where nothing was observed.
      observed: 1 or 0.
      known: what is known in advance of history and horizon, F = C + H steps.
      static: what is constant.
    """

    values: Float[Array, "C B V"]
    observed: Float[Array, "C B V"]
    known: Float[Array, "F B K"]
    static: Float[Array, "B S"]


class Forecast(NamedTuple):
    """A forecast of the whole horizon.

    Attributes:
      mean: the expectation, or what stands for it.
      quantiles: of the levels that were asked for; None from a model that gives single values.
    """

    mean: Float[Array, "H B V"]
    quantiles: Float[Array, "Q H B V"] | None


class Sequences(NamedTuple):
    """A window as N sequences of M values a step: B V of one value, or B of V values if channels are mixed.

    Attributes:
      values: in the unit of the window, 0 where nothing was observed.
      observed: 1 or 0.
      covariates: of history and horizon: what is known in advance, what is constant, and which variable it is.
      shift: value = shift + scale × value in the unit of the window.
      scale: see there.
    """

    values: Float[Array, "C N M"]
    observed: Float[Array, "C N M"]
    covariates: Float[Array, "F N D"]
    shift: Float[Array, "N M"]
    scale: Float[Array, "N M"]


class Forecaster(nnx.Module):
    """What all forecasters share: sequences in the unit of their window, and distributions from features.

    With shared channels each variable is forecast from its own history, by one model for all of them; with mixed ones
    all are read and forecast at once. The unit of a window (instance normalisation; Kim et al., "Reversible Instance
    Normalization for Accurate Time-Series Forecasting against Distribution Shift", 2022, without its affine map) is of
    each variable

        none: shift 0, scale 1                            mean: shift 0, scale 1 + the mean size in the history (DeepAR)
        standard: the history's mean and deviation        last: its last value, and its deviation

    What was not observed is 0 in this unit; a second input says so. A step's covariates are inputs too.

    Attributes:
      distribution: of a value that is forecast.
      draws: whether forecasts are made of paths that are drawn.
    """

    draws: ClassVar[bool] = False

    def __init__(
        self,
        sizes: WindowSizes,
        *,
        distribution: Distribution,
        channels: Channels,
        normalization: Normalization,
        identify_variables: bool,
        dropout: DropoutRates | None,
        dtype: DType,
    ):
        """Checks the choices and keeps them.

        Args:
          sizes: of the windows.
          distribution: of a value that is forecast.
          channels: whether each variable is forecast by itself, or all at once.
          normalization: the unit of a window.
          identify_variables: tells a model with shared channels which variable it reads, by one input for each.
          dropout: rates of the dropout family.
          dtype: of the products in the recurrent layers; all else is in float32.

        Raises:
          UserError: choices that do not go together.
        """
        self.rates = dropout or DropoutRates()
        if self.rates.embedding_rate:
            raise UserError("model.dropout.embedding_rate drops words, and a forecaster reads none; set it to 0")
        if distribution.counts and normalization not in ("none", "mean"):
            raise UserError(
                f"model.normalization={normalization!r} makes numbers that are no counts, and model.distribution is "
                "one of counts; use 'mean' or 'none'"
            )
        if identify_variables and channels == "mixed":
            raise UserError("model.identify_variables is for model.channels='shared'; set it to False")
        self.sizes, self.distribution, self.dtype = sizes, distribution, jnp.dtype(dtype)
        self.channels, self.normalization, self.identify_variables = channels, normalization, identify_variables
        self.num_members = sizes.num_variables if channels == "mixed" else 1
        self.num_covariates = sizes.num_known + sizes.num_static + sizes.num_variables * identify_variables
        self.num_features = self.num_members * distribution.num_features

    @abc.abstractmethod
    def losses(
        self,
        window: Window,
        targets: Float[Array, "H B V"],
        weights: Float[Array, "H B V"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "T B V"], Float[Array, "T B V"]]:
        """Returns the loss of every value that is learnt from, those of the horizon last, and their weights.

        Args:
          window: what may be seen.
          targets: the horizon, 0 where nothing was observed.
          weights: 0 there.
          key: the random key of the dropout; None in evaluation.
        """

    @abc.abstractmethod
    def forecast(self, window: Window, keys: Key[Array, "B"], *, levels: Levels, num_samples: int) -> Forecast:
        """Forecasts.

        Args:
          window: what may be seen.
          keys: of each window's paths, [B].
          levels: of the quantiles.
          num_samples: how many paths are drawn, by models that draw.
        """

    def losses_and_forecast(
        self,
        window: Window,
        targets: Float[Array, "H B V"],
        weights: Float[Array, "H B V"],
        keys: Key[Array, "B"],
        *,
        levels: Levels,
        num_samples: int,
    ) -> tuple[Float[Array, "H B V"], Forecast]:
        """Returns the losses of the horizon without noise, and the forecast; the latter does not see the targets."""
        losses, _ = self.losses(window, targets, weights)
        return losses[-self.sizes.horizon :], self.forecast(window, keys, levels=levels, num_samples=num_samples)

    def sequences(self, window: Window) -> Sequences:
        """Returns the sequences of a window in its own unit."""
        values, observed = self.split(window.values), self.split(window.observed)
        shift, scale = self._unit(values, observed)
        steps, num_sequences = len(window.known), values.shape[1]
        repeats = num_sequences // window.static.shape[0]  # V sequences share what is known beside them
        covariates = [
            jnp.repeat(window.known, repeats, axis=1),
            jnp.broadcast_to(jnp.repeat(window.static, repeats, axis=0), (steps, num_sequences, self.sizes.num_static)),
        ]
        if self.identify_variables:
            which = jnp.tile(jnp.eye(repeats, dtype=values.dtype), (window.static.shape[0], 1))
            covariates.append(jnp.broadcast_to(which, (steps, *which.shape)))
        values = (values - shift) / scale * observed
        return Sequences(values, observed, jnp.concatenate(covariates, axis=-1), shift, scale)

    def parameters(self, features: Float[Array, "*any N D"], sequences: Sequences) -> Params:
        """Returns the distribution's parameters, `[*any, N, M]` each, from the features of each sequence."""
        features = features.reshape(*features.shape[:-1], self.num_members, self.distribution.num_features)
        return self.distribution.parameters(features, sequences.shift, sequences.scale)

    def split(self, xs: Float[Array, "T B V"]) -> Float[Array, "T N M"]:
        """Returns the variables of a window as sequences."""
        return xs.reshape(len(xs), -1, self.num_members)

    def join(self, xs: Float[Array, "*any N M"]) -> Float[Array, "*any B V"]:
        """Returns sequences as the variables of a window: what `split` has done, undone."""
        return xs.reshape(*xs.shape[:-2], -1, self.sizes.num_variables)

    def _unit(
        self, values: Float[Array, "C N M"], observed: Float[Array, "C N M"]
    ) -> tuple[Float[Array, "N M"], Float[Array, "N M"]]:
        """Returns shift and scale; 0 and 1 of a history that tells too little."""
        counts = jnp.sum(observed, axis=0)
        means = jnp.sum(values * observed, axis=0) / jnp.maximum(counts, 1)
        zeros = jnp.zeros_like(means)
        if self.normalization == "none":
            return zeros, zeros + 1
        if self.normalization == "mean":
            return zeros, 1 + jnp.sum(jnp.abs(values) * observed, axis=0) / jnp.maximum(counts, 1)
        variances = jnp.sum(jnp.square(values - means) * observed, axis=0) / jnp.maximum(counts, 1)
        scale = jnp.where(counts > 1, jnp.sqrt(variances + SMALLEST_VARIANCE), 1)
        if self.normalization == "standard":
            return means, scale
        steps = jnp.arange(len(values))[:, None, None]
        last = jnp.argmax(jnp.where(observed > 0, steps, -1), axis=0)  # 0 where nothing was, and there is 0
        return jnp.take_along_axis(values, last[None], axis=0)[0], scale


class AllStepsAtOnce(Forecaster):
    """A forecaster that gives each step of the horizon its distribution, whatever happens in the steps before."""

    @abc.abstractmethod
    def __call__(self, window: Window, *, key: PRNGKeyArray | None = None) -> Params:
        """Returns the parameters of the distribution, `[H, N, M]` each.

        Args:
          window: what may be seen.
          key: the random key of the dropout; None in evaluation.
        """

    def losses(
        self,
        window: Window,
        targets: Float[Array, "H B V"],
        weights: Float[Array, "H B V"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "H B V"], Float[Array, "H B V"]]:
        """Returns the loss of every target; see `Forecaster`."""
        return self.join(self.distribution.loss(self(window, key=key), self.split(targets))), weights

    def forecast(self, window: Window, keys: Key[Array, "B"], *, levels: Levels, num_samples: int) -> Forecast:
        """Forecasts; nothing is drawn."""
        return self._forecast(self(window), levels)

    def losses_and_forecast(
        self,
        window: Window,
        targets: Float[Array, "H B V"],
        weights: Float[Array, "H B V"],
        keys: Key[Array, "B"],
        *,
        levels: Levels,
        num_samples: int,
    ) -> tuple[Float[Array, "H B V"], Forecast]:
        """Runs the model once for both."""
        params = self(window)
        return self.join(self.distribution.loss(params, self.split(targets))), self._forecast(params, levels)

    def _forecast(self, params: Params, levels: Levels) -> Forecast:
        quantiles = self.distribution.quantiles(params, levels)
        mean = self.join(self.distribution.mean(params))
        return Forecast(mean, None if quantiles is None else self.join(quantiles))
