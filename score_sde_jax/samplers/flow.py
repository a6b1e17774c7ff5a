"""The probability flow as a map: images to latents at t_max and back, and ways between latents. Equations:
docs/theory.md.
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
    """Carry images from time t to time s, earlier or later, by the probability flow, eq. (14).

    The network is evaluated at a time of every image's own. Images that are not `converged` did not get to s.
    """

    def velocity(x: Images, t: Float[Array, " batch"]) -> Images:
        t = prng.bcast(t, x)
        return sde.velocity(x, noise_fn(x, t), t)

    return ode.dormand_prince(velocity, x, t, s, rtol=rtol, atol=atol, max_evaluations=max_evaluations)


def encode(sde: SDE, noise_fn: NoiseFn, x0: Images, **options: Any) -> ode.Solution:
    """Latents of images: where the flow takes them from t_min to t_max (arXiv 2011.13456, Section 4.3).

    `options` are those of `solve`.
    """
    return solve(sde, noise_fn, x0, sde.t_min, sde.t_max, **options)


def decode(sde: SDE, noise_fn: NoiseFn, latents: Images, **options: Any) -> ode.Solution:
    """Images of latents: where the flow takes them from t_max to t_min; the inverse of `encode`."""
    return solve(sde, noise_fn, latents, sde.t_max, sde.t_min, **options)


def interpolate(
    first: Images, second: Images, fractions: Float[Array, " fractions"]
) -> Float[Array, "fractions batch *shape"]:
    """Points on the great circle from `first` (fraction 0) to `second` (1), for each pair by itself, eq. (26).

    Unlike points of the straight line, they are as long as latents are.
    """

    def between(first: Array, second: Array) -> Array:
        lengths = jnp.linalg.norm(first) * jnp.linalg.norm(second)
        angle = jnp.arccos(jnp.clip(jnp.sum(first * second) / lengths, -1.0, 1.0))

        def share(fraction: Array) -> Array:
            # sin(fraction angle) / sin(angle), also where the angle is 0
            return fraction * jnp.sinc(fraction * angle / jnp.pi) / jnp.sinc(angle / jnp.pi)

        return jax.vmap(lambda fraction: share(1 - fraction) * first + share(fraction) * second)(fractions)

    flat = (jnp.reshape(images, (len(images), -1)) for images in (first, second))
    return jnp.reshape(jax.vmap(between, out_axes=1)(*flat), (len(fractions), *first.shape))
