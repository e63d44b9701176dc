"""Text classification and regression: the label of a sentence or a document, such as its sentiment."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.batches import Batch
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.data.sentences import encode_texts, make_boundaries
from lstm_research.data.vectors import read_vectors
from lstm_research.data.vocabulary import VOCABULARIES, Vocabulary, from_json
from lstm_research.models.budget import fit_width, width_notes, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.classifier import Classifier
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.tasks.classification_metrics import (
    bootstrap_intervals,
    calibration_sums,
    confusion_sums,
    confusion_table,
    moment_sums,
    report,
)
from lstm_research.tasks.task import Sums, Task
from lstm_research.tasks.warm_start import source_vocabulary, take_layers

MODELS = {"classifier": Classifier}
"""Every model of this task by the name that configs use."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """What is predicted, from the training examples; stored with a run.

    Attributes:
      names: of the classes; None for regression.
      mean: of the numbers to predict. The model predicts how many deviations from the mean they are.
      deviation: their standard deviation.
    """

    names: tuple[str, ...] | None
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, names: Sequence[str] | None, labels: Sequence[int | float]) -> "Labels":
        """Takes the names, or for regression the mean and deviation, from the training examples."""
        if names is not None:
            return cls(tuple(names))
        return cls(None, float(np.mean(labels)), float(np.std(labels)) or 1.0)

    @classmethod
    def from_json(cls, text: str) -> "Labels":
        """Reads what `to_json` wrote."""
        state = json.loads(text)
        names = state.pop("names")
        return cls(None if names is None else tuple(names), **state)

    def to_json(self) -> str:
        """Returns the labels as JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    def encode(self, labels: Sequence[int | float]) -> np.ndarray:
        """Returns the labels as the model knows them: numbers of classes, int32, or float32."""
        if self.names is not None:
            return np.asarray(labels, np.int32)
        return ((np.asarray(labels, np.float64) - self.mean) / self.deviation).astype(np.float32)


class Prediction(NamedTuple):
    """What is predicted of a text.

    Attributes:
      label: the most probable class; None for regression.
      probabilities: of all classes; empty for regression.
      score: the predicted number; None for classification.
      words: what the model has read.
      attention: the weight of each word; None without attention pooling.
    """

    label: str | None
    probabilities: tuple[float, ...]
    score: float | None
    words: tuple[str, ...]
    attention: tuple[float, ...] | None


class _Examples(NamedTuple):
    tokens: list[np.ndarray]
    lengths: np.ndarray
    labels: np.ndarray


