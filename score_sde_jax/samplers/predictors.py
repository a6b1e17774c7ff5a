"""Predictors: steps from time t to time s < t, along the reverse SDE or the probability flow. Equations:
docs/theory.md.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from score_sde_jax import keys as prng
from score_sde_jax.parameterization import NoiseFn
from score_sde_jax.samplers.layers import Step
from score_sde_jax.sdes import SDE

Keys = Key[Array, " batch"]
Images = Float[Array, "batch *shape"]
Scalar = Float[Array, ""]


def _transition(sde: SDE, t: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """Scale and variance of the forward step q(x_t | x_s)."""
    scale = sde.alpha(t) / sde.alpha(s)
    kept, total = scale * sde.sigma(s), sde.sigma(t)
    # Factored, because a fused difference of squares rounds to below zero where s = t (the end of a ladder).
    return scale, jnp.maximum((total - kept) * (total + kept), 0.0)


def euler_maruyama(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Euler-Maruyama on the reverse SDE of eq. (13), eq. (15) (arXiv 2011.13456, eq. 6)."""

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        f, g2, dt = sde.drift(t), sde.diffusion_squared(t), t - s
        x = x - (f * x - g2 * sde.score(noise_fn(x, t), t)) * dt
        return x + jnp.sqrt(g2 * dt) * prng.normal(keys, x)

    return Step(move, evaluations=1)


def reverse_diffusion(sde: SDE, noise_fn: NoiseFn) -> Step:
    """The reverse SDE discretized exactly as the forward one, eq. (16) (arXiv 2011.13456, Appendix E)."""

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        scale, variance = _transition(sde, t, s)
        mean = (2 - scale) * x + variance * sde.score(noise_fn(x, t), t)
        return mean + jnp.sqrt(variance) * prng.normal(keys, x)

    return Step(move, evaluations=1)


def ancestral(sde: SDE, noise_fn: NoiseFn, *, variance: Literal["posterior", "transition"] = "posterior") -> Step:
    """A draw from q(x_s | x_t, x_0 = denoised), eq. (17), or with the variance of q(x_t | x_s).

    score-SDE uses the posterior variance for VE and the transition variance for VP (arXiv 2011.13456, Appendix F;
    arXiv 2006.11239, Section 3.2 compares the two).
    """
    if variance not in ("posterior", "transition"):
        raise ValueError(f"variance={variance!r}: allowed are 'posterior' and 'transition'")

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        scale, forward_variance = _transition(sde, t, s)
        mean = (x - forward_variance / sde.sigma(t) * noise_fn(x, t)) / scale
        std = jnp.sqrt(forward_variance)
        if variance == "posterior":
            std = std * sde.sigma(s) / sde.sigma(t)
        return mean + std * prng.normal(keys, x)

    return Step(move, evaluations=1)


def ddim(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Deterministic step that keeps x_0 and eps fixed, eq. (18) (arXiv 2010.02502, eq. 12 with eta = 0).

    For alpha = 1 and sigma(t) = t this is Euler's method on the probability flow.
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        eps = noise_fn(x, t)
        return sde.alpha(s) * sde.denoised(x, eps, t) + sde.sigma(s) * eps

    return Step(move, evaluations=1)


def heun(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Heun's second-order step on the probability flow, eq. (14) (arXiv 2206.00364, Algorithm 1 without churn)."""

    def velocity(x: Images, t: Scalar) -> Images:
        return sde.drift(t) * x - 0.5 * sde.diffusion_squared(t) * sde.score(noise_fn(x, t), t)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        v = velocity(x, t)
        return x + 0.5 * (s - t) * (v + velocity(x + (s - t) * v, s))

    return Step(move, evaluations=2)


def none(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Stay where you are: annealed Langevin dynamics has no predictor."""
    del sde, noise_fn
    return Step(lambda keys, x, t, s: x, evaluations=0)


PREDICTORS = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ddim": ddim,
    "heun": heun,
    "none": none,
}
