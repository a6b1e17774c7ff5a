"""The denoising score matching loss: the formulas of the papers, and its minimum at the exact score."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arbitrary import BATCH, SHAPE, batch_keys, network, per_image
from closed_forms import GAUSSIAN, SDE_CASES, SKEWED
from scipy import stats

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import losses
from score_sde_jax.diffusion.losses import REDUCTIONS, TIMES, WEIGHTS, score_matching_loss
from score_sde_jax.diffusion.parameterization import CONDITIONS, PARAMETERIZATIONS, Parameterization
from score_sde_jax.diffusion.sdes import EDM, VE, VP, SubVP
from score_sde_jax.keys import Stream


def loss_and_draws(sde, parameterization, **options):
    """Return the loss of each image for an arbitrary network, with the samples of the loss: (loss, x0, x_t, t)."""
    wrapped = Parameterization(coefficients=parameterization, condition=CONDITIONS["none"])
    noise_fn, drawn = wrapped.noise_fn(network, sde), []

    def recording(x, t):
        drawn.append((np.asarray(x), np.asarray(t)))
        return noise_fn(x, t)

    x0 = jax.random.normal(jax.random.key(4), SHAPE)
    loss = score_matching_loss(recording, sde, batch_keys(), x0, **options)
    return np.asarray(loss), np.asarray(x0), *drawn[0]


# ------------------------------------------------------------------------- the papers' own formulas


@pytest.mark.parametrize("num_levels", [2, 10])
def test_ncsn(num_levels, x64):
    """1/2 || s(x~, sigma) + (x~ - x) / sigma^2 ||^2, lambda = sigma^2: arXiv 1907.05600, eqs. 5, 6."""
    sde = VE(sigma_min=0.01, sigma_max=1.0)
    times = functools.partial(losses.ladder, num_levels=num_levels)
    loss, x, noisy, t = loss_and_draws(sde, PARAMETERIZATIONS["score"], times=times, reduction=losses.half_sum)
    sigma = np.geomspace(1.0, 0.01, num_levels)[np.rint((1 - t) * (num_levels - 1)).astype(int)]
    score = network(noisy, None)
    expected = 0.5 * sigma**2 * (score + (noisy - x) / sigma**2) ** 2
    np.testing.assert_allclose(loss, per_image(expected, np.sum), rtol=1e-9)


SQUARED_DIFFUSION = {  # g(t)^2 in the papers' closed forms
    "ve": (VE(), lambda t: 2 * (0.01 * 5000.0**t) ** 2 * np.log(5000.0)),
    "vp": (VP(), lambda t: 0.1 + 19.9 * t),
    "subvp": (SubVP(), lambda t: (0.1 + 19.9 * t) * (1 - np.exp(-0.2 * t - 19.9 * t**2))),
}


@pytest.mark.parametrize("name", SQUARED_DIFFUSION)
@pytest.mark.parametrize("weight", ["simple", "likelihood"])
def test_score_sde(name, weight, x64):
    """sigma^2 or g^2 times || s - grad log p(x_t | x_0) ||^2: arXiv 2011.13456, eq. 7; 2101.09258."""
    sde, g2 = SQUARED_DIFFUSION[name]
    loss, x0, x_t, t = loss_and_draws(sde, PARAMETERIZATIONS["scaled_score"], weight=WEIGHTS[weight])
    alpha, sigma = np.asarray(sde.alpha(jnp.asarray(t))), np.asarray(sde.sigma(jnp.asarray(t)))
    score = network(x_t, None) / sigma
    weighting = sigma**2 if weight == "simple" else g2(t)
    expected = weighting * (score + (x_t - alpha * x0) / sigma**2) ** 2
    np.testing.assert_allclose(loss, per_image(expected, np.mean), rtol=1e-6)


def test_edm(x64):
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 || D(x + n) - x ||^2: arXiv 2206.00364."""
    loss, x0, noisy, sigma = loss_and_draws(EDM(), PARAMETERIZATIONS["edm"], times=losses.log_normal, weight=losses.edm)
    variance = sigma**2 + 0.5**2
    denoised = 0.5**2 / variance * noisy + sigma * 0.5 / np.sqrt(variance) * network(noisy / np.sqrt(variance), None)
    expected = variance / (0.5 * sigma) ** 2 * (denoised - x0) ** 2
    np.testing.assert_allclose(loss, per_image(expected, np.mean), rtol=1e-9)


