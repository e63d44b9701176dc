"""Recurrent layers on top of each other."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.layers.bidirectional import Bidirectional, Merge
from lstm_research.models.layers.dropout import DropoutRates, split_key
from lstm_research.models.layers.highway import Highway
from lstm_research.models.layers.recurrent import Recurrent


class RecurrentStack(nnx.Module):
    """`num_layers` recurrent layers; each reads the outputs of the one below.

    Parameters are named `layer_0.params.*`, and `layer_0.forward.params.*` and `layer_0.backward.params.*` if the
    stack is bidirectional; with `highway` also `layer_1_highway.kernel` and `.bias` and so on (see `Highway`).
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        num_layers: int = 1,
        last_hidden_size: int | None = None,
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        highway: bool = False,
        skip: bool = False,
        skip_output: bool = False,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        remat: bool = False,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          cell: the cell of every layer.
          input_size: D.
          num_layers: L.
          last_hidden_size: H of the last layer, if it is not that of the others.
          bidirectional: every layer reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output the output of the layer below, from the second layer on (the first
            changes the size).
          highway: mixes the two by a gate instead, see `Highway`.
          skip: every layer reads the input of the stack too, beside (after) the output of the layer below. Graves,
            "Generating Sequences with Recurrent Neural Networks", 2013, as the next.
          skip_output: the output of the stack is the outputs of all layers side by side, the lowest first, and not that
            of the last layer alone.
          rates: of the dropout.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          dtype: of the products with kernels, see `Recurrent`.
          param_dtype: of the parameters.
          rngs: draws the parameters.

        Raises:
          UserError: both `residual` and `highway`, or a way past or around the layers where there is only one layer;
            a way past a last layer of another size.
        """
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if residual and highway:
            raise UserError("model.residual and model.highway are two ways past a layer; set one of them to False")
        if last_hidden_size is not None and (residual or highway):
            raise UserError("model.last_hidden_size makes a last layer that nothing can pass; set it to None")
        ways = {"residual": residual, "highway": highway, "skip": skip, "skip_output": skip_output}
        for key, is_set in {**ways, "last_hidden_size": last_hidden_size is not None}.items():
            if is_set and num_layers == 1:
                raise UserError(f"model.{key} has no effect on one layer; leave it out, or raise model.num_layers")
        self.num_layers = num_layers
        self.residual, self.highway, self.skip, self.skip_output = residual, highway, skip, skip_output
        self.rates = rates or DropoutRates()
        options: dict[str, Any] = {
            "rates": self.rates,
            "engine": engine,
            "remat": remat,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        size = input_size
        for index in range(num_layers):
            if last_hidden_size is not None and index == num_layers - 1:
                cell = dataclasses.replace(cell, hidden_size=last_hidden_size)
            layer: Recurrent | Bidirectional
            if bidirectional:
                layer = Bidirectional(cell, size, merge=merge, **options, rngs=rngs)
            else:
                layer = Recurrent(cell, size, **options, rngs=rngs)
            setattr(self, f"layer_{index}", layer)
            if highway and index > 0:
                gate = Highway(layer.output_size, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
                setattr(self, f"layer_{index}_highway", gate)
            size = layer.output_size + (input_size if skip else 0)

    @property
    def layers(self) -> list[Any]:
        """The layers from the bottom to the top."""
        return [getattr(self, f"layer_{index}") for index in range(self.num_layers)]

    @property
    def output_size(self) -> int:
        """The number of output features."""
        sizes = [layer.output_size for layer in self.layers]
        return sum(sizes) if self.skip_output else sizes[-1]

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
          The carry of every layer after its last step, and the outputs of the last layer (of all, with `skip_output`).
        """
        return self.outputs(xs, carry, lengths=lengths, resets=resets, key=key)[:2]

    def outputs(
        self,
        xs: Float[Array, "T B D"],
        carry: tuple[Any, ...] | None = None,
        *,
        lengths: Int[Array, "B"] | None = None,
        resets: Bool[Array, "T B"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "T B H"], Float[Array, "T B H"]]:
        """Does the same as a call, and returns the outputs as they are before the output dropout too."""
        input_key, output_key, *layer_keys = split_key(key, 2 + 2 * self.num_layers)
        inputs = xs = self.rates.on_features(input_key, xs, self.rates.input_rate)
        carries, outputs = [], []
        for index, layer in enumerate(self.layers):
            dropout_key, layer_key = layer_keys[2 * index : 2 * index + 2]
            if index > 0:
                xs = self.rates.on_features(dropout_key, xs, self.rates.layer_rate)
            layer_carry, ys = layer(
                jnp.concatenate([xs, inputs], axis=-1) if self.skip and index > 0 else xs,
                None if carry is None else carry[index],
                lengths=lengths,
                resets=resets,
                key=layer_key,
            )
            carries.append(layer_carry)
            xs = ys if index == 0 else self._past(index, xs, ys)
            outputs.append(xs)
        if self.skip_output:
            xs = jnp.concatenate(outputs, axis=-1)
        return tuple(carries), self.rates.on_features(output_key, xs, self.rates.output_rate), xs

    def step(
        self, x: Float[Array, "B D"], carry: tuple[Any, ...] | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "B H"]]:
        """Reads one step of a stream, as `Recurrent.step` does; equal to a call on the whole sequence, step by step.

        Raises:
          UserError: the stack is bidirectional.
        """
        if isinstance(self.layers[0], Bidirectional):
            raise UserError(
                "a bidirectional stack cannot read a stream, whose end it would need; use bidirectional=False"
            )
        carry, ys = self(x[None], carry)
        return carry, ys[0]

    def _past(self, index: int, xs: Float[Array, "T B D"], ys: Float[Array, "T B H"]) -> Float[Array, "T B H"]:
        """Returns the output `ys` of a layer joined with its input."""
        if self.highway:
            return getattr(self, f"layer_{index}_highway")(xs, ys)
        return xs + ys if self.residual else ys
