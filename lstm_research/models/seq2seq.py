"""The recurrent encoder-decoder, from one sequence of symbols to another."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from lstm_research.common.arrays import Array, DTypeLike, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.cells import Cell
from lstm_research.models.cells.base import dense
from lstm_research.models.layers import Bidirectional, DropoutRates, Embedding, RecurrentStack
from lstm_research.models.layers.attention import Attention
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.encoder_decoder import EncoderDecoder, Writing


class Bridge(nnx.Module):
    """From the encoder's last state to the decoder's first, for every decoder layer and field of its carry.

        s = s₀ + tanh(e W + b)

    with e the last state of an encoder layer, both directions side by side, and s₀ the cell's own initial state, zero
    unless it is learned. Decoder layers read from the encoder layers beside them, counted from the top; those below
    the encoder's first read from that. Bahdanau, Cho and Bengio, 2015 (from the backward direction alone).

    Parameters: `layer_0_h_kernel` W and `layer_0_h_bias` b, and so on for all layers and fields.
    """

    def __init__(
        self, cell: Cell, num_layers: int, sources: list[Any], *, param_dtype: DTypeLike = "float32", rngs: nnx.Rngs
    ):
        """Draws the parameters.

        Args:
          cell: of encoder and decoder.
          num_layers: of the decoder.
          sources: the encoder's layers.
          param_dtype: of the parameters.
          rngs: draws them.
        """
        # Which encoder layer each decoder layer reads from.
        self.sources = tuple(max(0, index + len(sources) - num_layers) for index in range(num_layers))
        initialize = nnx.initializers.lecun_normal()
        for index, source in enumerate(self.sources):
            directions = 2 if isinstance(sources[source], Bidirectional) else 1
            for field, size in cell.carry_sizes.items():
                kernel = initialize(rngs.params(), (directions * size, size), param_dtype)
                setattr(self, f"layer_{index}_{field}_kernel", nnx.Param(kernel))
                setattr(self, f"layer_{index}_{field}_bias", nnx.Param(jnp.zeros((size,), param_dtype)))

    def __call__(self, carries: list[Any], initial: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the carries of the decoder's layers.

        Args:
          carries: of the encoder's layers, a pair where a layer is bidirectional.
          initial: the decoder's own initial carries.
        """
        result = []
        for index, (source, start) in enumerate(zip(self.sources, initial, strict=True)):
            carry = carries[source]
            directions = [carry] if hasattr(carry, "_fields") else carry
            fields = {}
            for field, leaf in start._asdict().items():
                last = jnp.concatenate([getattr(each, field) for each in directions], axis=-1)
                kernel = getattr(self, f"layer_{index}_{field}_kernel")[...].astype(last.dtype)
                bias = getattr(self, f"layer_{index}_{field}_bias")[...]
                fields[field] = leaf + jnp.tanh(dense(last, kernel) + bias)
            result.append(type(start)(**fields))
        return tuple(result)


