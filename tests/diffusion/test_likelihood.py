"""Likelihood by the probability flow ODE against closed forms, and bits per dimension against counts."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED, Mixture
from scipy import stats
from scipy.special import logsumexp

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import likelihood
from score_sde_jax.diffusion.likelihood import bits_per_dim, log_likelihood, prior_log_density
from score_sde_jax.diffusion.sdes import SDES, VP

DIM = 6


def image_keys(num):
    return prng.per_image(jax.random.key(0), jnp.arange(num))


def log_density(data: Mixture, x):
    """Return the log density of images of independent pixels."""
    parts = zip(data.weights, data.means, data.stds, strict=True)
    pixels = logsumexp([np.log(w) + stats.norm.logpdf(np.asarray(x, np.float64), m, s) for w, m, s in parts], axis=0)
    return pixels.reshape(len(x), -1).sum(axis=1)


# Two whole images with noise: no pixel is independent of the others, so that the Jacobian is not diagonal.
TEMPLATES = np.random.default_rng(0).standard_normal((2, DIM))
SPREAD = 0.5


def template_noise_fn(sde):
    def noise_fn(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        variance = (alpha * SPREAD) ** 2 + sigma**2
        residuals = [x - alpha * template[None] for template in TEMPLATES.astype(x.dtype)]
        logits = jnp.stack([-0.5 * jnp.sum(r**2, axis=1, keepdims=True) / variance for r in residuals])
        shares = jax.nn.softmax(logits, axis=0)
        return sigma / variance * sum(share * r for share, r in zip(shares, residuals, strict=True))

    return noise_fn


def template_log_density(x, alpha, sigma):
    std = np.hypot(alpha * SPREAD, sigma)
    parts = [stats.norm.logpdf(np.asarray(x, np.float64), alpha * m, std).sum(axis=1) for m in TEMPLATES]
    return logsumexp(parts, axis=0) - np.log(2)


# ------------------------------------------------------------------------- the value


@pytest.mark.parametrize(
    ("name", "data"), [*((name, SKEWED) for name in SDES), *((name, GAUSSIAN) for name in ("ve", "vp", "subvp"))]
)
def test_exact_likelihood_is_the_density_at_t_min(name, data):
    sde = SDES[name]()
    start, end = data.at(sde, sde.t_min), data.at(sde, sde.t_max)
    x0 = start.sample(jax.random.key(1), (4, 2, 3))
    estimate = functools.partial(log_likelihood, sde, data.noise_fn(sde), divergence="exact")
    result = jax.jit(estimate)(image_keys(4), x0)
    assert result.converged.all()
    np.testing.assert_array_equal(result.standard_error, 0)
    # The change of density is exact up to the solver's tolerance. theory.md states how the prior differs from p_t_max.
    prior = np.asarray(prior_log_density(sde, result.latent))
    expected = log_density(start, x0)
    tolerance = 0.02 if name == "ddpm" else 2e-3  # its drift jumps at a thousand levels
    np.testing.assert_allclose(
        result.log_likelihood - prior + log_density(end, result.latent), expected, atol=tolerance
    )
    alpha, sigma = (float(f(jnp.asarray(sde.t_max))) for f in (sde.alpha, sde.sigma))
    np.testing.assert_allclose(
        result.log_likelihood, expected, atol=4 * alpha * data.mean() * np.sqrt(DIM) / sigma + tolerance
    )


def test_likelihood_is_that_of_the_time_it_starts_at(x64):
    sde, t = VP(), 0.1
    alpha, sigma = (float(f(jnp.asarray(t))) for f in (sde.alpha, sde.sigma))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, DIM)))
    estimate = functools.partial(log_likelihood, sde, template_noise_fn(sde), divergence="exact", t_start=t)
    result = jax.jit(estimate)(image_keys(3), x)
    np.testing.assert_allclose(result.log_likelihood, template_log_density(x, alpha, sigma), atol=0.02)


KINDS = ("rademacher", "gaussian", "exact")


@pytest.fixture(scope="module")
def estimators():
    """Return compiled estimates for 64 images, by the kind of probe."""
    sde = VP(t_min=1e-3)
    estimate = functools.partial(log_likelihood, sde, template_noise_fn(sde))
    return {kind: jax.jit(functools.partial(estimate, divergence=kind, num_probes=8)) for kind in KINDS}


@pytest.fixture(scope="module")
def estimates(estimators):
    """Return 64 estimates for one image, with different keys."""
    x0 = jnp.tile(jnp.asarray(TEMPLATES[:1] + 0.3, jnp.float32), (64, 1))
    return {kind: estimator(image_keys(64), x0) for kind, estimator in estimators.items()}


@pytest.mark.parametrize("kind", KINDS[:2])
def test_estimate_is_the_exact_value_on_average_within_its_standard_error(kind, estimates):
    exact, result = estimates["exact"], estimates[kind]
    values, errors = (np.asarray(a, np.float64) for a in (result.log_likelihood, result.standard_error))
    assert abs(values.mean() - float(exact.log_likelihood[0])) < 4 * values.std() / np.sqrt(len(values))
    # The stated standard error is the spread of the estimates over keys.
    spread = values.std(ddof=1)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=4 / np.sqrt(2 * len(values)))
    assert spread > 1e-3
    np.testing.assert_allclose(result.latent, exact.latent, atol=1e-3)


def test_signs_have_a_smaller_error_than_gaussians(estimates):
    errors = {kind: float(jnp.mean(result.standard_error)) for kind, result in estimates.items()}
    assert errors["rademacher"] < 0.7 * errors["gaussian"]


def test_probes_in_passes_are_probes_at_once(monkeypatch, x64):
    """There are more probes than in one pass, and the last pass is not full."""
    time, x = jnp.full((2, 1), 0.4), jnp.asarray(TEMPLATES.mean(axis=0) + 0.1 * TEMPLATES)  # between the two images
    noise_fn = functools.partial(template_noise_fn(VP()), t=time)
    traces = [likelihood._exact_trace(x), likelihood._estimated_trace(image_keys(2), x, "gaussian", 5)]
    monkeypatch.setattr(likelihood, "PROBES_PER_PASS", 4)
    in_passes = [likelihood._exact_trace(x), likelihood._estimated_trace(image_keys(2), x, "gaussian", 5)]
    at_once, some = ([jax.jit(functools.partial(trace, noise_fn))(x) for trace in part] for part in (traces, in_passes))
    for results, expectations in zip(some, at_once, strict=True):
        for result, expected in zip(results, expectations, strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-9)
    jacobian = jnp.diagonal(jax.jit(jax.jacfwd(noise_fn))(x), axis1=0, axis2=2)  # per image, the last axis
    assert np.abs(jacobian[0, 1]).max() > 0.01  # not diagonal
    np.testing.assert_allclose(at_once[0][1][:, 0], jnp.trace(jacobian), rtol=1e-9)


def test_an_image_depends_on_its_own_key_alone(estimators, estimates):
    x0 = jnp.tile(jnp.asarray(TEMPLATES + 0.3, jnp.float32), (32, 1))  # half of the images differ
    other = estimators["gaussian"](image_keys(64)[::-1], x0)
    same = np.arange(0, 64, 2)
    np.testing.assert_allclose(other.log_likelihood[same], estimates["gaussian"].log_likelihood[::-1][same], rtol=1e-4)
    assert not np.allclose(
        other.log_likelihood[same + 1], estimates["gaussian"].log_likelihood[::-1][same + 1], rtol=0.1
    )


def test_an_image_whose_solver_fails_has_no_value_and_a_single_probe_no_error():
    calls = []

    def noise_fn(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.sin(20 * x)

    estimate = functools.partial(log_likelihood, VP(), noise_fn, max_evaluations=14)
    result = jax.jit(estimate)(image_keys(1), jnp.ones((1, 2)))
    jax.effects_barrier()
    assert len(calls) == int(result.nfe[0]) == 14
    assert not result.converged.any()
    assert np.isnan(result.log_likelihood).all() and np.isnan(result.standard_error).all()


def test_prior_log_density_is_that_of_the_gaussian():
    x = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
    for sde in (SDES["ve"](), SDES["edm"](), VP()):
        expected = stats.norm.logpdf(x, scale=float(sde.sigma(jnp.asarray(sde.t_max)))).reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(prior_log_density(sde, jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"divergence": "none"}, {"num_probes": 0}, {"rtol": 0.0}, {"max_evaluations": 1}, {"t_start": 1.0}],
)
def test_options_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        inspect.unwrap(log_likelihood)(VP(), lambda x, t: x, image_keys(1), jnp.ones((1, 2)), **wrong)


# ------------------------------------------------------------------------- bits per dimension

RANGES = [(0.0, 1.0), (-1.0, 1.0), (-3.0, 5.0)]


@pytest.mark.parametrize("value_range", RANGES)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_uniform_pixels_take_the_bits_of_their_levels(levels, value_range):
    """Dequantized and scaled, they are uniform on the range."""
    pixels = np.arange(levels, dtype=np.float32).repeat(64).reshape(1, -1)
    noise = np.tile(np.linspace(0, 1, 64, endpoint=False, dtype=np.float32), levels).reshape(1, -1)
    low, high = value_range
    scaled = np.float32(low) + np.float32(high - low) * ((pixels + noise) / np.float32(levels))
    assert scaled.min() >= low and scaled.max() < high
    assert stats.kstest(scaled.ravel(), stats.uniform(low, high - low).cdf).statistic < 0.01
    density = stats.uniform(low, high - low).logpdf(np.clip(scaled, low, high)).sum(axis=1)
    result = bits_per_dim(jnp.asarray(density, jnp.float32), scaled.shape[1], levels, value_range)
    np.testing.assert_allclose(result, np.log2(levels), rtol=1e-5)


@pytest.mark.parametrize("value_range", RANGES)
def test_probabilities_of_all_levels_add_up_to_1(value_range):
    """2^-bits of the level that every value falls into, for a density that is known."""
    low, high = value_range
    levels = 256
    middles = low + (np.arange(levels) + 0.5) * (high - low) / levels
    density = stats.norm(0.5 * (low + high), (high - low) / 12).logpdf(middles)
    bits = bits_per_dim(jnp.asarray(density, jnp.float32), 1, levels, value_range)
    assert float(jnp.sum(2.0**-bits)) == pytest.approx(1, abs=1e-3)


def test_bits_of_continuous_numbers_are_those_of_their_density():
    density = jnp.asarray([-3.0, 2.0])
    np.testing.assert_allclose(bits_per_dim(density, 2), -density / 2 / np.log(2), rtol=1e-6)
