"""The direct forecaster: from the last state to the whole horizon."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Params, PRNGKeyArray
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.models.cells import Cell
from lstm_research.models.forecaster.base import AllStepsAtOnce, Channels, DType, Normalization, Window, WindowSizes
from lstm_research.models.layers import DropoutRates, RecurrentStack
from lstm_research.models.layers.distributions import Distribution


class DirectForecaster(AllStepsAtOnce):
    """Reads the history in patches and forecasts the whole horizon from its last state.

        xs = patches of (u, observed), covariates of each patch's last step        ys = stack(xs)
        features of step h = W_h y_last + b_h  (+ A_h u, with `linear`)  (+ C times the covariates of step h)

    u is the history in the unit of the window. Patches: Nie et al., "A Time Series is Worth 64 Words: Long-term
    Forecasting with Transformers", 2023; the linear part beside the recurrent one: Lai et al., "Modeling Long- and
    Short-Term Temporal Patterns with Deep Neural Networks", 2018.

    Parameters: `stack.*` (see `RecurrentStack`), `output.*`, and `linear.kernel`, `horizon.kernel` where there are.
    """

    def __init__(
        self,
        sizes: WindowSizes,
        *,
        cell: Cell,
        distribution: Distribution,
        num_layers: int = 1,
        patch_length: int = 1,
        patch_stride: int | None = None,
        linear: bool = False,
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
          distribution: of a value that is forecast.
          num_layers: recurrent layers on top of each other.
          patch_length: P, steps of the history that are one step of the first layer. The last patch ends with the
            history; what does not fill a patch at its beginning is not read.
          patch_stride: steps from patch to patch; None: P.
          linear: adds a linear map of the history.
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
          UserError: patches that are longer than the history; see `Forecaster` too.
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
        self.patch_length, self.patch_stride = patch_length, patch_length if patch_stride is None else patch_stride
        check_at_least(1, "model", patch_length=self.patch_length, patch_stride=self.patch_stride)
        if patch_length > sizes.history:
            raise UserError(f"model.patch_length={patch_length} is longer than task.history={sizes.history}; reduce it")
        self.stack = RecurrentStack(
            cell,
            2 * patch_length * self.num_members + self.num_covariates,
            num_layers=num_layers,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        size = sizes.horizon * self.num_features
        options: dict[str, Any] = {"dtype": "float32", "param_dtype": param_dtype, "rngs": rngs}
        self.output = nnx.Linear(self.stack.output_size, size, **options)
        # What is added starts from nothing.
        options |= {"use_bias": False, "kernel_init": nnx.initializers.zeros_init()}
        if linear:
            self.linear = nnx.Linear(sizes.history * self.num_members, size, **options)
        if self.num_covariates:
            self.horizon = nnx.Linear(self.num_covariates, self.num_features, **options)

    def __call__(self, window: Window, *, key: PRNGKeyArray | None = None) -> Params:
        """Returns the parameters of the distribution, `[H, N, M]` each."""
        C, H = self.sizes.history, self.sizes.horizon
        sequences = self.sequences(window)
        N = sequences.values.shape[1]
        ends = jnp.arange(self.patch_length - 1 + (C - self.patch_length) % self.patch_stride, C, self.patch_stride)
        steps = ends[:, None] + jnp.arange(1 - self.patch_length, 1)
        inputs = jnp.concatenate([sequences.values, sequences.observed], axis=-1)[steps]  # [patches, P, N, 2 M]
        patches = jnp.moveaxis(inputs, 1, 2).reshape(len(ends), N, -1)
        xs = jnp.concatenate([patches, sequences.covariates[ends]], axis=-1).astype(self.dtype)
        _, ys = self.stack(xs, key=key)
        features = self.output(ys[-1])
        if hasattr(self, "linear"):
            features += self.linear(jnp.moveaxis(sequences.values, 0, 1).reshape(N, -1))
        features = jnp.moveaxis(features.reshape(N, H, -1), 1, 0)
        if hasattr(self, "horizon"):
            features += self.horizon(sequences.covariates[C:])
        return self.parameters(features, sequences)
