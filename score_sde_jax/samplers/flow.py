"""Probability flow ODE as an invertible map between images and latents, and interpolation of latents.

Equation numbers refer to docs/theory.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import ode
from score_sde_jax.diffusion.parameterization import NoiseFn
from score_sde_jax.diffusion.sdes import SDE
from score_sde_jax.samplers.step import Images, Scalar


def solve(
    sde: SDE,
    noise_fn: NoiseFn,
    x: Images,
    t: Scalar | float,
    s: Scalar | float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10000,
) -> ode.Solution:
    """Solve the probability flow ODE from time t to time s with an adaptive solver.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat; it is called with one time per image.
        x: images at time t.
        t: initial time.
        s: final time, before or after t.
        rtol: relative tolerance of the solver; positive.
        atol: absolute tolerance of the solver; positive.
        max_evaluations: upper bound on the NFE of each image, at least 8.

    Returns:
        The solution. An image that is not `converged` did not reach time s.

    Reference: theory.md eq. (14).
    """

    def velocity(x: Images, t: Float[Array, " batch"]) -> Images:
        t = prng.bcast(t, x)
        return sde.velocity(x, noise_fn(x, t), t)

    return ode.dormand_prince(velocity, x, t, s, rtol=rtol, atol=atol, max_evaluations=max_evaluations)


def encode(sde: SDE, noise_fn: NoiseFn, x0: Images, **options: Any) -> ode.Solution:
    """Map images to latents, by the probability flow ODE from t_min to t_max.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        x0: images.
        **options: tolerances and NFE bound of `solve`.

    Reference: arXiv 2011.13456, Section 4.3.
    """
    return solve(sde, noise_fn, x0, sde.t_min, sde.t_max, **options)


def decode(sde: SDE, noise_fn: NoiseFn, latents: Images, **options: Any) -> ode.Solution:
    """Map latents to images, by the probability flow ODE from t_max to t_min; the inverse of `encode`.

    Args:
        sde: diffusion.
        noise_fn: noise prediction (x, t) -> eps_hat.
        latents: latents at t_max.
        **options: tolerances and NFE bound of `solve`.
    """
    return solve(sde, noise_fn, latents, sde.t_max, sde.t_min, **options)


def interpolate(
    first: Images, second: Images, fractions: Float[Array, " fractions"]
) -> Float[Array, "fractions batch *shape"]:
    """Interpolate spherically between pairs of latents, which keeps the norm.

    Args:
        first: latents at fraction 0.
        second: latents at fraction 1.
        fractions: positions between the two, 0 to 1.

    Reference: theory.md eq. (26).
    """

    def slerp(first: Array, second: Array) -> Array:
        lengths = jnp.linalg.norm(first) * jnp.linalg.norm(second)
        angle = jnp.arccos(jnp.clip(jnp.sum(first * second) / lengths, -1.0, 1.0))

        def weight(fraction: Array) -> Array:
            # sin(fraction angle) / sin(angle), with its limit at angle 0.
            return fraction * jnp.sinc(fraction * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)

        return jax.vmap(lambda fraction: weight(1 - fraction) * first + weight(fraction) * second)(fractions)

    flat = (jnp.reshape(images, (len(images), -1)) for images in (first, second))
    return jnp.reshape(jax.vmap(slerp, out_axes=1)(*flat), (len(fractions), *first.shape))
