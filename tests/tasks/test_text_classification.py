"""Text classification: losses and metrics against NumPy and scikit-learn, over any batches; files; predictions."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import from_json
from lstm_research.tasks import TASKS, TextClassification
from lstm_research.tasks import classification_metrics as of
from lstm_research.tasks.language_modelling import LanguageModelling
from lstm_research.tasks.text_classification import Labels
from lstm_research.training.evaluation import Evaluator

E, H = 4, 6
WORDS = ("good", "bad", "so", "film", "very", "not", "the", "a", "plot", "dull")
NAMES = ("bad", "fine", "good")


def write_table(path, seed, count, score):
    """Writes texts of 0 to 9 words with labels that have something to do with them."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text"])
        for number in range(count):
            words = rng.choice(WORDS, size=number % 10)
            value = (words == "good").sum() - (words == "bad").sum() + rng.normal()
            writer.writerow([1000 + value if score else NAMES[int(np.sign(value.round())) + 1], " ".join(words)])
    return str(path)


@pytest.fixture(params=["classes", "score"])
def target(request):
    return request.param


@pytest.fixture
def dataset(tmp_path, target):
    files = {
        split: write_table(tmp_path / f"{split}.csv", seed, count, target == "score")
        for seed, (split, count) in enumerate({"train": 60, "valid": 37, "test": 23}.items())
    }
    return {"name": "csv", "target": target, **files}


def make_task(dataset, *, load=True, model=None, **options):
    task = TextClassification(
        **{
            "dataset": dataset,
            "vocabulary": {"name": "words"},
            "model": {
                "name": "classifier",
                "embedding_size": E,
                "cell": {"name": "lstm", "hidden_size": H},
                "bidirectional": True,
                "pooling": ("last", "attention"),
                **(model or {}),
            },
            "batch_size": 8,
            "max_length": 10,
            "bucket_boundaries": (3, 6),
            **options,
        }
    )
    if load:
        task.load()
    return task