# ------------------------------------------------------------------------- registries

# log sigma^2 / alpha^2 = log(exp(B) - 1) of a VP diffusion, from t = 1e-5 to 1
VP_LOG_RANGE = np.log(np.expm1(0.1 + 9.95)) - np.log(np.expm1(0.1e-5 + 9.95e-10))

# w(t) of a VP diffusion, from its alpha^2 = exp(-B) and beta
CLOSED_WEIGHTS = {
    "simple": lambda alpha2, beta: np.ones_like(beta),
    "likelihood": lambda alpha2, beta: beta / (1 - alpha2),
    "likelihood_importance": lambda alpha2, beta: np.full_like(beta, VP_LOG_RANGE / (1 - 1e-5)),
    "edm": lambda alpha2, beta: 1 + (1 - alpha2) / (0.25 * alpha2),
}

# distribution of t for an EDM diffusion cut to [0.1, 2]: points of its exact distribution function
CLOSED_TIMES = {
    "ladder": [(t, (1 + np.floor((t - 0.1) / (1.9 / 9) + 1e-6)) / 10) for t in (0.2, 1.0, 1.9)],
    "uniform": [(t, (t - 0.1) / 1.9) for t in (0.2, 1.0, 1.9)],
    "importance": [(t, np.log(t / 0.1) / np.log(20)) for t in (0.2, 1.0, 1.9)],
    "log_normal": [(t, stats.norm.cdf((np.log(t) + 1.2) / 1.2)) for t in (0.11, 0.3, 1.9)],
}

CLOSED_REDUCTIONS = {"mean": np.mean, "half_sum": lambda errors: 0.5 * np.sum(errors)}


def test_every_registered_entry_has_a_case():
    assert set(CLOSED_WEIGHTS) == set(WEIGHTS)
    assert set(CLOSED_TIMES) == set(TIMES)
    assert set(CLOSED_REDUCTIONS) == set(REDUCTIONS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_is_its_closed_form(name, x64):
    t = np.linspace(0.05, 1.0, 9)
    closed = CLOSED_WEIGHTS[name](np.exp(-0.1 * t - 9.95 * t**2), 0.1 + 19.9 * t)
    np.testing.assert_allclose(WEIGHTS[name](VP(), jnp.asarray(t)), closed, rtol=1e-9)


@pytest.mark.parametrize("name", TIMES)
def test_training_times_have_their_distribution(name):
    num = 1 << 14
    t = np.asarray(TIMES[name](EDM(t_min=0.1, t_max=2.0), batch_keys(num)))
    assert t.shape == (num,)
    assert t.min() > 0.1 - 1e-6 and t.max() < 2.0 + 1e-6
    for point, probability in CLOSED_TIMES[name]:
        allowed = 4 * np.sqrt(probability * (1 - probability) / num)
        assert abs(np.mean(t <= point) - probability) < allowed


def test_a_ladder_has_every_level_equally_often():
    num = 1 << 14
    levels, counts = np.unique(losses.ladder(VE(), batch_keys(num), num_levels=4), return_counts=True)
    np.testing.assert_allclose(levels, [0, 1 / 3, 2 / 3, 1], atol=1e-6)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction_is_its_closed_form(name):
    errors = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    expected = [CLOSED_REDUCTIONS[name](image) for image in errors]
    np.testing.assert_allclose(REDUCTIONS[name](jnp.asarray(errors)), expected, rtol=1e-5)


# ------------------------------------------------------------------------- the optimum


CASES = [*((name, "uniform") for name in SDE_CASES), *(("edm", times) for times in TIMES)]


@pytest.mark.parametrize(("name", "times"), CASES)
@pytest.mark.parametrize("data", [GAUSSIAN, SKEWED], ids=["gaussian", "skewed"])
def test_loss_is_stationary_at_the_true_noise_and_nowhere_near_it(data, name, times):
    sde = SDE_CASES[name][0]
    exact = data.noise_fn(sde)
    x0 = data.sample(jax.random.key(5), (512, 8, 8, 1))

    @jax.jit
    @jax.jacfwd
    def gradients(strength, shift):
        def noise_fn(x, t):
            change = [jnp.ones_like(x), jnp.tanh(x), jnp.sin(3 * x)]
            return (1 + shift) * exact(x, t) + sum(c * h for c, h in zip(strength, change, strict=True))

        return score_matching_loss(noise_fn, sde, batch_keys(512), x0, times=TIMES[times])

    def deviation(shift):
        """Mean gradient in standard errors, in each direction."""
        per_image = np.asarray(gradients(jnp.zeros(3), shift), np.float64)
        return np.abs(per_image.mean(axis=0)) / (per_image.std(axis=0) / np.sqrt(len(per_image)))

    assert np.all(deviation(0.0) < 4)
    assert np.max(deviation(0.2)) > 5


@pytest.mark.parametrize("name", SDE_CASES)
def test_loss_of_an_image_depends_on_its_own_key_alone(name):
    sde = SDE_CASES[name][0]
    loss = jax.jit(functools.partial(score_matching_loss, GAUSSIAN.noise_fn(sde), sde))
    keys, others = batch_keys(), batch_keys(2 * BATCH)[BATCH:]
    x0, x0_others = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
    kept = np.arange(BATCH) % 3 == 0
    mixed = loss(jnp.where(kept, keys, others), jnp.where(kept[:, None, None, None], x0, x0_others))
    expected = np.where(kept, loss(keys, jnp.asarray(x0)), loss(others, jnp.asarray(x0_others)))
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)


