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


def apply(monkeypatch, step: Step, times, x, z: float):
    """The step from each time to the next, at the points x (a list), with its noise replaced by z."""
    keys = prng.per_image(jax.random.key(0), jnp.arange(1))
    image = jnp.reshape(jnp.asarray(x), (1, -1))
    with monkeypatch.context() as patch:
        patch.setattr(prng, "normal", lambda keys, like: jnp.full_like(like, z))
        move = jax.vmap(lambda t, s: step(keys, image, t, s)[0])
        return np.asarray(move(times[:-1], times[1:]))


def affine(monkeypatch, step: Step, times) -> Affine:
    """Coefficients of a step that is affine in x and in one draw of noise."""
    at_0, at_1 = apply(monkeypatch, step, times, [0.0, 1.0], z=0.0).T
    noisy = apply(monkeypatch, step, times, [0.0, 1.0], z=1.0)[:, 0]
    return Affine(at_1 - at_0, at_0, noisy - at_0)


def propagate(steps: Affine, mean: float, variance: float) -> tuple[float, float]:
    """Mean and standard deviation after all steps."""
    for a, b, c in zip(*steps, strict=True):
        mean, variance = a * mean + b, a**2 * variance + c**2
    return float(mean), float(np.sqrt(variance))
