"""The loss of connectionist temporal classification."""

import jax
import jax.numpy as jnp
import optax

from lstm_research.common.arrays import Array, Float, Int

# Of what has no alignment. Far below any sum over frames, which optax's own -1e5 is not: with 1,000 symbols and 15,000
# frames an untrained model's log-likelihood is less than that.
_LOG_ZERO = -1e30


def ctc_loss(
    logits: Float[Array, "T B V"],
    lengths: Int[Array, "B"],
    labels: Int[Array, "U B"],
    label_lengths: Int[Array, "B"],
    *,
    blank_id: int,
) -> Float[Array, "B"]:
    """Returns -log p(labels | frames) in nats, the sum over all alignments.

        p(labels) = Σ_π Π_t softmax(logits_t)_{π_t}

    over all π with one symbol a frame that give the labels when repetitions are merged and then blanks removed. Graves,
    Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification", 2006. Computed by `optax.ctc_loss`.

    Args:
      logits: of every symbol at every frame; finite, in the padding too.
      lengths: valid frames of each utterance.
      labels: the symbols of the transcripts, none of them the blank; what lies in the padding is ignored.
      label_lengths: valid symbols of each transcript; 0 is legal.
      blank_id: the number of the blank, one of the V.

    Returns:
      The losses; infinite where the transcript needs more frames (`frames_needed`) than there are, which no training
      repairs.
    """
    T, U = len(logits), len(labels)
    # Products with one-hot vectors pick the log-probabilities: in the reduced precision that accelerators have by
    # default these would lose their digits.
    with jax.default_matmul_precision("highest"):
        losses = optax.ctc_loss(
            jnp.swapaxes(logits.astype(jnp.promote_types(logits.dtype, "float32")), 0, 1),
            (jnp.arange(T) >= lengths[:, None]).astype("float32"),
            labels.T,
            (jnp.arange(U) >= label_lengths[:, None]).astype("float32"),
            blank_id=blank_id,
            log_epsilon=_LOG_ZERO,
        )
    return jnp.where(frames_needed(labels, label_lengths) <= lengths, losses, jnp.inf)


def frames_needed(labels: Int[Array, "U B"], label_lengths: Int[Array, "B"]) -> Int[Array, "B"]:
    """Returns the frames of the shortest alignment: one a symbol, and a blank between two equal ones in a row."""
    repeated = (labels[1:] == labels[:-1]) & (jnp.arange(1, len(labels))[:, None] < label_lengths)
    return label_lengths + jnp.sum(repeated, axis=0)
