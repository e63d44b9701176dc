"""Listen, attend and spell: an encoder-decoder from frames to symbols."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from flax import nnx

from lstm_research.common.arrays import Array, Float, Int, PRNGKeyArray
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.models.acoustic.encoder import AcousticEncoder
from lstm_research.models.cells import Cell
from lstm_research.models.layers import DropoutRates, Embedding
from lstm_research.models.layers.attention import Attention, NoAttention
from lstm_research.models.layers.bidirectional import Merge
from lstm_research.models.layers.ctc_loss import ctc_loss
from lstm_research.models.layers.dropout import split_key
from lstm_research.models.layers.encoder_decoder import EncoderDecoder, Writing


class Heads(NamedTuple):
    """What both heads say.

    Attributes:
      logits: of the attention decoder: at each position those of the symbol after it.
      weights: of the attention.
      ctc_logits: of every output of the encoder; None without the CTC head.
      lengths: how many of these are valid.
    """

    logits: Float[Array, "U B V"]
    weights: Float[Array, "U B S"]
    ctc_logits: Float[Array, "S B V"] | None
    lengths: Int[Array, "B"]


class ListenAttendSpell(EncoderDecoder):
    """Reads the frames of an utterance, and writes its symbols with attention on what it has read.

        memory = encoder(frames)        y_u = decoder(embedding of the symbol before, memory, state)
        logits_u = y_u W + b        ctc_logits = memory W' + b'

    Chan, Jaitly, Le and Vinyals, "Listen, Attend and Spell", 2016; the decoder is `AttentionDecoder` and begins in the
    cell's own initial state. With `ctc_weight` λ the encoder also learns CTC, and the loss is
    (1 - λ) attention + λ CTC: Kim, Hori and Watanabe, 2017; Watanabe et al., "Hybrid CTC/Attention Architecture for
    End-to-End Speech Recognition", 2017.

    Parameters: `encoder.*` (see `AcousticEncoder`), `target_embedding.table` `[V, E]`, `decoder.*`, `output.kernel`
    `[H, V]` and `output.bias` `[V]`; with CTC `ctc_output.kernel` and `.bias`.
    """

    def __init__(
        self,
        num_features: int,
        vocabulary_size: int,
        *,
        blank_id: int,
        cell: Cell,
        attention: Attention,
        embedding_size: int,
        num_layers: int = 1,
        reductions: tuple[int, ...] = (),
        bidirectional: bool = False,
        merge: Merge = "concat",
        residual: bool = False,
        decoder_layers: int = 1,
        input_feeding: bool = False,
        sampling_rate: float = 0.0,
        ctc_weight: float = 0.0,
        dropout: DropoutRates | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        param_dtype: Literal["float32", "bfloat16"] = "float32",
        engine: str = "auto",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Makes the layers.

        Args:
          num_features: of a frame.
          vocabulary_size: V, the end symbol among them.
          blank_id: the number of the symbol that the decoder begins with and ends with, and that is the blank of CTC.
          cell: the cell of every recurrent layer.
          attention: which attention.
          embedding_size: E, of the symbols.
          num_layers: layers of the encoder.
          reductions: for each layer of the encoder, from the lowest, how many steps it reads as one; empty for one.
          bidirectional: every layer of the encoder reads both ways.
          merge: how the outputs of the two directions become one.
          residual: adds to every encoder layer's output its input, but for the lowest and those that join steps.
          decoder_layers: layers of the decoder.
          input_feeding: whether the decoder reads its own last attentional state beside the symbol.
          sampling_rate: of scheduled sampling in training, see `EncoderDecoder`.
          ctc_weight: λ, from 0, which makes no CTC head, to below 1.
          dropout: rates of the dropout family, in encoder and decoder.
          dtype: of the products in the recurrent layers and attention; states, sums and logits are in float32.
          param_dtype: of the parameters.
          engine: see `lstm_research.models.unroll`.
          remat: keeps of each recurrent layer its input alone, and computes the rest again on the way back.
          rngs: draws the parameters.

        Raises:
          UserError: choices that do not go together.
        """
        if isinstance(attention, NoAttention):
            raise UserError(
                'model.attention.name is "none", and nothing of the audio would reach the decoder; use another'
            )
        check_at_least(1, "model", embedding_size=embedding_size, decoder_layers=decoder_layers)
        for name, rate in {"sampling_rate": sampling_rate, "ctc_weight": ctc_weight}.items():
            if not 0 <= rate < 1:
                raise UserError(f"model.{name} must be at least 0 and below 1, got {rate}")
        self.blank_id = blank_id
        self.sampling_rate, self.ctc_weight = sampling_rate, ctc_weight
        self.dtype = jnp.dtype(dtype)
        self.rates = dropout or DropoutRates()
        self.encoder = AcousticEncoder(
            cell,
            num_features,
            num_layers=num_layers,
            reductions=reductions,
            bidirectional=bidirectional,
            merge=merge,
            residual=residual,
            rates=self.rates,
            engine=engine,
            remat=remat,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.target_embedding = Embedding(vocabulary_size, embedding_size, param_dtype=param_dtype, rngs=rngs)
        self._make_decoder(
            cell,
            embedding_size,
            self.encoder.output_size,
            vocabulary_size,
            attention=attention,
            num_layers=decoder_layers,
            input_feeding=input_feeding,
            engine=engine,
            remat=remat,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        if ctc_weight > 0:
            self.ctc_output = nnx.Linear(
                self.encoder.output_size, vocabulary_size, dtype="float32", param_dtype=param_dtype, rngs=rngs
            )

    def __call__(
        self,
        xs: Float[Array, "T B D"],
        lengths: Int[Array, "B"],
        inputs: Int[Array, "U B"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Heads:
        """Returns what both heads say.

        Args:
          xs: the frames, time-major.
          lengths: valid frames of each utterance; 0 is legal.
          inputs: the transcripts' symbols, each one before what is to be predicted there: first `blank_id`.
          key: the random key of dropout and sampling; None in evaluation.
        """
        encoder_key, *keys = split_key(key, 4)
        state, ys, lengths = self._listen(xs, lengths, encoder_key)
        logits, weights = self._write(state, inputs, keys, self.sampling_rate)
        return Heads(logits, weights, self.ctc_output(ys) if self.ctc_weight > 0 else None, lengths)

    def losses(
        self,
        xs: Float[Array, "T B D"],
        lengths: Int[Array, "B"],
        labels: Int[Array, "U B"],
        label_lengths: Int[Array, "B"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B"]:
        """Returns (1 - λ) (-log p(labels and end | frames)) + λ (-log p_CTC(labels | frames)) in nats.

        Infinite where there is CTC and too few frames for it, see `ctc_loss`.

        Args:
          xs: the frames, time-major.
          lengths: valid frames of each utterance.
          labels: the transcripts, time-major.
          label_lengths: valid symbols of each.
          key: the random key of dropout and sampling; None in evaluation.
        """
        ends = jnp.full((1, labels.shape[1]), self.blank_id, labels.dtype)
        heads = self(xs, lengths, jnp.concatenate([ends, labels]), key=key)
        positions = jnp.arange(len(labels) + 1)[:, None]
        targets = jnp.where(positions < label_lengths, jnp.concatenate([labels, ends]), self.blank_id)
        losses = optax.softmax_cross_entropy_with_integer_labels(heads.logits, targets)
        losses = jnp.sum(jnp.where(positions <= label_lengths, losses, 0), axis=0)
        if heads.ctc_logits is None:
            return losses
        ctc = ctc_loss(heads.ctc_logits, heads.lengths, labels, label_lengths, blank_id=self.blank_id)
        return (1 - self.ctc_weight) * losses + self.ctc_weight * ctc

    def encode(self, xs: Float[Array, "T B D"], lengths: Int[Array, "B"]) -> tuple[Writing, Int[Array, "B"]]:
        """Reads utterances; returns what decoding begins from (see `step`), and how much can be attended to."""
        state, _, lengths = self._listen(xs, lengths, None)
        return state, lengths

    def _listen(
        self, xs: Float[Array, "T B D"], lengths: Int[Array, "B"], key: PRNGKeyArray | None
    ) -> tuple[Writing, Float[Array, "S B H"], Int[Array, "B"]]:
        _, ys, lengths = self.encoder(xs, lengths, key=key)
        memory = self.decoder.attention.remember(ys, lengths)
        initial = tuple(layer.initial_carry(xs.shape[1]) for layer in self.decoder.layers)
        return Writing(memory, None, self.decoder.initial_state(initial, memory)), ys, lengths
