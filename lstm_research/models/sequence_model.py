"""The recurrent model from numbers to numbers, step by step."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, RecurrentStack
from lstm_research.models.layers.bidirectional import Merge


class SequenceModel(nnx.Module):
    """Answers at every step of a sequence of feature vectors: with values, or with the logits of classes.

        ys = stack(xs)        answers = ys W + b

    With an `embedding_size` the stack reads xs V + d instead of xs. Padding counts for nothing.

    Parameters: `embedding.kernel` V `[D, E]` and `embedding.bias` d `[E]`, if there are any; `stack.*` (see
    `RecurrentStack`); `output.kernel` W `[H, O]` and `output.bias` b `[O]`.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        *,
        cell: Cell,
        embedding_size: int | None = None,
        num_layers: int = 1,
        last_hidden_size: int | None = None,
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        highway: bool = False,
        skip: bool = False,
        skip_output: bool = False,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          input_size: D.
          num_outputs: O.
          cell: the cell of every recurrent layer.
          embedding_size: E, features that a linear layer makes of the input; None for none, the cells read the input.
          num_layers: L.
          last_hidden_size: H of the last layer, if it is not that of the others.
          bidirectional: every recurrent layer reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output its input, from the second layer on.
          highway: mixes the two by a gate instead.
          skip: every recurrent layer reads the input of the first too.
          skip_output: the output layer reads all recurrent layers, and not only the last.
          dropout: rates of the dropout family; there are no words that `embedding_rate` could drop.
          dtype: of the products in the recurrent layers; states, sums and answers are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: sizes or rates that are none.
        """
        if embedding_size is not None and embedding_size < 1:
            raise UserError(f"model.embedding_size must be at least 1, or None, got {embedding_size}")
        if merge != "concat" and not bidirectional:
            raise UserError("model.merge joins two directions; leave it out, or set model.bidirectional to True")
        rates = dropout or DropoutRates()
        if rates.embedding_rate > 0:
            raise UserError("model.dropout.embedding_rate drops words, of which this model has none; use input_rate")
        self.dtype = jnp.dtype(dtype)
        self.embedding = (
            None
            if embedding_size is None
            else nnx.Linear(input_size, embedding_size, dtype="float32", param_dtype=param_dtype, rngs=rngs)
        )
        self.stack = RecurrentStack(
            cell,
            input_size if embedding_size is None else embedding_size,
            num_layers=num_layers,
            last_hidden_size=last_hidden_size,
            bidirectional=bidirectional,
            merge=merge,
            residual=residual,
            highway=highway,
            skip=skip,
            skip_output=skip_output,
            rates=rates,
            engine=engine,
            remat=remat,
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.output = nnx.Linear(
            self.stack.output_size, num_outputs, dtype="float32", param_dtype=param_dtype, rngs=rngs
        )

    def __call__(
        self, xs: Float[Array, "T B D"], lengths: Int[Array, "B"] | None = None, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "T B O"]:
        """Returns the answer at every step.

        Args:
          xs: the inputs, time-major.
          lengths: valid steps of each sequence; 0 is legal.
          key: the random key of the dropout; None in evaluation.
        """
        if self.embedding is not None:
            xs = self.embedding(xs)
        _, ys = self.stack(xs.astype(self.dtype), lengths=lengths, key=key)
        return self.output(ys.astype(jnp.float32))