class TextClassification(Task):
    """The task of predicting the class of a text, or a number (regression, where the dataset's labels are numbers).

    Batches hold texts of similar length, see `lstm_research.data.buckets`; nothing is carried from one to the next.

    Attributes:
      labels: what is predicted, once loaded.
      vocabulary: symbols and their numbers, once loaded.
      notes: what is worth saying about the data, once loaded: how many texts were cut, how many vectors found.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.json", "dataset.json", "labels.json")
    loaded: ClassVar[tuple[str, ...]] = ("_dataset", "_examples", "_vectors")
    higher_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "macro_f1", "pearson"})
    unit: ClassVar[str] = "texts"

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        batch_size: int,
        max_length: int,
        truncate: bool = False,
        bucket_boundaries: tuple[int, ...] = (),
        eval_batch_size: int = 100,
        label_smoothing: float = 0.0,
        vectors: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; reads no data unless it comes from `files`.

        Args:
          dataset: the config's section.
          vocabulary: the config's section.
          model: the config's section.
          batch_size: texts of a training batch.
          max_length: symbols of the longest text.
          truncate: whether longer texts are cut at their end rather than refused.
          bucket_boundaries: texts are padded to the smallest of these lengths that holds them, or to `max_length`.
          eval_batch_size: texts of a batch in evaluation.
          label_smoothing: the share of the target's probability that is spread evenly over all classes, in training.
            Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.
          vectors: a text file of pre-trained vectors (GloVe or word2vec), which the embedding starts from.
          files: what `files` returned for the run that is continued or used.
        """
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "max_length": max_length}
        check_at_least(1, "task", **sizes)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.truncate = truncate
        self.label_smoothing = label_smoothing
        self._boundaries = make_boundaries(bucket_boundaries, max_length)
        self._dataset_config = dataset
        self._vocabulary_config = build(VOCABULARIES, vocabulary, where="vocabulary")
        self._vocabulary_name = vocabulary["name"]
        self._model_config = model
        self._vectors_path = vectors
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None
        self._examples: dict[str, _Examples] = {}
        self._files = files
        # An impossible model is refused before data is read.
        self._make_model(with_width(model), 2, 2, jax.random.key(0), abstract=True)
        if files is None:
            self._dataset  # noqa: B018  (a wrong dataset is refused now)
        else:
            self.vocabulary: Vocabulary = from_json(files["vocabulary.json"].decode())
            self.labels = Labels.from_json(files["labels.json"].decode())
            self._set_apply()

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset; made at first use, because a finished run serves without the files it was trained on."""
        return build(LABELLED_DATASETS, self._dataset_config, where="dataset")

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, fits the vocabulary (or takes it over) and makes all batches once."""
        examples = self._dataset.examples("train")
        self.labels = Labels.of(self._dataset.labels, [example.label for example in examples])
        if self.labels.names is None and self.label_smoothing:
            raise UserError(
                "task.label_smoothing is for classes, and the labels of this dataset are numbers; set it to 0"
            )
        if source_files is None:
            self.vocabulary = self._vocabulary_config.fit(["\n".join([*(each.text for each in examples), ""])])
        else:
            if self._vectors_path is not None:
                raise UserError("task.vectors and training.init_from both give the embedding; leave one of them out")
            self.vocabulary = source_vocabulary(source_files, self._vocabulary_name)
        self._set_apply()
        if self._vectors_path is not None:
            self._vectors = read_vectors(self._vectors_path, self.vocabulary, self._sized_config["embedding_size"])
            found = len(self._vectors[0])
            note = f"task.vectors: {found:,} of the {len(self.vocabulary):,} {self.vocabulary.kind} have a vector"
            self.notes = (*self.notes, note)
        self.train_batches(seed=0)
        for split in self.splits()[1:]:
            self.eval_batches(split)

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self._dataset.splits

    def train_batches(self, seed: int) -> TrainingBuckets:
        """Returns the training batches; item k is the batch of step k.

        A batch has `tokens` int32 `[B, T]`, `lengths` int32 `[B]`, `labels` `[B]` (see `Labels.encode`), and `weights`
        float32 `[B]`, 0 in rows that only fill the batch.
        """
        examples = self._encoded("train")
        return TrainingBuckets(
            examples.lengths,
            functools.partial(_collate, examples),
            batch_size=self.batch_size,
            boundaries=self._boundaries,
            seed=seed,
        )

    def eval_batches(self, split: str) -> EvaluationBuckets:
        """Returns batches that hold every text of a split exactly once."""
        return self._in_order(self._encoded(split))

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters; words that have a vector start from it."""
        params = functional(self._make_model(self._sized_config, len(self.vocabulary), self._num_outputs, key))[1]
        if self._vectors is not None:
            ids, vectors = self._vectors
            params["embedding"]["table"] = params["embedding"]["table"].at[ids].set(vectors)
        return params

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the cross-entropy in nats, or the squared error in units of the training labels' variance.

        Args:
          params: of the model.
          batch: see `train_batches`.
          carry: ().
          key: of the dropout; None in evaluation, which also leaves label smoothing out and gives what the metrics of
            `lstm_research.tasks.classification_metrics` are made of.
        """
        labels, weights = batch["labels"], batch["weights"]
        logits, _ = self._apply(params, batch["tokens"].T, batch["lengths"], key=key)  # [B, C]
        weight = jnp.sum(weights)
        extras: Sums = {}
        if self.labels.names is None:
            errors = logits[:, 0] - labels
            losses = jnp.square(errors)
            extras["mse"] = self.labels.deviation**2 * jnp.sum(losses * weights), weight
            extras["mae"] = self.labels.deviation * jnp.sum(jnp.abs(errors) * weights), weight
            if key is None:
                extras["moments"] = moment_sums(labels, logits[:, 0], weights), weight
        else:
            targets = jax.nn.one_hot(labels, self._num_outputs)
            smoothing = self.label_smoothing if key is not None else 0.0
            losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))
            predicted = jnp.argmax(logits, axis=-1)
            extras["accuracy"] = jnp.sum((predicted == labels) * weights), weight
            if key is None:
                extras["confusion"] = confusion_sums(labels, predicted, weights, self._num_outputs), weight
                extras["calibration"] = calibration_sums(logits, labels, weights), weight
        return jnp.sum(losses * weights), weight, extras, carry

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report, see `classification_metrics.report`."""
        return report(sums)

    def score_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the bootstrap intervals, which the last split (test, if there is one) has."""
        if self.labels.names is None or split != self.splits()[-1]:
            return ()
        return tuple(f"{metric}_{end}" for metric in ("accuracy", "macro_f1") for end in ("low", "high"))

    def scores(self, params: Params, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Returns the bootstrap intervals."""
        if not self.score_names(split):
            return {}
        return None if should_stop() else bootstrap_intervals(self.confusion(params, split))

    def samples(self, params: Params) -> dict[str, str]:
        """Returns the confusion matrix of the last split."""
        if self.labels.names is None:
            return {}
        split = self.splits()[-1]
        title = f"Split {split}: true classes in rows, predicted ones in columns.\n\n"
        return {"confusion.txt": title + confusion_table(self.confusion(params, split), self.labels.names)}

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        contents = (self.vocabulary.to_json(), self._dataset.record(), self.labels.to_json())
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def warm_start(self, params: Params, source_params: Params) -> tuple[Params, str]:
        """Takes embedding and recurrent layers of a language model over; see `take_layers`."""
        return take_layers(params, source_params)

    def predict(self, params: Params, texts: Sequence[str]) -> list[Prediction]:
        """Returns a prediction for each text, in the order of the texts.

        Raises:
          UserError: a text is too long, or has symbols that the vocabulary neither has nor replaces.
        """
        examples, num_cut = self._encode(texts, np.zeros(len(texts), np.int32), "the input", trained=True)
        if num_cut:
            logging.warning("%d of %d texts are cut to task.max_length=%d", num_cut, len(texts), self.max_length)
        batches = self._in_order(examples)
        predictions: dict[int, Prediction] = {}
        for number, batch in enumerate(batches):
            outputs, attention = jax.device_get(self._outputs(params, batch["tokens"], batch["lengths"]))
            first = number * self.eval_batch_size
            for row, index in enumerate(batches.order[first : first + self.eval_batch_size].tolist()):
                weights = None if attention is None else attention[row]
                predictions[index] = self._describe(examples.tokens[index], outputs[row], weights)
        return [predictions[index] for index in range(len(texts))]

    def confusion(self, params: Params, split: str) -> np.ndarray:
        """Returns the confusion matrix [C, C] of a split, float64."""
        C = self._num_outputs
        counts = [self._batch_confusion(params, batch) for batch in self.eval_batches(split)]
        return np.sum(np.asarray(counts, np.float64).reshape(-1, C, C), axis=0)

    @functools.cached_property
    def _batch_confusion(self) -> Any:
        return jax.jit(lambda params, batch: self.loss(params, batch, (), None)[2]["confusion"][0])

    @functools.cached_property
    def _outputs(self) -> Any:
        """From parameters, tokens [B, T] and lengths to probabilities (or the number) and attention [B, T]."""

        def outputs(params: Params, tokens: Array, lengths: Array) -> tuple[Array, Array | None]:
            logits, attention = self._apply(params, tokens.T, lengths)
            if self.labels.names is None:
                answers = logits * self.labels.deviation + self.labels.mean
            else:
                answers = jax.nn.softmax(logits)
            return answers, None if attention is None else attention.T

        return jax.jit(outputs)

    def _describe(self, tokens: np.ndarray, outputs: np.ndarray, attention: np.ndarray | None) -> Prediction:
        names = self.labels.names
        return Prediction(
            label=None if names is None else names[int(outputs.argmax())],
            probabilities=() if names is None else tuple(outputs.tolist()),
            score=float(outputs[0]) if names is None else None,
            words=tuple(self.vocabulary.symbols[token] for token in tokens),
            attention=None if attention is None else tuple(attention[: len(tokens)].tolist()),
        )

    def _encoded(self, split: str) -> _Examples:
        """Returns the encoded texts of a split, read once.

        Raises:
          UserError: the data is not the data that the run was trained with, or does not fit the config.
        """
        if split not in self._examples:
            if self._files is not None and not self._examples:
                self._dataset.check_record(self._files["dataset.json"].decode())
            examples = self._dataset.examples(split)
            if not examples:
                raise UserError(f"split {split!r} of the dataset has no examples")
            texts = [example.text for example in examples]
            labels = self.labels.encode([example.label for example in examples])
            self._examples[split], num_cut = self._encode(texts, labels, f"split {split!r}")
            if num_cut:
                note = f"split {split!r}: {num_cut:,} of {len(texts):,} texts cut to {self.max_length} symbols"
                self.notes = (*self.notes, note)
        return self._examples[split]

    def _encode(
        self, texts: Sequence[str], labels: np.ndarray, where: str, *, trained: bool = False
    ) -> tuple[_Examples, int]:
        """Returns encoded texts, and how many of them were cut."""
        tokens, lengths, num_cut = encode_texts(
            self.vocabulary, texts, max_length=self.max_length, truncate=self.truncate, where=where, trained=trained
        )
        return _Examples(tokens, lengths, labels), num_cut

    def _in_order(self, examples: _Examples) -> EvaluationBuckets:
        return EvaluationBuckets(
            examples.lengths,
            functools.partial(_collate, examples),
            batch_size=self.eval_batch_size,
            boundaries=self._boundaries,
        )

    @property
    def _num_outputs(self) -> int:
        return 1 if self.labels.names is None else len(self.labels.names)

    def _make_model(
        self,
        config: Mapping[str, Any],
        vocabulary_size: int,
        num_outputs: int,
        key: PRNGKeyArray,
        *,
        abstract: bool = False,
    ) -> nnx.Module:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            MODELS,
            config,
            where="model",
            parts={"cell": CELLS, "dropout": DropoutRates},
            vocabulary_size=vocabulary_size,
            num_outputs=num_outputs,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))

    def _set_apply(self) -> None:
        """Fixes the model's sizes, and keeps it as a pure function of its parameters."""

        def make(config: Mapping[str, Any]) -> nnx.Module:
            return self._make_model(config, len(self.vocabulary), self._num_outputs, jax.random.key(0), abstract=True)

        self._sized_config = fit_width(self._model_config, make)
        self.notes += width_notes(self._model_config, self._sized_config)
        self._apply = functional(make(self._sized_config))[0]


def _collate(examples: _Examples, indices: np.ndarray, valid: np.ndarray, length: int) -> Batch:
    """Returns a batch, see `TextClassification.train_batches`."""
    tokens = np.zeros((len(indices), length), np.int32)
    for row, index in enumerate(indices):
        tokens[row, : examples.lengths[index]] = examples.tokens[index]
    return {
        "tokens": tokens,
        "lengths": examples.lengths[indices].astype(np.int32),
        "labels": examples.labels[indices],
        "weights": valid.astype(np.float32),
    }
