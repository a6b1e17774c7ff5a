"""Classifier and classifier-free guidance, and the classification loss, against closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, assert_moments
from draws import SAMPLERS

from score_sde_jax import keys as prng
from score_sde_jax import tasks
from score_sde_jax.diffusion import guidance, losses
from score_sde_jax.diffusion.parameterization import Parameterization, edm, log_sigma
from score_sde_jax.diffusion.sdes import VE, VP

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-0.4, 0.5), (0.3, 0.2)
"""Images of two classes; all pixels of an image are drawn from the Gaussian of its class."""


def log_joint(sde):
    def log_joint(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        logs = []
        for weight, mean, std in zip(WEIGHTS, MEANS, STDS, strict=True):
            variance = (alpha * std) ** 2 + sigma**2
            each = -0.5 * (x - alpha * mean) ** 2 / variance - 0.5 * jnp.log(variance)
            logs.append(jnp.log(weight) + jnp.sum(each, axis=(1, 2, 3)))
        return jnp.stack(logs, axis=1)

    return log_joint


def exact(sde):
    """Noise prediction of all images, and log-probabilities of their classes."""

    def noise_fn(x, t):
        density = lambda x: jnp.sum(jax.nn.logsumexp(log_joint(sde)(x, t), axis=1))  # noqa: E731
        return -sde.sigma(t) * jax.grad(density)(x)

    return noise_fn, lambda x, t: jax.nn.log_softmax(log_joint(sde)(x, t))


@pytest.mark.parametrize("name", SDE_CASES)
def test_guidance_of_scale_1_gives_the_prediction_of_the_class(name, x64):
    """Eq. (33) with the exact classifier: sigma (x - alpha m) / (alpha^2 s^2 + sigma^2) of the class's Gaussian."""
    sde, t, _ = SDE_CASES[name]
    noise_fn, log_probabilities = exact(sde)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 2, 1)))
    labels = jnp.asarray([0, 1, 0, 0, 1, 1])
    guided = [
        guidance.classifier_guidance(noise_fn, sde, log_probabilities, labels, scale) for scale in (0.0, 1.0, 3.0)
    ]
    predictions = jax.jit(lambda x, t: [predict(x, t) for predict in (noise_fn, *guided)])
    for time in (jnp.asarray(t), jnp.full((6, 1, 1, 1), t)):
        plain, unguided, actual, more = predictions(x, time)
        alpha, sigma = sde.alpha(jnp.asarray(t)), sde.sigma(jnp.asarray(t))
        mean, std = (np.asarray(part)[np.asarray(labels)].reshape(-1, 1, 1, 1) for part in (MEANS, STDS))
        expected = sigma * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(unguided, plain, rtol=1e-12)
        np.testing.assert_allclose(more, unguided + 3 * (actual - unguided), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("name", SDE_CASES)
def test_classifier_free_guidance_is_classifier_guidance_of_exact_predictions(name, scale, x64):
    """Eq. (36) and eq. (33): the difference of the predictions is the gradient of the classifier."""
    sde, t, _ = SDE_CASES[name]
    noise_fn, log_probabilities = exact(sde)
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 2, 1))), jnp.asarray(t)
    labels = jnp.asarray([0, 1, 0, 0, 1, 1])
    by_classifier = guidance.classifier_guidance(noise_fn, sde, log_probabilities, labels, scale)
    by_network = guidance.classifier_free_guidance(of_class(sde)(labels), noise_fn, scale)
    actual, expected = jax.jit(lambda x, t: (by_network(x, t), by_classifier(x, t)))(x, t)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def of_class(sde):
    """From labels to the noise prediction of each image's class: that of a Gaussian."""

    def conditional(labels):
        mean, std = (jnp.asarray(part)[labels].reshape(-1, 1, 1, 1) for part in (MEANS, STDS))

        def noise_fn(x, t):
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            return sigma * (x - alpha * mean) / ((alpha * std) ** 2 + sigma**2)

        return noise_fn

    return conditional


