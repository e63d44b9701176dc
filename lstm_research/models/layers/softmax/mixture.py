"""The mixture of softmaxes."""

import dataclasses

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.layers.dropout import dropout
from lstm_research.models.layers.softmax.base import Softmax


@dataclasses.dataclass(frozen=True)
class MixtureSoftmax(Softmax):
    """K softmaxes that share the symbols' weights, and their mean, weighted anew at every step.

        p = Σ_k π_k softmax(h_k W + b)        h_k = tanh(y W_k + b_k)        π = softmax(y V)

    One softmax can make no matrix of log-probabilities of a rank above H + 1; a mixture can. Yang, Dai, Salakhutdinov
    and Cohen, "Breaking the Softmax Bottleneck", 2018. Costs K times the memory and time of one softmax.

    Parameters: `kernel` W `[C, V]` and `bias` b `[V]`; `latent_kernel` `[H, KC]`, all W_k side by side, `latent_bias`
    `[KC]`; `prior_kernel` V `[H, K]`.

    Attributes:
      num_experts: K.
      latent_size: C, the size of h_k; None is H. With tied weights that of the embedding.
      latent_rate: dropout on h_k, in training, with one mask for all steps of a sequence.

    Raises:
      UserError: numbers out of range.
    """

    num_experts: int
    latent_size: int | None = None
    latent_rate: float = 0.0

    def __post_init__(self) -> None:
        for name, value in {"num_experts": self.num_experts, "latent_size": self.latent_size}.items():
            if value is not None and value < 1:
                raise UserError(f"model.softmax.{name} must be at least 1, got {value}")
        if not 0 <= self.latent_rate < 1:
            raise UserError(f"model.softmax.latent_rate must be at least 0 and below 1, got {self.latent_rate}")

    def class_size(self, input_size: int) -> int:
        """See `Softmax.class_size`."""
        return self.latent_size or input_size

    def init(self, key: PRNGKeyArray, input_size: int, vocabulary_size: int, dtype: DTypeLike = "float32") -> Params:
        """See `Softmax.init`."""
        initializer = jax.nn.initializers.lecun_normal()
        latent_key, prior_key = jax.random.split(jax.random.fold_in(key, 1))
        size = self.num_experts * self.class_size(input_size)
        return super().init(key, input_size, vocabulary_size, dtype) | {
            "latent_kernel": initializer(latent_key, (input_size, size), dtype),
            "latent_bias": jnp.zeros((size,), dtype),
            "prior_kernel": initializer(prior_key, (input_size, self.num_experts), dtype),
        }

    def losses(
        self, params: Params, ys: Float[Array, "T B H"], targets: Int[Array, "T B"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "T B"], None]:
        """See `Softmax.losses`; only the target's probability is mixed, which no other symbol's is needed for."""
        log_prior, logits = self._experts(params, ys, key)
        of_target = jnp.take_along_axis(logits, targets[..., None, None], axis=-1)[..., 0]
        log_probabilities = of_target - jax.nn.logsumexp(logits, axis=-1)
        return -jax.nn.logsumexp(log_prior + log_probabilities, axis=-1), None

    def logits(self, params: Params, ys: Float[Array, "T B H"]) -> Float[Array, "T B V"]:
        """See `Softmax.logits`; these are log-probabilities."""
        log_prior, logits = self._experts(params, ys, None)
        return jax.nn.logsumexp(log_prior[..., None] + jax.nn.log_softmax(logits), axis=-2)

    def _experts(
        self, params: Params, ys: Float[Array, "T B H"], key: PRNGKeyArray | None
    ) -> tuple[Float[Array, "T B K"], Float[Array, "T B K V"]]:
        """Returns log π and the logits of every softmax."""
        latent = jnp.tanh(ys @ params["latent_kernel"] + params["latent_bias"])
        latent = dropout(key, latent, self.latent_rate, shared_axes=(0,))
        latent = latent.reshape(*ys.shape[:-1], self.num_experts, -1)
        return jax.nn.log_softmax(ys @ params["prior_kernel"]), super().logits(params, latent)
