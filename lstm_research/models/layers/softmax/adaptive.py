"""The adaptive softmax."""

import dataclasses
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp

from lstm_research.common.arrays import Array, Bool, DTypeLike, Float, Int, Params, PRNGKeyArray
from lstm_research.common.errors import UserError
from lstm_research.models.layers.softmax.base import Softmax

# A cluster is computed for so many parts of a batch, one after the other, as have targets in it.
_PARTS = 8


@dataclasses.dataclass(frozen=True)
class AdaptiveSoftmax(Softmax):
    """A softmax over the frequent symbols and clusters of the others, and in every cluster a smaller softmax.

        p(v) = softmax(y W + b)_v                                        v < cutoffs[0]
        p(v) = softmax(y W + b)_{cluster k} softmax(y P_k W_k)_v         cutoffs[k] <= v < cutoffs[k + 1]

    Symbols are numbered by frequency, so few targets are in the large clusters; where none of a part of the batch is,
    that cluster is not computed. Grave, Joulin, Cissé, Grangier and Jégou, "Efficient Softmax Approximation for GPUs",
    2017. Equal to `torch.nn.AdaptiveLogSoftmaxWithLoss` with `head_bias=True`.

    Parameters, with K clusters: `head_kernel` W `[H, cutoffs[0] + K]` and `head_bias` b; for each cluster k, counted
    from 0, `projection_{k}_kernel` P_k `[H, H / factor^(k + 1)]` and `cluster_{k}_kernel` W_k.

    Attributes:
      cutoffs: numbers of the symbols at which the clusters begin, rising; the last cluster goes to V.
      projection_factor: how much smaller the projection of each cluster is than that of the one before.

    Raises:
      UserError: cutoffs that do not rise, or reach V; a factor below 1.
    """

    can_be_tied: ClassVar[bool] = False

    cutoffs: tuple[int, ...]
    projection_factor: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "cutoffs", tuple(self.cutoffs))  # JSON knows no tuples
        if not self.cutoffs or any(low >= high for low, high in itertools.pairwise((0, *self.cutoffs))):
            raise UserError(f"model.softmax.cutoffs must be rising numbers above 0, got {self.cutoffs}")
        if not self.projection_factor >= 1:
            raise UserError(f"model.softmax.projection_factor must be at least 1, got {self.projection_factor}")

    def init(self, key: PRNGKeyArray, input_size: int, vocabulary_size: int, dtype: DTypeLike = "float32") -> Params:
        """Draws the parameters."""
        if self.cutoffs[-1] >= vocabulary_size:
            raise UserError(
                f"model.softmax.cutoffs must be below the vocabulary's size {vocabulary_size:,}, got {self.cutoffs}"
            )
        initializer = jax.nn.initializers.lecun_normal()
        head_size = self.cutoffs[0] + len(self.cutoffs)
        params = {
            "head_kernel": initializer(key, (input_size, head_size), dtype),
            "head_bias": jnp.zeros((head_size,), dtype),
        }
        for k, (low, high) in enumerate(itertools.pairwise((*self.cutoffs, vocabulary_size))):
            projection_key, cluster_key = jax.random.split(jax.random.fold_in(key, k))
            size = max(1, int(input_size / self.projection_factor ** (k + 1)))
            params[f"projection_{k}_kernel"] = initializer(projection_key, (input_size, size), dtype)
            params[f"cluster_{k}_kernel"] = initializer(cluster_key, (size, high - low), dtype)
        return params

    def losses(
        self, params: Params, ys: Float[Array, "*any H"], targets: Int[Array, "*any"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*any"], None]:
        """See `Softmax.losses`."""
        flat_ys, flat_targets = ys.reshape(-1, ys.shape[-1]), targets.reshape(-1)
        cluster = jnp.sum(flat_targets[:, None] >= jnp.asarray(self.cutoffs), axis=-1) - 1  # -1: in none
        in_head = jnp.where(cluster < 0, flat_targets, self.cutoffs[0] + cluster)
        result = jnp.take_along_axis(self._head(params, flat_ys), in_head[:, None], axis=-1)[:, 0]
        for k, low in enumerate(self.cutoffs):
            result += _of_members(params, k, flat_ys, flat_targets - low, cluster == k)
        return -result.reshape(targets.shape), None

    def logits(self, params: Params, ys: Float[Array, "*any H"]) -> Float[Array, "*any V"]:
        """See `Softmax.logits`; these are log-probabilities."""
        cuts = [self.cutoffs[0] + k for k in range(len(self.cutoffs))]
        head, *of_clusters = jnp.split(self._head(params, ys), cuts, axis=-1)
        within = [_cluster(params, k, ys) for k in range(len(self.cutoffs))]
        return jnp.concatenate([head, *map(jnp.add, of_clusters, within)], axis=-1)

    def _head(self, params: Params, ys: Float[Array, "*any H"]) -> Float[Array, "*any N"]:
        return jax.nn.log_softmax(ys @ params["head_kernel"] + params["head_bias"])


def _cluster(params: Params, k: int, ys: Float[Array, "*any H"]) -> Float[Array, "*any N"]:
    """Returns the log-probabilities of a cluster's symbols, given the cluster."""
    return jax.nn.log_softmax(ys @ params[f"projection_{k}_kernel"] @ params[f"cluster_{k}_kernel"])


def _of_members(
    params: Params, k: int, ys: Float[Array, "N H"], targets: Int[Array, "N"], members: Bool[Array, "N"]
) -> Float[Array, "N"]:
    """Returns the log-probabilities of the targets that are members of cluster k, given the cluster; 0 for others."""
    N = len(targets)
    part_size = -(-N // _PARTS)
    order = jnp.argsort(~members)  # the members first
    padded = jnp.pad(order, (0, _PARTS * part_size - N))

    @jax.checkpoint  # one part's probabilities in memory, not those of all parts
    def compute(indices: Int[Array, "P"]) -> Float[Array, "P"]:
        # Another target has no number in this cluster, and 0 will do.
        numbers = jnp.where(members[indices], targets[indices], 0)
        return jnp.take_along_axis(_cluster(params, k, ys[indices]), numbers[:, None], axis=-1)[:, 0]

    def body(start: Int[Array, ""], indices: Int[Array, "P"]) -> tuple[Int[Array, ""], Float[Array, "P"]]:
        any_member = start < jnp.sum(members)
        values = jax.lax.cond(any_member, compute, lambda i: jnp.zeros(i.shape, ys.dtype), indices)
        return start + part_size, values

    _, values = jax.lax.scan(body, jnp.zeros((), "int32"), padded.reshape(_PARTS, part_size))
    return jnp.where(members, jnp.zeros(N, ys.dtype).at[order].set(values.reshape(-1)[:N]), 0)
