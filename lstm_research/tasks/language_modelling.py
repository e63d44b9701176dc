"""Language modelling: predict every symbol of a text from those before it, and write text."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.text import DATASETS
from lstm_research.data.vocabulary import VOCABULARIES, Vocabulary, from_json
from lstm_research.data.windows import ContiguousWindows, EvaluationWindows
from lstm_research.decoding.sampling import Sampler
from lstm_research.decoding.text import continue_text
from lstm_research.models.cells import CELLS
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.tasks.task import Sums, Task

MODELS = {"language_model": LanguageModel}
"""Every model of this task by the name that configs use."""


class LanguageModelling(Task):
    """The task of language modelling over contiguous text.

    A batch is a window of consecutive symbols in each of `batch_size` rows; the next batch continues the rows, with
    the recurrent state carried over (truncated back-propagation through time: Williams and Peng, 1990).

    Attributes:
      batch_size: rows of a training batch.
      unroll_length: steps that gradients flow back.
      reset_rate: the probability that a training row starts a window from the initial state.
      eval_batch_size: rows in evaluation. Each row starts from the initial state, so fewer rows give every symbol
        more context, and the evaluation more time.
      vocabulary: symbols and their numbers, once loaded.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.json", "dataset.json")

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        batch_size: int,
        unroll_length: int,
        eval_batch_size: int = 10,
        reset_rate: float = 0.0,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; reads no data unless it comes from `files`.

        Args:
          dataset: the config's section.
          vocabulary: the config's section.
          model: the config's section.
          batch_size: rows of a training batch.
          unroll_length: steps that gradients flow back.
          eval_batch_size: rows in evaluation.
          reset_rate: the probability that a training row starts a window from the initial state.
          files: what `files` returned for the run that is continued or used.
        """
        for name, value in {
            "batch_size": batch_size,
            "unroll_length": unroll_length,
            "eval_batch_size": eval_batch_size,
        }.items():
            if value < 1:
                raise UserError(f"task.{name} must be at least 1, got {value}")
        if not 0 <= reset_rate <= 1:
            raise UserError(f"task.reset_rate must be between 0 and 1, got {reset_rate}")
        self.batch_size = batch_size
        self.unroll_length = unroll_length
        self.eval_batch_size = eval_batch_size
        self.reset_rate = reset_rate
        self._dataset_config = dataset
        self._vocabulary_config = build(VOCABULARIES, vocabulary, where="vocabulary")
        self._model_config = model
        self._documents: dict[str, list[np.ndarray]] = {}
        self._files = files
        self._make_model(2, jax.random.key(0), abstract=True)  # an impossible model is refused before data is fetched
        if files is None:
            self._dataset  # noqa: B018  (a wrong dataset is refused now)
        else:
            self.vocabulary: Vocabulary = from_json(files["vocabulary.json"].decode())
            self._set_apply()

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset; made at first use, because a finished run serves without the files it was trained on."""
        return build(DATASETS, self._dataset_config, where="dataset")

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, fits the vocabulary and cuts all splits once, so that what does not fit shows now."""
        self.vocabulary = self._vocabulary_config.fit(self._dataset.documents("train"))
        self._set_apply()
        self.train_batches(seed=0)
        for split in self.splits()[1:]:
            self.eval_batches(split)

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self._dataset.splits

    def train_batches(self, seed: int) -> ContiguousWindows:
        """Returns the training batches; item k is the batch of step k."""
        return ContiguousWindows(
            self._encoded("train"),
            batch_size=self.batch_size,
            unroll_length=self.unroll_length,
            seed=seed,
            reset_rate=self.reset_rate,
        )

    def eval_batches(self, split: str) -> EvaluationWindows:
        """Returns batches that hold every symbol of a split as target exactly once."""
        return EvaluationWindows(
            self._encoded(split), batch_size=self.eval_batch_size, unroll_length=self.unroll_length, split=split
        )

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        return functional(self._make_model(len(self.vocabulary), key))[1]

    def initial_carry(self, params: Params, batch_size: int) -> Any:
        """Returns the recurrent state before the first symbol, batch axis first."""
        return self._apply(params, batch_size, method="initial_carry")

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the cross-entropy of a batch.

        Args:
          params: of the model.
          batch: `inputs`, `targets`, `resets` and `weights`, all `[B, T]`; see `lstm_research.data.windows`.
          carry: the recurrent state after the batch before.
          key: of the dropout; None in evaluation.

        Returns:
          The cross-entropy in nats summed over all targets, the number of targets, further metrics as (sum, count),
          and the recurrent state after the batch.
        """
        inputs, targets, resets, weights = (batch[k].T for k in ("inputs", "targets", "resets", "weights"))  # [T, B]
        carry, logits = self._apply(params, inputs, carry, resets=resets, key=key)  # [T, B, V]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)  # [T, B]
        correct = jnp.argmax(logits, axis=-1) == targets
        weight = jnp.sum(weights)
        return jnp.sum(losses * weights), weight, {"accuracy": (jnp.sum(correct * weights), weight)}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Returns the metrics to report from pairs (sum, count): loss in nats, accuracy, perplexity, bits."""
        metrics = {name: total / count if count else math.nan for name, (total, count) in sums.items()}
        if self.vocabulary.kind == "characters":
            metrics["bits_per_character"] = metrics["loss"] / math.log(2)
        metrics["perplexity"] = math.exp(min(metrics["loss"], 700.0))  # exp(710) is not a float
        return metrics

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        contents = (self.vocabulary.to_json(), self._dataset.record())
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def generate(
        self, params: Params, prompt: str, *, length: int, num_samples: int, sampler: Sampler, seed: int
    ) -> Iterator[list[str]]:
        """Continues a prompt; see `lstm_research.decoding.text.continue_text`."""
        if num_samples < 1:
            raise UserError(f"num_samples must be at least 1, got {num_samples}")
        return continue_text(
            lambda params, carry, tokens: self._apply(params, tokens, carry),
            params,
            self.initial_carry(params, num_samples),
            self.vocabulary,
            prompt,
            length=length,
            sampler=sampler,
            seed=seed,
        )

    def samples(self, params: Params) -> dict[str, str]:
        """Returns what a finished run keeps to look at, by file name: a text that begins a line, if there are lines."""
        prompt = self.vocabulary.symbols[-1] if self.vocabulary.unknown_symbols("\n") else "\n"
        pieces = self.generate(params, prompt, length=500, num_samples=1, sampler=Sampler(temperature=0.8), seed=0)
        return {"sample.txt": "".join(piece for (piece,) in pieces).lstrip("\n") + "\n"}

    def _encoded(self, split: str) -> list[np.ndarray]:
        """Returns the encoded documents of a split, read once.

        Raises:
          UserError: the data is not the data that the run was trained with.
        """
        if split not in self._documents:
            if self._files is not None and not self._documents:
                self._dataset.check_record(self._files["dataset.json"].decode())
            documents = self._dataset.documents(split)
            try:
                self._documents[split] = [self.vocabulary.encode_document(text) for text in documents]
            except UserError as error:
                raise UserError(f"split {split!r}: {error}") from error
        return self._documents[split]

    def _make_model(self, vocabulary_size: int, key: PRNGKeyArray, *, abstract: bool = False) -> nnx.Module:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            MODELS,
            self._model_config,
            where="model",
            parts={"cell": CELLS, "dropout": DropoutRates},
            vocabulary_size=vocabulary_size,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))

    def _set_apply(self) -> None:
        """Keeps the model as a pure function of its parameters."""
        self._apply = functional(self._make_model(len(self.vocabulary), jax.random.key(0), abstract=True))[0]
