"""The recurrent language model."""

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, Float, Int, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, Embedding, RecurrentStack
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.softmax import FullSoftmax, Softmax


class LanguageModel(nnx.Module):
    """Predicts the next symbol from all symbols before it.

        xs = embedding(tokens)        carry', ys = stack(xs, carry)        p = softmax(ys W + b)

    Mikolov et al., "Recurrent Neural Network Based Language Model", 2010; Zaremba, Sutskever and Vinyals, "Recurrent
    Neural Network Regularization", 2014. Tied weights, W = embedding tableᵀ: Press and Wolf, "Using the Output
    Embedding to Improve Language Models", 2017.

    Parameters: `embedding.table` `[V, E]`, `stack.*` (see `RecurrentStack`), `output.kernel` `[H, V]` and
    `output.bias` `[V]`; or, with tied weights, `output_bias` `[V]` alone. Another `softmax` has other or further
    parameters `output.*`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        cell: Cell,
        embedding_size: int,
        num_layers: int = 1,
        last_hidden_size: int | None = None,
        residual: bool = False,
        highway: bool = False,
        skip: bool = False,
        skip_output: bool = False,
        tied: bool = False,
        softmax: Softmax | None = None,
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
          cell: the cell of every recurrent layer.
          embedding_size: E.
          num_layers: L.
          last_hidden_size: H of the last layer, if it is not that of the others.
          residual: adds to every layer's output its input, from the second layer on.
          highway: mixes the two by a gate instead.
          skip: every recurrent layer reads the embedding too.
          skip_output: the output layer reads all recurrent layers, and not only the last.
          tied: the embedding table is also the output layer's weight; needs E = H (of the last layer).
          softmax: the output layer; None is the full softmax.
          dropout: rates of the dropout family.
          dtype: of the products in the recurrent layers; states, sums and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: tied weights with different sizes, or with a softmax that has several.
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
            last_hidden_size=last_hidden_size,
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
        self.tied, self.softmax = tied, softmax or FullSoftmax()
        size = self.stack.output_size
        output = self.softmax.init(rngs.params(), size, vocabulary_size, jnp.dtype(param_dtype))
        if tied:
            if not self.softmax.can_be_tied:
                name = type(self.softmax).__name__
                raise UserError(f"model.tied needs weights of one size for all symbols, not {name}; set it to False")
            if self.softmax.class_size(size) != embedding_size:
                raise UserError(
                    f"model.tied makes the embedding the output layer, which reads {self.softmax.class_size(size)} "
                    f"features, and model.embedding_size = {embedding_size}; make the two sizes the same"
                )
            del output["kernel"]
            self.output_bias = nnx.Param(output.pop("bias"))
        if output:
            self.output = nnx.Dict({name: nnx.Param(value) for name, value in output.items()})

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
        carry, ys, _ = self.encode(tokens, carry, lengths=lengths, resets=resets, key=key)
        return carry, self.logits(ys)

    def encode(
        self,
        tokens: Int[Array, "T B"],
        carry: tuple[Any, ...] | None = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "T B H"], Float[Array, "T B H"]]:
        """Returns the carry, and the outputs of the last layer after and before dropout; for arguments see above."""
        embedding_key, stack_key = split_key(key, 2)
        xs = self.embedding(tokens, rate=self.rates.embedding_rate, key=embedding_key).astype(self.dtype)
        carry, ys, raw = self.stack.outputs(xs, carry, lengths=lengths, resets=resets, key=stack_key)
        return carry, ys.astype(jnp.float32), raw.astype(jnp.float32)

    def logits(self, ys: Float[Array, "T B H"]) -> Float[Array, "T B V"]:
        """Returns the logits of every symbol, from the outputs of `encode`."""
        return self.softmax.logits(self._output_params(), ys)

    def losses(
        self, ys: Float[Array, "T B H"], targets: Int[Array, "T B"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "T B"], Bool[Array, "T B"] | None]:
        """Returns -log p(target), and whether it is the most likely symbol, if that is cheap; see `Softmax.losses`."""
        return self.softmax.losses(self._output_params(), ys, targets, key)

    def _output_params(self) -> Params:
        params = dict(self.output) if hasattr(self, "output") else {}
        if self.tied:
            params |= {"kernel": self.embedding.table, "bias": self.output_bias}
        params = {name: param[...].astype(jnp.float32) for name, param in params.items()}
        return params | {"kernel": params["kernel"].T} if self.tied else params
