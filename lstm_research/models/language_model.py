"""The recurrent language model."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, Embedding, RecurrentStack
from lstm_research.models.layers.dropout import split_key


class LanguageModel(nnx.Module):
    """Predicts the next symbol from all symbols before it.

        xs = embedding(tokens)        carry', ys = stack(xs, carry)        logits = ys W + b

    Mikolov et al., "Recurrent Neural Network Based Language Model", 2010; Zaremba, Sutskever and Vinyals, "Recurrent
    Neural Network Regularization", 2014. Tied weights, W = embedding tableᵀ: Press and Wolf, "Using the Output
    Embedding to Improve Language Models", 2017.

    Parameters: `embedding.table` `[V, E]`, `stack.*` (see `RecurrentStack`), `output.kernel` `[H, V]` and
    `output.bias` `[V]`; or, with tied weights, `output_bias` `[V]` alone.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        cell: Cell,
        embedding_size: int,
        num_layers: int = 1,
        residual: bool = False,
        highway: bool = False,
        skip: bool = False,
        skip_output: bool = False,
        tied: bool = False,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          vocabulary_size: V.
          cell: the cell of every recurrent layer.
          embedding_size: E.
          num_layers: L.
          residual: adds to every layer's output its input, from the second layer on.
          highway: mixes the two by a gate instead.
          skip: every recurrent layer reads the embedding too.
          skip_output: the output layer reads all recurrent layers, and not only the last.
          tied: the embedding table is also the output layer's weight; needs E = H.
          dropout: rates of the dropout family.
          dtype: of the products in the recurrent layers; states, sums and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          rngs: draws the parameters.

        Raises:
          UserError: tied weights with different sizes.
        """
        if embedding_size < 1:
            raise UserError(f"model.embedding_size must be at least 1, got {embedding_size}")
        self.dtype = jnp.dtype(dtype)
        self.rates = dropout or DropoutRates()
        self.embedding = Embedding(vocabulary_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        self.stack = RecurrentStack(
            cell,
            embedding_size,
            num_layers=num_layers,
            residual=residual,
            highway=highway,
            skip=skip,
            skip_output=skip_output,
            rates=self.rates,
            engine=engine,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.tied = tied
        if tied:
            if self.stack.output_size != embedding_size:
                raise UserError(
                    f"model.tied needs model.embedding_size = {self.stack.output_size}, the size of the "
                    f"stack's output, got {embedding_size}"
                )
            self.output_bias = nnx.Param(jnp.zeros((vocabulary_size,), param_dtype))
        else:
            self.output = nnx.Linear(
                self.stack.output_size, vocabulary_size, dtype="float32", param_dtype=param_dtype, rngs=rngs
            )

    def initial_carry(self, batch_size: int) -> tuple[Any, ...]:
        """Returns the state before the first symbol; all arrays have the batch axis first."""
        return self.stack.initial_carry(batch_size)

    def __call__(
        self,
        tokens: Int[Array, "T B"],
        carry: tuple[Any, ...] | None = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "T B V"]]:
        """Returns the carry after the last symbol, and at each position the logits of the symbol after it.

        Args:
          tokens: the symbols' numbers, time-major.
          carry: the state before the first symbol.
          lengths: valid symbols of each sequence.
          resets: True at the first symbol of a document: the state starts anew there.
          key: the random key of the dropout; None in evaluation.
        """
        embedding_key, stack_key = split_key(key, 2)
        xs = self.embedding(tokens, rate=self.rates.embedding_rate, key=embedding_key).astype(self.dtype)
        carry, ys = self.stack(xs, carry, lengths=lengths, resets=resets, key=stack_key)
        ys = ys.astype(jnp.float32)
        if self.tied:
            return carry, self.embedding.attend(ys) + self.output_bias[...]
        return carry, self.output(ys)