def varied(params):
    """Random parameters, so large that predictions are far from uniform."""
    return jax.tree.map(lambda p: 1.5 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def outputs_alone(task, params, texts):
    """The model's outputs [N, C], each text in a batch of its own."""
    apply = jax.jit(task._apply)
    outputs = []
    for text in texts:
        ids = task.vocabulary.encode_line(text)
        tokens = jnp.zeros((10, 1), jnp.int32).at[: len(ids), 0].set(ids)
        outputs.append(np.asarray(apply(params, tokens, jnp.array([len(ids)]))[0][0], np.float64))
    return np.stack(outputs)


def read(dataset, split):
    with open(dataset[split], newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [row["label"] for row in rows]
    numbers = list(map(float, labels)) if dataset["target"] == "score" else list(map(sorted(NAMES).index, labels))
    return [row["text"] for row in rows], np.array(numbers)


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def ece_in_a_loop(p, labels):
    """Guo et al., equation 3, bin by bin."""
    confidence, correct, error = p.max(axis=1), p.argmax(axis=1) == labels, 0.0
    for m in range(1, 16):
        inside = ((m - 1) / 15 < confidence) & (confidence <= m / 15)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.one_in(2)
@pytest.mark.parametrize("eval_batch_size", [1, 5, 100])
def test_metrics_of_a_split_equal_those_of_scikit_learn(dataset, target, eval_batch_size):
    task = make_task(dataset, eval_batch_size=eval_batch_size)
    params = varied(task.init(jax.random.key(0)))
    metrics = Evaluator(task).evaluate(params, "test")
    texts, labels = read(dataset, "test")
    outputs = outputs_alone(task, params, texts)
    if target == "classes":
        p = probabilities(outputs)
        predicted = p.argmax(axis=1)
        assert len(set(predicted)) > 1
        expected = {
            "loss": sklearn.metrics.log_loss(labels, p, labels=[0, 1, 2]),
            "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
            "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
            "calibration_error": ece_in_a_loop(p, labels),
        }
        table = sklearn.metrics.confusion_matrix(labels, predicted)
        lines = task.samples(params)["confusion.txt"].splitlines()
        assert lines[0].startswith("Split test")
        assert [line.split() for line in lines[2:]] == [
            sorted(NAMES),
            *([name, *map(str, row)] for name, row in zip(sorted(NAMES), table.tolist(), strict=True)),
        ]
        for name in ("accuracy", "macro_f1"):
            low, high = metrics.pop(f"{name}_low"), metrics.pop(f"{name}_high")
            assert low < expected[name] < high
    else:
        _, train = read(dataset, "train")
        predicted = outputs[:, 0] * train.std() + train.mean()
        mse = sklearn.metrics.mean_squared_error(labels, predicted)
        expected = {
            "loss": mse / train.var(),
            "mse": mse,
            "mae": sklearn.metrics.mean_absolute_error(labels, predicted),
            "pearson": np.corrcoef(labels, predicted)[0, 1],
        }
        assert task.samples(params) == {}
    assert metrics == pytest.approx(expected, rel=2e-5)
    assert Evaluator(task).metric_names(params, "test") == sorted({*expected, *task.score_names("test")})
    assert not {name for name in Evaluator(task).evaluate(params, "valid") if name.endswith(("_low", "_high"))}


def test_higher_is_better_names_metrics_that_are(dataset, target):
    task = make_task(dataset)
    names = set(Evaluator(task).metric_names(task.init(jax.random.key(0)), "valid"))
    better = {"classes": {"accuracy", "macro_f1"}, "score": {"pearson"}}[target]
    assert names & task.higher_is_better == better


def test_the_training_loss_is_smoothed_and_noisy_and_the_other_not(dataset, target):
    options = {} if target == "score" else {"label_smoothing": 0.3}
    task = make_task(dataset, model={"pooled_rate": 0.5}, **options)
    params = varied(task.init(jax.random.key(0)))
    batch = jax.tree.map(jnp.asarray, task.train_batches(seed=0)[0])
    loss, weight, extras, carry = task.loss(params, batch, (), None)
    assert carry == ()
    assert weight == batch["weights"].sum()
    noisy, _, of_training, _ = task.loss(params, batch, (), jax.random.key(1))
    assert abs(noisy - loss) > 1e-3
    assert all(total.shape == () for total, _ in of_training.values())
    if target == "classes":
        still = make_task(dataset, **options)  # no dropout: what is left is the smoothing
        smoothed = still.loss(params, batch, (), jax.random.key(1))[0]
        logits = np.asarray(still._apply(params, batch["tokens"].T, batch["lengths"])[0], np.float64)
        targets = 0.7 * np.eye(3)[np.asarray(batch["labels"])] + 0.1
        expected = -(targets * np.log(probabilities(logits))).sum(axis=1) @ np.asarray(batch["weights"])
        assert float(smoothed) == pytest.approx(expected, rel=1e-5)
        assert set(extras) == {"accuracy", "confusion", "calibration"}


def test_rows_of_weight_zero_count_for_nothing(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    batch = task.train_batches(seed=0)[1]
    batch["weights"][2:] = 0
    other = {**batch, "labels": batch["labels"].copy(), "tokens": batch["tokens"].copy()}
    other["labels"][2:] = 0
    other["tokens"][2:] = 1
    first, second = (
        jax.value_and_grad(lambda p, b=b: (task.loss(p, b, (), None)[0], task.loss(p, b, (), None)[1:3]), has_aux=True)(
            params
        )
        for b in (jax.tree.map(jnp.asarray, each) for each in (batch, other))
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_batches_hold_every_text_once_and_are_a_function_of_seed_and_step(dataset, target):
    task = make_task(dataset)
    texts, labels = read(dataset, "train")
    batches = task.train_batches(seed=3)
    seen = []
    for step in range(batches.batches_per_epoch):
        batch = batches[step]
        assert {name: array.dtype.name for name, array in batch.items()} == {
            "tokens": "int32",
            "lengths": "int32",
            "labels": "int32" if target == "classes" else "float32",
            "weights": "float32",
        }
        assert batch["tokens"].shape[1] in (3, 6, 10)
        for tokens, length, label, weight in zip(*batch.values(), strict=True):
            assert not tokens[length:].any()
            if weight:
                seen.append((task.vocabulary.decode(tokens[:length]), float(label)))
    expected = sorted(zip(texts, task.labels.encode(labels.tolist()).tolist(), strict=True))
    assert sorted(seen) == [(text, float(label)) for text, label in expected]
    jax.tree.map(np.testing.assert_array_equal, task.train_batches(seed=3)[7], batches[7])


def test_the_files_of_a_run_give_the_same_task_without_its_data(dataset):
    task = make_task(dataset)
    files = task.files()
    assert set(files) == set(TextClassification.file_names)
    gone = {**dataset, "train": dataset["train"] + ".moved"}
    again = make_task(gone, files=files, load=False)
    assert again.vocabulary == task.vocabulary
    assert again.labels == task.labels
    params = varied(task.init(jax.random.key(0)))
    texts = ["so good", "", "a dull plot so dull", "unheard of"]
    assert again.predict(params, texts) == task.predict(params, texts)
    with pytest.raises(UserError, match="there is no file"):
        again.eval_batches("valid")


@pytest.mark.parametrize("target", ["classes"], indirect=True)
def test_changed_data_is_refused(dataset):
    files = make_task(dataset).files()
    with open(dataset["test"], "a") as file:
        file.write("good,so very good\n")
    with pytest.raises(UserError, match="changed"):
        make_task(dataset, files=files, load=False).eval_batches("valid")


def test_predictions_do_not_depend_on_their_neighbours(dataset, target):
    task = make_task(dataset, eval_batch_size=4)
    params = varied(task.init(jax.random.key(0)))
    texts = [*read(dataset, "test")[0], "", "something unheard of", "good\nfilm"]
    predictions = task.predict(params, texts)
    assert len(predictions) == len(texts)
    outputs = outputs_alone(task, params, texts)
    for text, prediction, output in zip(texts, predictions, outputs, strict=True):
        words = tuple(word if word in WORDS else "<unk>" for word in text.split())
        assert prediction.words == words
        assert len(prediction.attention) == len(words)
        assert sum(prediction.attention) == pytest.approx(float(bool(words)), abs=1e-5)
        if target == "classes":
            assert prediction.probabilities == pytest.approx(probabilities(output[None])[0], abs=1e-5)
            assert prediction.label == task.labels.names[output.argmax()]
            assert prediction.score is None
        else:
            assert prediction.score == pytest.approx(task.labels.mean + task.labels.deviation * output[0], rel=1e-6)
            assert (prediction.label, prediction.probabilities) == (None, ())
    bias = params["output"]["bias"]
    empty = predictions[len(texts) - 3]
    if target == "classes":
        np.testing.assert_allclose(empty.probabilities, probabilities(np.asarray(bias)[None])[0], rtol=1e-5)
    assert task.predict(params, []) == []
    assert (
        make_task(dataset, model={"pooling": ("max",)})
        .predict(
            {name: params[name] for name in ("embedding", "stack")}
            | {"output": {"kernel": params["output"]["kernel"][: 2 * H], "bias": bias}},
            ["so"],
        )[0]
        .attention
        is None
    )


@pytest.mark.parametrize("target", ["classes"], indirect=True)
def test_vectors_are_what_words_start_from(dataset, tmp_path):
    path = tmp_path / "vectors.txt"
    rows = {"good": [1, 2, 3, 4], "unheard": [0, 0, 0, 0], "bad": [-1, -2, -3, -4.5]}
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows.items()))
    task = make_task(dataset, vectors=str(path))
    table = task.init(jax.random.key(0))["embedding"]["table"]
    plain = make_task(dataset)
    expected = plain.init(jax.random.key(0))["embedding"]["table"]
    for word in ("good", "bad"):
        expected = expected.at[task.vocabulary.ids[word]].set(jnp.array(rows[word], float))
    np.testing.assert_array_equal(table, expected)
    assert task.notes == (f"task.vectors: 2 of the {len(task.vocabulary)} words have a vector",)
    assert plain.notes == ()
    # A run that is used later needs the file no more.
    path.unlink()
    jax.eval_shape(make_task(dataset, vectors=str(path), files=task.files(), load=False).init, jax.random.key(0))
    path.write_text("good 1 2 3\n")
    with pytest.raises(UserError, match=r"width 3.*model.embedding_size"):
        make_task(dataset, vectors=str(path))


@pytest.mark.parametrize("target", ["classes"], indirect=True)
def test_longer_texts_are_refused_or_cut(dataset):
    with pytest.raises(UserError, match=r"split 'train': 24 of 60 .*task.max_length=5") as caught:
        make_task(dataset, max_length=5)
    assert "\n" not in str(caught.value)
    task = make_task(dataset, max_length=5, truncate=True)
    assert task.eval_batches("test")[0]["tokens"].shape[1] == 5
    assert [note.split(" texts")[0] for note in task.notes] == [
        "split 'train': 24 of 60",
        "split 'valid': 13 of 37",
        "split 'test': 8 of 23",
    ]
    params = varied(task.init(jax.random.key(0)))
    long, short = task.predict(params, ["a b c d e f g", "a b c d e"])
    assert long == short
    with pytest.raises(UserError, match="input: 1 of 2"):
        make_task(dataset).predict(params, ["a", "a " * 11])


@pytest.mark.parametrize("target", ["classes"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "task.batch_size"),
        ({"eval_batch_size": 0}, "task.eval_batch_size"),
        ({"max_length": 0}, "task.max_length"),
        ({"bucket_boundaries": (4, 4)}, "task.bucket_boundaries"),
        ({"bucket_boundaries": (0, 4)}, "task.bucket_boundaries"),
        ({"label_smoothing": 1.0}, "task.label_smoothing"),
        ({"vectors": "nowhere.txt"}, "nowhere.txt"),
        ({"model": {"pooling": ("sum",)}}, "model.pooling"),
        ({"vocabulary": {"name": "words", "unknown": "error"}, "max_length": 1, "truncate": True}, None),
    ],
)
def test_refuses_what_cannot_be(dataset, options, message):
    if message is None:  # a text that the vocabulary refuses is named by its number
        task = make_task(dataset, **options)
        with pytest.raises(UserError, match=r"input, text 2: words outside .*'awful'"):
            task.predict(task.init(jax.random.key(0)), ["good", "awful"])
        return
    with pytest.raises(UserError, match=message) as caught:
        make_task(dataset, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["score"], indirect=True)
def test_numbers_have_no_smoothed_labels(dataset):
    with pytest.raises(UserError, match=r"task\.label_smoothing"):
        make_task(dataset, label_smoothing=0.1)


def test_labels_come_back_from_json(dataset):
    labels = make_task(dataset).labels
    assert Labels.from_json(labels.to_json()) == labels
    assert Labels.of(None, [2.0, 2.0]).deviation == 1.0  # nothing to divide by


LM = {"name": "language_model", "embedding_size": E, "cell": {"name": "lstm", "hidden_size": H}}


@pytest.fixture
def language_model(tmp_path):
    """Parameters and files of a language model of one or two layers."""
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("good bad so film very not the a plot and more words\n" * 5)
    paths = {split: str(tmp_path / f"{split}.txt") for split in ("train", "valid", "test")}

    def make(**model):
        task = LanguageModelling(
            dataset={"name": "text_files", **paths},
            vocabulary={"name": "words"},
            model={**LM, **model},
            batch_size=2,
            unroll_length=4,
        )
        task.load()
        return varied(task.init(jax.random.key(1))), task.files()

    return make


@pytest.mark.parametrize("target", ["classes"], indirect=True)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
def test_a_warm_start_takes_over_vocabulary_embedding_and_layers(dataset, language_model, num_layers, bidirectional):
    source, files = language_model(num_layers=num_layers)
    task = make_task(dataset, model={"num_layers": num_layers, "bidirectional": bidirectional}, load=False)
    task.load(files)
    assert task.vocabulary == from_json(files["vocabulary.json"].decode())
    drawn = task.init(jax.random.key(0))
    params, line = task.warm_start(drawn, source)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, drawn)
    expected = jax.tree.map(jnp.asarray, drawn)
    expected["embedding"] = source["embedding"]
    if bidirectional:
        expected["stack"]["layer_0"]["forward"] = source["stack"]["layer_0"]
        assert "stack.layer_0" in line
        assert "stack.layer_1" not in line
    else:
        expected["stack"] = source["stack"]
        assert f"stack.layer_{num_layers - 1}" in line
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert task.warm_start(shapes, source)[1] == line


