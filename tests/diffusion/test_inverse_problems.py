"""Samples given an observed part of an image, against closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, SKEWED, assert_moments
from draws import ANNEALED, SAMPLERS, sampler

from score_sde_jax import keys as prng
from score_sde_jax import tasks
from score_sde_jax.diffusion import guidance
from score_sde_jax.diffusion.guidance import LinearObservation
from score_sde_jax.diffusion.sdes import VE, VP
from score_sde_jax.samplers import GRIDS, PRIORS, Sampler, Step


@pytest.mark.parametrize("name", SAMPLERS)
def test_pixels_that_do_not_depend_on_the_known_ones_keep_their_distribution(name):
    """Half of independent pixels are observed: these are exact, the others have their unconditional distribution."""
    draw, bias = SAMPLERS[name]
    observed = SKEWED.sample(jax.random.key(1), (128, 8, 8, 1))
    task = tasks.Inpainting(mask="right")
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))

    @jax.jit
    def drawn(observed):
        networks = tasks.Networks(SKEWED.noise_fn(draw.sde))
        return task.sample(draw, networks, keys, jnp.zeros_like(observed), {"observed": observed[:, None]})

    images = drawn(observed).images
    np.testing.assert_array_equal(images[:, :, :4], observed[:, :, :4])
    assert_moments(images[:, :, 4:], SKEWED, bias=bias)

    other = observed.at[:, :, 4:].set(SKEWED.sample(jax.random.key(2), (128, 8, 4, 1)))
    np.testing.assert_array_equal(drawn(other).images, images)  # hidden values have no effect


@pytest.mark.parametrize("name", ["ancestral", "dormand_prince"])
def test_of_gaussian_pixels_with_known_means_the_rest_has_its_own_variance(name):
    """P x is exact, and (I - P) x independent of it: of mean 0 and the variance of a pixel times (1 - 1/4)."""
    draw, bias = SAMPLERS[name]
    observed = GAUSSIAN.sample(jax.random.key(1), (128, 8, 8, 1))
    task = tasks.SuperResolution(factor=2)
    keys = prng.per_image(jax.random.key(9), jnp.arange(128))
    networks = tasks.Networks(GAUSSIAN.noise_fn(draw.sde))
    samples = jax.jit(lambda x: task.sample(draw, networks, keys, jnp.zeros_like(x), {"observed": x[:, None]}))(
        observed
    )
    project = guidance.block_mean(2)
    np.testing.assert_allclose(project(samples.images), project(observed), atol=1e-5)
    rest = dataclasses.replace(GAUSSIAN, means=(0.0,), stds=(GAUSSIAN.std() * 0.75**0.5,))
    assert_moments(samples.images - project(samples.images), rest, bias=bias, errors=6.0)  # three of four are free


def test_langevin_dynamics_draws_from_the_distribution_given_the_known_part():
    """Pairs of Gaussian pixels of correlation 0.9, the first one given: mean 0.9 y, variance 1 - 0.9^2."""
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    sde = VE(sigma_min=0.1, sigma_max=4.0)

    def noise_fn(x, t):
        sigma = sde.sigma(t)
        precision = jnp.linalg.inv(jnp.asarray(covariance, jnp.float32) + sigma**2 * jnp.eye(2))
        return sigma * jnp.einsum("ij,bhjc->bhic", precision, x)

    draw = sampler(sde, corrector=functools.partial(ANNEALED, num_steps=150), grid="ladder", num=12, denoise=False)
    observed = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 1, 2, 1)), jnp.float32)
    keys = prng.per_image(jax.random.key(4), jnp.arange(2000))
    given = {"observed": observed[:, None]}
    task, networks = tasks.Inpainting(mask="right"), tasks.Networks(noise_fn)
    images = jax.jit(lambda: task.sample(draw, networks, keys, jnp.zeros_like(observed), given).images)()
    y, x = np.asarray(images)[:, 0, :, 0].T
    np.testing.assert_array_equal(y, np.asarray(observed)[:, 0, 0, 0])
    slope, residual = np.polyfit(y, x, 1)[0], x - 0.9 * y
    assert slope == pytest.approx(0.9, abs=0.05)
    assert abs(residual.mean()) < 4 * np.sqrt(0.19 / len(y)) + 0.01
    assert residual.var() == pytest.approx(0.19 + 0.1**2, rel=0.15)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("sde", [VE(sigma_max=1.0), VP()], ids=["ve", "vp"])
def test_the_start_is_at_the_marginal_of_the_first_time(sde, prior):
    """With an identity step, the frame is the initial noise: alpha y + sigma z in the observed part, else the prior."""
    still = Sampler(
        sde=sde,
        prior=PRIORS[prior],
        step=lambda sde, noise_fn: Step(lambda keys, x, t, s: x, nfe=0),
        times=GRIDS["uniform"](sde, num_steps=1),
        denoise=False,
        num_frames=1,
        temperature=0.5,
    )
    observed = 10 + jnp.zeros((128, 8, 8, 1))
    keys = prng.per_image(jax.random.key(0), jnp.arange(128))
    task, networks = tasks.Inpainting(mask="top"), tasks.Networks(lambda x, t: x)
    actual = task.sample(still, networks, keys, jnp.zeros_like(observed), {"observed": observed[:, None]})
    (start,) = np.asarray(actual.frames)
    alpha, sigma = (float(f(jnp.asarray(sde.t_max))) for f in (sde.alpha, sde.sigma))
    assert_moments(start[:, 4:], dataclasses.replace(GAUSSIAN, means=(10 * alpha,), stds=(sigma,)))
    rest = start[:, :4]
    if prior == "gaussian":
        assert_moments(rest, dataclasses.replace(GAUSSIAN, means=(0.0,), stds=(0.5 * sigma,)))
    else:
        assert rest.min() >= 0 and rest.max() <= 0.5 and rest.mean() == pytest.approx(0.25, abs=0.01)
    assert abs(np.corrcoef(start[:, 4:].ravel(), rest.ravel())[0, 1]) < 4 / np.sqrt(rest.size)
    np.testing.assert_array_equal(actual.images[:, 4:], observed[:, 4:])
    np.testing.assert_array_equal(actual.images[:, :4], rest)


def test_means_do_not_tell_what_they_are_means_of():
    """Colors and blocks with equal means, in values that float32 represents exactly, have equal results."""
    rng, draw = np.random.default_rng(0), sampler(VP(), "ancestral", num=3)
    observed = rng.integers(0, 64, (4, 4, 4, 3)) / 64
    keys = prng.per_image(jax.random.key(0), jnp.arange(4))
    swapped = {"colorization": observed[..., ::-1], "super_resolution": observed[:, [1, 0, 3, 2]]}
    for name, other in swapped.items():
        assert not np.array_equal(other, observed)
        task, networks = tasks.TASKS[name](), tasks.Networks(lambda x, t: jnp.sin(3 * x))
        drawn = jax.jit(functools.partial(task.sample, draw, networks, keys, jnp.zeros((4, 4, 4, 3))))
        results = [drawn({"observed": jnp.asarray(x, jnp.float32)[:, None]}) for x in (observed, other)]
        np.testing.assert_array_equal(results[0].images, results[1].images)


@pytest.mark.parametrize("name", SDE_CASES)
def test_the_known_part_of_the_prediction_is_exact(name, x64):
    """Eq. (32): the reverse of alpha y + sigma z, and outside it the network's own prediction."""
    sde, t, _ = SDE_CASES[name]
    rng = np.random.default_rng(0)
    y, z, eps = (jnp.asarray(rng.normal(size=(2, 4, 4, 3))) for _ in range(3))
    for time in (jnp.asarray(t), jnp.full((2, 1, 1, 1), t)):
        known = LinearObservation(sde, guidance.channel_mean, guidance.channel_mean(y))
        x = sde.alpha(time) * y + sde.sigma(time) * z
        actual = known.noise_fn(lambda x, t: eps)(x, time)
        np.testing.assert_allclose(guidance.channel_mean(actual), guidance.channel_mean(z), atol=1e-6)
        np.testing.assert_allclose(actual - guidance.channel_mean(actual), eps - guidance.channel_mean(eps), atol=1e-12)
        np.testing.assert_allclose(
            guidance.channel_mean(sde.denoised(x, actual, time)), guidance.channel_mean(y), atol=1e-6
        )  # so the last denoising step ends on y
