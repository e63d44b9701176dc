"""Output layers: distributions that sum to one, their losses, gradients, PyTorch's adaptive softmax, and samples."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from lstm_research.common.errors import UserError
from lstm_research.models.layers.softmax import (
    SOFTMAXES,
    AdaptiveSoftmax,
    FullSoftmax,
    MixtureSoftmax,
    SampledSoftmax,
)
from lstm_research.models.layers.softmax.sampled import _make_plan

V, H, T, B = 23, 8, 5, 4
ALL = {
    "adaptive": AdaptiveSoftmax((6, 11)),
    "full": FullSoftmax(),
    "mixture": MixtureSoftmax(3, latent_size=6),
    "sampled": SampledSoftmax(7),
}
each = pytest.mark.parametrize("name", ALL)


def random_params(softmax, seed=0):
    """Parameters so large that the distributions are far from uniform; biases too."""
    params = softmax.init(jax.random.key(seed), H, V, jnp.result_type(float))
    keys = jax.random.split(jax.random.key(seed + 1), len(params))
    return {name: jax.random.normal(k, p.shape, p.dtype) for k, (name, p) in zip(keys, params.items(), strict=True)}


def random_batch(seed=2, count=(T, B)):
    keys = jax.random.split(jax.random.key(seed), 2)
    dtype = jnp.result_type(float)
    return jax.random.normal(keys[0], (*count, H), dtype), jax.random.randint(keys[1], count, 0, V, "int32")


def test_the_table_is_tested_whole():
    assert ALL.keys() == SOFTMAXES.keys()
    assert all(type(softmax) is SOFTMAXES[name] for name, softmax in ALL.items())


@each
def test_losses_are_of_a_distribution(name, x64):
    softmax, (ys, _) = ALL[name], random_batch()
    params = random_params(softmax)
    log_probabilities = jax.nn.log_softmax(softmax.logits(params, ys))
    loss = jax.jit(lambda targets: softmax.losses(params, ys, targets)[0])
    losses = [loss(jnp.full((T, B), v)) for v in range(V)]
    np.testing.assert_allclose(jnp.exp(-jnp.stack(losses)).sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(-jnp.stack(losses, axis=-1), log_probabilities, rtol=1e-10)
    assert float(jnp.ptp(log_probabilities)) > 3


@each
def test_correct_is_the_most_likely_symbol_where_it_is_told(name):
    softmax, (ys, targets) = ALL[name], random_batch()
    params = random_params(softmax)
    correct = softmax.losses(params, ys, targets)[1]
    assert (correct is None) == (name in ("adaptive", "mixture"))
    if correct is not None:
        most_likely = softmax.logits(params, ys).argmax(axis=-1)
        np.testing.assert_array_equal(correct, most_likely == targets)
        assert softmax.losses(params, ys, most_likely)[1].all()


@each
@pytest.mark.parametrize("training", [False, True])
def test_gradients(name, training, x64, unchecked_shapes):
    softmax, (ys, targets) = ALL[name], random_batch()
    key = jax.random.key(5) if training else None

    @jax.jit
    def loss(params, ys):
        return softmax.losses(params, ys, targets, key)[0].sum()

    check_grads(loss, (random_params(softmax), ys), order=1, modes=["rev"], rtol=1e-6)


@each
def test_every_parameter_counts(name):
    softmax, (ys, targets) = ALL[name], random_batch(count=(40, 4))  # targets in every cluster
    params = random_params(softmax)
    gradient = jax.grad(lambda p: softmax.losses(p, ys, targets, jax.random.key(0))[0].sum())(params)
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in gradient.values())
    assert all(name.endswith(("kernel", "bias")) for name in params)


def test_full_is_log_softmax_of_a_linear_layer(x64):
    ys, targets = random_batch()
    params = random_params(FullSoftmax())
    expected = torch.nn.functional.cross_entropy(
        torch.as_tensor(np.array(ys @ params["kernel"] + params["bias"])).flatten(0, 1),
        torch.as_tensor(np.array(targets)).flatten().long(),
        reduction="none",
    )
    np.testing.assert_allclose(FullSoftmax().losses(params, ys, targets)[0].ravel(), expected, rtol=1e-12)


@pytest.mark.parametrize(("cutoffs", "factor"), [((6, 11), 2.0), ((1, 2, 22), 2.0)])
def test_adaptive_equals_pytorch(cutoffs, factor, x64):
    softmax = AdaptiveSoftmax(cutoffs, factor)
    params, (ys, targets) = random_params(softmax), random_batch()
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(
        H, V, list(cutoffs), div_value=factor, head_bias=True, dtype=torch.float64
    )
    as_torch = {name: torch.as_tensor(np.asarray(p).T.copy()) for name, p in params.items()}
    with torch.no_grad():
        module.head.weight.copy_(as_torch["head_kernel"])
        module.head.bias.copy_(as_torch["head_bias"])
        for k, tail in enumerate(module.tail):
            tail[0].weight.copy_(as_torch[f"projection_{k}_kernel"])
            tail[1].weight.copy_(as_torch[f"cluster_{k}_kernel"])
    torch_ys = torch.as_tensor(np.array(ys)).flatten(0, 1).requires_grad_()
    log_probabilities, loss = module(torch_ys, torch.as_tensor(np.array(targets)).flatten().long())
    np.testing.assert_allclose(-softmax.losses(params, ys, targets)[0].ravel(), log_probabilities.detach(), rtol=1e-9)
    expected = module.log_prob(torch_ys).detach().reshape(T, B, V)
    np.testing.assert_allclose(softmax.logits(params, ys), expected, rtol=1e-9)

    loss.backward()
    gradient, of_ys = jax.grad(lambda p, y: softmax.losses(p, y, targets)[0].mean(), argnums=(0, 1))(params, ys)
    np.testing.assert_allclose(gradient["head_kernel"].T, module.head.weight.grad, rtol=1e-8, atol=1e-12)
    for k, tail in enumerate(module.tail):
        np.testing.assert_allclose(gradient[f"projection_{k}_kernel"].T, tail[0].weight.grad, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(gradient[f"cluster_{k}_kernel"].T, tail[1].weight.grad, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(of_ys.reshape(-1, H), torch_ys.grad, rtol=1e-8, atol=1e-12)


def test_a_projection_has_a_feature_at_least():
    params = AdaptiveSoftmax((4, 9), 100.0).init(jax.random.key(0), H, V)
    assert params["projection_1_kernel"].shape == (H, 1)
    assert params["cluster_1_kernel"].shape == (1, V - 9)


def test_a_cluster_without_targets_is_not_computed():
    """NaN weights of a cluster that no target is in reach neither loss nor gradient."""
    softmax, (ys, _) = ALL["adaptive"], random_batch()
    params = random_params(softmax)
    params["cluster_1_kernel"] = jnp.full_like(params["cluster_1_kernel"], jnp.nan)
    targets = jnp.arange(T * B).reshape(T, B) % 11
    loss, gradient = jax.value_and_grad(lambda p: softmax.losses(p, ys, targets)[0].sum())(params)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())
    assert np.isnan(softmax.losses(params, ys, targets + 5)[0]).any()


def test_a_mixture_of_one_is_a_softmax_of_tanh(x64):
    softmax, (ys, targets) = MixtureSoftmax(1), random_batch()
    params = random_params(softmax)
    latent = jnp.tanh(ys @ params["latent_kernel"] + params["latent_bias"])
    np.testing.assert_allclose(
        softmax.losses(params, ys, targets)[0], FullSoftmax().losses(params, latent, targets)[0], rtol=1e-12
    )


def test_a_mixture_against_numpy(x64):
    softmax, (ys, targets) = MixtureSoftmax(3, latent_size=6), random_batch()
    params = {name: np.asarray(p) for name, p in random_params(softmax).items()}
    for t, b in itertools.product(range(T), range(B)):
        y = np.asarray(ys[t, b])
        prior = np.exp(y @ params["prior_kernel"])
        prior /= prior.sum()
        probability = 0
        for k in range(3):
            part = slice(6 * k, 6 * k + 6)
            latent = np.tanh(y @ params["latent_kernel"][:, part] + params["latent_bias"][part])
            weights = np.exp(latent @ params["kernel"] + params["bias"])
            probability += prior[k] * weights[targets[t, b]] / weights.sum()
        np.testing.assert_allclose(softmax.losses(params, ys, targets)[0][t, b], -np.log(probability), rtol=1e-10)


def test_latent_dropout_is_locked_and_in_training_only():
    softmax = MixtureSoftmax(3, latent_rate=0.5)
    plain = dataclasses.replace(softmax, latent_rate=0.0)
    params, (ys, targets) = random_params(softmax), random_batch()
    ys, targets = jnp.broadcast_to(ys[:1], ys.shape), jnp.broadcast_to(targets[:1], targets.shape)
    losses = softmax.losses(params, ys, targets, jax.random.key(0))[0]
    without = plain.losses(params, ys, targets, jax.random.key(0))[0]
    assert (jnp.abs(losses - without) > 1e-3).all()
    np.testing.assert_allclose(losses, jnp.broadcast_to(losses[:1], losses.shape), rtol=1e-6)
    np.testing.assert_array_equal(softmax.losses(params, ys, targets)[0], without)


@pytest.mark.parametrize("num_samples", [V, V + 10])
def test_a_sample_of_all_symbols_gives_the_full_softmax(num_samples, x64):
    params, (ys, targets) = random_params(FullSoftmax()), random_batch()
    sampled, full = (
        jax.value_and_grad(lambda p, s=softmax: s.losses(p, ys, targets, jax.random.key(3))[0].sum())(params)
        for softmax in (SampledSoftmax(num_samples), FullSoftmax())
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), sampled, full)


def test_a_sample_is_the_full_softmax_in_expectation(x64):
    """The sum in the denominator, averaged over the whole range of the one random number, is that of all symbols."""
    params, (ys, targets) = random_params(FullSoftmax()), random_batch()
    n = 7
    plan = _make_plan(n, V)
    points = (np.arange(20_000) + 0.5) / 20_000 * plan.unit
    drawn = np.searchsorted(plan.ends, points[:, None].astype(np.int64) + plan.unit * np.arange(n), side="right")
    count = np.zeros(V)
    np.add.at(count, drawn, 1)
    np.testing.assert_allclose(count / len(points), np.exp(plan.log_inclusion), atol=2e-4)

    softmax = SampledSoftmax(n)
    of_target = jnp.take_along_axis(softmax.logits(params, ys), targets[..., None], axis=-1)[..., 0]
    losses = jax.vmap(lambda key: softmax.losses(params, ys, targets, key)[0])(
        jax.random.split(jax.random.key(1), 4000)
    )
    full = jnp.exp(softmax.losses(params, ys, targets)[0] + of_target)
    estimates = jnp.exp(losses + of_target)
    deviation = estimates.std(axis=0) / 4000**0.5
    assert (jnp.abs(estimates.mean(axis=0) - full) < 5 * deviation + 1e-9).all()
    assert (deviation > 0).any()
    assert (losses.mean(axis=0) < softmax.losses(params, ys, targets)[0] + 1e-9).all()


@pytest.mark.parametrize(("n", "size"), [(1, 2), (1, 50), (7, 50), (49, 50), (50, 50), (64, 10_000), (4096, 1_000_000)])
def test_samples_are_distinct_and_log_uniform(n, size):
    plan = _make_plan(n, size)
    inclusion = np.exp(plan.log_inclusion)
    assert inclusion.sum() == pytest.approx(n, rel=1e-6)
    assert (inclusion > 0).all()
    assert (inclusion <= 1).all()
    p = np.log1p(1 / np.arange(1, size + 1))
    uncertain = inclusion < 1
    ratio = inclusion[uncertain] / p[uncertain]
    if uncertain.any():
        np.testing.assert_allclose(ratio, ratio[0], rtol=0.05)
        assert not uncertain[: np.argmax(uncertain)].any()
        assert uncertain[np.argmax(uncertain) :].all()
    for seed in range(5):
        drawn = np.asarray(plan.draw(jax.random.key(seed)))
        assert len(drawn) == n
        assert (np.diff(drawn) > 0).all()
        assert drawn[0] >= 0
        assert drawn[-1] < size


def test_a_sample_of_nothing_but_the_target_has_a_gradient():
    params, (ys, _) = random_params(FullSoftmax()), random_batch()
    softmax = SampledSoftmax(1)
    for seed in range(8):
        sample = int(_make_plan(1, V).draw(jax.random.key(seed))[0])
        loss, gradient = jax.value_and_grad(
            lambda p, s=seed, v=sample: softmax.losses(p, ys, jnp.full((T, B), v), jax.random.key(s))[0].sum()
        )(params)
        assert loss == 0
        assert all(np.isfinite(leaf).all() for leaf in gradient.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MixtureSoftmax(0), "model.softmax.num_experts must be at least 1"),
        (lambda: MixtureSoftmax(2, latent_size=0), "model.softmax.latent_size"),
        (lambda: MixtureSoftmax(2, latent_rate=1.0), "model.softmax.latent_rate"),
        (lambda: SampledSoftmax(0), "model.softmax.num_samples"),
        (lambda: AdaptiveSoftmax(()), "model.softmax.cutoffs must be rising"),
        (lambda: AdaptiveSoftmax((5, 5)), "model.softmax.cutoffs must be rising"),
        (lambda: AdaptiveSoftmax((0, 5)), "model.softmax.cutoffs must be rising"),
        (lambda: AdaptiveSoftmax((5,), 0.5), "model.softmax.projection_factor"),
        (lambda: AdaptiveSoftmax((5, V)).init(jax.random.key(0), H, V), f"below the vocabulary's size {V}"),
    ],
)
def test_impossible_choices_are_refused_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
