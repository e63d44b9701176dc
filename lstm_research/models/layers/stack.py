"""Recurrent layers on top of each other."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, Float, Int, PRNGKeyArray
from lstm_research.models.cells import Cell
from lstm_research.models.layers.bidirectional import Bidirectional, Merge
from lstm_research.models.layers.dropout import DropoutRates, split_key
from lstm_research.models.layers.recurrent import Recurrent


class RecurrentStack(nnx.Module):
    """`num_layers` recurrent layers; each reads the outputs of the one below.

    Parameters are named `layer_0.params.*`, and `layer_0.forward.params.*` and `layer_0.backward.params.*` if the
    stack is bidirectional.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          cell: the cell of every layer.
          input_size: D.
          num_layers: L.
          bidirectional: every layer reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output its input, from the second layer on (the first changes the size).
          rates: of the dropout.
          engine: see `lstm_research.models.unroll`.
          rngs: draws the parameters.
        """
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        self.num_layers = num_layers
        self.residual = residual
        self.rates = rates or DropoutRates()
        for index in range(num_layers):
            layer: Recurrent | Bidirectional
            if bidirectional:
                layer = Bidirectional(cell, input_size, merge=merge, rates=self.rates, engine=engine, rngs=rngs)
            else:
                layer = Recurrent(cell, input_size, rates=self.rates, engine=engine, rngs=rngs)
            setattr(self, f"layer_{index}", layer)
            input_size = layer.output_size

    @property
    def layers(self) -> list[Any]:
        """The layers from the bottom to the top."""
        return [getattr(self, f"layer_{index}") for index in range(self.num_layers)]

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.layers[-1].output_size

    def initial_carry(self, batch_size: int, dtype: Any = jnp.float32) -> tuple[Any, ...]:
        """Returns the state of every layer before its first step; all arrays have the batch axis first."""
        return tuple(layer.initial_carry(batch_size, dtype) for layer in self.layers)

    def __call__(
        self,
        xs: Float[Array, "T B D"],
        carry: tuple[Any, ...] | None = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "T B H"]]:
        """Runs the stack; input, inter-layer and output dropout included.

        Args:
          xs: the inputs; the stack computes in their dtype.
          carry: the state of every layer before its first step.
          lengths: valid steps of each sequence.
          resets: where a new piece begins and the state starts anew.
          key: the random key of the dropout; None in evaluation.

        Returns:
          The carry of every layer after its last step, and the outputs of the last layer.
        """
        input_key, output_key, *layer_keys = split_key(key, 2 + 2 * self.num_layers)
        xs = self.rates.on_features(input_key, xs, self.rates.input_rate)
        carries = []
        for index, layer in enumerate(self.layers):
            dropout_key, layer_key = layer_keys[2 * index : 2 * index + 2]
            if index > 0:
                xs = self.rates.on_features(dropout_key, xs, self.rates.layer_rate)
            layer_carry, ys = layer(
                xs, None if carry is None else carry[index], lengths=lengths, resets=resets, key=layer_key
            )
            carries.append(layer_carry)
            xs = xs + ys if self.residual and index > 0 else ys
        return tuple(carries), self.rates.on_features(output_key, xs, self.rates.output_rate)
