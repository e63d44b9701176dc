"""The autoregressive forecaster: each value has a distribution given all before it, and forecasts are drawn paths."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Key

from lstm_research.common.arrays import Array, Float, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.forecaster.base import (
    Channels,
    DType,
    Forecast,
    Forecaster,
    Normalization,
    Sequences,
    Window,
    WindowSizes,
)
from lstm_research.models.layers import DropoutRates, RecurrentStack
from lstm_research.models.layers.distributions import Distribution, Levels


class DeepAR(Forecaster):
    """Forecasts step by step, each from what was observed (or drawn) before.

        x_t = (u and observed at t - l for all lags l), covariates at t        y_t = stack(x_t)
        features of step t = W y_t + b

    u is the series in the unit of the window. The model learns from every step of history and horizon, and forecasts by
    paths: the value drawn at one step is read at the next. Salinas, Flunkert, Gasthaus and Januschowski, "DeepAR:
    Probabilistic Forecasting with Autoregressive Recurrent Networks", 2020.

    Parameters: `stack.*` (see `RecurrentStack`), `output.kernel` and `output.bias`.
    """

    draws: ClassVar[bool] = True

    def __init__(
        self,
        sizes: WindowSizes,
        *,
        cell: Cell,
        distribution: Distribution,
        num_layers: int = 1,
        lags: tuple[int, ...] = (1,),
        channels: Channels = "shared",
        normalization: Normalization = "standard",
        identify_variables: bool = False,
        dropout: DropoutRates | None = None,
        dtype: DType = "float32",
        param_dtype: DType = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers; see `Forecaster` for what is not here.

        Args:
          sizes: of the windows.
          cell: of every recurrent layer.
          distribution: of a value given those before it.
          num_layers: recurrent layers on top of each other.
          lags: how many steps before it the values are that a step reads; 1 among them, such as a season too.
          channels: see `Forecaster`.
          normalization: see `Forecaster`.
          identify_variables: see `Forecaster`.
          dropout: see `Forecaster`.
          dtype: see `Forecaster`.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: lags that reach beyond the history, a distribution of which nothing can be drawn, or the
            normalization "last"; see `Forecaster` too.
        """
        super().__init__(
            sizes,
            distribution=distribution,
            channels=channels,
            normalization=normalization,
            identify_variables=identify_variables,
            dropout=dropout,
            dtype=dtype,
        )
        if not distribution.has_spread:
            raise UserError(
                "model.name='deepar' draws its forecasts, and model.distribution 'point' is a single value; use "
                "another distribution, or the model 'direct'"
            )
        if normalization == "last":
            raise UserError(
                "model.normalization='last' makes the last value of every history 0, which model.name='deepar' would "
                "learn to be certain of, as it learns from the history too; use 'standard', 'mean' or 'none'"
            )
        if 1 not in lags or len(set(lags)) < len(lags) or not 1 <= min(lags) <= max(lags) <= sizes.history:
            raise UserError(
                f"model.lags must be different, 1 among them and none above task.history={sizes.history}, got {lags}"
            )
        self.lags = tuple(lags)
        self.stack = RecurrentStack(
            cell,
            2 * len(lags) * self.num_members + self.num_covariates,
            num_layers=num_layers,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.output = nnx.Linear(
            self.stack.output_size, self.num_features, dtype="float32", param_dtype=param_dtype, rngs=rngs
        )

    def losses(
        self,
        window: Window,
        targets: Float[Array, "H B V"],
        weights: Float[Array, "H B V"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "T B V"], Float[Array, "T B V"]]:
        """Returns the negative log-likelihood of every value of history and horizon given those before it."""
        sequences = self.sequences(window)
        observed = self.split(weights)
        horizon = (self.split(targets) - sequences.shift) / sequences.scale * observed
        values = jnp.concatenate([sequences.values, horizon])
        observed = jnp.concatenate([sequences.observed, observed])
        _, params = self._read(values, observed, sequences, key)
        losses = self.distribution.loss(params, self.split(jnp.concatenate([window.values, targets])))
        return self.join(losses), self.join(observed)

    def forecast(self, window: Window, keys: Key[Array, "B"], *, levels: Levels, num_samples: int) -> Forecast:
        """Draws paths; a window's are a function of its key, whatever batch it is in."""
        C, B = window.values.shape[:2]
        sequences = self.sequences(window)
        carry, _ = self._read(sequences.values, sequences.observed, sequences, None)
        recent = jnp.concatenate([sequences.values, sequences.observed], axis=-1)[C - max(self.lags) :]

        def repeat(tree: Any, axis: int = 0) -> Any:
            return jax.tree.map(lambda leaf: jnp.repeat(leaf, num_samples, axis=axis), tree)

        # The paths of a sequence stand beside each other: N S sequences.
        paths = sequences._replace(shift=repeat(sequences.shift), scale=repeat(sequences.scale))

        def step(state: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
            carry, recent = state
            covariates, t = at
            lagged = [recent[-lag] for lag in self.lags]
            x = jnp.concatenate([*lagged, repeat(covariates)], axis=-1).astype(self.dtype)
            carry, y = self.stack.step(x, carry)
            params = self.parameters(self.output(y), paths)
            by_window = jax.tree.map(lambda leaf: leaf.reshape(B, -1, *leaf.shape[1:]), params)
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            drawn = jax.vmap(self.distribution.sample)(by_window, step_keys).reshape(paths.shift.shape)
            values = (drawn - paths.shift) / paths.scale
            newest = jnp.concatenate([values, jnp.ones_like(values)], axis=-1)
            return (carry, jnp.concatenate([recent[1:], newest[None]])), drawn

        state = repeat(carry), repeat(recent, axis=1)
        steps = jnp.arange(self.sizes.horizon)
        _, drawn = jax.lax.scan(step, state, (sequences.covariates[C:], steps))  # [H, N S, M]
        drawn = drawn.reshape(len(steps), -1, num_samples, self.num_members)
        mean = self.join(jnp.mean(drawn, axis=2))
        return Forecast(mean, self.join(jnp.quantile(drawn, jnp.asarray(levels), axis=2)))

    def _read(
        self,
        values: Float[Array, "T N M"],
        observed: Float[Array, "T N M"],
        sequences: Sequences,
        key: PRNGKeyArray | None,
    ) -> tuple[Any, Params]:
        """Reads steps, each with the true values before it; returns the state after them and all parameters."""
        T = len(values)
        inputs = jnp.concatenate([values, observed], axis=-1)
        lagged = [jnp.pad(inputs, ((lag, 0), (0, 0), (0, 0)))[:T] for lag in self.lags]
        xs = jnp.concatenate([*lagged, sequences.covariates[:T]], axis=-1).astype(self.dtype)
        carry, ys = self.stack(xs, key=key)
        return carry, self.parameters(self.output(ys), sequences)
