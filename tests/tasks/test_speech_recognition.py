"""The recognition task: losses, batches, transcripts with times, streams."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from knobs.speech_recognition import BASE, SPELL, TRANSDUCER

from lstm_research.common.errors import UserError
from lstm_research.data.speech.utterances import written_alike
from lstm_research.decoding.prefixes import Labelling
from lstm_research.decoding.transcripts import Transcript
from lstm_research.models.layers.features import Given
from lstm_research.tasks import speech_recognition
from lstm_research.tasks.speech_metrics import ERROR_RATES, error_rates
from lstm_research.tasks.speech_stream import SpeechStream
from lstm_research.training.evaluation import Evaluator
from lstm_research.training.experiment import Experiment

RATE = 2000
TEXTS = {"train": ("to be", "or not", "not to be or", "bee"), "valid": ("be to", ""), "test": ("or", "be not")}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has recordings and their tables; shapes are not checked, as in production."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, texts in TEXTS.items():
        lines = ["path,transcript"]
        for number, text in enumerate(texts):
            soundfile.write(f"{split}{number}.wav", rng.uniform(-0.5, 0.5, 700 + 150 * number), RATE)
            lines.append(f"{split}{number}.wav,{text}")
        Path(f"{split}_speech.csv").write_text("\n".join(lines) + "\n")


def make(changes: dict[str, Any] | None = None, /, **sections: Any) -> Experiment:
    config = json.loads(json.dumps(BASE))
    for key, value in (changes or {}).items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    for name, values in sections.items():
        config[name] |= values
    return Experiment.from_config(config)


@pytest.mark.parametrize("model", [{}, TRANSDUCER, SPELL], ids=["ctc", "transducer", "spell"])
@pytest.mark.usefixtures("unchecked_shapes")
class TestAllModels:
    def test_loss_does_not_depend_on_batches(self, model: dict[str, Any]) -> None:
        found = []
        for size, boundaries in ((1, []), (3, [40, 50])):
            experiment = make(model, task={"eval_batch_size": size, "bucket_boundaries": boundaries})
            params = experiment.init_state().params
            metrics = Evaluator(experiment.task).evaluate(params, "test")
            found.append(metrics)
        assert found[0] == pytest.approx(found[1], rel=1e-5)

    def test_loss_is_that_of_each_transcript_over_all_symbols(self, model: dict[str, Any]) -> None:
        task = (experiment := make(model)).task
        params = experiment.init_state().params
        total = 0.0
        for index, text in enumerate(TEXTS["test"]):
            signal = soundfile.read(f"test{index}.wav", dtype="int16")[0]
            (frames,) = task.features.extract([signal], task.statistics)
            labels = task.vocabulary.encode_line(text)
            lengths = (np.array([len(frames)]), np.array([len(labels)]))
            losses = task.apply(params, frames[:, None], lengths[0], labels[:, None], lengths[1], method="losses")
            total += float(losses[0])
        metrics = Evaluator(task).evaluate(params, "test")
        assert metrics is not None
        assert metrics["loss"] == pytest.approx(total / sum(map(len, TEXTS["test"])), rel=1e-5)

    def test_an_utterance_is_recognised_alike_alone_and_in_company(self, model: dict[str, Any]) -> None:
        experiment = make(model)
        params = experiment.init_state().params
        signals = [soundfile.read(f"train{index}.wav", dtype="int16")[0] for index in range(4)]
        together = experiment.task.transcribe(params, signals)
        for signal, (best, *_) in zip(signals, together, strict=True):
            ((alone, *_),) = experiment.task.transcribe(params, [signal])
            assert alone.symbols == best.symbols
            assert alone.steps == best.steps
            assert alone.score == pytest.approx(best.score, rel=1e-4, abs=1e-4)

    def test_a_run_needs_nothing_but_its_files(self, model: dict[str, Any]) -> None:
        experiment = make(model, task={"features": {"name": "log_mel", "num_mels": 4, "normalize": "global"}})
        params, files = experiment.init_state().params, experiment.task.files()
        signal = soundfile.read("test1.wav", dtype="int16")[0]
        expected = experiment.task.transcribe(params, [signal])
        for file in Path().glob("*_speech.csv"):
            file.unlink()
        again = Experiment.from_config(experiment.config, files=files)
        assert again.task.transcribe(params, [signal]) == expected
        assert again.task.statistics == experiment.task.statistics

    def test_a_recording_without_a_frame_is_recognised_too(self, model: dict[str, Any]) -> None:
        experiment = make(model)
        ((best, *_), _) = experiment.task.transcribe(
            experiment.init_state().params, [np.zeros(9, np.int16), np.ones(700, np.int16)]
        )
        assert len(best.steps) == len(best.symbols)

    def test_an_empty_transcript_counts_as_one_symbol(self, model: dict[str, Any]) -> None:
        Path("valid_speech.csv").write_text("path,transcript\nvalid1.wav,\n")
        experiment = make(model)
        metrics = Evaluator(experiment.task).evaluate(experiment.init_state().params, "valid")
        assert metrics is not None
        assert math.isfinite(metrics["loss"])  # and there are batches of nothing else


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("unchecked_shapes")
# With frames skipped, ten pieces of 47 samples hold the frames of a block, and do not reach the next block.
@pytest.mark.parametrize("piece", [47, 200, 5000])
@pytest.mark.parametrize("model", [{}, TRANSDUCER], ids=["ctc", "transducer"])
@pytest.mark.parametrize(
    "shape", [{}, {"stack": 3, "stride": 2}, {"stride": 3, "frame_seconds": 0.02}], ids=["frames", "stacked", "skipped"]
)
def test_a_stream_equals_the_whole(model: dict[str, Any], piece: int, shape: dict[str, int]) -> None:
    features = {"name": "log_mel", "num_mels": 4, "normalize": "global", **shape}
    experiment = make(model, task={"features": features, "max_length": 400})
    task = experiment.task
    # Larger weights than at the start, so that there is something to recognise.
    params = jax.tree.map(lambda leaf: 3 * leaf, experiment.init_state().params)
    signal = np.random.default_rng(1).integers(-9000, 9000, 3777).astype(np.int16)
    ((whole,),) = task.transcribe(params, [signal])
    assert len(whole.symbols) > 3
    stream = SpeechStream(task, params)
    stream.push(signal[::-1])  # of another recording
    stream.end()
    stream.reset()
    before = ""
    for first in range(0, len(signal), piece):
        buffer = signal[first : first + piece].copy()
        text = stream.push(buffer)
        buffer[:] = 9000  # it is the caller's
        assert text.startswith(before)  # what has been written stays
        before = text
    found = stream.end()
    assert found.symbols == whole.symbols
    assert found.steps == whole.steps
    assert found.words == whole.words
    assert stream.text == found.text == whole.text
    assert found.score == pytest.approx(whole.score, rel=1e-4)
    assert stream._step._cache_size() == 1  # the second recording needs no other program


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.bidirectional": True}, ["bidirectional", "forward"]),
        ({"task.features": {"name": "log_mel", "num_mels": 4}}, ["task.features.normalize", "global"]),
        (SPELL, ["attention", "ctc"]),
    ],
)
def test_what_cannot_be_streamed_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    base: dict[str, Any] = {"task.features": {"name": "log_mel", "num_mels": 4, "normalize": "none"}}
    experiment = make({**base, **changes})
    with pytest.raises(UserError) as caught:
        SpeechStream(experiment.task, experiment.init_state().params)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.usefixtures("unchecked_shapes")
def test_times_of_words() -> None:
    task = make().task
    symbols = tuple(int(i) for i in task.vocabulary.encode_line("to  be"))
    found = task.describe(Labelling(symbols, (3, 5, 6, 7, 9, 12), -1.0))
    hop = 0.01
    assert [word.text for word in found.words] == ["to", "be"]
    assert [(word.begin, word.end) for word in found.words] == [
        pytest.approx((3 * hop, 6 * hop)),
        pytest.approx((9 * hop, 13 * hop)),
    ]
    task.features = Given(sample_rate=None, num_features=4, stride=3)
    in_frames = task.describe(Labelling(symbols, (3, 5, 6, 7, 9, 12), -1.0))
    assert [(word.begin, word.end) for word in in_frames.words] == [(9, 18), (27, 39)]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": {"max_length": 40}}, ["split 'train'", "task.max_length=40", "3 of 4", "train1.wav"]),
        (
            {"task": {"max_length": 55, "speeds": (1.0, 0.9)}},
            ["split 'train'", " 1 of 4", "has 62", "the first train3.wav"],
        ),
        ({"model": {"reductions": (8,)}}, ["split 'train'", "steps", "train2.wav", "model.reductions"]),
        (
            {"task": {"features": {"name": "log_mel", "num_mels": 4, "normalize": "none"}, "spec_augment": {}}},
            ["normalize"],
        ),
        ({"task": {"speeds": (1.0, 1.0)}}, ["task.speeds"]),
        ({"task": {"speeds": (3.0,)}}, ["task.speeds"]),
        ({"task": {"features": {"name": "given"}}}, ["waveforms", "log_mel"]),
        ({"task": {"decoder": {"name": "gredy"}}}, ["task.decoder.name", "greedy"]),
        ({"task": {"spec_augment": {"num_tme_masks": 1}}}, ["task.spec_augment.num_tme_masks", "num_time_masks"]),
        ({"vocabulary": {"unknown": "error"}}, ["valid", "vocabulary"]),
    ],
)
def test_wrong_input_is_one_line(changes: dict[str, Any], words: list[str]) -> None:
    if "vocabulary" in changes:
        Path("valid_speech.csv").write_text("path,transcript\nvalid0.wav,zebra\n")
    with pytest.raises(UserError) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
def test_scores_compare_with_the_references() -> None:
    experiment = make()
    params = experiment.init_state().params
    scores = experiment.task.scores(params, "test", lambda: False)
    signals = [soundfile.read(f"test{index}.wav", dtype="int16")[0] for index in range(2)]
    texts = [best.text for best, *_ in experiment.task.transcribe(params, signals)]
    assert scores == error_rates(texts, TEXTS["test"])
    assert experiment.task.scores(params, "test", lambda: True) is None


def say(text: str) -> list[Transcript]:
    return [Transcript(text, 0.0, (), (), ())]


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_a_vocabulary_loses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("test_speech.csv").write_text("path,transcript\ntest0.wav,To a zebra\ntest1.wav,or\n")
    task = make(vocabulary={"name": "words", "unknown": "replace", "lower_case": True}).task

    def all_right(params: Any, utterances: Any, should_stop: Any) -> list[list[Transcript]]:
        return [say(task.vocabulary.decode(each)) for each in utterances.labels]

    monkeypatch.setattr(task, "_recognise", all_right)
    scores = task.scores({}, "test", lambda: False)
    assert scores["wer"] == scores["substitutions"] == 3 / 4  # to, <unk>, <unk>; lower_case is the vocabulary's here
    assert "reference:  To a zebra" in task.samples({})["transcripts.txt"]


@pytest.mark.usefixtures("unchecked_shapes")
def test_validation_recognises_some_and_a_wanted_split_all(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(task={"num_scored": 1}).task
    found = []

    def recognise(params: Any, utterances: Any, should_stop: Any) -> list[list[Transcript]]:
        found.append(len(utterances.frames))
        return [say("to be")] * found[-1]

    monkeypatch.setattr(task, "_recognise", recognise)
    for wanted in (("test",), ("train",), ("valid",)):
        task.scored_splits = wanted
        for split in ("valid", *wanted):
            assert task.scores({}, split, lambda: False).keys() == set(task.score_names(split)) == set(ERROR_RATES)
    assert found == [1, 2, 1, 4, 2, 2]
    assert not make().task.score_names("valid")


@pytest.mark.usefixtures("unchecked_shapes")
def test_samples_recognise_no_more_than_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(dataset={"test": "train_speech.csv"}).task
    monkeypatch.setattr(speech_recognition, "NUM_SAMPLES", 2)
    found = []

    def recognise(params: Any, utterances: Any, should_stop: Any) -> list[list[Transcript]]:
        found.extend(utterances.transcripts)
        return [say(text) for text in utterances.transcripts]

    monkeypatch.setattr(task, "_recognise", recognise)
    text = task.samples({})["transcripts.txt"]
    assert found == ["to be", "not to be or"]
    assert text == "\n".join(f"reference:  {said}\nrecognised: {said}\n" for said in found)


@pytest.mark.usefixtures("unchecked_shapes")
def test_rows_that_fill_a_batch_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make(task={"eval_batch_size": 3})
    task, params = experiment.task, experiment.init_state().params
    recognise, lengths = task.recogniser(), []

    def counted(params: Any, frames: Any, found: Any, *rest: Any) -> Any:
        lengths.append(found.tolist())
        return recognise(params, frames, found, *rest)

    monkeypatch.setattr(task, "recogniser", lambda: counted)
    signals = [soundfile.read(f"train{index}.wav", dtype="int16")[0] for index in range(4)]
    assert len(task.transcribe(params, signals)) == 4
    assert [0 in each for each in lengths] == [False, True]
    assert lengths[1][1:] == [0, 0]
    task.transcribe(params, signals[:1])
    assert len(lengths[2]) == 1


@pytest.mark.usefixtures("unchecked_shapes")
def test_draws_depend_on_the_seed_and_the_place_in_the_input() -> None:
    decoder = {"name": "sample", "max_length_ratio": 0.1, "max_length_offset": 5}
    experiment = make({**SPELL, "task.decoder": decoder, "task.eval_batch_size": 1})
    params, signal = experiment.init_state().params, soundfile.read("train3.wav", dtype="int16")[0]

    def drawn(seed: int) -> list[tuple[int, ...]]:
        return [best.symbols for best, *_ in experiment.task.transcribe(params, [signal] * 3, seed=seed)]

    assert len(set(drawn(1))) == 3  # each of them alone in its batch
    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bytes_that_are_no_text_are_shown_and_utterances_are_known_by_their_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make({"vocabulary": {"name": "bytes"}, "task.eval_batch_size": 3}).task
    asked = []

    def recognise(params: Any, frames: Any, lengths: Any, fusion: Any, indices: Any, seed: int) -> Any:
        asked.append((indices.tolist(), seed))
        return [[Labelling((0xC3, *b"b"), (0, 1), 0.0)]] * len(frames)

    monkeypatch.setattr(task, "recogniser", lambda: recognise)
    assert "recognised: \ufffdb\n".encode() in task.samples({})["transcripts.txt"].encode()
    asked.clear()
    task.transcribe({}, [np.ones(length, np.int16) for length in (500, 700, 900, 600)], seed=7)
    assert asked == [([2, 1, 3], 7), ([0, 0, 0], 7)]  # the longest first


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("split", "texts", "task", "words"),
    [
        ("valid", ["", "to"], {"num_scored": 1}, ["the first 1 (task.num_scored)", "raise it", "dataset.valid"]),
        ("test", ["", ""], {}, ["all 2 transcripts", "dataset.test"]),
        ("train", ["...", "!"], {"punctuation": False}, ["all 2 transcripts", "task.punctuation", "dataset.train"]),
    ],
)
def test_splits_in_which_nothing_is_said_are_refused_at_once(
    split: str, texts: list[str], task: dict[str, Any], words: list[str]
) -> None:
    lines = ["path,transcript", *(f"{split}{number}.wav,{text}" for number, text in enumerate(texts))]
    Path(f"{split}_speech.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as caught:
        make(task=task)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in [f"split '{split}'", *words]), str(caught.value)


@pytest.mark.usefixtures("unchecked_shapes")
def test_labels_are_padded_to_the_longest_of_their_bucket() -> None:
    task = make(task={"bucket_boundaries": [45], "batch_size": 1}).task
    batches = task.train_batches(0)
    found = {batch["frames"].shape[1]: batch["labels"].shape[1] for batch in (batches[step] for step in range(4))}
    lengths = task._encoded("train").lengths
    short = [text for text, length in zip(TEXTS["train"], lengths, strict=True) if length <= 45]
    assert found == {45: max(map(len, short)), 60: max(map(len, TEXTS["train"]))}
    assert found[45] < found[60]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("model", [{}, TRANSDUCER], ids=["ctc", "transducer"])
def test_a_recording_shorter_than_a_frame_is_refused_with_a_transcript_and_heard_without(model: dict[str, Any]) -> None:
    soundfile.write("short.wav", np.zeros(10), RATE)
    Path("valid_speech.csv").write_text("path,transcript\nvalid0.wav,to\nshort.wav,\n")
    experiment = make(model)
    metrics = Evaluator(experiment.task).evaluate(experiment.init_state().params, "valid")
    assert metrics is not None
    assert math.isfinite(metrics["loss"])
    Path("valid_speech.csv").write_text("path,transcript\nvalid0.wav,to\nshort.wav,be\n")
    with pytest.raises(UserError, match=r"split 'valid': 1 of 2 utterances are too short .* the first short.wav"):
        make(model)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_recording_that_is_too_long_is_named() -> None:
    experiment = make()
    long = np.zeros(2 * RATE, np.int16)
    params = experiment.init_state().params
    with pytest.raises(UserError, match=r"the input: 1 of 2 utterances .* the first number 2; .*--streaming"):
        experiment.task.transcribe(params, [long[:500], long])
    with pytest.raises(UserError, match=r"the first b.wav; "):
        experiment.task.transcribe(params, [long[:500], long], ["a.wav", "b.wav"])


@pytest.mark.usefixtures("unchecked_shapes")
def test_every_speed_is_heard() -> None:
    plain, varied = make().task, make(task={"speeds": (0.8, 1.0, 1.25), "max_length": 90}).task
    assert len(plain._encoded("train").frames) == 4
    assert len(varied._encoded("train", varied.speeds).frames) == 12
    assert len(varied._encoded("test").frames) == 2  # what is evaluated is as it is
    longer, same, shorter = (len(varied._encoded("train", varied.speeds).frames[4 * i]) for i in range(3))
    assert longer > same > shorter


@pytest.mark.parametrize(
    ("text", "lower_case", "punctuation", "expected"),
    [
        ("Ahoj,  světe!", True, False, "ahoj světe"),
        ("Ahoj,  světe!", False, True, "Ahoj, světe!"),
        ("don't 'stop' - now...", False, False, "don't stop now"),
        ("...", True, False, ""),
        ("č", True, True, "č"),
    ],
)
def test_transcripts_are_written_alike(text: str, lower_case: bool, punctuation: bool, expected: str) -> None:
    assert written_alike(text, lower_case=lower_case, punctuation=punctuation) == expected
