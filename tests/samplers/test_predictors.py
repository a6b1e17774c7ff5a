"""Predictors: the formula of the paper, the order of convergence, and cases in which they coincide."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, Mixture
from probing import affine, apply, propagate
from scipy.integrate import solve_ivp

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import DDPM, EDM, VE, VP
from score_sde_jax.samplers import PREDICTORS
from score_sde_jax.samplers.predictors import ancestral, ddim, dormand_prince, euler, heun, reverse_diffusion

POINTS = np.array([-1.3, 0.2, 2.0])


def network(x, t):
    """An arbitrary noise prediction, nonlinear in x and different at every time."""
    return jnp.sin(2 * x) + 0.3 * x + t


def euler_maruyama_formula(x, eps, z, t, s, beta, bar):
    """ArXiv 2011.13456, eq. 6 with f = -beta x / 2 and g^2 = beta."""
    score = -eps(x, t) / np.sqrt(1 - bar(t))
    return x + (beta(t) * x / 2 + beta(t) * score) * (t - s) + np.sqrt(beta(t) * (t - s)) * z


def reverse_diffusion_formula(x, eps, z, t, s, beta, bar):
    """ArXiv 2011.13456, Algorithm 3, predictor."""
    beta_i, score = 1 - bar(t) / bar(s), -eps(x, t) / np.sqrt(1 - bar(t))
    return (2 - np.sqrt(1 - beta_i)) * x + beta_i * score + np.sqrt(beta_i) * z


def ancestral_formula(x, eps, z, t, s, beta, bar):
    """ArXiv 2006.11239, eqs. 7 and 11."""
    beta_i = 1 - bar(t) / bar(s)
    mean = (x - beta_i / np.sqrt(1 - bar(t)) * eps(x, t)) / np.sqrt(1 - beta_i)
    return mean + np.sqrt((1 - bar(s)) / (1 - bar(t)) * beta_i) * z


def ddim_formula(x, eps, z, t, s, beta, bar):
    """ArXiv 2010.02502, eq. 12 with sigma = 0."""
    x0 = (x - np.sqrt(1 - bar(t)) * eps(x, t)) / np.sqrt(bar(t))
    return np.sqrt(bar(s)) * x0 + np.sqrt(1 - bar(s)) * eps(x, t)


def euler_formula(x, eps, z, t, s, beta, bar):
    """Euler's method on arXiv 2011.13456, eq. 13: eq. 6 with half the score and no noise."""
    return x + (beta(t) * x / 2 - beta(t) / 2 * eps(x, t) / np.sqrt(1 - bar(t))) * (t - s)


def dormand_prince_formula(x, eps, z, t, s, beta, bar):
    """Return the solution by scipy, which has the same steps and errors."""

    def velocity(t, x):
        return -beta(t) / 2 * (x - eps(x, t) / np.sqrt(1 - bar(t)))

    return solve_ivp(velocity, (t, s), x, method="RK45", rtol=1e-5, atol=1e-5).y[:, -1]


def heun_formula(x, eps, z, t, s, beta, bar):
    """The trapezoidal rule on dx/dt = -beta / 2 (x - eps / sigma), arXiv 2011.13456, eq. 13."""

    def velocity(x, t):
        return -beta(t) / 2 * (x - eps(x, t) / np.sqrt(1 - bar(t)))

    guess = x + (s - t) * velocity(x, t)
    return x + (s - t) * (velocity(x, t) + velocity(guess, s)) / 2


# name: (formula on a VP diffusion, order of convergence of mean and standard deviation where steps are fixed)
CASES = {
    "euler_maruyama": (euler_maruyama_formula, 1),
    "reverse_diffusion": (reverse_diffusion_formula, 1),
    "ancestral": (ancestral_formula, 1),
    "ddim": (ddim_formula, 1),
    "euler": (euler_formula, 1),
    "heun": (heun_formula, 2),
    "dpmpp_2m": (ddim_formula, 1),  # a single step; test_multistep.py has its memory
    "dormand_prince": (dormand_prince_formula, None),
    "none": (lambda x, *rest: x, None),
}


