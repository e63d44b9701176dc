"""Array types and the legend of axis names.

Every shape in the package is written with these letters:

  T  time                 B  batch            D  input features
  H  hidden units         G  gates            V  vocabulary
  E  embedding features   L  layers           S  source positions
  C  classes              P  pooled features  N  examples
  U  symbols of a transcript
  O  outputs

Inside models arrays are time-major, `[T, B, ...]`; only `lstm_research.data` and what it feeds to the training step
is batch-major.
"""

from typing import Any

from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Params = dict[str, Any]
"""A (nested) dict of arrays."""

__all__ = ["Array", "Bool", "DTypeLike", "Float", "Int", "PRNGKeyArray", "Params"]
