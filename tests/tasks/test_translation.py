"""Translation: the loss against NumPy, a toy language learnt, decoding against teacher forcing, BLEU, a run's files."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sacrebleu

from lstm_research.common.errors import UserError
from lstm_research.data.parallel_text import ParallelFiles
from lstm_research.decoding import DECODERS, BeamSearch, Greedy
from lstm_research.tasks import TASKS, MachineTranslation
from lstm_research.tasks.translation_metrics import corpus_scores

PAIRS = [" ".join(word) for n in (1, 2, 3, 4) for word in itertools.product("abc", repeat=n)]
"""All 120 sentences of up to 4 words; their translations are the words in reverse order, in capitals."""
HELD_OUT = PAIRS[5::6]
KEYS = [f"{split}_{side}" for split in ("train", "valid", "test") for side in ("source", "target")]


def translated(sentence):
    return " ".join(reversed(sentence.upper().split()))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Files of the toy language; the test split has two references, of which the first is right."""
    folder = tmp_path_factory.mktemp("reversal")
    train = [sentence for sentence in PAIRS if sentence not in HELD_OUT]
    texts = {f"{split}_source": lines for split, lines in {"train": train, "valid": HELD_OUT, "test": HELD_OUT}.items()}
    texts |= {f"{name[:-7]}_target": [translated(s) for s in lines] for name, lines in texts.items()}
    texts["other"] = ["C B A" for _ in HELD_OUT]
    for name, lines in texts.items():
        (folder / name).write_text("".join(line + "\n" for line in lines))
    paths = {key: str(folder / key) for key in KEYS}
    return {"name": "parallel_files", **paths, "test_target": (paths["test_target"], str(folder / "other"))}


def make_task(dataset, *, load=True, model=None, **options):
    options = {
        "dataset": dataset,
        "vocabulary": {"name": "words"},
        "decoder": {"name": "greedy"},
        "batch_size": 16,
        "eval_batch_size": 4,
        "max_length": 5,
        "bucket_boundaries": (3,),
        **options,
    }
    model = {
        "name": "seq2seq",
        "embedding_size": 8,
        "cell": {"name": "gru", "hidden_size": 8},
        "attention": {"name": "general"},
        **(model or {}),
    }
    task = MachineTranslation(model=model, **options)
    if load:
        task.load()
    return task