def test_every_registered_predictor_has_a_case():
    assert set(CASES) == set(PREDICTORS)


@pytest.mark.parametrize("name", PREDICTORS)
def test_step_is_the_formula_of_the_paper(name, monkeypatch, x64):
    formula, _ = CASES[name]
    step = PREDICTORS[name](VP(), network)
    t, s, z = 0.6, 0.55, 0.8
    actual = apply(monkeypatch, step, jnp.asarray([t, s]), POINTS, z)[0]

    def beta(t):
        return 0.1 + 19.9 * t

    def bar(t):
        return np.exp(-0.1 * t - 9.95 * t**2)

    expected = formula(POINTS, lambda x, t: np.asarray(network(x, t)), z, t, s, beta, bar)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["ancestral", "reverse_diffusion"])
def test_step_is_the_formula_of_the_paper_on_the_ladder(name, monkeypatch, x64):
    """ArXiv 2011.13456, eq. 47 and Algorithm 2: alpha = 1."""
    sde = VE(sigma_min=0.01, sigma_max=1.0)
    actual = apply(monkeypatch, PREDICTORS[name](sde, network), jnp.asarray([5 / 9, 4 / 9]), POINTS, 0.8)[0]
    sigma_t, sigma_s = 0.01 * 100 ** (5 / 9), 0.01 * 100 ** (4 / 9)
    variance = sigma_t**2 - sigma_s**2
    mean = POINTS - variance * np.asarray(network(POINTS, 5 / 9)) / sigma_t
    std = np.sqrt(variance) * (sigma_s / sigma_t if name == "ancestral" else 1)
    np.testing.assert_allclose(actual, mean + std * 0.8, rtol=1e-9)


@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_reverse_diffusion_of_the_flow_has_half_the_score_and_no_noise(sde_name, monkeypatch, x64):
    """ArXiv 2011.13456, Appendix D.3, from the step with noise: x_s + (mean - (2 - a) x) / 2."""
    sde, t, s = SDE_CASES[sde_name]
    times = jnp.asarray([t, s])
    actual = apply(monkeypatch, reverse_diffusion(sde, network, probability_flow=True), times, POINTS, z=0.8)[0]
    mean = apply(monkeypatch, reverse_diffusion(sde, network), times, POINTS, z=0.0)[0]
    linear = (2 - float(sde.alpha(times[0]) / sde.alpha(times[1]))) * POINTS
    np.testing.assert_allclose(actual, (mean + linear) / 2, rtol=1e-9)


def test_adaptive_flow_is_as_exact_as_it_is_told(x64):
    """For Gaussian data the flow is x_s - E x_s = std_s / std_t (x_t - E x_t)."""
    sde, t, s = SDE_CASES["subvp"]
    before, after = GAUSSIAN.at(sde, t), GAUSSIAN.at(sde, s)
    x = jnp.asarray(POINTS)[:, None]
    expected = after.mean() + after.std() / before.std() * (POINTS - before.mean())
    keys = prng.per_image(jax.random.key(0), jnp.arange(3))
    counts = []
    for tolerance in (1e-4, 1e-8):
        step = dormand_prince(sde, GAUSSIAN.noise_fn(sde), rtol=tolerance, atol=tolerance)
        actual, evaluations = jax.jit(step.call_with_nfe)(keys, x, jnp.asarray(t), jnp.asarray(s))
        np.testing.assert_allclose(actual[:, 0], expected, rtol=1e-6, atol=10 * tolerance)
        counts.append(int(evaluations.max()))
    assert counts[0] < counts[1]


def test_an_image_that_runs_out_of_evaluations_is_not_a_number():
    step = dormand_prince(VP(), lambda x, t: jnp.sin(40 * x), max_evaluations=50)
    keys = prng.per_image(jax.random.key(0), jnp.arange(2))
    start = jnp.asarray([[0.0], [1.0]])
    x, evaluations = jax.jit(step.call_with_nfe)(keys, start, jnp.asarray(1.0), jnp.asarray(1e-3))
    assert np.isfinite(x[0, 0]) and np.isnan(x[1, 0]) and np.all(evaluations <= 50)


