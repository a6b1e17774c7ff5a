"""Langevin dynamics: step sizes, invariant distributions and their bias."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SDE_CASES, SKEWED, assert_moments
from probing import affine, apply

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.sdes import EDM, VE, VP
from score_sde_jax.samplers import CORRECTORS
from score_sde_jax.samplers.correctors import annealed_langevin, langevin

POINTS = np.array([-1.3, 0.2, 2.0])


def network(x, t):
    """An arbitrary noise prediction."""
    return jnp.sin(2 * x) + 0.3 * x + t


def adaptive_formula(x, eps, z, sigma):
    """ArXiv 2011.13456, Algorithm 4: steps of size 2 (snr |z| / |score|)^2."""
    score = -eps / sigma
    size = 2 * (0.16 * np.linalg.norm(z) / np.linalg.norm(score)) ** 2
    return x + size * score + np.sqrt(2 * size) * z


def annealed_formula(x, eps, z, sigma):
    """ArXiv 1907.05600, Algorithm 1, with alpha_i / 2 = 0.2 sigma_i^2."""
    return x - 0.2 * sigma * eps + np.sqrt(0.4) * sigma * z


# name: (options, formula of one step at noise level sigma)
CASES = {
    "annealed_langevin": ({"step_size": 0.2, "num_steps": 1}, annealed_formula),
    "langevin": ({"snr": 0.16, "num_steps": 1}, adaptive_formula),
    "none": ({}, lambda x, *rest: x),
}


def test_every_registered_corrector_has_a_case():
    assert set(CASES) == set(CORRECTORS)


@pytest.mark.parametrize("name", CORRECTORS)
@pytest.mark.parametrize("sde_name", SDE_CASES)
def test_step_is_the_formula_of_the_paper(name, sde_name, monkeypatch, x64):
    sde, t, s = SDE_CASES[sde_name]
    options, formula = CASES[name]
    step = CORRECTORS[name](sde, network, **options)
    actual = apply(monkeypatch, step, jnp.asarray([t, s]), POINTS, z=0.8)[0]
    sigma = float(sde.sigma(jnp.asarray(t)))
    expected = formula(POINTS, np.asarray(network(POINTS, t)), np.full(3, 0.8), sigma)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize(("step_lr", "snr"), [(2e-5, 0.316), (6.2e-6, 0.176)])
def test_step_size_of_ncsn_is_that_of_score_sde(step_lr, snr, monkeypatch, x64):
    """step_lr sigma_i^2 / sigma_L^2 of arXiv 1907.05600 and 2006.09011; 2 (snr sigma_i)^2 of 2011.13456."""
    sde = VE(sigma_min=0.01, sigma_max=1.0)
    times = jnp.linspace(1.0, 0.0, 10)
    step = annealed_langevin(sde, lambda x, t: jnp.ones_like(x), step_size=step_lr / 0.01**2, num_steps=1)
    steps = affine(monkeypatch, step, times)
    sigmas = np.geomspace(1.0, 0.01, 10)[:-1]
    sizes = steps.c**2 / 2
    np.testing.assert_allclose(sizes, step_lr * sigmas**2 / 0.01**2, rtol=1e-9)
    np.testing.assert_allclose(sizes, 2 * (snr * sigmas) ** 2, rtol=2e-3)
    np.testing.assert_allclose(steps.b, -sizes / sigmas, rtol=1e-9)  # score = -1 / sigma


@pytest.mark.parametrize("name", ["annealed_langevin", "langevin"])
def test_steps_are_repeated_with_new_noise(name):
    sde, t = VE(), jnp.asarray(0.5)
    keys = prng.per_image(jax.random.key(0), jnp.arange(4))
    x = jnp.ones((4, 3))
    make = CORRECTORS[name]
    actual = jax.jit(make(sde, network, num_steps=3))(keys, x, t, t)
    sigma = float(sde.sigma(t))
    for i in range(3):
        z = np.asarray(prng.normal(prng.fold_in(keys, i), x))
        eps = np.asarray(network(x, t))
        rows = zip(np.asarray(x), eps, z, strict=True)
        x = jnp.stack([CASES[name][1](*row, sigma) for row in rows])
    np.testing.assert_allclose(actual, x, rtol=1e-4)


@pytest.mark.parametrize(("sde_name", "step_size"), [*((name, 0.2) for name in SDE_CASES), ("vp", 0.02), ("vp", 1.0)])
def test_stationary_distribution_on_gaussian_data(step_size, sde_name, monkeypatch, x64):
    """Its variance is S 2 / (2 - q) for noisy data of variance S, with q = step_size sigma^2 / S."""
    sde, t, s = SDE_CASES[sde_name]
    step = annealed_langevin(sde, GAUSSIAN.noise_fn(sde), step_size=step_size, num_steps=1)
    (a,), (b,), (c,) = affine(monkeypatch, step, jnp.asarray([t, s]))
    noisy = GAUSSIAN.at(sde, t)
    q = step_size * float(sde.sigma(jnp.asarray(t))) ** 2 / noisy.std() ** 2
    assert b / (1 - a) == pytest.approx(noisy.mean(), rel=1e-5)
    assert c**2 / (1 - a**2) == pytest.approx(noisy.std() ** 2 * 2 / (2 - q), rel=1e-5)


def stationary_moments(monkeypatch, step, t, grid):
    """Moments 1 to 3 of the invariant distribution of a step, by its transition matrix on a grid."""
    times = jnp.asarray([t, t])
    mean = apply(monkeypatch, step, times, grid, z=0.0)[0]
    std = apply(monkeypatch, step, times, grid, z=1.0)[0] - mean
    kernel = np.exp(-0.5 * ((grid[:, None] - mean) / std) ** 2)  # [to, from]
    values, vectors = np.linalg.eig(kernel / kernel.sum(axis=0))
    p = np.real(vectors[:, np.argmax(np.real(values))])
    return np.array([np.dot(grid**k, p / p.sum()) for k in (1, 2, 3)])


def test_skewed_mixture_is_invariant_up_to_a_bias_of_first_order(monkeypatch, x64):
    t = 0.3
    noisy = SKEWED.at(EDM(), t)
    nodes = np.linspace(-2.5, 2.5, 201)
    parts = zip(noisy.weights, noisy.means, noisy.stds, strict=True)
    density = sum(w / s * np.exp(-0.5 * ((nodes - m) / s) ** 2) for w, m, s in parts)
    expected = np.array([np.dot(nodes**k, density / density.sum()) for k in (1, 2, 3)])
    biases = []
    for step_size in (0.2, 0.1, 0.05):
        step = annealed_langevin(EDM(), SKEWED.noise_fn(EDM()), step_size=step_size, num_steps=1)
        biases.append(np.max(np.abs(stationary_moments(monkeypatch, step, t, nodes) - expected)))
    np.testing.assert_allclose(np.log2(np.divide(biases[:-1], biases[1:])), 1, atol=0.2)
    assert biases[-1] < 0.01


@pytest.mark.parametrize(("name", "bias"), [("annealed_langevin", 0.02), ("langevin", 0.02), ("none", 0.0)])
def test_draws_from_a_skewed_mixture_stay_draws_from_it(name, bias):
    """On images of 1,024 pixels: an adaptive step has a bias of 2 / D of its own, eq. (19)."""
    sde, t = VP(), jnp.asarray(0.2)
    options = {"annealed_langevin": {"step_size": 0.05}, "langevin": {"snr": 0.1}, "none": {}}[name]
    if options:
        options["num_steps"] = 40
    noisy = SKEWED.at(sde, float(t))
    x = noisy.sample(jax.random.key(7), (32, 32, 32, 1))
    step = CORRECTORS[name](sde, SKEWED.noise_fn(sde), **options)
    moved = jax.jit(step)(prng.per_image(jax.random.key(8), jnp.arange(32)), x, t, t)
    assert_moments(moved, noisy, bias=bias)
    if options:  # the images have changed
        assert abs(np.corrcoef(np.ravel(x), np.ravel(moved))[0, 1]) < 0.8


def test_adaptive_step_has_the_signal_to_noise_ratio_of_every_image(x64):
    sde, t = VE(), jnp.asarray(0.5)
    keys = prng.per_image(jax.random.key(0), jnp.arange(4))
    # The noise predictions, and so the scores, of the images differ by orders of magnitude.
    x = jnp.asarray([0.01, 1.0, 10.0, 300.0])[:, None] * jnp.ones((4, 5))
    moved = jax.jit(langevin(sde, lambda x, t: x, snr=0.16))(keys, x, t, t)
    z = np.asarray(prng.normal(prng.fold_in(keys, 0), x))
    score = np.asarray(sde.score(x, t))
    for i in range(4):  # move = size score + sqrt(2 size) z, solved for the two strengths
        signal, noise = np.linalg.lstsq(np.stack([score[i], z[i]], axis=1), moved[i] - x[i], rcond=None)[0]
        ratio = signal * np.linalg.norm(score[i]) / (noise * np.linalg.norm(z[i]))
        assert noise == pytest.approx(np.sqrt(2 * signal))
        assert ratio == pytest.approx(0.16)


def test_lengths_averaged_over_the_batch_are_those_of_the_paper(x64):
    """ArXiv 2011.13456, Algorithm 4, as released: one size from the mean lengths."""
    sde, t = VE(), jnp.asarray(0.5)
    keys = prng.per_image(jax.random.key(0), jnp.arange(4))
    x = jnp.asarray([0.01, 1.0, 10.0, 300.0])[:, None] * jnp.ones((4, 5))
    moved = jax.jit(langevin(sde, lambda x, t: x, snr=0.16, norms="batch"))(keys, x, t, t)
    z, score = np.asarray(prng.normal(prng.fold_in(keys, 0), x)), np.asarray(sde.score(x, t))
    lengths = [np.mean([np.linalg.norm(image) for image in part]) for part in (z, score)]
    size = 2 * (0.16 * lengths[0] / lengths[1]) ** 2
    np.testing.assert_allclose(moved, x + size * score + np.sqrt(2 * size) * z, rtol=1e-9)


@pytest.mark.parametrize("name", ["annealed_langevin", "langevin"])
def test_shrunken_sizes_are_those_of_the_released_code(name, x64):
    """On VP 1 - beta_i times the size, i counting 1000 levels; on VE no change."""
    keys = prng.per_image(jax.random.key(0), jnp.arange(1))
    x, t, s = jnp.ones((1, 3)), jnp.asarray(0.7), jnp.asarray(0.699)
    z = np.asarray(prng.normal(prng.fold_in(keys, 0), x))
    for sde, factor in ((VP(), 1 - (0.1 + 0.7 * 19.9) / 1000), (VE(), 1.0)):
        sizes = []
        for shrink in (False, True):
            moved = jax.jit(CORRECTORS[name](sde, network, num_steps=1, shrink=shrink))(keys, x, t, s)
            score = np.asarray(sde.score(network(x, t), t))
            strengths = np.linalg.lstsq(np.stack([score[0], z[0]], axis=1), np.asarray(moved - x)[0], rcond=None)[0]
            assert strengths[1] == pytest.approx(np.sqrt(2 * strengths[0]))
            sizes.append(strengths[0])
        assert sizes[1] / sizes[0] == pytest.approx(factor, rel=2e-4)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (langevin, {"snr": 0.0}),
        (langevin, {"num_steps": 0}),
        (langevin, {"norms": "layer"}),
        (annealed_langevin, {"num_steps": 0}),
    ],
)
def test_options_without_sense_are_refused(make, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        inspect.unwrap(make)(VE(), network, **wrong)  # below the check of annotations


@pytest.mark.parametrize("step_size", [0.0, -0.1, 2.0])
def test_unstable_step_sizes_are_refused(step_size):
    with pytest.raises(ValueError, match=rf"step_size must be > 0 and < 2, in units of sigma\^2, got {step_size}"):
        annealed_langevin(VE(), network, step_size=step_size)