@pytest.mark.parametrize("target", ["classes"], indirect=True)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"cell": {"name": "lstm", "hidden_size": H + 1}},
            r"params.bias is \[28\] in this model and \[24\] in that",
        ),
        ({"embedding_size": E + 1}, rf"embedding.table is \[14, {E + 1}\] in this model and \[14, {E}\] in that run"),
        ({"cell": {"name": "gru", "hidden_size": H}}, r"layer_0.params.bias is \[18\] .* \[24\]"),
        ({"num_layers": 2}, r"layer_1.params.bias is \[24\] in this model and nothing in that run"),
    ],
)
def test_a_warm_start_that_does_not_fit_names_the_weight_and_both_shapes(dataset, language_model, model, message):
    source, files = language_model()
    task = make_task(dataset, model={"bidirectional": False, **model}, load=False)
    task.load(files)
    with pytest.raises(UserError, match=message) as caught:
        task.warm_start(task.init(jax.random.key(0)), source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["classes"], indirect=True)
def test_a_warm_start_from_something_else_is_refused(dataset, language_model, tmp_path):
    source, files = language_model()
    task = make_task(dataset, load=False)
    with pytest.raises(UserError, match="no vocabulary"):
        task.load({"series.json": b""})
    task.load(files)
    with pytest.raises(UserError, match="neither embedding"):
        task.warm_start(task.init(jax.random.key(0)), {"output": source["output"]})
    with pytest.raises(UserError, match=r"task.vectors and training.init_from"):
        make_task(dataset, vectors="vectors.txt", load=False).load(files)


