"""Recurrent layers that read the frames of an utterance."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, RecurrentStack
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.frames import valid_frames


class AcousticEncoder(nnx.Module):
    """Recurrent layers on top of each other, of which some read several steps of the layer below as one.

        y_0 = frames        y_{i+1} = layer_i(join(y_i, r_i))

    where join(·, r) puts every r adjacent steps side by side: T steps of D features become ⌈T/r⌉ of r · D, the last
    filled up with zeros. Bidirectional LSTM layers with r = 2 are the pyramid of Chan, Jaitly, Le and Vinyals, "Listen,
    Attend and Spell", 2016. An utterance of n frames has ⌈n/r⌉ outputs, r the product of all r_i.

    Parameters: `stack_0.*`, `stack_1.*` and so on (see `RecurrentStack`); a new stack begins with every layer that
    joins steps.

    Attributes:
      reduction: r, the frames that an output stands for.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        *,
        num_layers: int = 1,
        reductions: tuple[int, ...] = (),
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        rates: DropoutRates | None = None,
        engine: str = "auto",
        remat: bool = False,
        dtype: DTypeLike = "float32",
        param_dtype: DTypeLike = "float32",
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          cell: the cell of every layer.
          input_size: D, features of a frame.
          num_layers: L.
          reductions: for each layer, from the lowest, how many steps it reads as one; empty for one each.
          bidirectional: every layer reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output its input, but for the lowest and those that join steps.
          rates: of the dropout.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          dtype: of the products in the layers; states and sums are in float32.
          param_dtype: of the parameters.
          rngs: draws the parameters.

        Raises:
          UserError: choices that do not go together.
        """
        check_at_least(1, "model", num_layers=num_layers)
        factors = tuple(reductions) or (1,) * num_layers
        if len(factors) != num_layers or min(factors) < 1:
            raise UserError(
                f"model.reductions must be a number of at least 1 for each of the {num_layers} layers, or (), "
                f"got {tuple(reductions)}"
            )
        if merge != "concat" and not bidirectional:
            raise UserError("model.merge joins two directions; leave it out, or set model.bidirectional to True")
        starts = [index for index in range(num_layers) if index == 0 or factors[index] > 1]
        counts = [end - start for start, end in zip(starts, [*starts[1:], num_layers], strict=True)]
        if residual and max(counts) == 1:
            raise UserError(
                "model.residual passes neither the lowest layer nor those that join steps; with no other, leave it out"
            )
        self.dtype, self.bidirectional = jnp.dtype(dtype), bidirectional
        self.reduction = math.prod(factors)
        self.factors = tuple(factors[start] for start in starts)
        rates = rates or DropoutRates()
        size = input_size
        for index, count in enumerate(counts):
            # Where two stacks meet, the dropout is that between layers.
            stack = RecurrentStack(
                cell,
                size * self.factors[index],
                num_layers=count,
                bidirectional=bidirectional,
                merge=merge,
                residual=residual and count > 1,
                rates=dataclasses.replace(
                    rates,
                    input_rate=rates.input_rate if index == 0 else 0.0,
                    output_rate=rates.output_rate if index == len(counts) - 1 else rates.layer_rate,
                ),
                engine=engine,
                remat=remat,
                dtype=self.dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            setattr(self, f"stack_{index}", stack)
            size = stack.output_size

    @property
    def stacks(self) -> list[RecurrentStack]:
        """The stacks from the bottom to the top."""
        return [getattr(self, f"stack_{index}") for index in range(len(self.factors))]

    @property
    def output_size(self) -> int:
        """H, the number of output features."""
        return self.stacks[-1].output_size

    def __call__(
        self,
        xs: Float[Array, "T B D"],
        lengths: Int[Array, "B"],
        carry: tuple[Any, ...] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "S B H"], Int[Array, "B"]]:
        """Reads utterances.

        Args:
          xs: the frames, time-major.
          lengths: valid frames of each utterance; 0 is legal. What lies beyond them changes nothing, NaN included.
          carry: the state before the first frame.
          key: the random key of the dropout; None in evaluation.

        Returns:
          The state after the last frame, the outputs, zero beyond their lengths, and these lengths.
        """
        xs = xs.astype(self.dtype)
        keys = split_key(key, len(self.factors))
        after = []
        for index, (stack, factor) in enumerate(zip(self.stacks, self.factors, strict=True)):
            if factor > 1:
                xs, lengths = join_steps(xs, lengths, factor)
            stack_carry, xs = stack(xs, None if carry is None else carry[index], lengths=lengths, key=keys[index])
            after.append(stack_carry)
        return tuple(after), xs, lengths

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        """Returns the state before the first frame; all arrays have the batch axis first."""
        return tuple(stack.initial_carry(batch_size, self.dtype) for stack in self.stacks)

    def step(
        self, state: tuple[Any, ...], frames: Float[Array, "T B D"], lengths: Int[Array, "B"] | None = None
    ) -> tuple[tuple[Any, ...], Float[Array, "S B H"]]:
        """Reads the next frames of a stream; step by step equal to a call on the whole.

        Args:
          state: from `initial_state`, or of the step before.
          frames: a multiple of `reduction`; any number in the last step of a stream, with `lengths`.
          lengths: valid frames of each utterance, in the last step; None for all.

        Returns:
          The state after the step, and the outputs, one for every `reduction` frames.

        Raises:
          UserError: the layers are bidirectional.
          ValueError: a number of frames that leaves an output half made.
        """
        if self.bidirectional:
            raise UserError(
                "a bidirectional model cannot read a stream, whose end it would need; use model.bidirectional=False"
            )
        T, B = frames.shape[:2]
        if lengths is None:
            if T % self.reduction:
                raise ValueError(f"a step reads a multiple of {self.reduction} frames until the stream ends, got {T}")
            lengths = jnp.full((B,), T)
        return self(frames, lengths, state)[:2]


def join_steps(
    xs: Float[Array, "T B D"], lengths: Int[Array, "B"], factor: int
) -> tuple[Float[Array, "S B E"], Int[Array, "B"]]:
    """Puts every `factor` adjacent steps side by side, the earliest first; ⌈T/factor⌉ remain, zeros fill the last.

    Returns:
      What was joined, with E = factor · D features, and the lengths ⌈length/factor⌉.
    """
    T, B, D = xs.shape
    xs = jnp.where(jnp.swapaxes(valid_frames(lengths, T), 0, 1), xs, 0)
    xs = jnp.pad(xs, ((0, -T % factor), (0, 0), (0, 0)))
    xs = jnp.swapaxes(xs.reshape(-1, factor, B, D), 1, 2)
    return xs.reshape(-1, B, factor * D), -(-lengths // factor)
