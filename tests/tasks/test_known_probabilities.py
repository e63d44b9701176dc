"""Texts of known probabilities: a model that is set to them by hand has exactly their perplexity, by every way.

The model reads a symbol, remembers it and nothing else, and looks up the distribution of what follows it: a Markov
chain. So the perplexity can be computed on paper, from the words alone.
"""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_research.common.errors import UserError
from lstm_research.tasks import LanguageModelling
from lstm_research.training.evaluation import Evaluator

WORDS = ("<unk>", "<eos>", "a", "b", "c")
V = len(WORDS)
# Rows: the word before; columns: the word after.
CHAIN = np.array(
    [
        [0.1, 0.2, 0.3, 0.2, 0.2],
        [0.05, 0.05, 0.6, 0.2, 0.1],
        [0.02, 0.18, 0.1, 0.5, 0.2],
        [0.25, 0.25, 0.125, 0.125, 0.25],
        [0.01, 0.39, 0.3, 0.2, 0.1],
    ]
)
# One document a file: lines that end, one that does not, an empty line, a rare word, a document of one word.
DOCUMENTS = ("a b c\nb b a\n\n", "c a q b\na", "b", "c c c b a a b c\n" * 7)
TRAIN = "a b c a b a\n" * 5


def words_of(document):
    """Penn Treebank's conventions, written out: <eos> ends every line, also the last one."""
    lines = document.removesuffix("\n").split("\n")
    words = [word for line in lines for word in [*line.split(), "<eos>"]]
    return [word if word in WORDS else "<unk>" for word in words]


def known_loss():
    """The mean of -log p over every word that has a word before it in its document."""
    losses = [
        -math.log(CHAIN[WORDS.index(before), WORDS.index(after)])
        for document in DOCUMENTS
        for before, after in zip(words_of(document), words_of(document)[1:], strict=False)
    ]
    return sum(losses) / len(losses), len(losses)


def make_task(folder, **options):
    paths = tuple(str(folder / f"{number}.txt") for number in range(len(DOCUMENTS)))
    for path, document in zip(paths, DOCUMENTS, strict=True):
        Path(path).write_text(document)
    (folder / "train.txt").write_text(TRAIN)
    model = {"name": "language_model", "embedding_size": V, "cell": {"name": "rnn", "hidden_size": V}}
    model["cell"]["activation"] = "relu"
    task = LanguageModelling(
        **{
            "dataset": {
                "name": "text_files",
                "train": str(folder / "train.txt"),
                "valid": tuple(paths),
                "test": tuple(paths),
            },
            "vocabulary": {"name": "words"},
            "model": model | options.pop("model", {}),
            "batch_size": 2,
            "unroll_length": 4,
            **options,
        }
    )
    task.load()
    return task


def chain_params(task):
    """The state is the one-hot word, the logits are the log of its row of the chain."""
    assert set(task.vocabulary.symbols) == set(WORDS)
    order = [WORDS.index(symbol) for symbol in task.vocabulary.symbols]
    params = jax.tree.map(jnp.zeros_like, task.init(jax.random.key(0)))
    params["embedding"]["table"] = jnp.eye(V)
    params["stack"]["layer_0"]["params"]["input_kernel"] = jnp.eye(V)
    params["output"]["kernel"] = jnp.asarray(np.log(CHAIN[np.ix_(order, order)]), jnp.float32)
    return params