@pytest.mark.parametrize("variance", ["posterior", "transition"])
def test_ancestral_on_the_ddpm_table_is_ddpm(variance, monkeypatch, x64):
    """ArXiv 2006.11239, Algorithm 2, with either of its two choices of the variance."""
    step = ancestral(DDPM(), network, variance=variance)
    levels = np.array([999, 998, 400, 399, 1, 0])
    actual = apply(monkeypatch, step, jnp.asarray(levels / 999), POINTS, 0.8)[::2]
    betas = np.linspace(1e-4, 0.02, 1000)
    bars = np.cumprod(1 - betas)
    for x, level in zip(actual, levels[::2], strict=True):
        beta, bar = betas[level], bars[level]
        eps = np.asarray(network(POINTS, level / 999))
        mean = (POINTS - beta / np.sqrt(1 - bar) * eps) / np.sqrt(1 - beta)
        shrink = (1 - bars[level - 1]) / (1 - bar) if variance == "posterior" else 1
        np.testing.assert_allclose(x, mean + np.sqrt(shrink * beta) * 0.8, rtol=1e-9)


@pytest.mark.parametrize("sde_name", SDE_CASES)
@pytest.mark.parametrize("name", [name for name in PREDICTORS if CASES[name][1]])
def test_order_of_convergence_to_the_moments_of_p_t(name, sde_name, monkeypatch, x64):
    sde, t, s = SDE_CASES[sde_name]
    step = PREDICTORS[name](sde, GAUSSIAN.noise_fn(sde))
    (m,), (std,) = GAUSSIAN.means, GAUSSIAN.stds

    def moments(t):
        alpha, sigma = (float(f(jnp.asarray(t))) for f in (sde.alpha, sde.sigma))
        return alpha * m, (alpha * std) ** 2 + sigma**2

    counts = (64, 128)
    times = [jnp.linspace(t, s, n + 1) for n in counts]
    # All pairs of both grids at once; the pair that joins the grids is left out.
    steps = affine(monkeypatch, step, jnp.concatenate(times))
    coarse = type(steps)(*(part[: counts[0]] for part in steps))
    fine = type(steps)(*(part[counts[0] + 1 :] for part in steps))
    mean, variance = moments(s)
    errors = []
    for grid in (coarse, fine):
        actual = propagate(grid, *moments(t))
        errors.append(np.abs(np.array(actual) - [mean, np.sqrt(variance)]))
    order = np.log2(np.max(errors[0]) / np.max(errors[1]))
    assert order == pytest.approx(CASES[name][1], abs=0.2)
    assert np.max(errors[1]) < 0.1 * np.sqrt(variance)


@pytest.mark.parametrize("sde_name", ["vp", "edm"])
@pytest.mark.parametrize(
    ("make", "order"),
    [(ddim, 1), (functools.partial(reverse_diffusion, probability_flow=True), 1), (euler, 1), (heun, 2)],
)
def test_probability_flow_steps_follow_the_flow_itself(make, order, sde_name, monkeypatch, x64):
    """For Gaussian data the flow is x_s - E x_s = std_s / std_t (x_t - E x_t), and it has no noise."""
    sde, t, s = SDE_CASES[sde_name]
    step = make(sde, GAUSSIAN.noise_fn(sde))
    slope = GAUSSIAN.at(sde, s).std() / GAUSSIAN.at(sde, t).std()
    errors = []
    for n in (64, 128):
        steps = affine(monkeypatch, step, jnp.linspace(t, s, n + 1))
        np.testing.assert_array_equal(steps.c, 0)
        errors.append(abs(np.prod(steps.a) - slope))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("sde_name", SDE_CASES)
