"""The sampled softmax."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lstm_research.common.arrays import Array, Bool, Float, Int, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.layers.softmax.base import Softmax


@dataclasses.dataclass(frozen=True)
class SampledSoftmax(Softmax):
    """In training, the softmax over the target and a sample S of the other symbols; in evaluation, the full one.

        loss = log(exp(a_t) + Σ_{s ∈ S, s ≠ t} exp(a_s) / q_s) - a_t        a = y W + b

    where q_s is the probability that s is in the sample, so that the sum is that of the full softmax in expectation.
    Jean, Cho, Memisevic and Bengio, "On Using Very Large Target Vocabulary for Neural Machine Translation", 2015. One
    sample of `num_samples` distinct symbols serves a whole batch. It is log-uniform: q falls as 1 / (v + 1) with the
    symbol's number v, as Zipf's law has the frequencies of words, which are numbered by frequency. As many samples as
    there are symbols give the full softmax.

    The training loss is not quite the cross-entropy, and rather below it; compare validation losses.

    Attributes:
      num_samples: size of the sample.

    Raises:
      UserError: no samples.
    """

    num_samples: int

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise UserError(f"model.softmax.num_samples must be at least 1, got {self.num_samples}")

    def losses(
        self, params: Params, ys: Float[Array, "*any H"], targets: Int[Array, "*any"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*any"], Bool[Array, "*any"] | None]:
        """See `Softmax.losses`."""
        if key is None:
            return super().losses(params, ys, targets)
        plan = _make_plan(min(self.num_samples, len(params["bias"])), len(params["bias"]))
        sample = plan.draw(key)
        rows, bias = params["kernel"].T, params["bias"]
        of_target = jnp.sum(ys * rows[targets], axis=-1) + bias[targets]
        of_sample = ys @ rows[sample].T + (bias - jnp.asarray(plan.log_inclusion, bias.dtype))[sample]
        # Finite, so that a sample of nothing but the target has a gradient.
        of_sample = jnp.where(sample == targets[..., None], -1e30, of_sample)
        return jnp.logaddexp(of_target, jax.nn.logsumexp(of_sample, axis=-1)) - of_target, None


class _Plan(NamedTuple):
    """How to draw n distinct symbols by systematic sampling: symbol v is drawn with probability q_v exactly.

    Every symbol has q_v on a line of length n, one after another; drawn are those under n points at distance 1, of
    which the first is uniform in [0, 1). In integers, because float32 cannot tell the small q apart at the end of the
    line.

    Attributes:
      ends: of each symbol's part of the line.
      log_inclusion: log q.
      unit: how many integers are a distance of 1.
    """

    ends: np.ndarray
    log_inclusion: np.ndarray
    unit: int

    def draw(self, key: PRNGKeyArray) -> Int[Array, "N"]:
        """Returns the numbers of n distinct symbols, in rising order."""
        first = jax.random.randint(key, (), 0, self.unit, "int32")
        points = first + self.unit * jnp.arange(int(self.ends[-1]) // self.unit, dtype="int32")
        return jnp.searchsorted(jnp.asarray(self.ends), points, side="right")


@functools.lru_cache(maxsize=4)
def _make_plan(num_samples: int, vocabulary_size: int) -> _Plan:
    """Returns the plan in which q is as near to log-uniform as can be: min(1, c p) with p log-uniform, Σ q = n."""
    ranks = np.arange(vocabulary_size)
    p = np.log((ranks + 2) / (ranks + 1)) / np.log(vocabulary_size + 1)
    rest = np.append(np.cumsum(p[::-1])[::-1], 0)  # of the symbols from v on
    certain = np.arange(num_samples + 1)  # how many symbols, from the most frequent on, have q = 1
    scale = (num_samples - certain[:-1]) / rest[certain[:-1]]
    enough = np.append(scale * p[certain[:-1]] <= 1, True)
    m = int(np.argmax(enough))
    q = np.concatenate([np.ones(m), p[m:] * (scale[m] if m < num_samples else 0)])
    unit = 2 ** (31 - num_samples.bit_length())
    ends = np.floor(np.cumsum(q) * unit)
    ends[-1] = num_samples * unit  # but for rounding it is
    ends = ends.astype(np.int32)
    return _Plan(ends, np.log(np.diff(ends, prepend=0) / unit), unit)