class Seq2Seq(EncoderDecoder):
    """Reads a sequence of symbols and writes another.

        memory = encoder(source)        s₀ = bridge(last states)
        y_t = decoder(embedding of the target symbol before, memory, state)        logits_t = y_t W + b

    Sutskever, Vinyals and Le, "Sequence to Sequence Learning with Neural Networks", 2014; with attention Bahdanau, Cho
    and Bengio, 2015, and Luong, Pham and Manning, 2015 (see `AttentionDecoder`). With `copy` the model chooses at every
    step between its own vocabulary and the symbols of the source:

        P(w) = (1 - p) softmax(logits)_w + p Σ_{s: source_s = w} a_s        p = σ([c_t; h_t; x_t] v + b)

    See, Liu and Manning, "Get To The Point: Summarization with Pointer-Generator Networks", 2017, but for their
    extended vocabulary: a word that the vocabulary lacks is copied as `<unk>`. Subwords spell most such words.

    Parameters: `source_embedding.table` and `target_embedding.table`, or with shared embeddings one `embedding.table`;
    `encoder.*` and `encoder_top.*` (see `RecurrentStack`), `bridge.*`, `decoder.*`; `output.kernel` and `output.bias`,
    or with tied weights `output_bias` alone.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        joint: bool,
        cell: Cell,
        attention: Attention,
        embedding_size: int,
        num_layers: int = 1,
        decoder_layers: int | None = None,
        bidirectional_layers: int | None = None,
        merge: Merge = "concat",
        residual: bool = False,
        attend_from: Literal["top", "bottom"] = "top",
        input_feeding: bool = False,
        copy: bool = False,
        tied: bool = False,
        share_embeddings: bool = False,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          source_size: the number of source symbols.
          target_size: V, the number of target symbols.
          joint: whether the two are the same symbols.
          cell: the cell of every recurrent layer.
          attention: which attention.
          embedding_size: E.
          num_layers: layers of the encoder, and of the decoder.
          decoder_layers: layers of the decoder, if they are not as many.
          bidirectional_layers: how many of the encoder's layers, from the lowest, read both ways; None for all. Wu et
            al., 2016 (GNMT), have one.
          merge: how the outputs of the two directions become one.
          residual: adds to every layer's output that of the layer below, where they have the same size.
          attend_from: "top": the decoder's last layer asks. "bottom": its first layer does, and all above read the
            context too.
          input_feeding: whether the decoder reads its own last attentional state beside the symbol.
          copy: whether symbols can be copied from the source; needs a joint vocabulary.
          tied: the target embedding table is also the output layer's weight. The attentional state then has E features,
            otherwise as many as the decoder.
          share_embeddings: source and target have one embedding table; needs a joint vocabulary.
          dropout: rates of the dropout family, in encoder and decoder.
          dtype: of the products in the recurrent layers and attention; states, sums and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: choices that do not go together.
        """
        for key, is_set in {"copy": copy, "share_embeddings": share_embeddings}.items():
            if is_set and not joint:
                raise UserError(f"model.{key} needs one vocabulary for both languages: task.joint_vocabulary=True")
        if embedding_size < 1:
            raise UserError(f"model.embedding_size must be at least 1, got {embedding_size}")
        if num_layers < 1:
            raise UserError(f"model.num_layers must be at least 1, got {num_layers}")
        num_lower = num_layers if bidirectional_layers is None else bidirectional_layers
        if not 0 <= num_lower <= num_layers:
            raise UserError(f"model.bidirectional_layers must be from 0 to {num_layers}, got {num_lower}")
        self.dtype = jnp.dtype(dtype)
        self.rates = rates = dropout or DropoutRates()
        if share_embeddings:
            self.embedding = Embedding(target_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        else:
            self.source_embedding = Embedding(source_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
            self.target_embedding = Embedding(target_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        self.share_embeddings = share_embeddings

        num_decoder = num_layers if decoder_layers is None else decoder_layers
        if num_decoder < 1:
            raise UserError(f"model.decoder_layers must be at least 1, got {num_decoder}")
        if merge != "concat" and not num_lower:
            raise UserError("model.merge joins two directions, and model.bidirectional_layers is 0; leave it out")
        if attend_from == "bottom" and num_decoder == 1:
            key = "num_layers" if decoder_layers is None else "decoder_layers"
            raise UserError(f"model.attend_from='bottom' has no effect on one layer; set model.{key} above 1")
        counts = {"encoder": num_lower, "encoder_top": num_layers - num_lower}
        stack_rates = dict.fromkeys(counts, rates)
        if all(counts.values()):  # where the two stacks meet, the dropout is that between layers
            stack_rates["encoder"] = dataclasses.replace(rates, output_rate=rates.layer_rate)
            stack_rates["encoder_top"] = dataclasses.replace(rates, input_rate=0.0)
        if residual and max(num_decoder, *counts.values()) == 1:
            raise UserError("model.residual has no effect on single layers; set it to False, or more layers")
        options: dict[str, Any] = {
            "engine": engine,
            "remat": remat,
            "dtype": self.dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        size = embedding_size
        for name, count in counts.items():
            if count > 0:
                stack = RecurrentStack(
                    cell,
                    size,
                    num_layers=count,
                    bidirectional=name == "encoder",
                    merge=merge,
                    residual=residual and count > 1,
                    rates=stack_rates[name],
                    **options,
                )
                setattr(self, name, stack)
                size = stack.output_size
        encoder_layers = [layer for stack in self._encoders for layer in stack.layers]
        self.bridge = Bridge(cell, num_decoder, encoder_layers, param_dtype=param_dtype, rngs=rngs)
        self._make_decoder(
            cell,
            embedding_size,
            size,
            target_size,
            attention=attention,
            num_layers=num_decoder,
            residual=residual and num_decoder > 1,
            attend_from=attend_from,
            input_feeding=input_feeding,
            copy=copy,
            tied=tied,
            engine=engine,
            remat=remat,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self,
        source: Int[Array, "S B"],
        source_lengths: Int[Array, "B"],
        inputs: Int[Array, "T B"],
        *,
        key: PRNGKeyArray | None = None,
        sampling_rate: float = 0.0,
    ) -> tuple[Float[Array, "T B V"], Float[Array, "T B S"]]:
        """Returns at each position the logits of the symbol after it (log-probabilities with `copy`), and attention.

        Args:
          source: the symbols to read, time-major.
          source_lengths: valid symbols of each; 0 is legal.
          inputs: the target's symbols, each one before what is to be predicted there: first the end symbol.
          key: the random key of dropout and sampling; None in evaluation.
          sampling_rate: of scheduled sampling, see `EncoderDecoder`.
        """
        encoder_key, *keys = split_key(key, 4)
        return self._write(self.encode(source, source_lengths, key=encoder_key), inputs, keys, sampling_rate)

    def encode(
        self, source: Int[Array, "S B"], source_lengths: Int[Array, "B"], *, key: PRNGKeyArray | None = None
    ) -> Writing:
        """Reads the source; see `__call__` for the arguments."""
        embedding_key, *keys = split_key(key, 3)
        table = self.embedding if self.share_embeddings else self.source_embedding
        xs = table(source, rate=self.rates.embedding_rate, key=embedding_key).astype(self.dtype)
        carries: list[Any] = []
        for stack, stack_key in zip(self._encoders, keys, strict=False):
            carry, xs = stack(xs, lengths=source_lengths, key=stack_key)
            carries.extend(carry)
        memory = self.decoder.attention.remember(xs, source_lengths)
        initial = tuple(layer.initial_carry(source.shape[1]) for layer in self.decoder.layers)
        state = self.decoder.initial_state(self.bridge(carries, initial), memory)
        return Writing(memory, source.T, state)

    @property
    def _encoders(self) -> list[RecurrentStack]:
        return [getattr(self, name) for name in ("encoder", "encoder_top") if hasattr(self, name)]

    @property
    def _target_table(self) -> Embedding:
        return self.embedding if self.share_embeddings else self.target_embedding
