"""Correctors: Langevin dynamics at a fixed time t, which leaves p_t invariant as the step size goes to 0.

Equation numbers refer to docs/theory.md.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax import keys as prng
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.ranges import Count, Positive, Range
from score_sde_jax.samplers.step import Images, Keys, Scalar, Step

# (score, noise, sigma) -> step size, a scalar or (batch, 1, ..., 1).
StepSize = Callable[[Images, Images, Scalar], Float[Array, "..."]]


def langevin_dynamics(
    sde: SDE, noise_fn: NoiseFn, step_size: StepSize, num_steps: int, *, shrink: bool = False
) -> Step:
    """Return Langevin dynamics x <- x + eta s(x) + sqrt(2 eta) z with step size eta.

    The formula of arXiv 1907.05600, eq. 4, has eta = epsilon / 2; the released code of NCSN and NCSNv2 uses this form.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        step_size: function (score, noise, sigma) -> eta.
        num_steps: number of Langevin steps, at least 1.
        shrink: whether to multiply eta by (alpha(t) / alpha(s))^2, as score-SDE does for VP.

    Raises:
        ValueError: num_steps is below 1.

    Reference: arXiv 1907.05600, Algorithm 1; theory.md eqs. (9) and (25).
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")

    def move(keys: Keys, x: Images, t: Scalar, s: Scalar) -> Images:
        factor = (sde.alpha(t) / sde.alpha(s)) ** 2 if shrink else 1.0

        def body(x: Images, i: Array) -> tuple[Images, None]:
            score = sde.score(noise_fn(x, t), t)
            z = prng.normal(prng.fold_in(keys, i), x)
            size = factor * step_size(score, z, sde.sigma(t))
            return x + size * score + jnp.sqrt(2 * size) * z, None  # eq. (9)

        return jax.lax.scan(body, x, jnp.arange(num_steps))[0]

    return Step(move, nfe=num_steps)


def annealed_langevin(
    sde: SDE,
    noise_fn: NoiseFn,
    *,
    step_size: Annotated[float, Range(0, 2, exclusive=True)] = 0.2,
    num_steps: Count = 100,
    shrink: bool = False,
) -> Step:
    """Return annealed Langevin dynamics, with step size step_size sigma(t)^2.

    In terms of the released code, step_size is step_lr / sigma_L^2: 2e-5 / 0.01^2 = 0.2 for NCSN and 6.2e-6 / 0.01^2 =
    0.062 for NCSNv2 on CIFAR-10. For the `ald` corrector of score-SDE it is 2 snr^2, with `shrink` on VP.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        step_size: step size in units of sigma(t)^2, above 0 and below 2.
        num_steps: number of Langevin steps at each noise level, at least 1.
        shrink: whether to multiply the step size by (alpha(t) / alpha(s))^2, as score-SDE does for VP.

    Raises:
        ValueError: step_size or num_steps is out of range.

    Reference: arXiv 1907.05600, Algorithm 1; theory.md eq. (9).
    """
    if not 0 < step_size < 2:
        raise ValueError(f"step_size must be > 0 and < 2, in units of sigma^2, got {step_size}")
    return langevin_dynamics(sde, noise_fn, lambda score, z, sigma: step_size * sigma**2, num_steps, shrink=shrink)


def langevin(
    sde: SDE,
    noise_fn: NoiseFn,
    *,
    snr: Positive = 0.16,
    num_steps: Count = 1,
    norms: Literal["image", "batch"] = "image",
    shrink: bool = False,
) -> Step:
    """Return Langevin dynamics with the adaptive step size 2 (snr |z| / |score|)^2 of score-SDE.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        snr: ratio of the norms of the score term and the noise term; positive.
        num_steps: number of Langevin steps at each time, at least 1.
        norms: "image" for the norms of each image; "batch" for their means over the batch, as published. An image then
            depends on its batch; with parallel=pmap the mean is over the images of one device.
        shrink: whether to multiply the step size by (alpha(t) / alpha(s))^2, as score-SDE does for VP.

    Raises:
        ValueError: snr, num_steps or norms is out of range.

    Reference: arXiv 2011.13456, Algorithm 4; theory.md eq. (19).
    """
    if not snr > 0:
        raise ValueError(f"snr must be > 0, got {snr}")
    if norms not in ("image", "batch"):
        raise ValueError(f"norms must be 'image' or 'batch', got {norms!r}")

    def step_size(score: Images, z: Images, sigma: Scalar) -> Float[Array, "..."]:
        del sigma

        def norm(x: Images) -> Float[Array, "..."]:
            lengths = jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
            return lengths if norms == "image" else jnp.mean(lengths)

        return 2 * (snr * norm(z) / norm(score)) ** 2

    return langevin_dynamics(sde, noise_fn, step_size, num_steps, shrink=shrink)


def none(sde: SDE, noise_fn: NoiseFn) -> Step:
    """Return the identity: no corrector.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat, which is not called.
    """
    del sde, noise_fn
    return Step(lambda keys, x, t, s: x, nfe=0)


CORRECTORS = {"annealed_langevin": annealed_langevin, "langevin": langevin, "none": none}