def varied(params):
    """Random parameters, so large that predictions are far from uniform."""
    return jax.tree.map(lambda p: 1.5 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def all_batches(batches):
    return [jax.tree.map(jnp.asarray, batches[k]) for k in range(len(batches))]


@pytest.fixture(scope="module")
def learnt(dataset):
    """The task and parameters that have learnt it, in seconds."""
    model = {"embedding_size": 16, "cell": {"name": "gru", "hidden_size": 32}, "tied": True, "share_embeddings": True}
    task = make_task(dataset, model=model, decoder={"name": "beam", "beam_size": 3})
    batches, optimizer = task.train_batches(seed=0), optax.adam(1e-2)

    @jax.jit
    def step(params, state, batch, key):
        def mean(params):
            loss, weight, _, _ = task.loss(params, batch, (), key)
            return loss / weight

        loss, gradient = jax.value_and_grad(mean)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    params = task.init(jax.random.key(0))
    state = optimizer.init(params)
    for k in range(400):
        params, state, _ = step(params, state, batches[k], jax.random.key(k))
    return task, params


def test_a_toy_language_is_learnt_exactly(learnt):
    task, params = learnt
    found = task.translate(params, HELD_OUT)
    assert [best.text for (best,) in found] == [translated(sentence) for sentence in HELD_OUT]
    assert task.scores(params, "test", lambda: False) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    # Attention is where the word is: the first of the translation on the last of the sentence.
    (best,) = task.translate(params, ["a b c"])[0]
    assert best.pieces == ("C", "B", "A")
    assert best.source_pieces == ("a", "b", "c")
    assert best.attention.shape == (3, 3)
    np.testing.assert_allclose(best.attention.sum(axis=1), 1, rtol=1e-5)
    assert best.score == best.log_prob > -0.3


@functools.cache
def model_of(task):
    """The model by itself, compiled."""
    return jax.jit(task._apply)


def teacher_forced(task, params, line, pieces):
    """The log-probability of every symbol of the vocabulary after every piece [T, V], and the attention [T, S]."""
    ids = [task.target_vocabulary.ids[piece] for piece in pieces]
    source, length = task.source_vocabulary.encode_line(line), len(pieces) + 1
    arrays = np.zeros((2, 24, 1), np.int32)  # one shape for all
    arrays[0, : len(source), 0] = source
    arrays[1, :length, 0] = [task.target_vocabulary.end_id, *ids]
    logits, attention = model_of(task)(params, arrays[0], np.array([len(source)], np.int32), arrays[1])
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    return log_probs[:length, 0], np.asarray(attention)[:length, 0, : len(source)]


def of_targets(task, log_probs, pieces):
    """Those of the pieces and the end."""
    ids = [task.target_vocabulary.ids[piece] for piece in pieces]
    return log_probs[np.arange(len(ids) + 1), [*ids, task.target_vocabulary.end_id]]


def test_log_probabilities_are_those_of_teacher_forcing(learnt):
    task, params = learnt
    lines = [*PAIRS[::20], "b a"]
    for decoder in (Greedy(), BeamSearch(beam_size=3, num_best=3), DECODERS["sample"](num_best=2)):
        found = task.translate(params, lines, decoder=decoder)
        for line, translations in zip(lines, found, strict=True):
            for each in translations:
                log_probs, attention = teacher_forced(task, params, line, each.pieces)
                assert each.log_prob == pytest.approx(of_targets(task, log_probs, each.pieces).sum(), abs=1e-4)
                np.testing.assert_allclose(each.attention, attention[:-1], atol=1e-5)


def test_translations_do_not_depend_on_the_other_lines(learnt):
    task, params = learnt
    lines = ["a b c", "", "b", "c a", "b b b", "a", "c c"]
    decoder = DECODERS["sample"](num_best=2)
    alone = [task.translate(params, [line], decoder=BeamSearch(beam_size=2, num_best=2))[0] for line in lines]
    together = task.translate(params, lines, decoder=BeamSearch(beam_size=2, num_best=2))
    for one, other in zip(alone, together, strict=True):
        assert [each.text for each in one] == [each.text for each in other]
        assert [each.score for each in one] == pytest.approx([each.score for each in other], abs=1e-5)
    assert together[1] == [("", 0.0, 0.0, (), (), None)]
    sampled = [task.translate(params, lines[:n], decoder=decoder, seed=3) for n in (3, 7)]
    assert [[e.text for e in each] for each in sampled[0]] == [[e.text for e in each] for each in sampled[1][:3]]
    assert task.translate(params, []) == []
    assert task.translate(params, ["", " "])[1][0].text == ""


def test_an_ensemble_of_equal_models_is_the_model(learnt):
    task, params = learnt
    for one, other in zip(task.translate(params, HELD_OUT), task.translate((params, params), HELD_OUT), strict=True):
        assert one[0].text == other[0].text
        assert one[0].log_prob == pytest.approx(other[0].log_prob, abs=1e-5)
    noisy = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(jax.random.key(1), p.shape), params)
    (best,) = task.translate((params, noisy), ["a b c"])[0]
    members = [teacher_forced(task, each, "a b c", best.pieces)[0] for each in (params, noisy)]
    probabilities = [np.exp(of_targets(task, each, best.pieces)) for each in members]
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    assert best.log_prob == pytest.approx(np.log(sum(probabilities) / 2).sum(), abs=1e-5)


def test_a_bucket_is_compiled_once(learnt):
    task, params = learnt
    decoder = BeamSearch(beam_size=2)
    task.translate(params, ["a b c", "a b"], decoder=decoder)
    decode = task._decode(decoder, 1)
    assert decode is task._decode(BeamSearch(beam_size=2), 1)
    before = decode._cache_size(), task._encode._cache_size()
    assert before[0] == 1
    for line in ("c", "a", "b b"):
        task.translate(params, [line, "a"], decoder=decoder)
    assert (decode._cache_size(), task._encode._cache_size()) == before
    task.translate(params, ["a b c a b"], decoder=decoder)
    assert decode._cache_size() == 2


