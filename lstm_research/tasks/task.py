"""What the trainer asks of a task, and what most tasks answer."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.tasks.warm_start import take_all

Sums = dict[str, tuple[Array, Array]]
"""Metrics as pairs (sum, count). In evaluation (no key) the sum may be an array, such as a confusion matrix."""


class Task(abc.ABC):
    """Data, model, loss and metrics of one kind of problem.

    The constructor takes the config's sections `dataset`, `vocabulary` and `model`, the keys of section `task`, and
    `files`: what `files()` returned for the run that is continued or used, or None for a new one. It checks the config
    and reads no data unless it has to.

    Attributes:
      batch_size: examples of a training batch.
      file_names: of what a run stores in its workdir, see `files`.
      higher_is_better: the metrics of which more is better; of all others less is.
      unit: what one target is, for the speed of training.
      notes: what is worth saying about the data when a run starts, once loaded.
      data_numbers: the floats of section `task` that decide what is in a batch; all others are about the loss.
      loaded: the attributes that hold data, see `share_data`.
      scored_splits: the splits of which `scores` looks at everything; set it to score others so.
    """

    batch_size: int
    file_names: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy"})
    unit: ClassVar[str] = "tokens"
    data_numbers: ClassVar[frozenset[str]] = frozenset()
    loaded: ClassVar[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    scored_splits: tuple[str, ...] = ("test",)

    @abc.abstractmethod
    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, fits the vocabulary and makes all batches once, so that what does not fit shows now.

        Args:
          source_files: what the run stored whose weights this one starts from (`training.init_from`); its vocabulary
            is taken over then.
        """

    def share_data(self, other: "Task") -> None:
        """Takes over what another task has loaded, whose config differs in floats alone; this one has its `files`."""
        for name in ("notes", *self.loaded):
            if name in vars(other):  # what is made at its first use may not be there yet
                setattr(self, name, vars(other)[name])

    @abc.abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""

    @abc.abstractmethod
    def train_batches(self, seed: int) -> Any:
        """Returns the training batches; item k is the batch of step k, a function of (seed, k)."""

    @abc.abstractmethod
    def eval_batches(self, split: str) -> Any:
        """Returns a sequence of batches that hold every target of a split with weight 1 exactly once."""

    @abc.abstractmethod
    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""

    def initial_carry(self, params: Params, batch_size: int) -> Any:
        """Returns what is carried from batch to batch before the first one, batch axis first; () for nothing."""
        return ()

    @abc.abstractmethod
    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Returns the summed loss, the weight it is divided by, further metrics and the next carry.

        Args:
          params: of the model.
          batch: of `train_batches` or `eval_batches`.
          carry: what the batch before left.
          key: of the noise; None in evaluation.
        """

    @abc.abstractmethod
    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report from sums and counts."""

    def learning_rate_scale(self, batch: Mapping[str, Array]) -> Array | None:
        """Returns the factor on this batch's update, or None where all batches count the same."""
        return None

    def score_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of what `scores` gives for a split."""
        return ()

    def scores(self, params: Params, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Returns metrics that need more than sums of losses, such as decoding; None if `should_stop` said so."""
        return {}

    @abc.abstractmethod
    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""

    def samples(self, params: Params) -> dict[str, str]:
        """Returns what a finished run keeps to look at, by file name."""
        return {}

    def warm_start(self, params: Params, source_params: Params) -> tuple[Params, str]:
        """Puts the weights of another run in the place of random ones (`training.init_from`): all of them.

        Args:
          params: of this model, drawn; or their shapes.
          source_params: of the other run, nested dicts of arrays.

        Returns:
          The parameters, and one line on what was taken.

        Raises:
          UserError: the weights do not fit.
        """
        return take_all(params, source_params)
