"""Translation: write in one language what a sentence says in another."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build
from lstm_research.common.errors import UserError, check_at_least
from lstm_research.data.batches import Batch
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets
from lstm_research.data.examples import normalize
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.data.sentences import (
    EncodedPairs,
    collate_pairs,
    collate_sources,
    encode_texts,
    make_boundaries,
)
from lstm_research.data.vocabulary import VOCABULARIES, Vocabulary, from_json
from lstm_research.decoding import DECODERS, Decoder
from lstm_research.decoding.hypotheses import Decode, ensemble, sentence_keys
from lstm_research.decoding.text import printable
from lstm_research.models.budget import fit_width, width_notes, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.attention import ATTENTIONS
from lstm_research.models.seq2seq import Seq2Seq
from lstm_research.tasks.task import Sums, Task
from lstm_research.tasks.translation_metrics import corpus_scores
from lstm_research.tasks.warm_start import source_vocabulary

MODELS = {"seq2seq": Seq2Seq}
"""Every model of this task by the name that configs use."""

NUM_SAMPLES = 20
"""How many sentences of the last split a run shows with their translations."""


class Translation(NamedTuple):
    """A translation of a sentence.

    Attributes:
      text: the translation.
      score: what the decoder ranks by.
      log_prob: log P(translation | sentence), that of its end included; 0 for an empty line, of which the model is not
        asked.
      pieces: the symbols of the translation, without the end.
      source_pieces: the symbols of the sentence.
      attention: of each piece on each source piece; None if the model has none.
    """

    text: str
    score: float
    log_prob: float
    pieces: tuple[str, ...]
    source_pieces: tuple[str, ...]
    attention: np.ndarray | None


class MachineTranslation(Task):
    """The task of translation, learnt from pairs of sentences.

    Batches hold pairs of similar length, see `lstm_research.data.buckets`; nothing is carried from one to the next. A
    sentence with several translations is as many pairs, and one sentence with several references for BLEU and chrF.

    Attributes:
      source_vocabulary: symbols and their numbers, once loaded.
      target_vocabulary: the same, with a joint vocabulary.
      attends: whether the model has attention.
      decoder: how translations are found.
      decoders: all that there are, by name.
      scored_splits: the splits that are translated as a whole; of validation otherwise `num_scored` sentences are.
      notes: how many sentences were cut, once loaded.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.source.json", "vocabulary.target.json", "dataset.json")
    loaded: ClassVar[tuple[str, ...]] = ("_dataset", "_pairs")
    higher_is_better: ClassVar[frozenset[str]] = frozenset({"accuracy", "bleu", "chrf"})

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        decoder: Mapping[str, Any],
        batch_size: int,
        max_length: int,
        truncate: bool = False,
        bucket_boundaries: tuple[int, ...] = (),
        eval_batch_size: int = 64,
        joint_vocabulary: bool = True,
        label_smoothing: float = 0.0,
        scheduled_sampling_rate: float = 0.0,
        coverage_loss: float = 0.0,
        num_scored: int = 0,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; reads no data unless it comes from `files`.

        Args:
          dataset: the config's section.
          vocabulary: the config's section.
          model: the config's section.
          decoder: `name` of `lstm_research.decoding.DECODERS` with its keywords: how translations are found.
          batch_size: pairs of a training batch.
          max_length: symbols of the longest sentence, the end of a translation among them.
          truncate: whether longer sentences are cut at their end rather than refused.
          bucket_boundaries: pairs are padded to the smallest of these lengths that holds them, or to `max_length`.
          eval_batch_size: pairs, or sentences, of a batch in evaluation and translation.
          joint_vocabulary: one vocabulary for both languages, or two of the same description.
          label_smoothing: the share of the target's probability that is spread evenly over all symbols, in training.
            Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016. What is reported as loss
            is without.
          scheduled_sampling_rate: see `Seq2Seq`.
          coverage_loss: λ of the loss λ Σ_ts min(a_ts, Σ_{t' < t} a_t's), which keeps attention from coming back to the
            same position. See, Liu and Manning, 2017. What is reported as loss is without.
          num_scored: how many sentences of the validation split are translated for BLEU and chrF at each validation;
            none if 0. The test split is translated as a whole, and so is every split that `lstm-research evaluate` is
            asked for.
          files: what `files` returned for the run that is continued or used.
        """
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "max_length": max_length}
        check_at_least(1, "task", **sizes)
        for name, rate in {
            "label_smoothing": label_smoothing,
            "scheduled_sampling_rate": scheduled_sampling_rate,
        }.items():
            if not 0 <= rate < 1:
                raise UserError(f"task.{name} must be at least 0 and below 1, got {rate}")
        check_at_least(0, "task", coverage_loss=coverage_loss, num_scored=num_scored)
        self.decoders = DECODERS
        self.decoder: Decoder = build(DECODERS, decoder, where="task.decoder")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.truncate = truncate
        self.joint_vocabulary = joint_vocabulary
        self.label_smoothing = label_smoothing
        self.scheduled_sampling_rate = scheduled_sampling_rate
        self.coverage_loss = coverage_loss
        self.num_scored = num_scored
        self._boundaries = make_boundaries(bucket_boundaries, max_length)
        self._dataset_config = dataset
        self._normalized = getattr(PARALLEL_DATASETS.get(str(dataset.get("name"))), "normalized", False)
        self._vocabulary_config = build(VOCABULARIES, vocabulary, where="vocabulary")
        self._vocabulary_name = vocabulary["name"]
        self._model_config = model
        self._pairs: dict[str, EncodedPairs] = {}
        self._decodes: dict[tuple[Decoder, int], Decode] = {}
        self._files = files
        # An impossible model is refused before data is read.
        self.attends = self._make_model(with_width(model), 2, 2, jax.random.key(0), abstract=True).attends
        needing = {
            "task.coverage_loss": coverage_loss,
            "task.decoder.coverage_penalty": getattr(self.decoder, "coverage_penalty", 0),
        }
        for name, number in needing.items():
            if number and not self.attends:
                raise UserError(f"{name} needs a model with attention; set it to 0, or give model.attention")
        if files is None:
            self._dataset  # noqa: B018  (a wrong dataset is refused now)
        else:
            source, target = (from_json(files[name].decode()) for name in self.file_names[:2])
            self._set_vocabularies(source, target)

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset; made at first use, because a finished run serves without the files it was trained on."""
        return build(PARALLEL_DATASETS, self._dataset_config, where="dataset")

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, fits the vocabularies (or takes them over) and makes all batches once."""
        if source_files is None:
            examples = self._dataset.examples("train")
            sides = [[pair.source for pair in examples], [text for pair in examples for text in pair.references]]
            if self.joint_vocabulary:
                sides = [sides[0] + sides[1]]
            fitted = [self._vocabulary_config.fit(["\n".join([*side, ""])]) for side in sides]
            self._set_vocabularies(fitted[0], fitted[-1])
        else:
            taken = [source_vocabulary(source_files, self._vocabulary_name, name) for name in self.file_names[:2]]
            if self.joint_vocabulary and taken[0] != taken[1]:
                raise UserError(
                    "task.joint_vocabulary is True, and the run in training.init_from has two vocabularies; set it to "
                    "False"
                )
            self._set_vocabularies(taken[0], taken[1])
        self.train_batches(seed=0)
        for split in self.splits()[1:]:
            self.eval_batches(split)

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self._dataset.splits

    def train_batches(self, seed: int) -> TrainingBuckets:
        """Returns the training batches; item k is the batch of step k.

        A batch has `source`, `source_lengths`, `inputs`, `targets` and `weights`, see `collate_pairs`.
        """
        pairs = self._encoded("train")
        return TrainingBuckets(
            pairs.lengths,
            functools.partial(collate_pairs, pairs),
            batch_size=self.batch_size,
            boundaries=self._boundaries,
            seed=seed,
        )

    def eval_batches(self, split: str) -> EvaluationBuckets:
        """Returns batches that hold every pair of a split exactly once, one for each translation of a sentence."""
        pairs = self._encoded(split)
        return self._in_order(pairs.lengths, functools.partial(collate_pairs, pairs))

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        sizes = len(self.source_vocabulary), len(self.target_vocabulary)
        return functional(self._make_model(self._sized_config, *sizes, key))[1]

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes the cross-entropy in nats, summed over all target symbols.

        Args:
          params: of the model.
          batch: see `train_batches`.
          carry: ().
          key: of dropout and scheduled sampling; None in evaluation. With a key the gradient is that of the smoothed
            loss with the loss of coverage; the value is not.
        """
        source, inputs, targets, weights = (batch[name].T for name in ("source", "inputs", "targets", "weights"))
        logits, attention = self._apply(
            params, source, batch["source_lengths"], inputs, key=key, sampling_rate=self.scheduled_sampling_rate
        )  # [T, B, V], [T, B, S]
        normalizers = jax.nn.logsumexp(logits, axis=-1)
        of_targets = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses = normalizers - of_targets
        loss = jnp.sum(losses * weights)
        if key is not None:
            loss = _with_gradient_of(self._training_loss(loss, logits, normalizers, attention, weights), loss)
        weight = jnp.sum(weights)
        # The largest is known from the normaliser; which one it is would cost as much as the softmax on a CPU.
        correct = of_targets == jnp.max(logits, axis=-1)
        return loss, weight, {"accuracy": (jnp.sum(correct * weights), weight)}, carry

    def _training_loss(self, loss: Array, logits: Array, normalizers: Array, attention: Array, weights: Array) -> Array:
        """Returns what is minimised: the loss with smoothed labels, and the loss of coverage."""
        if self.label_smoothing:
            uniform = jnp.sum((normalizers - jnp.mean(logits, axis=-1)) * weights)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        if self.coverage_loss:
            before = jnp.cumsum(attention, axis=0) - attention
            again = jnp.sum(jnp.minimum(attention, before), axis=-1)
            loss += self.coverage_loss * jnp.sum(again * weights)
        return loss

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report: loss in nats, accuracy and perplexity, per target symbol."""
        metrics = {name: total / count if count else math.nan for name, (total, count) in sums.items()}
        return metrics | {"perplexity": math.exp(min(metrics["loss"], 700.0))}  # exp(710) is not a float

    def score_names(self, split: str) -> tuple[str, ...]:
        """Returns BLEU and chrF for the splits of which something is to be translated."""
        scored = split in self.scored_splits or (split == "valid" and self.num_scored)
        return ("bleu", "chrf") if scored else ()

    def scores(
        self, params: Params | tuple[Params, ...], split: str, should_stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Returns BLEU and chrF against all references; None if `should_stop` said so. `params`: see `translate`."""
        if not self.score_names(split):
            return {}
        examples = self._examples(split)[: None if split in self.scored_splits else self.num_scored]
        found = self._translate(params, [each.source for each in examples], self.decoder, 0, should_stop)
        return None if found is None else self._scores(examples, found)[0]

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        contents = (self.source_vocabulary.to_json(), self.target_vocabulary.to_json(), self._dataset.record())
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def samples(self, params: Params) -> dict[str, str]:
        """Returns sentences of the last split with their translations, and how BLEU and chrF are computed there."""
        examples = self._examples(self.splits()[-1])
        chosen = examples[:: -(-len(examples) // NUM_SAMPLES)]
        found = self.translate(params, [each.source for each in chosen])
        parts = []
        for each, (best, *_) in zip(chosen, found, strict=True):
            references = [f"reference:   {reference}" for reference in each.references]
            parts.append("\n".join([f"source:      {each.source}", *references, f"translation: {best.text}", ""]))
        signatures = self._scores(examples, [[Translation("", 0, 0, (), (), None)]] * len(examples))[1]
        return {
            "translations.txt": "\n".join(parts),
            "sacrebleu.txt": "".join(f"{name}: {signature}\n" for name, signature in signatures.items()),
        }

    def translate(
        self,
        params: Params | tuple[Params, ...],
        lines: Sequence[str],
        *,
        decoder: Decoder | None = None,
        seed: int = 0,
    ) -> list[list[Translation]]:
        """Translates lines, each one a sentence.

        Args:
          params: of the model; or of several, which translate together (see `decoding.hypotheses.ensemble`).
          lines: those without a word, empty or white space, have an empty translation. Longer ones than
            `task.max_length` are cut if `task.truncate` says so, with a warning.
          decoder: how translations are found; None: as the config says.
          seed: of what the decoder draws.

        Returns:
          For each line what was found, the best first.

        Raises:
          UserError: a line is too long, or has symbols that the vocabulary neither has nor replaces.
        """
        lines = ["" if line.isspace() else normalize(line) if self._normalized else line for line in lines]
        found = self._translate(params, lines, decoder or self.decoder, seed, lambda: False, trained=True)
        assert found is not None  # nothing asks it to stop
        return found

    def _translate(
        self,
        params: Any,
        lines: Sequence[str],
        decoder: Decoder,
        seed: int,
        should_stop: Callable[[], bool],
        *,
        trained: bool = False,
    ) -> list[list[Translation]] | None:
        """See `translate`; with `trained` for lines that come from outside, of which nothing has been said yet."""
        members = jax.device_put(params if isinstance(params, tuple) else (params,))
        sources, lengths, num_cut = self._encode_side(self.source_vocabulary, lines, "the input", 0, trained=trained)
        if num_cut and trained:
            logging.warning("%d of %d sentences are cut to task.max_length=%d", num_cut, len(lines), self.max_length)
        found = [[Translation("", 0.0, 0.0, (), (), None)] for _ in lines]
        filled = np.flatnonzero(lengths)
        pairs = EncodedPairs([sources[i] for i in filled], [], lengths[filled])
        batches = self._in_order(pairs.lengths, functools.partial(collate_sources, pairs))
        for number in range(len(batches)):
            if should_stop():
                return None
            batch = batches[number]
            rows = filled[batches.order[number * self.eval_batch_size : (number + 1) * self.eval_batch_size]]
            keys = sentence_keys(seed, np.resize(rows, self.eval_batch_size))
            states = tuple(self._encode(each, batch["source"], batch["source_lengths"]) for each in members)
            mask = np.arange(batch["source"].shape[1]) < batch["source_lengths"][:, None]
            hypotheses = jax.device_get(self._decode(decoder, len(members))(members, states, mask, keys))
            for row, line in enumerate(rows.tolist()):
                found[line] = self._describe(sources[line], hypotheses, row)
        return found

    @functools.cached_property
    def _encode(self) -> Any:
        """From parameters and sources [B, S] with lengths to the state that decoding starts from."""
        return jax.jit(lambda params, source, lengths: self._apply(params, source.T, lengths, method="encode"))

    def _decode(self, decoder: Decoder, num_members: int) -> Decode:
        """Returns the compiled decoder, made once: it compiles once for every bucket."""
        if (decoder, num_members) not in self._decodes:
            step = functools.partial(self._apply, method="step")
            self._decodes[decoder, num_members] = decoder.make(ensemble([step] * num_members), self._end_id)
        return self._decodes[decoder, num_members]

    def _describe(self, source: np.ndarray, hypotheses: Any, row: int) -> list[Translation]:
        """Returns the translations of one row of a batch."""
        result = []
        for index, length in enumerate(hypotheses.lengths[row].tolist()):
            if length:
                ids = hypotheses.tokens[row, index, : length - 1].tolist()
                attention = hypotheses.attention
                result.append(
                    Translation(
                        text=printable(self.target_vocabulary.decode(ids)),
                        score=float(hypotheses.scores[row, index]),
                        log_prob=float(hypotheses.log_probs[row, index]),
                        pieces=tuple(self.target_vocabulary.symbols[i] for i in ids),
                        source_pieces=tuple(self.source_vocabulary.symbols[i] for i in source),
                        attention=None if attention is None else attention[row, index, : length - 1, : len(source)],
                    )
                )
        return result

    def _scores(self, examples: Sequence[Any], found: list[list[Translation]]) -> Any:
        texts = [translations[0].text for translations in found]
        return corpus_scores(texts, [each.references for each in examples], self._dataset.languages[1])

    def _examples(self, split: str) -> list[Any]:
        """Returns the sentences of a split.

        Raises:
          UserError: there are none, or the data is not the data that the run was trained with.
        """
        if self._files is not None and not self._pairs:
            self._dataset.check_record(self._files["dataset.json"].decode())
        examples = self._dataset.examples(split)
        if not examples:
            raise UserError(f"split {split!r} of the dataset has no examples")
        return examples

    def _encoded(self, split: str) -> EncodedPairs:
        """Returns the encoded pairs of a split, read once."""
        if split not in self._pairs:
            sides = zip(
                *((each.source, text) for each in self._examples(split) for text in each.references), strict=True
            )
            encoded = [
                self._encode_side(vocabulary, side, f"split {split!r}, {name}", end)
                for vocabulary, side, name, end in zip(
                    (self.source_vocabulary, self.target_vocabulary), sides, ("source", "target"), (0, 1), strict=True
                )
            ]
            (sources, source_lengths, source_cut), (targets, target_lengths, target_cut) = encoded
            targets = [np.concatenate([[self._end_id], each, [self._end_id]]) for each in targets]
            self._pairs[split] = EncodedPairs(sources, targets, np.stack([source_lengths, target_lengths], axis=1))
            if num_cut := source_cut + target_cut:
                note = f"split {split!r}: {num_cut:,} sentences cut to {self.max_length} symbols"
                self.notes = (*self.notes, note)
        return self._pairs[split]

    def _encode_side(
        self, vocabulary: Vocabulary, texts: Sequence[str], where: str, num_ends: int, *, trained: bool = False
    ) -> tuple[list[np.ndarray], np.ndarray, int]:
        """Returns the encoded texts, their lengths with `num_ends` end symbols, and how many were cut."""
        return encode_texts(
            vocabulary,
            texts,
            max_length=self.max_length,
            truncate=self.truncate,
            where=where,
            trained=trained,
            noun="sentence",
            num_ends=num_ends,
        )

    def _in_order(self, lengths: np.ndarray, collate: Callable[..., Batch]) -> EvaluationBuckets:
        return EvaluationBuckets(lengths, collate, batch_size=self.eval_batch_size, boundaries=self._boundaries)

    @property
    def _end_id(self) -> int:
        return self.target_vocabulary.end_id

    def _set_vocabularies(self, source: Vocabulary, target: Vocabulary) -> None:
        """Keeps the vocabularies, fixes the model's sizes, and keeps it as a pure function of its parameters."""
        self.source_vocabulary, self.target_vocabulary = source, target

        def make(config: Mapping[str, Any]) -> Seq2Seq:
            return self._make_model(config, len(source), len(target), jax.random.key(0), abstract=True)

        self._sized_config = fit_width(self._model_config, make)
        self.notes += width_notes(self._model_config, self._sized_config)
        self._apply = functional(make(self._sized_config))[0]

    def _make_model(
        self,
        config: Mapping[str, Any],
        source_size: int,
        target_size: int,
        key: PRNGKeyArray,
        *,
        abstract: bool = False,
    ) -> Seq2Seq:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            MODELS,
            config,
            where="model",
            parts={"cell": CELLS, "attention": ATTENTIONS, "dropout": DropoutRates},
            source_size=source_size,
            target_size=target_size,
            joint=self.joint_vocabulary,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))


def _with_gradient_of(minimized: Array, value: Array) -> Array:
    return minimized + jax.lax.stop_gradient(value - minimized)