def test_the_loss_is_the_cross_entropy_of_all_references(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    sums = np.zeros(3)
    for batch in all_batches(task.eval_batches("test")):
        loss, weight, extras, carry = jax.jit(task.loss)(params, batch, (), None)
        sums += [float(loss), float(weight), float(extras["accuracy"][0])]
        assert carry == ()
    expected = np.zeros(3)
    for sentence in HELD_OUT:
        for reference in (translated(sentence), "C B A"):
            pieces = reference.split()
            log_probs = teacher_forced(task, params, sentence, pieces)[0]
            correct = log_probs.max(axis=-1) == of_targets(task, log_probs, pieces)
            expected += [-of_targets(task, log_probs, pieces).sum(), len(pieces) + 1, correct.sum()]
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


def test_every_training_pair_is_in_one_row_of_an_epoch(dataset):
    task = make_task(dataset)
    batches = task.train_batches(seed=1)
    found = []
    for k in range(batches.batches_per_epoch):
        batch = batches[k]
        assert batch["source"].shape == batch["inputs"].shape == batch["targets"].shape == batch["weights"].shape
        for row in range(task.batch_size):
            n, m = batch["source_lengths"][row], int(batch["weights"][row].sum())
            if m:
                assert batch["inputs"][row, 0] == batch["targets"][row, m - 1] == task.target_vocabulary.end_id
                np.testing.assert_array_equal(batch["inputs"][row, 1:m], batch["targets"][row, : m - 1])
                source = task.source_vocabulary.decode(batch["source"][row, :n])
                found.append((source, task.target_vocabulary.decode(batch["targets"][row, : m - 1])))
    assert sorted(found) == sorted((s, translated(s)) for s in PAIRS if s not in HELD_OUT)


def test_smoothing_and_coverage_change_the_gradient_and_not_the_value(dataset):
    plain, smooth, covering = (
        make_task(dataset, **options) for options in ({}, {"label_smoothing": 0.2}, {"coverage_loss": 0.7})
    )
    params = varied(plain.init(jax.random.key(0)))
    batch = jax.tree.map(jnp.asarray, plain.train_batches(seed=0)[0])

    def value_and_gradient(task, key):
        return jax.jit(jax.value_and_grad(lambda p: task.loss(p, batch, (), key)[0]))(params)

    expected, gradient = value_and_gradient(plain, jax.random.key(0))
    source, inputs, targets, weights = (batch[name].T for name in ("source", "inputs", "targets", "weights"))

    def smoothed(params):
        log_probs = jax.nn.log_softmax(plain._apply(params, source, batch["source_lengths"], inputs)[0])
        labels = optax.smooth_labels(jax.nn.one_hot(targets, log_probs.shape[-1]), 0.2)
        return -jnp.sum(jnp.sum(labels * log_probs, axis=-1) * weights)

    def covered(params):
        logits, attention = plain._apply(params, source, batch["source_lengths"], inputs)
        again = sum(
            jnp.sum(jnp.minimum(attention[t], attention[:t].sum(axis=0)), axis=-1) * weights[t]
            for t in range(len(attention))
        )
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, targets, where=weights > 0
        ).sum() + 0.7 * jnp.sum(again)

    for task, minimized in ((smooth, smoothed), (covering, covered)):
        value, found = value_and_gradient(task, jax.random.key(0))
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, jax.jit(jax.grad(minimized))(params)
        )
        assert max(jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (found, gradient)), strict=True)) > 1e-3
        value, found = value_and_gradient(task, None)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, gradient)


def test_scheduled_sampling_is_off_in_evaluation_and_without_a_rate(dataset):
    plain, sampling = make_task(dataset), make_task(dataset, scheduled_sampling_rate=0.5)
    params = varied(plain.init(jax.random.key(0)))
    batch = jax.tree.map(jnp.asarray, plain.train_batches(seed=0)[0])
    losses = {
        (name, key is None): float(task.loss(params, batch, (), key)[0])
        for name, task in (("plain", plain), ("sampling", sampling))
        for key in (None, jax.random.key(0))
    }
    assert losses["plain", False] == pytest.approx(losses["plain", True], rel=1e-6)
    assert losses["sampling", True] == losses["plain", True]
    assert losses["sampling", False] != pytest.approx(losses["plain", False], rel=1e-3)