def test_time_and_noise_are_drawn_independently():
    """The norm of the noise is independent of the time."""
    t, size = [], []

    def noise_fn(x, time):
        t.append(time)
        size.append(x / time)  # EDM: x_t = t eps for x0 = 0
        return x

    score_matching_loss(noise_fn, EDM(), batch_keys(1024), jnp.zeros((1024, 1, 1, 1)))
    correlation = np.corrcoef([np.ravel(t[0]), np.ravel(size[0]), np.ravel(size[0]) ** 2])
    assert np.max(np.abs(correlation[0, 1:])) < 4 / np.sqrt(1024)


@pytest.mark.parametrize("name", SDE_CASES)
def test_noise_level_is_where_the_loss_looked(name):
    """It is linear in log sigma / alpha from t_min to t_max, at the times that the loss samples."""
    sde, seen = SDE_CASES[name][0], []

    def recording(x, t):
        seen.append(np.asarray(t).ravel())
        return x

    x0 = jax.random.normal(jax.random.key(4), SHAPE)
    score_matching_loss(recording, sde, batch_keys(), x0, times=losses.uniform)
    actual = losses.normalized_log_nsr(sde, batch_keys(), times=losses.uniform)
    ratio = [np.log(sde.sigma(t) / sde.alpha(t)) for t in map(jnp.asarray, (sde.t_min, seen[0], sde.t_max))]
    np.testing.assert_allclose(actual, (ratio[1] - ratio[0]) / (ratio[2] - ratio[0]), rtol=1e-4, atol=1e-5)
    assert actual.min() >= -1e-5 and actual.max() <= 1 + 1e-5 and np.ptp(actual) > 0.1


# ------------------------------------------------------------------------- keys


def test_every_draw_of_a_loss_has_a_key_of_its_own():
    """Time and noise use the halves of an image's key, as in older versions; other samples use other keys."""
    keys = batch_keys(3)
    parts = [
        *losses._keys(keys),
        prng.stream(keys, Stream.DROPOUT),
        *(prng.fold_in(prng.stream(keys, Stream.PROJECTIONS), number) for number in range(3)),
        *(prng.fold_in(keys, number) for number in range(2, 5)),
    ]
    for part, half in zip(parts, prng.split(keys, 2), strict=False):
        np.testing.assert_array_equal(jax.random.key_data(part), jax.random.key_data(half))
    words = np.concatenate([np.asarray(jax.random.key_data(part)) for part in parts])
    assert len(np.unique(words, axis=0)) == len(words)
