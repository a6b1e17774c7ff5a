"""Predictors: steps from time t to time s < t, along the reverse SDE or the probability flow. Equations:
docs/theory.md.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.samplers.flow import solve
from score_sde_jax.samplers.step import Counts, Images, Keys, Scalar, Step


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

    return Step(move, nfe=1)


def reverse_diffusion(sde: SDE, noise_fn: NoiseFn, *, probability_flow: bool = False) -> Step:
    """The reverse SDE discretized exactly as the forward one, eq. (16) (arXiv 2011.13456, Appendix E).

    With `probability_flow` it discretizes the flow instead: half the score, and no noise, eq. (24).
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        scale, variance = _transition(sde, t, s)
        change = variance * sde.score(noise_fn(x, t), t)
        if probability_flow:
            return (2 - scale) * x + 0.5 * change
        return (2 - scale) * x + change + jnp.sqrt(variance) * prng.normal(keys, x)

    return Step(move, nfe=1)


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

    return Step(move, nfe=1)


def ddim(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Deterministic step that keeps x_0 and eps fixed, eq. (18) (arXiv 2010.02502, eq. 12 with eta = 0).

    For alpha = 1 and sigma(t) = t this is Euler's method on the probability flow.
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        eps = noise_fn(x, t)
        return sde.alpha(s) * sde.denoised(x, eps, t) + sde.sigma(s) * eps

    return Step(move, nfe=1)


def euler(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Euler's step on the probability flow, eq. (14): Euler-Maruyama without noise and with half the score."""

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        return x + (s - t) * sde.velocity(x, noise_fn(x, t), t)

    return Step(move, nfe=1)


def heun(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Heun's second-order step on the probability flow, eq. (14) (arXiv 2206.00364, Algorithm 1 without churn)."""

    def velocity(x: Images, t: Scalar) -> Images:
        return sde.velocity(x, noise_fn(x, t), t)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        v = velocity(x, t)
        return x + 0.5 * (s - t) * (v + velocity(x + (s - t) * v, s))

    return Step(move, nfe=2)


class Denoised(NamedTuple):
    """The denoised images of the step before, and log sigma / alpha at its time."""

    images: Images
    half_log_snr: Scalar


def dpmpp_2m(sde: SDE, noise_fn: NoiseFn) -> Step:
    """DPM-Solver++(2M), eq. (35): second order for one evaluation a step (arXiv 2211.01095, Algorithm 2).

    DDIM with the denoised image extrapolated from the step before. The first step has none before it and is DDIM.
    """

    def init(x: Images) -> Denoised:
        return Denoised(
            jnp.zeros_like(x), jnp.asarray(-jnp.inf, x.dtype)
        )  # infinitely long ago: no share of it is left

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar, before: Denoised) -> tuple[Images, Denoised]:
        del keys
        now = Denoised(sde.denoised(x, noise_fn(x, t), t), sde.half_log_snr(t))
        h, h_before = sde.half_log_snr(s) - now.half_log_snr, now.half_log_snr - before.half_log_snr
        x0 = now.images + h / (2 * h_before) * (now.images - before.images)
        return sde.sigma(s) / sde.sigma(t) * x - sde.alpha(s) * jnp.expm1(-h) * x0, now

    return Step(move, nfe=1, init=init)


def dormand_prince(
    sde: SDE, noise_fn: NoiseFn, *, rtol: float = 1e-5, atol: float = 1e-5, max_evaluations: int = 10000
) -> Step:
    """The probability flow of eq. (14) from t to s by an adaptive solver, every image with steps of its own.

    With a uniform grid of num_steps = 1 it is the whole way (arXiv 2011.13456, Section 4.3); with more it passes
    through their times, so that frames show the way. `max_evaluations` is that of one step; an image that would need
    more is not a number from there on. Raises ValueError as `ode.check_options`.
    """
    ode.check_options(rtol=rtol, atol=atol, max_evaluations=max_evaluations)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> tuple[Images, Counts]:
        del keys
        found = solve(sde, noise_fn, x, t, s, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
        # What the solver left on its way is no image of time s: let nobody take it for one.
        return jnp.where(prng.bcast(found.converged, x), found.state, jnp.nan), found.nfe

    return Step(move, nfe=None)


def none(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Stay where you are: annealed Langevin dynamics has no predictor."""
    del sde, noise_fn
    return Step(lambda keys, x, t, s: x, nfe=0)


PREDICTORS = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dormand_prince": dormand_prince,
    "none": none,
}
