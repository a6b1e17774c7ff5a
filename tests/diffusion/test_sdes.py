"""Diffusions: quantities derived from alpha and sigma, against the closed forms of the papers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED, assert_moments

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import DDPM, EDM, SDES, VE, VP, SubVP

T = np.linspace(0.01, 1.0, 34)
BETA = 0.1 + 19.9 * T
INTEGRAL = 0.1 * T + 19.9 * T**2 / 2
VE_SIGMA = 0.01 * 5000.0**T

# The DDPM table with log alpha linear in time between levels 400 and 401.
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)
BETWEEN = (400 + np.linspace(0.05, 0.95, 10)) / 999
DDPM_RATE = 0.5 * np.log1p(-BETAS[401]) * 999
DDPM_ALPHA = np.sqrt(ALPHA_BAR[400]) * np.exp(DDPM_RATE * (BETWEEN - 400 / 999))

# name: (times, alpha, sigma, f, g^2), from arXiv 2011.13456, Appendix B, and 2206.00364, Table 1.
CLOSED = {
    "ve": (T, np.ones_like(T), VE_SIGMA, 0 * T, 2 * VE_SIGMA**2 * np.log(5000.0)),
    "vp": (T, np.exp(-INTEGRAL / 2), np.sqrt(1 - np.exp(-INTEGRAL)), -BETA / 2, BETA),
    "subvp": (
        T,
        np.exp(-INTEGRAL / 2),
        1 - np.exp(-INTEGRAL),
        -BETA / 2,
        BETA * (1 - np.exp(-2 * INTEGRAL)),
    ),
    "edm": (80 * T, np.ones_like(T), 80 * T, 0 * T, 2 * 80 * T),
    "ddpm": (
        BETWEEN,
        DDPM_ALPHA,
        np.sqrt(1 - DDPM_ALPHA**2),
        np.full(10, DDPM_RATE),
        np.full(10, -2 * DDPM_RATE),
    ),
}


def test_every_registered_sde_has_its_closed_form():
    assert set(CLOSED) == set(SDES)


@pytest.mark.parametrize("name", SDES)
def test_schedule_drift_and_diffusion_are_the_papers(name, x64):
    t, *expected = CLOSED[name]
    sde, t = SDES[name](), jnp.asarray(t)
    actual = sde.alpha(t), sde.sigma(t), sde.drift(t), sde.diffusion_squared(t)
    for value, closed in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, closed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_float32_keeps_the_digits_of_the_schedule_down_to_t_min(name):
    sde = SDES[name]()
    t = np.linspace(sde.t_min, sde.t_max, 50)
    t[1] = sde.t_min + 1e-4 * (sde.t_max - sde.t_min)
    with jax.enable_x64(True):
        expected = [np.asarray(f(jnp.asarray(t))) for f in (sde.alpha, sde.sigma)]
    for f, closed in zip((sde.alpha, sde.sigma), expected, strict=True):
        np.testing.assert_allclose(f(jnp.asarray(t, jnp.float32)), closed, rtol=3e-5)


def test_sub_vp_noise_is_the_square_of_vp_noise(x64):
    t = jnp.asarray(T)
    np.testing.assert_allclose(SubVP().sigma(t), VP().sigma(t) ** 2, rtol=1e-12)
    assert np.all(SubVP().diffusion_squared(t) <= VP().diffusion_squared(t))


def test_ve_is_the_geometric_ladder(x64):
    levels = VE(sigma_min=0.01, sigma_max=1.0).sigma(jnp.linspace(1.0, 0.0, 10))
    np.testing.assert_allclose(levels, np.geomspace(1.0, 0.01, 10), rtol=1e-12)


def test_ddpm_is_the_table_of_the_paper(x64):
    table = DDPM()
    levels = jnp.arange(1000) / 999
    np.testing.assert_allclose(table.alpha(levels), np.sqrt(ALPHA_BAR), rtol=1e-12)
    np.testing.assert_allclose(table.sigma(levels), np.sqrt(1 - ALPHA_BAR), rtol=1e-12)
    # Not the continuous VP: 3.4 percent apart at the last level.
    assert float(table.alpha(levels[-1]) / VP().alpha(levels[-1])) == pytest.approx(1 - 0.034, abs=1e-3)


@pytest.mark.parametrize("name", SDES)
def test_perturbed_images_have_the_moments_of_p_t(name):
    sde = SDES[name]()
    t = 0.3 * sde.t_max
    key_data, key_noise = jax.random.split(jax.random.key(1))
    keys = prng.per_image(key_noise, jnp.arange(512))
    x0 = SKEWED.sample(key_data, (512, 8, 8, 1))
    x, eps = sde.perturb(keys, x0, jnp.full((512, 1, 1, 1), t))
    assert_moments(x, SKEWED.at(sde, t))
    assert abs(np.corrcoef(np.ravel(x0), np.ravel(eps))[0, 1]) < 4 / np.sqrt(x0.size)
    alpha, sigma = sde.alpha(jnp.asarray(t)), sde.sigma(jnp.asarray(t))
    np.testing.assert_allclose(x, alpha * x0 + sigma * eps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SDES)
def test_score_and_denoised_image_follow_from_the_noise(name, x64):
    sde = SDES[name]()
    t = jnp.asarray(0.4 * sde.t_max)
    x = jnp.linspace(-2.0, 3.0, 6)[:, None]
    eps = GAUSSIAN.noise_fn(sde)(x, t)
    # Data N(m, s^2): log p_t and E[x_0 | x_t] of the joint Gaussian of x_0 and x_t.
    (m,), (s,) = GAUSSIAN.means, GAUSSIAN.stds
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    variance = (alpha * s) ** 2 + sigma**2
    np.testing.assert_allclose(sde.score(eps, t), -(x - alpha * m) / variance, rtol=1e-9)
    regression = m + alpha * s**2 / variance * (x - alpha * m)
    np.testing.assert_allclose(sde.denoised(x, eps, t), regression, rtol=1e-7)


@pytest.mark.parametrize("name", SDES)
def test_score_is_the_gradient_of_log_p_t(name, x64):
    sde = SDES[name]()
    t = 0.1 * sde.t_max
    noisy = SKEWED.at(sde, t)

    def log_p(x):
        parts = zip(noisy.weights, noisy.means, noisy.stds, strict=True)
        return jnp.log(sum(w / s * jnp.exp(-0.5 * ((x - m) / s) ** 2) for w, m, s in parts))

    x = jnp.linspace(-1.5, 2.0, 8)
    eps = jax.jit(SKEWED.noise_fn(sde))(x[:, None], jnp.asarray(t))
    gradient = jax.jit(jax.vmap(jax.grad(log_p)))(x)
    np.testing.assert_allclose(sde.score(eps, jnp.asarray(t))[:, 0], gradient, rtol=1e-5)


@pytest.mark.parametrize("name", SDES)
def test_prior_is_the_noise_of_the_last_time(name):
    sde = SDES[name]()
    x = sde.prior(prng.per_image(jax.random.key(2), jnp.arange(512)), jnp.zeros((512, 8, 8, 1)))
    sigma = float(sde.sigma(jnp.asarray(sde.t_max)))
    assert_moments(x, dataclasses.replace(GAUSSIAN, means=(0.0,), stds=(sigma,)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: VE(sigma_min=1.0, sigma_max=0.1),
        lambda: VE(sigma_min=0.0),
        lambda: VP(beta_min=20.0, beta_max=0.1),
        lambda: SubVP(beta_min=0.0),
        lambda: DDPM(beta_max=1.0),
        lambda: DDPM(num_levels=1),
    ],
)
def test_contradictions_are_refused(wrong):
    with pytest.raises(ValueError, match=r"beta_min|sigma_min|num_levels"):
        wrong()


def test_time_of_edm_is_the_noise_level():
    assert float(EDM().sigma(jnp.asarray(0.7))) == pytest.approx(0.7)


@pytest.mark.parametrize("name", SDES)
def test_noise_levels_are_even_in_the_log_of_the_signal_to_noise_ratio(name, x64):
    sde, levels = SDES[name](), jnp.linspace(0.0, 1.0, 21)
    t = sde.time_at(levels)
    np.testing.assert_allclose(t[jnp.array([0, -1])], [sde.t_min, sde.t_max], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(sde.normalized_log_nsr(t), levels, atol=1e-9)
    log_snr = 2 * np.log(sde.alpha(t) / sde.sigma(t))
    np.testing.assert_allclose(np.diff(log_snr), (log_snr[-1] - log_snr[0]) / 20, rtol=1e-6)