@pytest.mark.parametrize("make", [ddim, ancestral])
def test_one_step_is_exact_for_a_single_image(make, sde_name, monkeypatch, x64):
    """Data that are one point: DDIM and the posterior of q(x_s | x_t, x_0) reach p_s in one step."""
    sde, t, s = SDE_CASES[sde_name]
    point = Mixture((1.0,), (0.7,), (0.0,))
    steps = affine(monkeypatch, make(sde, point.noise_fn(sde)), jnp.asarray([t, s]))
    alpha, sigma = (np.asarray(f(jnp.asarray([t, s]))) for f in (sde.alpha, sde.sigma))
    actual = propagate(steps, alpha[0] * 0.7, sigma[0] ** 2)
    np.testing.assert_allclose(actual, (alpha[1] * 0.7, sigma[1]), rtol=1e-9)


@pytest.mark.parametrize("sde_name", ["vp", "ddpm"])
def test_transition_variance_is_exact_for_unit_gaussian_data(sde_name, monkeypatch, x64):
    """ArXiv 2006.11239, Section 3.2: the other of the two extremes."""
    sde, t, s = SDE_CASES[sde_name]
    noise_fn = Mixture((1.0,), (0.0,), (1.0,)).noise_fn(sde)
    step = ancestral(sde, noise_fn, variance="transition")
    actual = propagate(affine(monkeypatch, step, jnp.asarray([t, s])), 0.0, 1.0)
    np.testing.assert_allclose(actual, (0.0, 1.0), atol=1e-12)


@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_the_two_ancestral_variances_coincide_for_small_steps(sde_name, monkeypatch, x64):
    sde, t, _ = SDE_CASES[sde_name]
    gaps = []
    for width in (1e-3, 5e-4):
        times = jnp.asarray([t, t - width])
        posterior, transition = (
            affine(monkeypatch, ancestral(sde, network_affine, variance=variance), times)
            for variance in ("posterior", "transition")
        )
        np.testing.assert_array_equal((posterior.a, posterior.b), (transition.a, transition.b))
        ratio = sde.sigma(times[1]) / sde.sigma(times[0])
        np.testing.assert_allclose(posterior.c / transition.c, ratio, rtol=1e-9)
        gaps.append(1 - float(posterior.c[0] / transition.c[0]))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)


def network_affine(x, t):
    """A noise prediction linear in x."""
    return 0.4 * x + t


def test_ddim_is_euler_on_the_probability_flow_where_time_is_sigma(monkeypatch, x64):
    times = jnp.asarray([3.0, 2.2])
    actual = apply(monkeypatch, ddim(EDM(), network), times, POINTS, 0.0)[0]
    # dx/dt = -g^2 / 2 score = t eps / t = eps
    np.testing.assert_allclose(actual, POINTS + (2.2 - 3.0) * np.asarray(network(POINTS, 3.0)), rtol=1e-9)


@pytest.mark.parametrize("sde", [VE(), DDPM(), EDM(), VP()], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("name", ["posterior", "transition", "reverse_diffusion"])
def test_a_step_that_goes_nowhere_adds_no_noise(name, sde):
    """The ladder visits its last level twice: compiled, the variance of q(x_t | x_t) is 0 and never below."""
    make = reverse_diffusion if name == "reverse_diffusion" else functools.partial(ancestral, variance=name)
    times = jnp.linspace(sde.t_max, sde.t_min, 200)
    keys = prng.per_image(jax.random.key(0), jnp.arange(1))
    step = make(sde, network)
    x = jnp.asarray(POINTS, jnp.float32)[None]
    actual = jax.jit(jax.vmap(lambda t: step(keys, x, t, t)[0]))(times)
    np.testing.assert_allclose(actual, np.broadcast_to(x, actual.shape), rtol=1e-5)


def test_unknown_variance_is_refused():
    with pytest.raises(ValueError, match="variance must be 'posterior' or 'transition', got "):
        inspect.unwrap(ancestral)(VP(), network, variance="learned")  # below the check of annotations


@pytest.mark.parametrize("wrong", [{"rtol": 0.0}, {"atol": -1.0}, {"max_evaluations": 3}])
def test_options_of_the_adaptive_flow_without_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dormand_prince(VP(), network, **wrong)
