"""The probability flow ODE between images and latents, and interpolation of latents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import GAUSSIAN, SKEWED

from score_sde_jax.diffusion.sdes import SDES
from score_sde_jax.samplers import decode, encode, interpolate


@pytest.mark.parametrize("name", SDES)
def test_latents_of_gaussian_data_are_in_closed_form(name, x64):
    """The flow keeps (x - mean) / std of every pixel."""
    sde = SDES[name]()
    start, end = GAUSSIAN.at(sde, sde.t_min), GAUSSIAN.at(sde, sde.t_max)
    x0 = GAUSSIAN.sample(jax.random.key(0), (3, 2, 2, 1))
    solution = jax.jit(functools.partial(encode, sde, GAUSSIAN.noise_fn(sde), rtol=1e-5, atol=1e-5))(x0)
    expected = end.mean() + end.std() / start.std() * (x0 - start.mean())
    tolerance = 5e-3 if name == "ddpm" else 1e-3  # the drift of its table jumps at a thousand levels
    np.testing.assert_allclose(solution.state, expected, atol=tolerance * end.std())
    assert solution.converged.all() and solution.nfe.min() > 6


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_images_come_back_from_their_latents(name):
    sde = SDES[name]()
    x0 = SKEWED.sample(jax.random.key(0), (16, 4, 4, 1))
    maps = [
        functools.partial(function, sde, SKEWED.noise_fn(sde), rtol=1e-5, atol=1e-5) for function in (encode, decode)
    ]
    latents = jax.jit(maps[0])(x0)
    back = jax.jit(maps[1])(latents.state)
    assert latents.converged.all() and back.converged.all()
    assert np.sqrt(np.mean((back.state - x0) ** 2)) < 1e-3
    # Draws from the data have latents that are draws from the prior.
    sigma = float(sde.sigma(jnp.asarray(sde.t_max)))
    assert np.std(latents.state) == pytest.approx(sigma, rel=4 / np.sqrt(2 * x0.size) + 0.02)
    assert np.std(latents.state - x0) > 0.5 * sigma


def test_great_circle_between_latents(x64):
    """In the plane of the two, at the share of the angle, and of the share of the length where lengths are equal."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 2, 2, 1))
    lengths = [np.linalg.norm(z.reshape(3, -1), axis=1)[:, None, None, None] for z in (first, second)]
    second *= lengths[0] / lengths[1]
    fractions = jnp.asarray([0.0, 0.25, 1.0])
    solution = np.asarray(interpolate(jnp.asarray(first), jnp.asarray(second), fractions))
    assert solution.shape == (3, 3, 2, 2, 1)
    np.testing.assert_allclose(solution[0], first, rtol=1e-9)
    np.testing.assert_allclose(solution[2], second, rtol=1e-9, atol=1e-12)

    def angle(a, b):
        return np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))

    for a, b, between in zip(first, second, solution[1], strict=True):
        assert np.linalg.norm(between) == pytest.approx(np.linalg.norm(a))
        assert angle(a, between) == pytest.approx(0.25 * angle(a, b))
        assert angle(between, b) == pytest.approx(0.75 * angle(a, b))


def test_latents_of_other_lengths_are_combined_by_the_angle_between_them(x64):
    """sin((1 - f) angle) / sin(angle) of the first and sin(f angle) / sin(angle) of the second, eq. (26)."""
    first, second = np.random.default_rng(0).standard_normal((2, 3, 2, 2, 1))
    second *= 4
    fractions = [0.0, 0.3, 0.8, 1.0]
    solution = np.asarray(interpolate(jnp.asarray(first), jnp.asarray(second), jnp.asarray(fractions)))
    for a, b, between in zip(first, second, solution.swapaxes(0, 1), strict=True):
        angle = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
        for f, z in zip(fractions, between, strict=True):
            expected = (np.sin((1 - f) * angle) * a + np.sin(f * angle) * b) / np.sin(angle)
            np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-12)


def test_way_from_a_latent_to_itself_stays_there():
    z = jax.random.normal(jax.random.key(0), (2, 5))
    np.testing.assert_allclose(interpolate(z, z, jnp.asarray([0.0, 0.3, 1.0])), jnp.stack([z] * 3), rtol=1e-5)