def test_is_registered():
    assert TASKS["text_classification"] is TextClassification


def test_accuracy_and_macro_f1_equal_those_of_scikit_learn():
    """Also where a class is never predicted, or never there, or neither."""
    rng = np.random.default_rng(0)
    for number in range(40):
        labels, predicted = rng.integers(number % 3, 5, 30), rng.integers(0, 2 + number % 4, 30)
        confusion = np.zeros((6, 6))
        np.add.at(confusion, (labels, predicted), 1)
        assert of.classification_metrics(confusion) == pytest.approx(
            {
                "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
                "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
            }
        )


def test_the_intervals_are_those_of_examples_drawn_with_replacement():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    predicted = np.where(rng.random(200) < 0.7, labels, rng.integers(0, 3, 200))
    values = {"accuracy": [], "macro_f1": []}
    for _ in range(1000):
        drawn = rng.integers(0, 200, 200)
        values["accuracy"].append(sklearn.metrics.accuracy_score(labels[drawn], predicted[drawn]))
        values["macro_f1"].append(sklearn.metrics.f1_score(labels[drawn], predicted[drawn], average="macro"))
    ends = of.bootstrap_intervals(sklearn.metrics.confusion_matrix(labels, predicted).astype(float))
    for name, resampled in values.items():
        low, high = np.percentile(resampled, [2.5, 97.5])
        assert ends[f"{name}_low"] == pytest.approx(low, abs=0.012)
        assert ends[f"{name}_high"] == pytest.approx(high, abs=0.012)
    assert ends == of.bootstrap_intervals(sklearn.metrics.confusion_matrix(labels, predicted).astype(float))


def test_calibration_of_certainty_and_of_chance():
    def error(logits, labels):
        sums = of.calibration_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(len(labels)))
        return of.calibration_error(np.asarray(sums))

    sure = 50.0 * np.eye(2)[[0, 1, 1, 0]]
    assert error(sure, [0, 1, 1, 0]) == pytest.approx(0, abs=1e-6)
    assert error(sure, [1, 0, 0, 1]) == pytest.approx(1, abs=1e-6)
    assert error(np.zeros((4, 2)), [0, 1, 0, 0]) == pytest.approx(0.25, abs=1e-6)


def test_a_correlation_of_what_does_not_vary_is_zero():
    sums = of.moment_sums(jnp.ones(5), jnp.arange(5.0), jnp.ones(5))
    assert of.pearson(np.asarray(sums), 5.0) == 0.0
