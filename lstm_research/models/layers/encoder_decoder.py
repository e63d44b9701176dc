"""The half of an encoder-decoder that writes: from what was read to symbols, whatever was read."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.models.cells import Cell
from lstm_research.models.layers.attention import Attention, AttentionMemory, NoAttention
from lstm_research.models.layers.attention_decoder import AttentionDecoder, DecoderOutput, DecoderState
from lstm_research.models.layers.dropout import DropoutRates
from lstm_research.models.layers.embedding import Embedding


class Writing(NamedTuple):
    """What decoding goes on from; all arrays have the batch axis first.

    Attributes:
      memory: what is attended to.
      source: the symbols that it was made of; None if it was made of something else.
      decoder: the state of the decoder.
    """

    memory: AttentionMemory
    source: Int[Array, "B S"] | None
    decoder: DecoderState


class EncoderDecoder(nnx.Module):
    """What the models share that write symbols one after the other, with attention on what they have read.

        y_t = decoder(embedding of the symbol before, memory, state)        logits_t = y_t W + b

    A model makes its encoder, the embedding `target_embedding`, and the rest by `_make_decoder`; what it has read it
    returns as `Writing`.

    Attributes:
      attends: whether the model has attention.
      dtype: of the products in the recurrent layers and attention.
      rates: of the dropout family.
    """

    attends: bool
    dtype: Any
    rates: DropoutRates
    target_embedding: Embedding

    def _make_decoder(
        self,
        cell: Cell,
        embedding_size: int,
        memory_size: int,
        vocabulary_size: int,
        *,
        attention: Attention,
        tied: bool = False,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        """Makes the decoder, see `AttentionDecoder`, and the output layer; `tied`: of the embedding's weights."""
        self.attends = not isinstance(attention, NoAttention)
        features_size = embedding_size if tied else cell.output_size
        self.decoder = AttentionDecoder(
            cell,
            embedding_size,
            memory_size,
            features_size,
            attention=attention,
            rates=self.rates,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **options,
        )
        self.tied = tied
        if tied:
            self.output_bias = nnx.Param(jnp.zeros((vocabulary_size,), param_dtype))
        else:
            self.output = nnx.Linear(
                features_size, vocabulary_size, dtype="float32", param_dtype=param_dtype, rngs=rngs
            )

    def step(
        self, state: Writing, tokens: Int[Array, "B"]
    ) -> tuple[Writing, Float[Array, "B V"], Float[Array, "B S"] | None]:
        """Takes one step in decoding.

        Args:
          state: from `encode`, or of the step before.
          tokens: the symbols before; at the first step the end symbol.

        Returns:
          The state after the step, the log-probabilities of the next symbol, and the attention; None if the model has
          none.
        """
        decoder, output = self.decoder.step(self._embed_target(tokens, None), state.memory, state.decoder)
        log_probs = jax.nn.log_softmax(self._logits(output, state.source))
        return state._replace(decoder=decoder), log_probs, output.weights if self.attends else None

    def _write(
        self,
        state: Writing,
        inputs: Int[Array, "T B"],
        keys: Sequence[PRNGKeyArray | None],
        sampling_rate: float,
    ) -> tuple[Float[Array, "T B V"], Float[Array, "T B S"]]:
        """Returns at each position the logits of the symbol after it (log-probabilities with `copy`), and attention.

        Args:
          state: what was read.
          inputs: each symbol before what is to be predicted there: first the end symbol.
          keys: of the embedding's dropout, the decoder's, and of sampling; None in evaluation.
          sampling_rate: how often, with a key, a symbol that the model has just drawn itself takes the place of an
            input. Bengio et al., "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks", 2015.
        """
        embedding_key, decoder_key, sampling_key = keys

        def embed(tokens: Array) -> Array:
            return self._embed_target(tokens, embedding_key)

        feed_back = None
        if sampling_key is not None and sampling_rate > 0:
            coin_key, draw_key = jax.random.split(sampling_key)
            coins = jax.random.bernoulli(coin_key, sampling_rate, inputs.shape)
            coins = coins.at[0].set(False)  # there is nothing before the first step

            def feed_back(before: DecoderOutput, x: Array, t: Array) -> Array:
                logits = jax.lax.stop_gradient(self._logits(before, state.source))
                drawn = jax.random.categorical(jax.random.fold_in(draw_key, t), logits)
                return jnp.where(coins[t][:, None], embed(drawn), x)

        _, output = self.decoder(embed(inputs), state.memory, state.decoder, key=decoder_key, feed_back=feed_back)
        return self._logits(output, state.source), output.weights

    def _embed_target(self, tokens: Int[Array, "*any"], key: PRNGKeyArray | None) -> Float[Array, "*any E"]:
        return self._target_table(tokens, rate=self.rates.embedding_rate, key=key).astype(self.dtype)

    @property
    def _target_table(self) -> Embedding:
        return self.target_embedding

    def _logits(self, output: DecoderOutput, source: Int[Array, "B S"] | None) -> Float[Array, "*T B V"]:
        features = output.features
        logits = (
            self._target_table.attend(features) + self.output_bias[...] if self.tied else self.output(features)
        ).astype(jnp.promote_types(features.dtype, "float32"))
        if output.copy_logits is None:
            return logits
        copied = output.weights * jax.nn.sigmoid(output.copy_logits)[..., None]
        # Where there is nothing to copy the attention is 0 everywhere, and all is generated. Not 1 - p: close to p = 1
        # that would have lost its digits, and its gradient.
        can_copy = jnp.any(output.weights > 0, axis=-1, keepdims=True)
        generated = jnp.where(can_copy, jax.nn.sigmoid(-output.copy_logits)[..., None], 1.0)
        assert source is not None
        rows = jnp.arange(len(source))[:, None]
        probabilities = (generated * jax.nn.softmax(logits)).at[..., rows, source].add(copied)
        return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))
