"""Running and composing steps: frames, keys, batches, compilation, and the count of network evaluations."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED
from scipy import stats

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import EDM, VE, VP
from score_sde_jax.samplers import CORRECTORS, PREDICTORS, PRIORS, Sampler, Step, chain, denoise, run

SAMPLERS = {
    **{f"predictor {name}": make for name, make in PREDICTORS.items()},
    **{f"corrector {name}": make for name, make in CORRECTORS.items()},
    "corrector annealed_langevin": functools.partial(CORRECTORS["annealed_langevin"], num_steps=7),
}
TIMES = np.linspace(0.9, 0.2, 6, dtype=np.float32)


def image_keys(num):
    return prng.per_image(jax.random.key(0), jnp.arange(num))


def walk(keys, x, t, s):
    """A step that depends on order, time and noise."""
    return (1 - s) * x + t + prng.normal(keys, x)


def test_frames_are_the_states_on_the_way():
    keys, x = image_keys(2), jnp.ones((2, 3))
    states = []
    for i, (t, s) in enumerate(itertools.pairwise(TIMES)):
        states.append(walk(prng.fold_in(keys, i), states[-1] if states else x, jnp.asarray(t), jnp.asarray(s)))
    for num_frames, shown in ((0, []), (2, [2, 4]), (3, [1, 3, 4]), (9, [0, 1, 2, 3, 4])):
        last, frames, _ = run(Step(walk, 0), jnp.asarray(TIMES), keys, x, num_frames=num_frames)
        np.testing.assert_allclose(last, states[-1], rtol=1e-5)
        np.testing.assert_allclose(frames, np.reshape([states[i] for i in shown], (-1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_own_key_alone_and_nothing_is_compiled_twice(name):
    traces = []

    def noise_fn(x, t):
        traces.append(x.shape)
        return GAUSSIAN.noise_fn(VP())(x, t)

    step = SAMPLERS[name](VP(), noise_fn)
    sample = jax.jit(lambda keys, x: run(step, jnp.asarray(TIMES), keys, x)[0])
    like = jnp.zeros((8, 3))
    keys = image_keys(8)
    images = sample(keys, VP().prior(keys, like))
    traced = len(traces)
    others = image_keys(16)[8:]
    assert not np.allclose(sample(others, VP().prior(others, like)), images)
    np.testing.assert_array_equal(sample(keys, VP().prior(keys, like)), images)
    assert len(traces) == traced
    part = sample(keys[2:5], VP().prior(keys[2:5], like[2:5]))
    np.testing.assert_allclose(part, images[2:5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_number_of_evaluations_is_that_of_the_network(name):
    calls = []

    def noise_fn(x, t):
        calls.append(t)
        return x

    step = SAMPLERS[name](VE(), noise_fn)
    two = chain(step, step)
    with jax.disable_jit():
        x, t, s = jnp.ones((1, 2)), jnp.asarray(0.5), jnp.asarray(0.4)
        _, (count,) = step.call_with_nfe(image_keys(1), x, t, s)
        assert len(calls) == count and step.nfe in (None, count)
        calls.clear()
        _, (count,) = two.call_with_nfe(image_keys(1), x, t, s)
    assert len(calls) == count
    assert two.nfe == (None if step.nfe is None else 2 * step.nfe)


def test_evaluations_are_summed_over_the_steps_for_every_image():
    """A step that evaluates as often as the image says, chained with one of 3 evaluations."""
    images_decide = Step(lambda keys, x, t, s: (x, x[:, 0].astype(jnp.int32)), None)
    three = Step(lambda keys, x, t, s: x, 3)
    x, keys = jnp.asarray([[1.0], [5.0]]), image_keys(2)
    result = run(chain(images_decide, three), jnp.asarray(TIMES), keys, x)
    np.testing.assert_array_equal(result.nfe, [5 * (1 + 3), 5 * (5 + 3)])
    np.testing.assert_array_equal(run(three, jnp.asarray(TIMES), keys, x).nfe, 15)


def test_chain_applies_its_steps_in_order_with_independent_keys():
    double = Step(lambda keys, x, t, s: 2 * x, 0)
    noisy = Step(lambda keys, x, t, s: x + prng.normal(keys, x), 0)
    keys, x = image_keys(512), jnp.ones((512, 8))
    move = chain(noisy, double, noisy)(keys, x, jnp.asarray(1.0), jnp.asarray(0.0))
    # 2 (1 + z1) + z2: independent noises have variance 5, the same twice would have 9
    assert float(move.mean()) == pytest.approx(2, abs=4 * np.sqrt(5 / x.size))
    assert float(move.var()) == pytest.approx(5, abs=4 * 5 * np.sqrt(2 / x.size))


def test_every_step_of_a_run_has_new_noise():
    step = PREDICTORS["euler_maruyama"](VE(), lambda x, t: jnp.zeros_like(x))
    keys, times = image_keys(512), jnp.asarray(TIMES)
    x, *_ = run(step, times, keys, jnp.zeros((512, 8)))
    # Brownian motion: the variances of independent steps add up.
    variance = float(jnp.sum(VE().diffusion_squared(times[:-1]) * (times[:-1] - times[1:])))
    assert float(x.var()) == pytest.approx(variance, rel=4 * np.sqrt(2 / x.size))


def test_denoised_image_is_the_posterior_mean():
    """E[x_0 | x_t] leaves an error that is uncorrelated with every function of x_t."""
    sde, t = EDM(), jnp.asarray(0.4)
    x0 = SKEWED.sample(jax.random.key(1), (512, 8, 8, 1))
    x, _ = sde.perturb(image_keys(512), x0, t)
    error = np.asarray(denoise(sde, SKEWED.noise_fn(sde), x, t) - x0, np.float64)
    for test in (jnp.ones_like(x), x, jnp.tanh(3 * x), jnp.sin(4 * x)):
        product = error * np.asarray(test)
        assert abs(product.mean()) < 4 * product.std() / np.sqrt(product.size)


PRIOR_DISTRIBUTIONS = {"gaussian": stats.norm(0, 5.0), "uniform": stats.uniform(0, 1)}


def test_every_registered_prior_has_a_distribution():
    assert set(PRIOR_DISTRIBUTIONS) == set(PRIORS)


@pytest.mark.parametrize("name", PRIORS)
def test_prior_has_its_distribution(name):
    sde = VE(sigma_min=0.05, sigma_max=5.0)
    x = PRIORS[name](sde, image_keys(512), jnp.zeros((512, 8)))
    assert x.shape == (512, 8)
    assert stats.kstest(np.ravel(x), PRIOR_DISTRIBUTIONS[name].cdf).pvalue > 1e-3
    np.testing.assert_array_equal(x[3:5], PRIORS[name](sde, image_keys(512)[3:5], jnp.zeros((2, 8))))


@pytest.mark.parametrize("denoised", [True, False])
def test_sampler_is_prior_then_run_then_denoise(denoised):
    sde, times, calls = EDM(t_min=0.5, t_max=3.0), jnp.asarray([3.0, 1.0, 0.5]), []

    def noise_fn(x, t):
        calls.append(t)
        return jnp.tanh(x)

    sampler = Sampler(
        sde=sde, prior=PRIORS["uniform"], step=PREDICTORS["heun"], times=times, denoise=denoised, num_frames=2
    )
    keys, like = image_keys(4), jnp.zeros((4, 3))
    with jax.disable_jit():
        images, frames, evaluations = sampler(noise_fn, keys, like)
    np.testing.assert_array_equal(evaluations, len(calls))
    assert len(calls) == sampler.nfe() == (5 if denoised else 4)
    # The initial noise has a key that no step uses.
    key_prior, key_run = prng.split(keys, 2)
    x, states, _ = run(PREDICTORS["heun"](sde, noise_fn), times, key_run, prng.uniform(key_prior, like), num_frames=2)
    np.testing.assert_allclose(frames, states, rtol=1e-5)
    np.testing.assert_allclose(images, x - 0.5 * jnp.tanh(x) if denoised else x, rtol=1e-5)


def test_noise_of_the_steps_is_not_that_of_the_start():
    step = Step(lambda keys, x, t, s: x + prng.normal(keys, x), 0)
    sampler = Sampler(
        sde=EDM(t_min=0.5, t_max=1.0),
        prior=PRIORS["gaussian"],
        step=lambda sde, noise_fn: step,
        times=jnp.asarray([1.0, 0.75, 0.5]),
        denoise=False,
    )
    images, *_ = sampler(lambda x, t: x, image_keys(512), jnp.zeros((512, 8)))
    assert float(images.var()) == pytest.approx(3, abs=4 * 3 * np.sqrt(2 / images.size))


def test_start_is_given_or_the_prior_times_the_temperature():
    sampler = Sampler(
        sde=VP(),
        prior=PRIORS["gaussian"],
        step=PREDICTORS["euler_maruyama"],
        times=jnp.asarray(TIMES[:3]),
        temperature=0.5,
    )
    warm = dataclasses.replace(sampler, temperature=1.0)
    noise_fn, keys, like = GAUSSIAN.noise_fn(VP()), image_keys(4), jnp.zeros((4, 3))
    prior = VP().prior(prng.split(keys, 2)[0], like)
    with jax.disable_jit():
        cold = sampler(noise_fn, keys, like).images
        np.testing.assert_allclose(sampler(noise_fn, keys, like, initial_noise=0.5 * prior).images, cold, rtol=1e-6)
        from_prior = warm(noise_fn, keys, like, initial_noise=prior).images
        np.testing.assert_array_equal(warm(noise_fn, keys, like).images, from_prior)
    assert not np.allclose(from_prior, cold)


def test_adaptive_sampler_leaves_the_number_of_evaluations_to_the_images():
    sampler = Sampler(
        sde=VP(), prior=PRIORS["gaussian"], step=PREDICTORS["dormand_prince"], times=jnp.asarray([1.0, 0.5, 1e-3])
    )
    assert sampler.nfe() is None
    result = sampler(SKEWED.noise_fn(VP()), image_keys(8), jnp.zeros((8, 1)))
    assert len(set(np.asarray(result.nfe).tolist())) > 1
    np.testing.assert_array_equal((result.nfe - 1) % 6, 4)  # 2 and a multiple of 6 in each of 2 steps, 1 to denoise