@pytest.mark.parametrize("eval_batch_size", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("unroll_length", [1, 4, 35])
def test_the_perplexity_is_that_of_the_chain(tmp_path, eval_batch_size, unroll_length):
    task = make_task(tmp_path, eval_batch_size=eval_batch_size, unroll_length=unroll_length, batch_size=1)
    loss, count = known_loss()
    metrics = Evaluator(task).evaluate(chain_params(task), "valid")
    assert metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert task.eval_batches("valid").num_targets == count == sum(len(words_of(d)) - 1 for d in DOCUMENTS)


def test_the_chain_on_paper():
    """Two words of one document, so that nothing of the test is taken on trust."""
    assert words_of(DOCUMENTS[1]) == ["c", "a", "<unk>", "b", "<eos>", "a", "<eos>"]
    assert words_of(DOCUMENTS[0])[-2:] == ["<eos>", "<eos>"]
    np.testing.assert_allclose(CHAIN.sum(axis=1), 1)


@pytest.mark.parametrize("softmax", [{"name": "sampled", "num_samples": 2}, {"name": "full"}])
def test_a_sampled_softmax_is_evaluated_in_full(tmp_path, softmax):
    task = make_task(tmp_path, model={"softmax": softmax})
    metrics = Evaluator(task).evaluate(chain_params(task), "valid")
    assert metrics["loss"] == pytest.approx(known_loss()[0], rel=1e-6)


def test_adaptive_and_mixture_have_the_same_perplexity(tmp_path):
    """A chain whose rows are equal for the rare words, put into an adaptive softmax; a mixture of equal experts."""
    task = make_task(tmp_path, model={"softmax": {"name": "mixture", "num_experts": 2}})
    params = chain_params(task)
    params["output"]["latent_kernel"] = jnp.tile(20 * jnp.eye(V), (1, 2))  # tanh(20) is 1 in float32
    params["output"]["prior_kernel"] = jnp.ones((V, 2))
    assert Evaluator(task).evaluate(params, "valid")["loss"] == pytest.approx(known_loss()[0], rel=1e-6)

    task = make_task(tmp_path, model={"softmax": {"name": "adaptive", "cutoffs": (3,), "projection_factor": 1.0}})
    order = [WORDS.index(symbol) for symbol in task.vocabulary.symbols]
    chain = CHAIN[np.ix_(order, order)]
    of_cluster = chain[:, 3:].sum(axis=1, keepdims=True)
    params = {name: part for name, part in chain_params(task).items() if name != "output"} | {
        "output": {
            "head_kernel": jnp.asarray(np.log(np.hstack([chain[:, :3], of_cluster])), jnp.float32),
            "head_bias": jnp.zeros(4),
            "projection_0_kernel": jnp.eye(V),
            "cluster_0_kernel": jnp.asarray(np.log(chain[:, 3:] / of_cluster), jnp.float32),
        }
    }
    assert Evaluator(task).evaluate(params, "valid")["loss"] == pytest.approx(known_loss()[0], rel=1e-6)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_the_neural_cache_on_the_chain(tmp_path, window):
    """States are one-hot, so the cache's distribution is exp(θ) for every time that the word stood there before."""
    theta, mixing = 0.7, 0.3
    cache = {"window": window, "theta": theta, "mixing": mixing}
    task = make_task(tmp_path, eval_batch_size=1, neural_cache=cache)
    losses = []
    for document in DOCUMENTS:
        words = words_of(document)
        for t in range(len(words) - 1):
            seen = [(words[i], words[i + 1]) for i in range(max(0, t - window), t)]
            weights = [math.exp(theta * (word == words[t])) for word, _ in seen]
            probability = CHAIN[WORDS.index(words[t]), WORDS.index(words[t + 1])]
            if seen:
                hits = sum(w for w, (_, after) in zip(weights, seen, strict=True) if after == words[t + 1])
                probability = (1 - mixing) * probability + mixing * hits / sum(weights)
            losses.append(-math.log(probability))
    metrics = Evaluator(task).evaluate(chain_params(task), "test")
    assert metrics["perplexity_cache"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(known_loss()[0]), rel=1e-6)


def test_a_run_keeps_what_it_adapts_by(tmp_path):
    section = {"window": 3, "theta": 0.7, "mixing": 0.3}
    task = make_task(tmp_path, neural_cache=section, dynamic_evaluation={"learning_rate": 0.1})
    assert task.score_names("test") == ("perplexity_cache", "perplexity_dynamic")
    assert task.score_names("valid") == ()
    assert Evaluator(task).metric_names(chain_params(task), "test") == sorted(
        Evaluator(task).evaluate(chain_params(task), "test")
    )
    assert "perplexity_cache" not in Evaluator(task).evaluate(chain_params(task), "valid")
    assert Evaluator(task).evaluate(chain_params(task), "test", lambda: True) is None
    assert json.loads(task.files()["dataset.json"])["fingerprint"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neural_cache": {"window": 0, "theta": 1.0, "mixing": 0.1}}, "task.neural_cache.window"),
        ({"neural_cache": {"window": 5, "theta": -1.0, "mixing": 0.1}}, "task.neural_cache.theta"),
        ({"neural_cache": {"window": 5, "theta": 1.0, "mixing": 1.0}}, "task.neural_cache.mixing"),
        ({"neural_cache": {"window": 5, "theta": 1.0}}, "task.neural_cache.mixing is missing"),
        ({"neural_cache": {"window": 5, "theta": 1.0, "lamda": 0.1}}, "'lamda'"),
        ({"dynamic_evaluation": {"learning_rate": 0.0}}, "task.dynamic_evaluation.learning_rate"),
        ({"dynamic_evaluation": {"learning_rate": 0.1, "decay": 1.5}}, "task.dynamic_evaluation.decay"),
        ({"dynamic_evaluation": {"learning_rate": 0.1, "clip_norm": 0.0}}, "task.dynamic_evaluation.clip_norm"),
        ({"dynamic_evaluation": {"learning_rate": 0.1, "unroll_length": 0}}, "task.dynamic_evaluation.unroll_length"),
        ({"dynamic_evaluation": {"learning_rate": 0.1, "rule": "adam"}}, "task.dynamic_evaluation.rule"),
        ({"dynamic_evaluation": {"learning_rate": 0.1, "statistics_batches": 0}}, "statistics_batches"),
        ({"dynamic_evaluation": {"decay": 0.1}}, "task.dynamic_evaluation.learning_rate is missing"),
    ],
)
def test_impossible_adaptations_are_refused_before_data_is_read(tmp_path, options, message, unchecked_shapes):
    with pytest.raises(UserError, match=message) as caught:
        make_task(tmp_path, **options)
    assert "\n" not in str(caught.value)
