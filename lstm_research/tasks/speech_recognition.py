"""Speech recognition: from recordings, or features of them, to transcripts."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lstm_research.common.arrays import Array, Params, PRNGKeyArray
from lstm_research.common.build import build, build_section
from lstm_research.common.errors import UserError, check_at_least, unknown
from lstm_research.data.buckets import EvaluationBuckets, TrainingBuckets
from lstm_research.data.sentences import make_boundaries
from lstm_research.data.speech.recordings import SPEECH_DATASETS
from lstm_research.data.speech.utterances import EncodedUtterances, collate_utterances, written_alike
from lstm_research.data.vocabulary import VOCABULARIES, Vocabulary, from_json
from lstm_research.decoding.fusion import Fusion
from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.transcripts import Transcript, transcribed
from lstm_research.models.acoustic import ACOUSTIC_MODELS
from lstm_research.models.budget import fit_width, width_notes, with_width
from lstm_research.models.cells import CELLS
from lstm_research.models.layers import DropoutRates, functional
from lstm_research.models.layers.attention import ATTENTIONS
from lstm_research.models.layers.features import FEATURES, Features, Statistics
from lstm_research.models.layers.spec_augment import SpecAugment
from lstm_research.tasks.recognisers import RECOGNISERS, Recognise
from lstm_research.tasks.speech_metrics import ERROR_RATES, error_rates
from lstm_research.tasks.task import Sums, Task
from lstm_research.tasks.warm_start import source_vocabulary

NUM_SAMPLES = 20
"""Transcripts that a finished run keeps to look at."""


class SpeechRecognition(Task):
    """The task of writing down what is said in a recording.

    Features are computed once, when the data is loaded. Batches hold utterances of similar length, see
    `lstm_research.data.buckets`; nothing is carried from one to the next.

    Attributes:
      vocabulary: the symbols of transcripts and their numbers, once loaded; the end of a line is the blank.
      features: what is computed of a recording, once loaded.
      statistics: of the training data, where features are normalised by them.
      apply: the model as a pure function of its parameters, once loaded.
      model_name: which kind of model.
      reduction: frames that an output of its encoder stands for.
      bidirectional: whether it reads both ways.
      decoder: how transcripts are found.
      decoders: all that this run's model has, by name.
      fusion: a language model that shares in the search; set it to use one.
      scored_splits: the splits that are recognised as a whole; of validation otherwise `num_scored` utterances are.
      notes: what is worth saying about the data, once loaded.
      file_names: of what a run stores in its workdir, see `files`.
    """

    file_names: ClassVar[tuple[str, ...]] = ("vocabulary.json", "dataset.json", "features.json")
    loaded: ClassVar[tuple[str, ...]] = ("_dataset", "_utterances")
    higher_is_better: ClassVar[frozenset[str]] = frozenset()
    unit: ClassVar[str] = "symbols"

    def __init__(
        self,
        *,
        dataset: Mapping[str, Any],
        vocabulary: Mapping[str, Any],
        model: Mapping[str, Any],
        features: Mapping[str, Any],
        decoder: Mapping[str, Any],
        batch_size: int,
        max_length: int,
        bucket_boundaries: tuple[int, ...] = (),
        eval_batch_size: int = 50,
        lower_case: bool = False,
        punctuation: bool = True,
        spec_augment: Mapping[str, Any] | None = None,
        speeds: tuple[float, ...] = (1.0,),
        num_scored: int = 0,
        files: Mapping[str, bytes] | None = None,
    ):
        """Checks the config; reads no data unless it comes from `files`.

        Args:
          dataset: the config's section.
          vocabulary: the config's section.
          model: the config's section.
          features: `name` of `FEATURES` with its keywords.
          decoder: `name` of a decoder of the model with its keywords: how transcripts are found.
          batch_size: utterances of a training batch.
          max_length: frames of the longest utterance; longer ones are refused.
          bucket_boundaries: utterances are padded to the smallest of these lengths that holds them, or to `max_length`.
          eval_batch_size: utterances of a batch in evaluation.
          lower_case: transcripts are learnt and scored in lower case.
          punctuation: transcripts are learnt and scored with their signs.
          spec_augment: keywords of `SpecAugment`, in training; None for none.
          speeds: every training recording is heard at each of these speeds; waveforms only. Ko et al., "Audio
            Augmentation for Speech Recognition", 2015.
          num_scored: utterances of the validation split that are recognised at each validation; none if 0. The test
            split is recognised as a whole, and so is every split that `lstm-research evaluate` is asked for.
          files: what `files` returned for the run that is continued or used.
        """
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "max_length": max_length}
        check_at_least(1, "task", **sizes)
        check_at_least(0, "task", num_scored=num_scored)
        if not speeds or any(not 0.5 <= speed <= 2 for speed in speeds) or len(set(speeds)) < len(speeds):
            raise UserError(f"task.speeds must be different numbers from 0.5 to 2, got {speeds}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.max_length = max_length
        self.lower_case, self.punctuation = lower_case, punctuation
        self.speeds, self.num_scored = tuple(speeds), num_scored
        self.spec_augment = (
            None if spec_augment is None else build_section(SpecAugment, spec_augment, where="task.spec_augment")
        )
        self._boundaries = make_boundaries(bucket_boundaries, max_length)
        self._dataset_config, self._features_config = dataset, features
        self._vocabulary_config = build(VOCABULARIES, vocabulary, where="vocabulary")
        self._vocabulary_name = vocabulary["name"]
        self._model_config = model
        if model.get("name") not in RECOGNISERS:
            raise unknown("model.name", model.get("name"), RECOGNISERS)
        self.decoders = RECOGNISERS[model["name"]].decoders
        self.decoder: Any = build(self.decoders, decoder, where="task.decoder")
        self.fusion: Fusion | None = None
        self._utterances: dict[str, EncodedUtterances] = {}
        self._recognisers: dict[Any, Recognise] = {}
        self._files = files
        self.statistics: Statistics | None = None
        # An impossible model is refused before data is read.
        sized = with_width(model, embedding=False)
        encoder = self._make_model(sized, 2, 3, 2, jax.random.key(0), abstract=True).encoder
        self.model_name = model["name"]
        self.reduction, self.bidirectional = encoder.reduction, encoder.bidirectional
        if files is None:
            self._set_features(self._dataset.sample_rate, self._dataset.num_features)
        else:
            self.vocabulary: Vocabulary = from_json(files["vocabulary.json"].decode())
            state = json.loads(files["features.json"])
            self._set_features(state["sample_rate"], state["num_features"])
            if state["statistics"] is not None:
                self.statistics = Statistics(*map(tuple, state["statistics"]))
            self._set_apply()

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset; made at first use, because a finished run serves without the files it was trained on."""
        return build(SPEECH_DATASETS, self._dataset_config, where="dataset")

    def load(self, source_files: Mapping[str, bytes] | None = None) -> None:
        """Reads the data, fits the vocabulary (or takes it over), computes all features and makes all batches once."""
        examples = self._dataset.examples("train")
        lines = [self._written(each.transcript) for each in examples]
        if examples and not any(lines):
            raise UserError(
                f"split 'train': all {len(lines):,} transcripts are empty{self._emptied}, so there is nothing to "
                "learn; check dataset.train and its column of transcripts"
            )
        if source_files is None:
            self.vocabulary = self._vocabulary_config.fit(["\n".join([*lines, ""])])
        else:
            self.vocabulary = source_vocabulary(source_files, self._vocabulary_name)
        self.statistics = self.features.fit([each.signal for each in examples])
        self._set_apply()
        self.notes = (*self.notes, *self._dataset.notes)
        self.train_batches(seed=0)
        for split in self.splits()[1:]:
            self.eval_batches(split)
            self._check_scored(split)

    def splits(self) -> tuple[str, ...]:
        """Returns the names of the splits, "train" first."""
        return self._dataset.splits

    def train_batches(self, seed: int) -> TrainingBuckets:
        """Returns the training batches; item k is the batch of step k. See `collate_utterances`."""
        utterances = self._encoded("train", self.speeds)
        return TrainingBuckets(
            utterances.lengths,
            functools.partial(collate_utterances, utterances),
            batch_size=self.batch_size,
            boundaries=self._boundaries,
            seed=seed,
        )

    def eval_batches(self, split: str) -> EvaluationBuckets:
        """Returns batches that hold every utterance of a split exactly once, at its own speed."""
        return self._in_order(self._encoded(split), self.eval_batch_size)

    def init(self, key: PRNGKeyArray) -> Params:
        """Draws the model's parameters."""
        return functional(self._make_model(self._sized_config, *self._sizes, key))[1]

    def loss(
        self, params: Params, batch: Mapping[str, Array], carry: Any, key: PRNGKeyArray | None
    ) -> tuple[Array, Array, Sums, Any]:
        """Computes -log p(transcript | frames) in nats, summed; it is divided by the symbols of the transcripts.

        An empty transcript counts as one symbol, so that a batch of nothing else has a weight.

        Args:
          params: of the model.
          batch: see `collate_utterances`.
          carry: ().
          key: of dropout and SpecAugment; None in evaluation.
        """
        frames, lengths, valid = batch["frames"], batch["lengths"], batch["weights"] > 0
        if key is not None and self.spec_augment is not None:
            augment_key, key = jax.random.split(key)
            frames = self.spec_augment(augment_key, frames, lengths, num_bands=self.features.num_bands)
        losses = self.apply(
            params,
            jnp.swapaxes(frames, 0, 1),
            lengths,
            batch["labels"].T,
            batch["label_lengths"],
            key=key,
            method="losses",
        )
        weight = jnp.sum(jnp.where(valid, jnp.maximum(batch["label_lengths"], 1), 0)).astype(losses.dtype)
        return jnp.sum(jnp.where(valid, losses, 0)), weight, {}, carry

    def metrics(self, sums: Mapping[str, tuple[Any, float]]) -> dict[str, float]:
        """Returns the metrics to report: the loss in nats per symbol."""
        return {name: total / count if count else math.nan for name, (total, count) in sums.items()}

    def score_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the error rates for the splits of which something is to be recognised."""
        scored = split in self.scored_splits or (split == "valid" and self.num_scored)
        return ERROR_RATES if scored else ()

    def scores(self, params: Params, split: str, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Returns the error rates, see `error_rates`; None if `should_stop` said so."""
        if not self.score_names(split):
            return {}
        utterances = self._scored(split)
        found = self._recognise(params, utterances, should_stop)
        return None if found is None else error_rates([best.text for best, *_ in found], utterances.transcripts)

    def files(self) -> dict[str, bytes]:
        """Returns what is stored in a workdir so that the run can be used without its data, by file name."""
        state = {
            "sample_rate": self.features.sample_rate,
            "num_features": self.features.num_features,
            "statistics": self.statistics,
        }
        contents = (self.vocabulary.to_json(), self._dataset.record(), json.dumps(state, indent=1) + "\n")
        return {name: content.encode() for name, content in zip(self.file_names, contents, strict=True)}

    def samples(self, params: Params) -> dict[str, str]:
        """Returns some transcripts of the last split beside what was recognised."""
        utterances = self._encoded(self.splits()[-1])
        utterances = utterances.part(slice(None, None, -(-len(utterances.frames) // NUM_SAMPLES)))
        found = self._recognise(params, utterances, lambda: False)
        assert found is not None  # nothing asks it to stop
        lines = [
            f"reference:  {reference}\nrecognised: {best.text}\n"
            for reference, (best, *_) in zip(utterances.transcripts, found, strict=True)
        ]
        return {"transcripts.txt": "\n".join(lines)}

    def transcribe(
        self, params: Params, signals: Sequence[np.ndarray], names: Sequence[str] | None = None, *, seed: int = 0
    ) -> list[list[Transcript]]:
        """Recognises recordings.

        Args:
          params: of the model.
          signals: waveforms int16 `[N]` at the sample rate of `features`, or features float32 `[T, D]`.
          names: of the recordings, for messages; None: their numbers.
          seed: of what the decoder draws.

        Returns:
          For each recording what was found, the best first.

        Raises:
          UserError: a recording is too long, or is none.
        """
        frames = self.features.extract(signals, self.statistics)
        names = [f"number {number}" for number in range(1, len(frames) + 1)] if names is None else names
        lengths = self._limited(
            frames, names, "the input", "divide them, or, with a model that reads forward, predict with --streaming"
        )
        empty = [np.zeros(0, np.int32)] * len(frames)
        utterances = EncodedUtterances(frames, empty, lengths, np.zeros(len(frames), np.int32), [""] * len(frames))
        found = self._recognise(params, utterances, lambda: False, seed)
        assert found is not None  # nothing asks it to stop
        return found

    def recogniser(self) -> Recognise:
        """Returns what decodes the model as `decoder` says, made once: it compiles once for every bucket."""
        if self.decoder not in self._recognisers:
            make = RECOGNISERS[self.model_name].make
            self._recognisers[self.decoder] = make(self.decoder, self.apply, self.blank_id)
        return self._recognisers[self.decoder]

    def describe(self, labelling: Labelling) -> Transcript:
        """Returns what was recognised in words, with times."""
        return transcribed(labelling, self.vocabulary, self.step_seconds)

    @property
    def blank_id(self) -> int:
        """The number of the blank, and of the end."""
        return self.vocabulary.end_id

    @property
    def frame_seconds(self) -> float:
        """From one frame to the next; in frames of the data where nobody knows how long these are."""
        return self.features.shift / (self.features.sample_rate or 1)

    @property
    def step_seconds(self) -> float:
        """From one output of the encoder to the next."""
        return self.frame_seconds * self.reduction

    def _scored(self, split: str) -> EncodedUtterances:
        """Returns the utterances of a split that are recognised for its error rates."""
        utterances = self._encoded(split)
        return utterances if split in self.scored_splits else utterances.part(slice(self.num_scored))

    def _check_scored(self, split: str) -> None:
        """Raises a `UserError` if a split is to have error rates and nothing is said there."""
        if not self.score_names(split) or any(transcripts := self._scored(split).transcripts):
            return
        way_out = "raise it, set it to 0, or " if split not in self.scored_splits else ""
        which = f"the first {len(transcripts):,} (task.num_scored)" if way_out else f"all {len(transcripts):,}"
        raise UserError(
            f"split {split!r}: {which} transcripts are empty{self._emptied}, so there is no word error rate; {way_out}"
            f"give dataset.{split} recordings in which something is said"
        )

    @property
    def _emptied(self) -> str:
        return "" if self.punctuation else " (without their signs: task.punctuation=False)"

    def _recognise(
        self, params: Params, utterances: EncodedUtterances, should_stop: Callable[[], bool], seed: int = 0
    ) -> list[list[Transcript]] | None:
        params = jax.device_put(params)
        size = max(1, min(self.eval_batch_size, len(utterances.frames)))
        batches = self._in_order(utterances, size)
        found: list[list[Transcript]] = [[] for _ in utterances.frames]
        for number in range(len(batches)):
            if should_stop():
                return None
            batch = batches[number]
            # Rows that only fill the batch are of no length, so that nothing is searched there.
            lengths = np.where(batch["weights"] > 0, batch["lengths"], 0).astype(np.int32)
            indices = batches.order[number * size : (number + 1) * size]
            labellings = self.recogniser()(
                params, batch["frames"], lengths, self.fusion, np.resize(indices, size), seed
            )
            for row, index in enumerate(indices.tolist()):
                found[index] = [self.describe(each) for each in labellings[row]]
        return found

    def _written(self, transcript: str) -> str:
        return written_alike(transcript, lower_case=self.lower_case, punctuation=self.punctuation)

    def _encoded(self, split: str, speeds: tuple[float, ...] = (1.0,)) -> EncodedUtterances:
        """Returns the utterances of a split with their features, computed once.

        Raises:
          UserError: the data is not the data that the run was trained with, or does not fit the config.
        """
        key = f"{split} {speeds}"
        if key not in self._utterances:
            if self._files is not None and not self._utterances:
                self._dataset.check_record(self._files["dataset.json"].decode())
            examples = self._dataset.examples(split)
            if not examples:
                raise UserError(f"split {split!r} of the dataset has no examples")
            where, names = f"split {split!r}", [each.name for each in examples]
            transcripts = [self._written(each.transcript) for each in examples]
            labels = []
            for name, transcript in zip(names, transcripts, strict=True):
                try:
                    labels.append(self.vocabulary.encode_line(transcript))
                except UserError as error:
                    raise UserError(f"{where}, {name}: {error}") from error
            signals = [each.signal for each in examples]
            frames = [each for speed in speeds for each in self.features.extract(signals, self.statistics, speed=speed)]
            utterances = EncodedUtterances(
                frames,
                labels * len(speeds),
                self._limited(frames, names, where, "raise it, or leave them out"),
                np.array([len(each) for each in labels] * len(speeds), np.int32),
                transcripts * len(speeds),
            )
            self._check_alignments(utterances, names, where)
            self._utterances[key] = utterances
        return self._utterances[key]

    def _limited(self, frames: Sequence[np.ndarray], names: Sequence[str], where: str, way_out: str) -> np.ndarray:
        """Returns the lengths of utterances, of which none may be longer than `max_length`.

        Args:
          frames: of each utterance, once for each speed it is heard at.
          names: of the utterances.
          where: they come from.
          way_out: of the message.
        """
        lengths = np.array([len(each) for each in frames], np.int32)
        if len(too_long := np.flatnonzero(lengths > self.max_length)):
            raise UserError(
                f"{where}: {_count(too_long, names)} longer than task.max_length={self.max_length} frames (the longest "
                f"has {lengths.max():,}), the first {names[too_long[0] % len(names)]}; {way_out}"
            )
        return lengths

    def _check_alignments(self, utterances: EncodedUtterances, names: Sequence[str], where: str) -> None:
        """Raises a `UserError` if there are too few frames for a transcript: its loss would be infinite."""
        outputs = -(-utterances.lengths // self.reduction)
        # A blank goes between two equal symbols in a row, see `frames_needed`.
        needed = np.array([len(each) + int((each[1:] == each[:-1]).sum()) for each in utterances.labels])
        if self.model_name != "ctc" and not self._model_config.get("ctc_weight"):
            needed = np.minimum(needed, self.model_name == "transducer")  # which writes any number of symbols at a step
        if len(short := np.flatnonzero(needed > outputs)):
            first = short[0]
            raise UserError(
                f"{where}: {_count(short, names)} too short for what is said, the first {names[first % len(names)]} "
                f"({needed[first]} steps are needed, {outputs[first]} are there); lower model.reductions or "
                "task.features.stride, or leave them out"
            )

    def _in_order(self, utterances: EncodedUtterances, batch_size: int) -> EvaluationBuckets:
        return EvaluationBuckets(
            utterances.lengths,
            functools.partial(collate_utterances, utterances),
            batch_size=batch_size,
            boundaries=self._boundaries,
        )

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.features.size, len(self.vocabulary), self.blank_id

    def _set_features(self, sample_rate: int | None, num_features: int | None) -> None:
        self.features: Features = build(
            FEATURES,
            self._features_config,
            where="task.features",
            sample_rate=sample_rate,
            num_features=num_features,
        )
        if self.speeds != (1.0,) and sample_rate is None:
            raise UserError("task.speeds needs waveforms, and this dataset has ready-made features; leave it out")
        if self.spec_augment is not None and self.features.normalize == "none":
            raise UserError(
                "task.spec_augment sets features to zero, which means nothing with task.features.normalize='none'; set "
                "that to 'utterance' or 'global', or leave task.spec_augment out"
            )

    def _make_model(
        self,
        config: Mapping[str, Any],
        num_features: int,
        vocabulary_size: int,
        blank_id: int,
        key: PRNGKeyArray,
        *,
        abstract: bool = False,
    ) -> Any:
        """Builds the model; without arrays if `abstract`."""
        make = functools.partial(
            build,
            ACOUSTIC_MODELS,
            config,
            where="model",
            parts={"cell": CELLS, "attention": ATTENTIONS, "dropout": DropoutRates},
            num_features=num_features,
            vocabulary_size=vocabulary_size,
            blank_id=blank_id,
        )
        if abstract:
            return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=key)))
        return make(rngs=nnx.Rngs(params=key))

    def _set_apply(self) -> None:
        """Fixes the model's sizes, and keeps it as a pure function of its parameters."""

        def make(config: Mapping[str, Any]) -> Any:
            return self._make_model(config, *self._sizes, jax.random.key(0), abstract=True)

        self._sized_config = fit_width(self._model_config, make, embedding=False)
        self.notes += width_notes(self._model_config, self._sized_config)
        self.apply = functional(make(self._sized_config))[0]


def _count(found: np.ndarray, names: Sequence[str]) -> str:
    """Returns how many utterances there are among all, in words; each counts once, at however many speeds."""
    return f"{len(np.unique(found % len(names))):,} of {len(names):,} utterances are"
