"""The forecaster with a decoder, which goes through the horizon step by step."""

import functools

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Params, PRNGKeyArray
from lstm_research.models.cells import Cell
from lstm_research.models.forecaster.base import AllStepsAtOnce, Channels, DType, Normalization, Window, WindowSizes
from lstm_research.models.layers import DropoutRates, RecurrentStack
from lstm_research.models.layers.distributions import Distribution
from lstm_research.models.layers.dropout import split_key


class EncoderDecoderForecaster(AllStepsAtOnce):
    """Reads the history step by step, then the covariates of the horizon, and forecasts at each of its steps.

        s = last state of encoder(u, observed, covariates)        ys = decoder(covariates, h / H), from the state s
        features of step h = W y_h + b

    So one set of weights serves all steps of the horizon, and what is known of one step is heeded in those after it.
    Wen et al., "A Multi-Horizon Quantile Recurrent Forecaster", 2017, with a recurrent decoder.

    Parameters: `encoder.*` and `decoder.*` (see `RecurrentStack`), `output.kernel` and `output.bias`.
    """

    def __init__(
        self,
        sizes: WindowSizes,
        *,
        cell: Cell,
        distribution: Distribution,
        num_layers: int = 1,
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
        """Makes the layers; see `Forecaster` and `DirectForecaster` for the arguments.

        Args:
          sizes: of the windows.
          cell: of every recurrent layer.
          distribution: of a value that is forecast.
          num_layers: recurrent layers on top of each other, in the encoder and in the decoder.
          channels: see `Forecaster`.
          normalization: see `Forecaster`.
          identify_variables: see `Forecaster`.
          dropout: see `Forecaster`.
          dtype: see `Forecaster`.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.
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
        make = functools.partial(
            RecurrentStack,
            cell,
            num_layers=num_layers,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.encoder = make(2 * self.num_members + self.num_covariates)
        self.decoder = make(1 + self.num_covariates)
        self.output = nnx.Linear(
            self.decoder.output_size, self.num_features, dtype="float32", param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, window: Window, *, key: PRNGKeyArray | None = None) -> Params:
        """Returns the parameters of the distribution, `[H, N, M]` each."""
        encoder_key, decoder_key = split_key(key, 2)
        C, H = self.sizes.history, self.sizes.horizon
        sequences = self.sequences(window)
        covariates = sequences.covariates
        xs = jnp.concatenate([sequences.values, sequences.observed, covariates[:C]], axis=-1)
        carry, _ = self.encoder(xs.astype(self.dtype), key=encoder_key)
        places = jnp.broadcast_to(jnp.arange(1, H + 1)[:, None, None] / H, (H, xs.shape[1], 1))
        xs = jnp.concatenate([covariates[C:], places.astype(xs.dtype)], axis=-1)
        _, ys = self.decoder(xs.astype(self.dtype), carry, key=decoder_key)
        return self.parameters(self.output(ys), sequences)
