"""The recurrent classifier of whole sequences."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, Embedding, RecurrentStack
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.dropout import dropout as drop
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.pooling import Pooling


class Classifier(nnx.Module):
    """Reads a sequence of symbols and answers with the logits of its class, or with one number.

        xs = embedding(tokens)        ys = stack(xs)        p = pooling(ys)        logits = dropout(p) W + b

    The logits of an empty sequence are b. Padding counts for nothing.

    Parameters: `embedding.table` `[V, E]`, `stack.*` (see `RecurrentStack`), `pooling.*` (see `Pooling`; none without
    attention), `output.kernel` `[P, C]` and `output.bias` `[C]`, where P is the size of what is pooled.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_outputs: int,
        *,
        cell: Cell,
        embedding_size: int,
        num_layers: int = 1,
        last_hidden_size: int | None = None,
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        highway: bool = False,
        skip: bool = False,
        skip_output: bool = False,
        pooling: tuple[str, ...] = ("last",),
        pooled_rate: float = 0.0,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          vocabulary_size: V.
          num_outputs: C, the number of classes; 1 for regression.
          cell: the cell of every recurrent layer.
          embedding_size: E.
          num_layers: L.
          last_hidden_size: H of the last layer, if it is not that of the others.
          bidirectional: every recurrent layer reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output its input, from the second layer on.
          highway: mixes the two by a gate instead.
          skip: every recurrent layer reads the embedding too.
          skip_output: all recurrent layers are pooled, and not only the last.
          pooling: ways of pooling, of which the results stand side by side; see `Pooling`.
          pooled_rate: the share of the pooled features that is dropped.
          dropout: rates of the dropout family.
          dtype: of the products in the recurrent layers; states, sums, pooling and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: sizes, rates or ways of pooling that are none; the last state of two directions that are merged.
        """
        if embedding_size < 1:
            raise UserError(f"model.embedding_size must be at least 1, got {embedding_size}")
        if not 0 <= pooled_rate < 1:
            raise UserError(f"model.pooled_rate must be at least 0 and below 1, got {pooled_rate}")
        if merge != "concat" and not bidirectional:
            raise UserError("model.merge joins two directions; leave it out, or set model.bidirectional to True")
        if merge != "concat" and "last" in pooling:
            raise UserError(
                f"model.merge={merge!r} mixes two directions that end at different steps, which model.pooling 'last' "
                "cannot tell apart; use model.merge='concat' or another pooling"
            )
        self.dtype = jnp.dtype(dtype)
        self.rates = dropout or DropoutRates()
        self.pooled_rate = pooled_rate
        self.embedding = Embedding(vocabulary_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        self.stack = RecurrentStack(
            cell,
            embedding_size,
            num_layers=num_layers,
            last_hidden_size=last_hidden_size,
            bidirectional=bidirectional,
            merge=merge,
            residual=residual,
            highway=highway,
            skip=skip,
            skip_output=skip_output,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        # The outputs of a layer are those of its forward direction, then those of its backward direction.
        backward = [
            bidirectional and feature >= layer.forward.output_size
            for layer in self.stack.layers[0 if skip_output else -1 :]
            for feature in range(layer.output_size)
        ]
        self.pooling = Pooling(pooling, len(backward), backward=backward, param_dtype=param_dtype, rngs=rngs)
        self.output = nnx.Linear(
            self.pooling.output_size, num_outputs, dtype="float32", param_dtype=param_dtype, rngs=rngs
        )

    def __call__(
        self, tokens: Int[Array, "T B"], lengths: Int[Array, "B"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B C"], Float[Array, "T B"] | None]:
        """Returns the logits, and the weights of the attention if the model pools by attention.

        Args:
          tokens: the symbols' numbers, time-major.
          lengths: valid symbols of each sequence; 0 is legal.
          key: the random key of the dropout; None in evaluation.
        """
        embedding_key, stack_key, pooled_key = split_key(key, 3)
        xs = self.embedding(tokens, rate=self.rates.embedding_rate, key=embedding_key).astype(self.dtype)
        _, ys = self.stack(xs, lengths=lengths, key=stack_key)
        pooled, weights = self.pooling(ys.astype(jnp.float32), lengths)
        return self.output(drop(pooled_key, pooled, self.pooled_rate)), weights
