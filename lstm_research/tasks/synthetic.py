"""Problems of long dependencies and of timing, generated: what a recurrent network can keep and count."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.synthetic import SYNTHETIC_DATASETS, Examples, SyntheticDataset
from lstm_research.data.synthetic.batches import EvaluationSequences, TrainingSequences
from lstm_research.data.synthetic.table import as_table
from lstm_research.models.budget import fit_width, width_notes
from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.sequence_model import SequenceModel
from lstm_research.tasks.task import Sums, Task

MODELS = {"sequence_model": SequenceModel}
"""Every model of this task by the name that configs use."""

_NUM_SAMPLES = 3


class Synthetic(Task):
    """The task of answering, at some or all steps of a generated sequence, with a class or with values.

    Which steps count and what is right, the dataset says; see `lstm_research.data.synthetic`. Beside the usual metrics
    there are `sequence_accuracy`, the share of sequences in which every answer is right; `baseline`, the loss without
    memory; and `solved`, 1 if the dataset's criterion is met, else 0.
    """

    file_names: ClassVar[tuple[str, ...]] = ("dataset.json",)
    loaded: ClassVar[tuple[str, ...]] = ("dataset",)
    higher_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "sequence_accuracy", "solved"})
    unit: ClassVar[str] = "answers"

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        batch_size: int,
        eval_batch_size: int = 100,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; draws no data.

        Args:
          dataset: the config's section.
          vocabulary: the config's section, which must be empty.
          model: the config's section.
          batch_size: sequences of a training batch.
          eval_batch_size: sequences of a batch in evaluation.
          files: what `files` returned for the run that is continued or used.
        """
        check_at_least(1, "task", batch_size=batch_size, eval_batch_size=eval_batch_size)
        if vocabulary:
            raise UserError("the task 'synthetic' has no vocabulary; leave the section empty: vocabulary = {}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.dataset: SyntheticDataset = build(SYNTHETIC_DATASETS, dataset, where="dataset")
        self._files = files

        def make(config: Mapping[str, Any]) -> nnx.Module:
            return nnx.eval_shape(lambda: self._make_model(config, jax.random.key(0)))

        self._sized_config = fit_width(model, make, embedding=False)
        self.notes = width_notes(model, self._sized_config)
        self._apply = functional(make(self._sized_config))[0]

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Draws what is held out, and says what the scores are to be compared with."""
        for split in self.splits():
            self.eval_batches(split)
        metric, threshold = self.dataset.solved
        self.notes += (
            f"baseline: loss {self.dataset.baseline:.4g} without memory; "
            f"solved: {metric} at {'least' if metric in self.higher_is_better else 'most'} {threshold:.4g}",
        )

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self.dataset.splits

    def train_batches(self, seed: int) -> TrainingSequences:
        """Returns the training batches, fresh ones without end; item k is the batch of step k.

        A batch has `inputs` float32 `[B, T, D]`, `targets` int32 `[B, T]` or float32 `[B, T, O]`, `weights` float32
        `[B, T]`, 0 where no answer counts, `lengths` int32 `[B]`, and `allowed` bool `[B, T, C]` where more classes
        than the target may be right.
        """
        return TrainingSequences(self.dataset, batch_size=self.batch_size, seed=seed)

    def eval_batches(self, split: str) -> EvaluationSequences:
        """Returns batches that hold every sequence of a split exactly once; of training, which has no end, some."""
        return EvaluationSequences(self._examples(split), batch_size=self.eval_batch_size)

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        return functional(self._make_model(self._sized_config, key))[1]

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the cross-entropy in nats, or the squared error (its mean, where a step has several values).

        Args:
          params: of the model.
          batch: see `train_batches`.
          carry: ().
          key: of the dropout; None in evaluation.
        """
        targets, weights = batch["targets"], batch["weights"]
        outputs = self._outputs(params, batch["inputs"], batch["lengths"], key)
        weight = jnp.sum(weights)
        extras: Sums = {}
        if self.dataset.tolerance is None:
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
            allowed = batch["allowed"] if "allowed" in batch else jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
            lowest_right = jnp.min(outputs, axis=-1, where=allowed, initial=jnp.inf)
            right = lowest_right > jnp.max(outputs, axis=-1, where=~allowed, initial=-jnp.inf)
            extras["accuracy"] = jnp.sum(right * weights), weight
        else:
            errors = jnp.abs(outputs - targets)
            losses = jnp.mean(jnp.square(errors), axis=-1)
            right = jnp.all(errors < self.dataset.tolerance, axis=-1)
            extras["mae"] = jnp.sum(jnp.mean(errors, axis=-1) * weights), weight
        valid = jnp.any(weights > 0, axis=1)
        all_right = jnp.all(right | (weights == 0), axis=1)
        extras["sequence_accuracy"] = jnp.sum(all_right & valid, dtype=weight.dtype), jnp.sum(valid, dtype=weight.dtype)
        return jnp.sum(losses * weights), weight, extras, carry

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the means, beside the baseline and whether the problem is solved."""
        metrics = {name: float(total / count) for name, (total, count) in sums.items()}
        if self.dataset.tolerance is not None:
            metrics["mse"] = metrics["loss"]
        name, threshold = self.dataset.solved
        solved = metrics[name] >= threshold if name in self.higher_is_better else metrics[name] <= threshold
        return metrics | {"baseline": self.dataset.baseline, "solved": float(solved)}

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir, by file name."""
        return {self.file_names[0]: self.dataset.record().encode()}

    def samples(self, params: Params) -> dict[str, str]:
        """Returns the first test sequences with the model's answers."""
        return {"answers.csv": self.answers(params, _NUM_SAMPLES)}

    def answers(self, params: Params, count: int) -> str:
        """Returns the first sequences of the test split with the model's answers, see `as_table`."""
        examples = self._examples("test").take(slice(count))
        outputs = np.asarray(self._compiled_outputs(params, examples.inputs, examples.lengths))
        return as_table(examples, outputs if self.dataset.tolerance is not None else outputs.argmax(axis=-1))

    @functools.cached_property
    def _compiled_outputs(self) -> Any:
        return jax.jit(self._outputs)

    def _outputs(self, params: Params, inputs: Array, lengths: Array, key: PRNGKeyArray | None = None) -> Array:
        """Returns the model's outputs [B, T, O]."""
        outputs = self._apply(params, jnp.swapaxes(inputs, 0, 1), lengths, key=key)
        return jnp.swapaxes(outputs, 0, 1)

    def _examples(self, split: str) -> Examples:
        """Returns the held-out sequences of a split.

        Raises:
          UserError: they are not those that the run was evaluated on.
        """
        if self._files is not None:
            self.dataset.check_record(self._files["dataset.json"].decode())
            self._files = None  # once is enough
        return self.dataset.examples(split)

    def _make_model(self, config: Mapping[str, Any], key: PRNGKeyArray) -> nnx.Module:
        return build(
            MODELS,
            config,
            where="model",
            parts={"cell": CELLS, "dropout": DropoutRates},
            input_size=self.dataset.input_size,
            num_outputs=self.dataset.num_outputs,
            rngs=nnx.Rngs(params=key),
        )
