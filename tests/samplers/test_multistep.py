"""Multistep methods: the formula of the paper, its order of convergence, and memories in a chain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, SKEWED, Mixture

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import VP
from score_sde_jax.samplers import CORRECTORS, GRIDS, Step, chain, run
from score_sde_jax.samplers.predictors import ddim, dpmpp_2m

POINTS = np.array([-1.3, 0.2, 2.0])


def last(step: Step, times, x=POINTS):
    """Return the last points of a run without noise."""
    keys = prng.per_image(jax.random.key(0), jnp.arange(1))
    return np.asarray(run(step, jnp.asarray(times), keys, jnp.asarray(x)[None]).images[0])


def algorithm_2(network, times, x):
    """ArXiv 2211.01095, Algorithm 2, on VP with beta from 0.1 to 20, line by line."""

    def alpha(t):
        return np.exp(-0.05 * t - 4.975 * t**2)

    def sigma(t):
        return np.sqrt(1 - alpha(t) ** 2)

    def lam(t):
        return np.log(alpha(t) / sigma(t))

    buffer, width = [], []
    for t, s in itertools.pairwise(times):
        buffer.append((x - sigma(t) * np.asarray(network(x, t))) / alpha(t))
        width.append(lam(s) - lam(t))
        data = buffer[-1]
        if len(buffer) > 1:
            r = width[-2] / width[-1]
            data = (1 + 1 / (2 * r)) * buffer[-1] - 1 / (2 * r) * buffer[-2]
        x = sigma(s) / sigma(t) * x - alpha(s) * (np.exp(-width[-1]) - 1) * data
    return x


def test_run_is_the_algorithm_of_the_paper(x64):
    def network(x, t):
        return jnp.sin(2 * x) + 0.3 * x + t

    times = np.array([0.9, 0.7, 0.62, 0.3, 0.05])
    np.testing.assert_allclose(last(dpmpp_2m(VP(), network), times), algorithm_2(network, times, POINTS), rtol=1e-9)


@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_order_of_convergence_to_the_flow_is_2(sde_name, x64):
    """For Gaussian data the flow is x_s - E x_s = std_s / std_t (x_t - E x_t); DDIM, without memory, is of order 1."""
    sde, t, s = SDE_CASES[sde_name]
    before, after = GAUSSIAN.at(sde, t), GAUSSIAN.at(sde, s)
    expected = after.mean() + after.std() / before.std() * (POINTS - before.mean())
    for make, order in ((dpmpp_2m, 2), (ddim, 1)):
        step = make(sde, GAUSSIAN.noise_fn(sde))
        errors = [np.abs(last(step, np.linspace(t, s, n + 1)) - expected).max() for n in (64, 128)]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_run_is_exact_for_a_single_image(sde_name, x64):
    """The denoised image is constant, so the extrapolation is exact: x_s = alpha x_0 + sigma eps."""
    sde, t, s = SDE_CASES[sde_name]
    times = np.linspace(t, s, 4)
    actual = last(dpmpp_2m(sde, Mixture((1.0,), (0.7,), (0.0,)).noise_fn(sde)), times)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = (np.asarray(f(jnp.asarray([t, s]))) for f in (sde.alpha, sde.sigma))
    np.testing.assert_allclose(actual, alpha_s * 0.7 + sigma_s / sigma_t * (POINTS - alpha_t * 0.7), rtol=1e-9)


def test_memory_passes_through_a_chain(x64):
    """An identity corrector has no effect, and two steps of one chain have separate memories."""
    noise_fn, times = SKEWED.noise_fn(VP()), np.asarray(GRIDS["log_snr"](VP(), num_steps=6))
    step = dpmpp_2m(VP(), noise_fn)
    nothing = CORRECTORS["none"](VP(), noise_fn)
    alone = last(step, times)
    np.testing.assert_array_equal(last(chain(nothing, step), times), alone)
    np.testing.assert_array_equal(last(chain(chain(step, nothing), nothing), times), alone)
    assert not np.allclose(last(ddim(VP(), noise_fn), times), alone)
    counter = Step(lambda keys, x, t, s, n: (x, n + 1), 0, init=lambda x: jnp.zeros((), jnp.int32))
    both = chain(counter, counter)
    keys, x = prng.per_image(jax.random.key(0), jnp.arange(1)), jnp.zeros((1, 2))
    memory = both.memory(x)
    for _ in range(3):
        x, _, memory = both.apply(keys, x, jnp.asarray(0.5), jnp.asarray(0.4), memory)
    assert memory == (3, 3)
