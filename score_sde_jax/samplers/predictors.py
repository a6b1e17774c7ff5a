"""Predictors: steps from time t to time s < t of the reverse-time SDE or the probability flow ODE.

Equation numbers refer to docs/theory.md.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.ode import Evaluations
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.ranges import Positive
from score_sde_jax.samplers.flow import solve
from score_sde_jax.samplers.step import Counts, Images, Keys, Scalar, Step


def _transition(sde: SDE, t: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """Return scale and variance of the forward transition q(x_t | x_s)."""
    scale = sde.alpha(t) / sde.alpha(s)
    kept, total = scale * sde.sigma(s), sde.sigma(t)
    # The difference of squares is factored, since a fused multiply-add rounds it below 0 for s = t (grid `ladder`).
    return scale, jnp.maximum((total - kept) * (total + kept), 0.0)


def euler_maruyama(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return the Euler-Maruyama step of the reverse-time SDE.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.

    Reference: arXiv 2011.13456, eq. 6; theory.md eqs. (13) and (15).
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        f, g2, dt = sde.drift(t), sde.diffusion_squared(t), t - s
        x = x - (f * x - g2 * sde.score(noise_fn(x, t), t)) * dt
        return x + jnp.sqrt(g2 * dt) * prng.normal(keys, x)

    return Step(move, nfe=1)


def reverse_diffusion(sde: SDE, noise_fn: NoiseFn, *, probability_flow: bool = False) -> Step:
    """Return the reverse diffusion step, which discretizes the reverse-time SDE like the forward SDE.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        probability_flow: whether to discretize the probability flow ODE instead: half the score and no noise.

    Reference: arXiv 2011.13456, Appendices D.3 and E; theory.md eqs. (16) and (24).
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        scale, variance = _transition(sde, t, s)
        change = variance * sde.score(noise_fn(x, t), t)
        if probability_flow:
            return (2 - scale) * x + 0.5 * change
        return (2 - scale) * x + change + jnp.sqrt(variance) * prng.normal(keys, x)

    return Step(move, nfe=1)


def ancestral(sde: SDE, noise_fn: NoiseFn, *, variance: Literal["posterior", "transition"] = "posterior") -> Step:
    """Return the ancestral sampling step, a sample of q(x_s | x_t, x_0) at the denoised image x_0.

    score-SDE uses the posterior variance for VE and the transition variance for VP.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        variance: "posterior" for the variance of q(x_s | x_t, x_0), "transition" for that of q(x_t | x_s).

    Raises:
        ValueError: variance is neither.

    Reference: arXiv 2006.11239, Section 3.2; arXiv 2011.13456, Appendix F; theory.md eq. (17).
    """
    if variance not in ("posterior", "transition"):
        raise ValueError(f"variance must be 'posterior' or 'transition', got {variance!r}")

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        scale, forward_variance = _transition(sde, t, s)
        mean = (x - forward_variance / sde.sigma(t) * noise_fn(x, t)) / scale
        std = jnp.sqrt(forward_variance)
        if variance == "posterior":
            std = std * sde.sigma(s) / sde.sigma(t)
        return mean + std * prng.normal(keys, x)

    return Step(move, nfe=1)


def ddim(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return the deterministic DDIM step, which keeps the predicted x_0 and eps.

    For alpha = 1 and sigma(t) = t it is Euler's method for the probability flow ODE.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.

    Reference: arXiv 2010.02502, eq. 12 with eta = 0; theory.md eq. (18).
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        eps = noise_fn(x, t)
        return sde.alpha(s) * sde.denoised(x, eps, t) + sde.sigma(s) * eps

    return Step(move, nfe=1)


def euler(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return Euler's step of the probability flow ODE, of order 1.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.

    Reference: theory.md eq. (14).
    """

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        return x + (s - t) * sde.velocity(x, noise_fn(x, t), t)

    return Step(move, nfe=1)


def heun(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return Heun's step of the probability flow ODE, of order 2, with 2 network evaluations.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.

    Reference: arXiv 2206.00364, Algorithm 1 without its last Euler step; theory.md eq. (14).
    """

    def velocity(x: Images, t: Scalar) -> Images:
        return sde.velocity(x, noise_fn(x, t), t)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        del keys
        v = velocity(x, t)
        return x + 0.5 * (s - t) * (v + velocity(x + (s - t) * v, s))

    return Step(move, nfe=2)


class Denoised(NamedTuple):
    """Memory of `dpmpp_2m`.

    Attributes:
        images: denoised images of the previous step.
        half_log_snr: lambda = log(alpha / sigma) at the time of the previous step.
    """

    images: Images
    half_log_snr: Scalar


def dpmpp_2m(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return the multistep DPM-Solver++(2M) step, of order 2 with 1 network evaluation.

    It is a DDIM step with the denoised image extrapolated from the previous step. The first step is a DDIM step.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.

    Reference: arXiv 2211.01095, Algorithm 2; theory.md eq. (35).
    """

    def init(x: Images) -> Denoised:
        # A previous step at lambda = -inf has an infinite step size, so its weight in the extrapolation is 0.
        return Denoised(jnp.zeros_like(x), jnp.asarray(-jnp.inf, x.dtype))

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar, previous: Denoised) -> tuple[Images, Denoised]:
        del keys
        current = Denoised(sde.denoised(x, noise_fn(x, t), t), sde.half_log_snr(t))
        h, h_previous = sde.half_log_snr(s) - current.half_log_snr, current.half_log_snr - previous.half_log_snr
        x0 = current.images + h / (2 * h_previous) * (current.images - previous.images)
        return sde.sigma(s) / sde.sigma(t) * x - sde.alpha(s) * jnp.expm1(-h) * x0, current

    return Step(move, nfe=1, init=init)


def dormand_prince(
    sde: SDE, noise_fn: NoiseFn, *, rtol: Positive = 1e-5, atol: Positive = 1e-5, max_evaluations: Evaluations = 10000
) -> Step:
    """Return a step that solves the probability flow ODE adaptively, independently per image.

    On a grid of one step it is the published sampler; a finer grid adds times for intermediate samples. An image whose
    solver does not reach time s becomes NaN.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        rtol: relative tolerance of the solver; positive.
        atol: absolute tolerance of the solver; positive.
        max_evaluations: upper bound on the NFE of each image in one step of the grid, at least 8.

    Raises:
        ValueError: rtol, atol or max_evaluations is out of range.

    Reference: arXiv 2011.13456, Section 4.3; theory.md eq. (14).
    """
    ode.check_options(rtol=rtol, atol=atol, max_evaluations=max_evaluations)

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> tuple[Images, Counts]:
        del keys
        solution = solve(sde, noise_fn, x, t, s, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
        # The last accepted state of a failed solver is not a sample at time s, so it is replaced by NaN.
        return jnp.where(prng.bcast(solution.converged, x), solution.state, jnp.nan), solution.nfe

    return Step(move, nfe=None)


def none(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return the identity: no predictor, as in annealed Langevin dynamics.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat, which is not called.
    """
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
