"""Language modelling: predict every symbol of a text from those before it, and write text."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.text import DATASETS, check_unit
from lstm_research.data.vocabulary import VOCABULARIES, Vocabulary, from_json
from lstm_research.data.windows import ContiguousWindows, EvaluationWindows
from lstm_research.decoding.sampling import Sampler
from lstm_research.decoding.text import continue_text
from lstm_research.models.budget import check_tied, fit_width, width_notes, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.activation_regularization import activation_penalty
from lstm_research.models.layers.softmax import SOFTMAXES
from lstm_research.tasks.dynamic_evaluation import DynamicEvaluation
from lstm_research.tasks.neural_cache import NeuralCache
from lstm_research.tasks.task import Sums, Task
from lstm_research.tasks.warm_start import source_vocabulary

MODELS = {"language_model": LanguageModel}
"""Every model of this task by the name that configs use."""

# Stands in for the vocabulary's size while that is not known: no less than any setting of a model that depends on it.
_MANY_SYMBOLS = 2**24


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
      adaptations: what else `scores` reports of `scored_splits`, by the name of the metric: perplexities of models that
        adapt to the text.
      vocabulary: symbols and their numbers, once loaded.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.json", "dataset.json")
    loaded: ClassVar[tuple[str, ...]] = ("_dataset", "_documents")
    data_numbers: ClassVar[frozenset[str]] = frozenset({"reset_rate", "short_rate", "unroll_deviation"})

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
        unroll_deviation: float | None = None,
        short_rate: float | None = None,
        activation_regularization: float = 0.0,
        temporal_activation_regularization: float = 0.0,
        neural_cache: Mapping[str, Any] | None = None,
        dynamic_evaluation: Mapping[str, Any] | None = None,
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
          unroll_deviation: the standard deviation of the lengths of training windows, which are about `unroll_length`;
            None gives all this length. The learning rate of a step is in proportion to the length of its window.
            Merity, Keskar and Socher 2018, as the next three.
          short_rate: the probability that a window is about half as long, with `unroll_deviation`; None is 0.05.
          activation_regularization: α of the penalty α mean(y²) on the outputs of the last layer, after dropout.
          temporal_activation_regularization: β of the penalty β mean((h_t - h_{t-1})²) on the same before dropout.
            Both are in the gradient, and not in the loss that is reported.
          neural_cache: see `NeuralCache`; None leaves it out. This and the next are evaluated at the end of a run,
            on the test split, and by `lstm-research evaluate`.
          dynamic_evaluation: see `DynamicEvaluation`.
          files: what `files` returned for the run that is continued or used.
        """
        if not 0 <= reset_rate <= 1:
            raise UserError(f"task.reset_rate must be between 0 and 1, got {reset_rate}")
        alpha, beta = self._regularization = activation_regularization, temporal_activation_regularization
        check_at_least(0, "task", activation_regularization=alpha, temporal_activation_regularization=beta)
        sizes = {"batch_size": batch_size, "unroll_length": unroll_length, "eval_batch_size": eval_batch_size}
        check_at_least(1, "task", **sizes)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.unroll_length = unroll_length
        self.reset_rate = reset_rate
        if short_rate is not None and unroll_deviation is None:
            raise UserError("task.short_rate means nothing without task.unroll_deviation; leave it out, or set both")
        self.unroll_deviation = unroll_deviation
        self.short_rate = 0.05 if short_rate is None else short_rate
        self.adaptations: dict[str, Any] = {
            "perplexity_cache": NeuralCache.from_config(neural_cache),
            "perplexity_dynamic": DynamicEvaluation.from_config(dynamic_evaluation),
        }
        check_unit(dataset, vocabulary.get("name"))
        self._dataset_config = dataset
        self._vocabulary_config = build(VOCABULARIES, vocabulary, where="vocabulary")
        self._vocabulary_name = vocabulary["name"]
        self._model_config = model
        self._documents: dict[str, list[np.ndarray]] = {}
        self._files = files
        check_tied(model)
        # An impossible model is refused before data is fetched.
        self._make_model(with_width(model), _MANY_SYMBOLS, jax.random.key(0), abstract=True)
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
        """Reads the data, fits or takes over the vocabulary, and cuts all splits once: what does not fit shows now."""
        if source_files is None:
            self.vocabulary = self._vocabulary_config.fit(self._dataset.documents("train"))
        else:
            self.vocabulary = source_vocabulary(source_files, self._vocabulary_name)
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
            unroll_deviation=self.unroll_deviation,
            short_rate=self.short_rate,
        )

    def learning_rate_scale(self, batch: Mapping[str, Array]) -> Array | None:
        """Returns how long the window of a batch is, as a share of `unroll_length`; None if all are of this length."""
        return jnp.mean(batch["lengths"]) / self.unroll_length if "lengths" in batch else None

    def eval_batches(
        self, split: str, *, batch_size: int | None = None, unroll_length: int | None = None
    ) -> EvaluationWindows:
        """Returns batches that hold every symbol of a split as target exactly once; their shape is that of the config.

        Args:
          split: the split's name.
          batch_size: another number of rows.
          unroll_length: another number of steps.
        """
        return EvaluationWindows(
            self._encoded(split),
            batch_size=batch_size or self.eval_batch_size,
            unroll_length=unroll_length or self.unroll_length,
            split=split,
        )

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        return functional(self._make_model(self._sized_config, len(self.vocabulary), key))[1]

    def initial_carry(self, params: Params, batch_size: int) -> Any:
        """Returns the recurrent state before the first symbol, batch axis first."""
        return self._apply(params, batch_size, method="initial_carry")

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the cross-entropy of a batch.

        Args:
          params: of the model.
          batch: `inputs`, `targets`, `resets` and `weights`, all `[B, T]`, and perhaps `lengths` `[B]`; see
            `lstm_research.data.windows`.
          carry: the recurrent state after the batch before.
          key: of the dropout; None in evaluation.

        Returns:
          The cross-entropy in nats summed over all targets, the number of targets, further metrics as (sum, count),
          and the recurrent state after the batch.
        """
        targets, resets, weights = (batch[k].T for k in ("targets", "resets", "weights"))  # [T, B]
        carry, ys, raw = self.encode(params, batch, carry, key)
        losses, correct = self.target_losses(params, ys, targets, None if key is None else jax.random.fold_in(key, 2))
        loss, weight = jnp.sum(losses * weights), jnp.sum(weights)
        if key is not None and any(self._regularization):
            alpha, beta = self._regularization
            penalty = activation_penalty(ys, raw, weights, resets, alpha=alpha, beta=beta)
            loss += penalty - jax.lax.stop_gradient(penalty)  # its gradient, and not its value
        extras = {} if correct is None else {"accuracy": (jnp.sum(correct * weights), weight)}
        return loss, weight, extras, carry

    def encode(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None = None
    ) -> tuple[Any, Array, Array]:
        """Returns the next carry, and the last layer's outputs [T, B, H] after and before dropout; see `loss`."""
        inputs, resets = batch["inputs"].T, batch["resets"].T
        return self._apply(params, inputs, carry, lengths=batch.get("lengths"), resets=resets, key=key, method="encode")

    def target_losses(
        self, params: Params, ys: Array, targets: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Array | None]:
        """Returns -log p(target) from the last layer's outputs, and whether it is the most likely, if that is cheap."""
        return self._apply(params, ys, targets, key=key, method="losses")

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report from pairs (sum, count): loss in nats, accuracy, perplexity, bits."""
        metrics = {name: total / count if count else math.nan for name, (total, count) in sums.items()}
        if self.vocabulary.kind in ("characters", "bytes"):
            metrics[f"bits_per_{self.vocabulary.kind[:-1]}"] = metrics["loss"] / math.log(2)
        metrics["perplexity"] = _perplexity(metrics["loss"])
        return metrics

    def score_names(self, split: str) -> tuple[str, ...]:
        """See `Task.score_names`."""
        wanted = split in self.scored_splits
        return tuple(name for name, adaptation in self.adaptations.items() if adaptation is not None and wanted)

    def scores(self, params: Params, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Returns the perplexities of `adaptations`; see `Task.scores`."""
        scores = {}
        for name in self.score_names(split):
            loss = self.adaptations[name].loss(self, params, split, should_stop)
            if loss is None:
                return None
            scores[name] = _perplexity(loss)
        return scores

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        contents = (self.vocabulary.to_json(), self._dataset.record())
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def predict(self, params: Params, carry: Any, tokens: Array) -> tuple[Any, Array]:
        """Returns the carry after symbols [T, B], and the logits of the symbol after each of them, [T, B, V]."""
        return self._apply(params, tokens, carry)

    def generate(
        self, params: Params, prompt: str, *, length: int, num_samples: int, sampler: Sampler, seed: int
    ) -> Iterator[list[str]]:
        """Continues a prompt; see `lstm_research.decoding.text.continue_text`."""
        if num_samples < 1:
            raise UserError(f"num_samples must be at least 1, got {num_samples}")
        return continue_text(
            self.predict,
            params,
            self.initial_carry(params, num_samples),
            self.vocabulary,
            prompt,
            length=length,
            sampler=sampler,
            seed=seed,
        )

    @property
    def default_prompt(self) -> str | None:
        """What a text is begun with where nothing else is given: a new line; None if the vocabulary has none."""
        return None if self.vocabulary.unknown_symbols("\n") else "\n"

    def samples(self, params: Params) -> dict[str, str]:
        """Returns what a finished run keeps to look at, by file name: a text that begins a line, if there are lines."""
        prompt = self.default_prompt or self.vocabulary.symbols[-1]
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

    def _make_model(
        self, config: Mapping[str, Any], vocabulary_size: int, key: PRNGKeyArray, *, abstract: bool = False
    ) -> nnx.Module:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            MODELS,
            config,
            where="model",
            parts={"cell": CELLS, "dropout": DropoutRates, "softmax": SOFTMAXES},
            vocabulary_size=vocabulary_size,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))

    def _set_apply(self) -> None:
        """Fixes the model's sizes, and keeps it as a pure function of its parameters."""
        make = functools.partial(
            self._make_model, vocabulary_size=len(self.vocabulary), key=jax.random.key(0), abstract=True
        )
        self._sized_config = fit_width(self._model_config, make)
        self.notes += width_notes(self._model_config, self._sized_config)
        self._apply = functional(make(self._sized_config))[0]


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # exp(710) is not a float
