"""Language modelling: the loss against NumPy, evaluation against reading symbol by symbol, and files of a run."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lstm_research.common.errors import UserError
from lstm_research.decoding.sampling import Sampler
from lstm_research.models.cells import LSTM
from lstm_research.models.language_model import LanguageModel
from lstm_research.models.layers import functional
from lstm_research.tasks import TASKS, LanguageModelling

B, T, E, H = 3, 5, 4, 6
TEXT = "to be, or not to be:\nthat is the question.\n"
DOCUMENTS = ("to be or not\n", "a question to be answered\n", "not\n")


@pytest.fixture
def dataset(tmp_path):
    """Train and test have one document, valid has three."""
    for name, text in {"train": TEXT * 3, "test": TEXT, **dict(zip("abc", DOCUMENTS, strict=True))}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    path = {name: str(tmp_path / f"{name}.txt") for name in ("train", "test", *"abc")}
    return {
        "name": "text_files",
        "train": path["train"],
        "valid": tuple(path[name] for name in "abc"),
        "test": path["test"],
    }


def make_task(dataset, *, load=True, model=None, **options):
    task = LanguageModelling(
        **{
            "dataset": dataset,
            "vocabulary": {"name": "characters", "unknown": "replace"},
            "model": {
                "name": "language_model",
                "embedding_size": E,
                "cell": {"name": "lstm", "hidden_size": H},
                **(model or {}),
            },
            "batch_size": B,
            "unroll_length": T,
            **options,
        }
    )
    if load:
        task.load()
    return task


def varied(params):
    """Random parameters, so large that predictions are far from uniform."""
    return jax.tree.map(lambda p: 1.5 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def as_arrays(batch):
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def model_function(vocabulary_size):
    """The model by itself, without the task."""
    rngs = nnx.Rngs(0)
    return jax.jit(functional(LanguageModel(vocabulary_size, cell=LSTM(H), embedding_size=E, rngs=rngs))[0])


def log_probabilities(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_the_loss_is_the_cross_entropy_of_the_weighted_targets(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    batch = task.train_batches(seed=0)[1]
    batch["weights"][1, 2:] = 0
    batch["resets"][2, 3] = True
    carry = jax.tree.map(lambda c: jax.random.normal(jax.random.key(1), c.shape), task.initial_carry(params, B))
    loss, weight, extras, new_carry = task.loss(params, as_arrays(batch), carry, None)

    model = model_function(len(task.vocabulary))
    expected_carry, logits = model(params, jnp.asarray(batch["inputs"].T), carry, resets=jnp.asarray(batch["resets"].T))
    logits = np.swapaxes(logits, 0, 1)
    picked = np.take_along_axis(log_probabilities(logits), batch["targets"][:, :, None], axis=-1)[:, :, 0]
    assert float(loss) == pytest.approx(-(picked * batch["weights"]).sum(), rel=1e-5)
    assert float(weight) == batch["weights"].sum() == B * T - 3
    correct = (logits.argmax(axis=-1) == batch["targets"]) * batch["weights"]
    assert [float(x) for x in extras["accuracy"]] == [correct.sum(), batch["weights"].sum()]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new_carry, expected_carry)


def test_targets_of_weight_zero_count_for_nothing(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    carry = task.initial_carry(params, B)
    batch = task.train_batches(seed=0)[0]
    batch["weights"][:, 3:] = 0
    other = {**batch, "targets": np.where(batch["weights"] == 0, 0, batch["targets"]).astype(np.int32)}
    assert (other["targets"] != batch["targets"]).any()
    first, second = (task.loss(params, as_arrays(each), carry, None) for each in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(
    ("split", "eval_batch_size", "unroll_length"),
    [("valid", 1, 5), ("valid", 1, 35), ("valid", 4, 3), ("valid", 7, 6), ("test", 4, 5)],
)
def test_evaluation_equals_reading_the_text_symbol_by_symbol(dataset, split, eval_batch_size, unroll_length):
    task = make_task(dataset, eval_batch_size=eval_batch_size, unroll_length=unroll_length)
    params = varied(task.init(jax.random.key(0)))

    carry, loss, weight, correct = task.initial_carry(params, eval_batch_size), 0.0, 0.0, 0.0
    for batch in map(as_arrays, [task.eval_batches(split)[k] for k in range(len(task.eval_batches(split)))]):
        batch_loss, batch_weight, extras, carry = jax.jit(task.loss)(params, batch, carry, None)
        loss, weight, correct = loss + batch_loss, weight + batch_weight, correct + extras["accuracy"][0]

    model = model_function(len(task.vocabulary))
    documents = [task.vocabulary.encode(text) for text in (DOCUMENTS if split == "valid" else [TEXT])]
    tokens = np.concatenate(documents)
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    row_length = math.ceil(len(tokens) / eval_batch_size)
    expected_loss = expected_weight = expected_correct = 0
    state = None
    for position in range(1, len(tokens)):
        if position - 1 in starts or position % row_length == 0:
            state = None  # a document begins, or a row of the batch
        state, logits = model(params, jnp.asarray(tokens[position - 1]).reshape(1, 1), state)
        if position not in starts:
            expected_loss -= log_probabilities(logits)[0, 0, tokens[position]]
            expected_correct += int(logits.argmax() == tokens[position])
            expected_weight += 1
    assert expected_weight == len(tokens) - len(documents)
    assert float(weight) == expected_weight
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    assert float(correct) == expected_correct


def test_metrics_are_sums_over_counts(dataset):
    metrics = make_task(dataset).metrics({"loss": (6.0, 4.0), "accuracy": (1.0, 4.0)})
    assert metrics == {
        "loss": 1.5,
        "accuracy": 0.25,
        "bits_per_character": pytest.approx(1.5 / math.log(2)),
        "perplexity": pytest.approx(math.exp(1.5)),
    }


def test_words_have_no_bits_per_character_and_a_huge_loss_no_overflow(dataset):
    task = make_task(dataset, vocabulary={"name": "words"})
    metrics = task.metrics({"loss": (1e6, 1.0)})
    assert set(metrics) == {"loss", "perplexity"}
    assert 1e300 < metrics["perplexity"] < math.inf


def test_training_batches_are_a_function_of_seed_and_step(dataset):
    first, second = make_task(dataset).train_batches(seed=1), make_task(dataset).train_batches(seed=1)
    jax.tree.map(np.testing.assert_array_equal, first[7], second[7])
    assert {name: array.shape for name, array in first[0].items()} == dict.fromkeys(
        ("inputs", "targets", "resets", "weights"), (B, T)
    )


def test_the_files_of_a_run_give_the_same_task(dataset):
    task = make_task(dataset)
    files = task.files()
    assert set(files) == set(task.file_names) == set(LanguageModelling.file_names)
    again = make_task(dataset, files=files, load=False)
    assert again.vocabulary == task.vocabulary
    assert again.files() == files
    params = task.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, again.init(jax.random.key(0)))
    carry, batch = task.initial_carry(params, B), as_arrays(task.train_batches(seed=0)[0])
    first, second = (each.loss(params, batch, carry, None) for each in (task, again))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, task.eval_batches("valid")[0], again.eval_batches("valid")[0])


def text_of(task, params, prompt="to", **options):
    options = {"length": 20, "num_samples": 1, "sampler": Sampler(), "seed": 0} | options
    return ["".join(parts) for parts in zip(*task.generate(params, prompt, **options), strict=True)]


def test_a_run_writes_text_without_its_data(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    files = task.files()
    gone = {**dataset, "train": dataset["train"] + ".moved"}
    again = make_task(gone, files=files, load=False)
    assert text_of(again, params) == text_of(task, params)
    with pytest.raises(UserError, match="there is no file"):
        again.eval_batches("valid")


@pytest.mark.parametrize("split", ["train", "test"])
def test_changed_data_is_refused_where_it_is_read(dataset, split):
    files = make_task(dataset).files()
    with open(dataset[split], "a") as file:
        file.write("and more")
    task = make_task(dataset, files=files, load=False)
    for use in (lambda: task.eval_batches("valid"), lambda: task.train_batches(seed=0)):
        with pytest.raises(UserError, match="changed") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_text_continues_the_prompt_and_comes_in_pieces(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    pieces = list(task.generate(params, "to be", length=40, num_samples=2, sampler=Sampler(), seed=0))
    assert len(pieces) > 1
    texts = ["".join(parts) for parts in zip(*pieces, strict=True)]
    assert [len(text) for text in texts] == [40, 40]
    assert texts[0] != texts[1]
    assert texts == text_of(task, params, "to be", length=40, num_samples=2)
    assert texts != text_of(task, params, "to be", length=40, num_samples=2, seed=1)


def test_greedy_text_is_what_the_model_predicts(dataset):
    task = make_task(dataset)
    params = varied(task.init(jax.random.key(0)))
    (written,) = text_of(task, params, "to be", sampler=Sampler(0.0))
    ids = task.vocabulary.encode("to be" + written)
    _, logits = model_function(len(task.vocabulary))(params, jnp.asarray(ids)[:, None])
    assert task.vocabulary.decode(np.asarray(logits[4:-1, 0]).argmax(axis=-1)) == written


def test_words_are_written_with_spaces_between_them(dataset):
    task = make_task(dataset, vocabulary={"name": "words"})
    params = varied(task.init(jax.random.key(0)))
    (written,) = text_of(task, params, "or not", length=12)
    tokens = task.vocabulary.encode("or not" + written)
    assert len(tokens) == 2 + 12
    assert written[0] in " \n"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prompt": "to Bee?"}, "'B', '\\?'"),
        ({"prompt": ""}, "prompt is empty"),
        ({"length": 0}, "length"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
def test_impossible_texts_are_refused(dataset, options, named):
    task = make_task(dataset)
    with pytest.raises(UserError, match=named) as caught:
        text_of(task, task.init(jax.random.key(0)), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "task.batch_size"),
        ({"unroll_length": 0}, "task.unroll_length"),
        ({"eval_batch_size": 0}, "task.eval_batch_size"),
        ({"vocabulary": {"name": "letters"}}, "vocabulary.name"),
        ({"dataset": {"name": "shakespear"}}, "'shakespeare'"),
        ({"model": {"name": "language_modl"}}, "'language_model'"),
        ({"model": {"cell": {"name": "lstmm", "hidden_size": 3}}}, "'lstm'"),
        ({"model": {"cell": {"name": "lstm", "hidden_sise": 3}}}, "'hidden_size'"),
        ({"model": {"cell": {"name": "lstm"}}}, "model.cell.hidden_size is missing"),
        ({"model": {"cell": {"name": "lstm", "hidden_size": 0}}}, "model.cell: hidden_size"),
        ({"model": {"dropout": {"input_rte": 0.1}}}, "'input_rate'"),
        ({"model": {"dropout": {"input_rate": 1.0}}}, "model.dropout.input_rate"),
        ({"model": {"tied": True}}, "model.tied"),
        ({"model": {"num_layers": 0}}, "model: num_layers"),
        ({"model": {"dtype": "float8"}}, "model.dtype"),
        ({"model": {"engine": "fused?"}}, "engine"),
        ({"model": {"softmax": {"name": "hierarchical"}}}, "model.softmax.name"),
        ({"model": {"softmax": {"name": "mixture"}}}, "model.softmax.num_experts is missing"),
        ({"model": {"softmax": {"name": "adaptive", "cutoffs": (9, 3)}}}, "model.softmax.cutoffs must be rising"),
        ({"model": {"num_params": 5000}}, "model.num_params = 5,000 picks model.cell.hidden_size, which is set to 6"),
        (
            {"model": {"num_params": 5000, "cell": {"name": "lstm", "hidden_size": None}, "tied": True}},
            "leave model.embedding_size and model.last_hidden_size both out, or give both the same number",
        ),
        ({"activation_regularization": -1.0}, "task.activation_regularization"),
        ({"short_rate": 0.1}, "task.short_rate means nothing without task.unroll_deviation"),
        (
            {"dataset": {"name": "text_file", "path": "x", "unit": "bytes"}},
            "dataset.unit='bytes' cuts .* set it to 'characters' for vocabulary.name='characters'",
        ),
        ({"model": {"cell": {"name": "gru", "hidden_size": 3}, "dropout": {"zoneout_c_rate": 0.1}}}, "zoneout_c_rate"),
    ],
)
def test_what_cannot_be_built_is_refused_before_data_is_read(dataset, options, named):
    with pytest.raises(UserError, match=named) as caught:
        make_task(**{"dataset": dataset, **options}, load=False)
    assert "\n" not in str(caught.value)


def test_a_split_shorter_than_one_window_is_refused(dataset):
    with pytest.raises(UserError, match="'train'"):
        make_task(dataset, batch_size=1000)
    with pytest.raises(UserError, match=r"'valid'|'test'"):
        make_task(dataset, batch_size=1, unroll_length=60)


def test_the_table_of_tasks():
    assert TASKS["language_modelling"] is LanguageModelling


def gradient_of(task, params, batch, key):
    carry = task.initial_carry(params, B)
    return jax.value_and_grad(lambda p: task.loss(p, as_arrays(batch), carry, key)[0])(params)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.0), (0.0, 1.0), (2.0, 1.0)])
def test_penalties_are_in_the_gradient_and_not_in_the_loss(dataset, alpha, beta):
    model = {"dropout": {"output_rate": 0.5}}
    options = {"activation_regularization": alpha, "temporal_activation_regularization": beta}
    task, plain = make_task(dataset, model=model, **options), make_task(dataset, model=model)
    params, key = varied(task.init(jax.random.key(0))), jax.random.key(1)
    batch = task.train_batches(seed=0)[1]
    batch["weights"][1, 2:] = 0
    batch["resets"][2, 3] = True
    (loss, gradient), (plain_loss, plain_gradient) = (gradient_of(each, params, batch, key) for each in (task, plain))
    assert loss == plain_loss

    def penalty(params):
        _, ys, raw = plain.encode(params, as_arrays(batch), plain.initial_carry(params, B), key)
        total = 0.0
        for t in range(T):
            for b in range(B):
                total += batch["weights"][b, t] * alpha * jnp.square(ys[t, b]).mean()
                if t > 0 and not batch["resets"][b, t]:
                    total += batch["weights"][b, t] * beta * jnp.square(raw[t, b] - raw[t - 1, b]).mean()
        return total

    expected = jax.tree.map(jnp.add, plain_gradient, jax.grad(penalty)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), gradient, expected)
    assert any(
        jnp.abs(a - b).max() > 1e-2 for a, b in zip(*map(jax.tree.leaves, (gradient, plain_gradient)), strict=True)
    )
    # No noise, no penalty: evaluation.
    jax.tree.map(
        np.testing.assert_array_equal,
        *(gradient_of(each, params, batch, None) for each in (task, plain)),
    )


def test_windows_of_variable_length(dataset):
    options = {"unroll_length": 12, "unroll_deviation": 2.0, "short_rate": 0.3, "batch_size": 2}
    task = make_task(dataset, activation_regularization=2.0, temporal_activation_regularization=1.0, **options)
    params, key = varied(task.init(jax.random.key(0))), jax.random.key(1)
    lengths = set()

    @jax.jit
    def differentiated(params, batch, carry, key):
        def loss(params):
            loss, *others = task.loss(params, batch, carry, key)
            return loss, others

        return jax.value_and_grad(loss, has_aux=True)(params)

    for k in range(3):
        batch = task.train_batches(seed=0)[k]
        length = int(batch["lengths"][0])
        lengths.add(length)
        assert float(task.learning_rate_scale(as_arrays(batch))) == pytest.approx(length / 12)
        cut = {name: array[:, :length] for name, array in batch.items() if name != "lengths"}
        noise = {"inputs": 1, "targets": 1, "resets": True, "weights": 0}
        longer = {
            name: np.pad(array, ((0, 0), (0, 20 - length)), constant_values=noise[name]).astype(array.dtype)
            for name, array in cut.items()
        } | {"lengths": batch["lengths"]}
        carry = jax.tree.map(lambda c: jax.random.normal(jax.random.key(1), c.shape), task.initial_carry(params, 2))

        found, expected = (differentiated(params, as_arrays(each), carry, key) for each in (longer, cut))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert len(lengths) > 1
    assert make_task(dataset).learning_rate_scale(as_arrays(make_task(dataset).train_batches(seed=0)[0])) is None


def test_num_params_picks_the_width(dataset):
    model = {"num_params": 3000, "cell": {"name": "lstm"}, "num_layers": 2, "tied": True}
    task = LanguageModelling(
        dataset=dataset,
        vocabulary={"name": "characters", "unknown": "replace"},
        model={"name": "language_model", **model},
        batch_size=B,
        unroll_length=T,
    )
    task.load()
    params = task.init(jax.random.key(0))
    width = params["stack"]["layer_1"]["params"]["recurrent_kernel"].shape[0]
    assert params["embedding"]["table"].shape == (len(task.vocabulary), width)
    assert task.notes == (f"model.num_params: model.cell.hidden_size = {width}",)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 3000 - 2 * (2 * 4 * 2 * width + len(task.vocabulary)) < count <= 3000


@pytest.mark.parametrize("name", ["mixture", "adaptive", "sampled"])
def test_other_softmaxes_train_evaluate_and_write(dataset, name):
    keys = {"mixture": {"num_experts": 2}, "adaptive": {"cutoffs": (5, 9)}, "sampled": {"num_samples": 4}}
    task = make_task(dataset, model={"softmax": {"name": name, **keys[name]}})
    params, key = task.init(jax.random.key(0)), jax.random.key(1)
    batch = as_arrays(task.train_batches(seed=0)[1])
    carry = task.initial_carry(params, B)
    before = task.loss(params, batch, carry, None)[0]

    @jax.jit
    def update(params, key):
        gradient = jax.grad(lambda p: task.loss(p, batch, carry, key)[0])(params)
        return jax.tree.map(lambda p, g: p - 0.02 * g, params, gradient)

    for k in range(40):
        params = update(params, jax.random.fold_in(key, k))
    assert task.loss(params, batch, carry, None)[0] < 0.8 * before
    assert ("accuracy" in task.loss(params, batch, carry, None)[2]) == (name == "sampled")
    assert "accuracy" not in task.loss(params, batch, carry, key)[2]
    assert len(text_of(task, params)[0]) == 20


def test_bytes_have_bits_per_byte(dataset):
    task = make_task(dataset, vocabulary={"name": "bytes"})
    assert task.metrics({"loss": (6.0, 4.0)})["bits_per_byte"] == pytest.approx(1.5 / math.log(2))


@pytest.mark.parametrize("vocabulary", [{"name": "subwords", "size": 20}, {"name": "bytes"}])
def test_subwords_and_bytes_write_text(dataset, vocabulary):
    task = make_task(dataset, vocabulary=vocabulary)
    params = task.init(jax.random.key(0))  # nearly uniform: every symbol comes
    (text,) = text_of(task, params, "to be", length=300)
    assert 100 < len(text) <= 300 * max(map(len, task.vocabulary.symbols))
    text.encode()  # whatever bytes were drawn, it is text
    assert not {"\u2581", "<"} & set(text) or vocabulary["name"] == "bytes"
    assert task.samples(params)["sample.txt"].endswith("\n")
