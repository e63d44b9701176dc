"""Embeddings of symbols."""

import jax
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.models.layers.dropout import dropout


class Embedding(nnx.Module):
    """A table of vectors, one a symbol.

    Attributes:
      table: `[V, E]`, drawn from a normal distribution of variance 1/E, which suits the table as the (tied) weights of
        an output layer too.
    """

    def __init__(
        self, vocabulary_size: int, embedding_size: int, *, param_dtype: DTypeLike = "float32", rngs: nnx.Rngs
    ):
        initializer = jax.nn.initializers.normal(embedding_size**-0.5)
        self.table = nnx.Param(initializer(rngs.params(), (vocabulary_size, embedding_size), param_dtype))

    def __call__(
        self, tokens: Int[Array, "*any"], *, rate: float = 0.0, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*any E"]:
        """Looks up the vectors of symbols.

        Args:
          tokens: the symbols' numbers.
          rate: the share of symbols that are dropped everywhere at once (embedding dropout).
          key: the random key of the dropout; None in evaluation.
        """
        return dropout(key, self.table[...], rate, shared_axes=(1,))[tokens]

    def attend(self, ys: Float[Array, "*any E"]) -> Float[Array, "*any V"]:
        """Returns the inner product of `ys` with every vector of the table: the logits of tied weights."""
        return ys @ self.table[...].T.astype(ys.dtype)
