"""Exact moments of a sampler on Gaussian data, where every step is affine: x_s = a x_t + b + c z."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde_jax import keys as prng
from score_sde_jax.samplers import Step


class Affine(NamedTuple):
    """Coefficients of one step after another."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray


def apply(monkeypatch, step: Step, times, x, z):
    """The step from each time to the next, at a list of points x, with its noise replaced by z (of each point)."""
    keys = prng.per_image(jax.random.key(0), jnp.arange(1))
    image = jnp.reshape(jnp.asarray(x), (1, -1))
    noise = jnp.broadcast_to(z, image.shape)

    @jax.jit
    def move(times, image, noise):
        patch.setattr(prng, "normal", lambda keys, like: noise)
        return jax.vmap(lambda t, s: step(keys, image, t, s)[0])(times[:-1], times[1:])

    with monkeypatch.context() as patch:
        return np.asarray(move(times, image, noise))


def affine(monkeypatch, step: Step, times) -> Affine:
    """Coefficients of a step that is affine in each pixel and in one draw of its noise."""
    at_0, at_1, noisy = apply(monkeypatch, step, times, [0.0, 1.0, 0.0], z=np.array([0.0, 0.0, 1.0])).T
    return Affine(at_1 - at_0, at_0, noisy - at_0)


def propagate(steps: Affine, mean: float, variance: float) -> tuple[float, float]:
    """Mean and standard deviation after all steps."""
    for a, b, c in zip(*steps, strict=True):
        mean, variance = a * mean + b, a**2 * variance + c**2
    return float(mean), float(np.sqrt(variance))