def test_the_files_of_a_run_give_the_same_task(dataset):
    task = make_task(dataset, joint_vocabulary=False)
    assert task.source_vocabulary != task.target_vocabulary
    files = task.files()
    assert set(files) == set(task.file_names)
    gone = {**dataset, "train_source": dataset["train_source"] + ".moved"}
    again = make_task(gone, joint_vocabulary=False, files=files, load=False)
    assert (again.source_vocabulary, again.target_vocabulary) == (task.source_vocabulary, task.target_vocabulary)
    params = varied(task.init(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, task.init(jax.random.key(0)), again.init(jax.random.key(0)))
    assert again.translate(params, ["a b"])[0][0].text == task.translate(params, ["a b"])[0][0].text
    with pytest.raises(UserError, match="train_source"):
        again.eval_batches("valid")
    joint = make_task(dataset)
    assert joint.source_vocabulary == joint.target_vocabulary


def test_changed_data_is_refused_where_it_is_read(dataset, tmp_path):
    files = make_task(dataset).files()
    (tmp_path / "other").write_text("a b\n" * len(HELD_OUT))
    task = make_task({**dataset, "valid_source": str(tmp_path / "other")}, files=files, load=False)
    with pytest.raises(UserError, match="changed"):
        task.eval_batches("valid")


def test_a_run_starts_from_another_of_the_same_model(dataset):
    task = make_task(dataset)
    source_params = varied(task.init(jax.random.key(1)))
    again = make_task(dataset, load=False)
    again.load(task.files())
    assert again.source_vocabulary == task.source_vocabulary
    found, line = again.warm_start(again.init(jax.random.key(0)), source_params)
    jax.tree.map(np.testing.assert_array_equal, found, source_params)
    assert line
    other = make_task(dataset, model={"embedding_size": 4})
    with pytest.raises(UserError, match=r"training\.init_from: .* is \[4, 24\] in this model and .*the section model"):
        other.warm_start(other.init(jax.random.key(0)), source_params)
    with pytest.raises(UserError, match=r"training\.init_from: that run has no vocabulary\.source\.json"):
        make_task(dataset, load=False).load({"vocabulary.json": b"{}"})
    with pytest.raises(UserError, match=r"vocabulary\.name is 'characters'"):
        make_task(dataset, vocabulary={"name": "characters"}, load=False).load(task.files())
    two = make_task(dataset, joint_vocabulary=False)
    with pytest.raises(UserError, match=r"task\.joint_vocabulary is True"):
        make_task(dataset, load=False).load(two.files())


def test_which_splits_are_scored(dataset, monkeypatch):
    none, some = make_task(dataset), make_task(dataset, num_scored=2)
    names = ("bleu", "chrf")
    assert [none.score_names(split) for split in none.splits()] == [(), (), names]
    assert [some.score_names(split) for split in some.splits()] == [(), names, names]
    params = some.init(jax.random.key(0))
    assert none.scores(params, "valid", lambda: False) == {}
    assert some.scores(params, "valid", lambda: True) is None
    read = []
    encode = some._encode_side
    monkeypatch.setattr(some, "_encode_side", lambda v, lines, *a, **k: read.append(lines) or encode(v, lines, *a, **k))
    assert set(some.scores(params, "valid", lambda: False)) == set(names)
    assert read == [HELD_OUT[:2]]


def test_samples_show_sentences_and_how_they_were_scored(learnt):
    task, params = learnt
    files = task.samples(params)
    assert set(files) == {"translations.txt", "sacrebleu.txt"}
    sentence = HELD_OUT[-1]
    part = f"source:      {sentence}\nreference:   {translated(sentence)}\nreference:   C B A\n"
    assert part + f"translation: {translated(sentence)}\n" in files["translations.txt"]
    assert files["sacrebleu.txt"].startswith("bleu: nrefs:2|case:mixed|eff:no|tok:13a|")
    assert "\nchrf: nrefs:2|" in files["sacrebleu.txt"]


def test_scores_are_those_of_sacrebleu_with_references_of_any_number():
    texts = ["the cat sat on the mat", "a dog"]
    references = [["a cat sat on the mat", "the cat sat on a mat"], ["the dog"]]
    scores, signatures = corpus_scores(texts, references, "en")
    streams = [["a cat sat on the mat", "the dog"], ["the cat sat on a mat", None]]
    assert scores["bleu"] == sacrebleu.corpus_bleu(texts, streams).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(texts, streams).score
    assert signatures["bleu"].startswith("nrefs:var|")
    assert "tok:char" in corpus_scores(["猫がいる"], [["犬がいる"]], "ja")[1]["bleu"]
    assert corpus_scores(["猫がいるよ"], [["犬がいるよ"]], "ja")[0]["bleu"] > 10
    for language, tokenizer in {"translation/ja": "char", "zh-CN": "zh", "pair/zh_TW": "zh", "th": "char"}.items():
        assert f"tok:{tokenizer}|" in corpus_scores(["猫"], [["犬"]], language)[1]["bleu"]
    for language in ("target", "de-AT", "java"):
        assert "tok:13a|" in corpus_scores(["a"], [["b"]], language)[1]["bleu"]


def test_metrics_are_sums_over_counts(dataset):
    metrics = make_task(dataset, load=False).metrics({"loss": (6.0, 4.0), "accuracy": (1.0, 4.0)})
    assert metrics == {"loss": 1.5, "accuracy": 0.25, "perplexity": pytest.approx(math.exp(1.5))}


def test_long_sentences_are_refused_or_cut_and_counted(dataset, caplog):
    with pytest.raises(UserError, match=r"split 'train', source: \d+ of 100 sequences.*task\.max_length=3"):
        make_task(dataset, max_length=3)
    task = make_task(dataset, max_length=3, truncate=True)
    cut = sum(1 + (n > 3) for n in (len(s.split()) for s in PAIRS if s not in HELD_OUT) if n > 2)
    assert task.notes[0] == f"split 'train': {cut} sentences cut to 3 symbols"
    batch = task.train_batches(seed=0)[0]
    assert batch["targets"].shape == (16, 3)
    assert (batch["targets"][batch["weights"].sum(axis=1) == 3, 2] == task.target_vocabulary.end_id).all()
    params = task.init(jax.random.key(0))
    with caplog.at_level("WARNING"):
        assert task.translate(params, ["a", "a b c a b c"])[1][0].source_pieces == ("a", "b", "c")
    assert "1 of 2 sentences are cut to task.max_length=3" in caplog.text
    with pytest.raises(UserError, match=r"the input: .*task\.max_length=5.*; shorten or divide them"):
        make_task(dataset).translate(params, ["a b c a b c"])


def test_lines_are_normalized_as_those_of_training_were(dataset, monkeypatch):
    options = {"vocabulary": {"name": "characters", "unknown": "replace"}, "max_length": 12}
    task = make_task(dataset, **options)
    params = varied(task.init(jax.random.key(0)))
    lines = [" \u00a0\t", "a\u00a0 b ", "a b"]
    blank, spaced, plain = (best.source_pieces for (best,) in task.translate(params, lines))
    assert (blank, plain, len(spaced)) == ((), ("a", " ", "b"), 5)  # files are read as they are
    monkeypatch.setattr(ParallelFiles, "normalized", True)
    blank, spaced, plain = (best.source_pieces for (best,) in make_task(dataset, **options).translate(params, lines))
    assert (blank, spaced) == ((), plain)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "task.batch_size"),
        ({"eval_batch_size": 0}, "task.eval_batch_size"),
        ({"bucket_boundaries": (5, 3)}, "task.bucket_boundaries"),
        ({"label_smoothing": 1.0}, "task.label_smoothing"),
        ({"scheduled_sampling_rate": -0.1}, "task.scheduled_sampling_rate"),
        ({"coverage_loss": -1.0}, "task.coverage_loss"),
        ({"num_scored": -1}, "task.num_scored"),
        ({"decoder": {"name": "beem"}}, "'beam'"),
        ({"decoder": {"name": "beam", "beam_sise": 3}}, "'beam_size'"),
        ({"vocabulary": {"name": "letters"}}, "vocabulary.name"),
        ({"dataset": {"name": "tatoba"}}, "'tatoeba'"),
        ({"model": {"name": "seq2sek"}}, "'seq2seq'"),
        ({"model": {"attention": {"name": "generl"}}}, "'general'"),
        ({"model": {"attention": {"name": "additive", "num_heads": 2}}}, "model.attention.num_heads"),
        ({"model": {"attention": {"name": "dot"}}}, "model.merge"),
        ({"max_length": 0}, "task.max_length"),
        ({"model": {"attention": {"name": "none"}}, "coverage_loss": 1.0}, "task.coverage_loss needs a model with att"),
        (
            {"model": {"attention": {"name": "none"}}, "decoder": {"name": "beam", "coverage_penalty": 0.1}},
            "task.decoder.coverage_penalty needs a model with attention",
        ),
        ({"model": {"share_embeddings": True}, "joint_vocabulary": False}, "task.joint_vocabulary"),
        ({"model": {"dropout": {"input_rte": 0.1}}}, "'input_rate'"),
    ],
)
def test_what_cannot_be_built_is_refused_before_data_is_read(dataset, options, named):
    with pytest.raises(UserError, match=named) as caught:
        make_task(**{"dataset": dataset, **options}, load=False)
    assert "\n" not in str(caught.value)


def test_the_table_of_tasks():
    assert TASKS["translation"] is MachineTranslation


def test_what_a_model_of_bytes_writes_is_text(dataset):
    # Untrained it writes any bytes, mostly such as are not UTF-8; files and terminals take nothing else.
    task = make_task(
        dataset, vocabulary={"name": "bytes"}, max_length=12, bucket_boundaries=(), decoder={"name": "sample"}
    )
    found = task.translate(task.init(jax.random.key(0)), ["a b", "c"])
    assert any("\ufffd" in best.text for (best, *_) in found)
    for best, *_ in found:
        best.text.encode("utf-8")