@pytest.mark.parametrize("name", ["ancestral", "dormand_prince", "pc"])
def test_guided_samplers_draw_the_class(name):
    draw, bias = SAMPLERS[name]
    labels = jnp.arange(128) % 2
    networks = tasks.Networks(*exact(draw.sde))
    task = tasks.ClassConditional()
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))
    images = jax.jit(lambda: task.sample(draw, networks, keys, jnp.zeros((128, 6, 6, 1)), {"label": labels}).images)()
    for label in (0, 1):
        expected = dataclasses.replace(GAUSSIAN, means=(MEANS[label],), stds=(STDS[label],))
        assert_moments(images[label::2], expected, bias=bias)


def test_the_minimum_of_the_classification_loss_is_the_exact_classifier():
    """Mean cross-entropy of the exact classifier: the entropy of the class given x_t, below that of any other."""
    sde, num = VP(), 4000
    rng = np.random.default_rng(0)
    labels = rng.choice(2, size=num, p=WEIGHTS)
    mean, std = (np.asarray(part)[labels].reshape(-1, 1, 1, 1) for part in (MEANS, STDS))
    x0 = jnp.asarray(mean + std * rng.normal(size=(num, 2, 2, 1)), jnp.float32)
    labels, keys = jnp.asarray(labels, jnp.int32), prng.per_image(jax.random.key(0), jnp.arange(num))
    _, right = exact(sde)

    def times(sde, keys):
        return 0.3 + 0.2 * prng.uniform(keys, jnp.zeros(len(keys)))

    def loss(log_probabilities, **more):
        function = functools.partial(losses.classification_loss, log_probabilities, sde, times=times, **more)
        return np.asarray(jax.jit(function)(keys, x0, labels))

    best = loss(right)
    for other in (
        lambda x, t: jax.nn.log_softmax(1.3 * right(x, t)),
        lambda x, t: jax.nn.log_softmax(0.7 * right(x, t)),
        lambda x, t: jax.nn.log_softmax(right(x, t) + jnp.asarray([[0.3, 0.0]])),
        lambda x, t: right(x, 0.8 * t),
        lambda x, t: right(x, t)[:, ::-1],
    ):
        excess = loss(other) - best
        assert excess.mean() > 2 * excess.std() / np.sqrt(num)
    key_t, key_eps = prng.split(keys, 2)
    t = prng.bcast(times(sde, key_t), x0)
    x_t, _ = sde.perturb(key_eps, x0, t)
    logs = np.asarray(right(x_t, t))
    np.testing.assert_allclose(best, -logs[np.arange(num), np.asarray(labels)], rtol=1e-5)
    entropy = -(np.exp(logs) * logs).sum(1)
    assert abs((best - entropy).mean()) < 4 * (best - entropy).std() / np.sqrt(num)
    np.testing.assert_allclose(loss(right, weight=lambda sde, t: 2 * t), 2 * np.ravel(t) * best, rtol=1e-5)
    hits = np.asarray(losses.correctly_classified(right, sde, key_eps, x0, labels, jnp.asarray(0.4)))
    x_t, _ = sde.perturb(key_eps, x0, jnp.asarray(0.4))
    joint = np.asarray(log_joint(sde)(x_t, jnp.asarray(0.4)))
    np.testing.assert_array_equal(hits, (joint[:, 1] > joint[:, 0]) == np.asarray(labels))


def test_a_classifier_sees_what_a_noise_prediction_would_see():
    preconditioning, sde = Parameterization(coefficients=edm, condition=log_sigma, center=0.3, input_scale=2.0), VE()
    seen = []

    def network(x, condition):
        seen.append((np.asarray(x), np.asarray(condition.noise)))
        return x.reshape(len(x), -1)

    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)), jnp.float32), jnp.asarray(0.4)
    probabilities = np.exp(preconditioning.log_probabilities(network, sde)(x, t))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-6)
    preconditioning.noise_fn(lambda x, condition: network(x, condition).reshape(x.shape), sde)(x, t)
    for first, second in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, second)
    sigma = float(sde.sigma(t))
    np.testing.assert_allclose(seen[0][0], 2 * (np.asarray(x) - 0.3) / np.sqrt(sigma**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(seen[0][1], np.log(sigma), rtol=1e-6)
