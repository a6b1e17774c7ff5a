"""Hints to XLA: what to compute once for all that read it, and what again for each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from score_sde_jax.devices.machine import on_cpu


def compute_once(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `x` in a form that XLA computes once for all its consumers, with its gradient.

    XLA recomputes cheap producers in every consumer. In a residual network x is a sum over all previous blocks, and its
    gradient a sum over all later blocks, which every block would recompute. `optimization_barrier` prevents it on
    accelerators. XLA on a CPU removes the barrier first, but does not recompute a division, so x is divided by a value
    that is 1 at run time but opaque to the compiler.
    """
    if not on_cpu():
        return jax.lax.optimization_barrier(x)
    one = jnp.ones((), x.dtype)
    return x / jax.lax.clamp(one, jax.lax.stop_gradient(x), one)


@jax.custom_jvp
def gradient_once(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `x`, whose gradient XLA computes once for all its consumers; no hint on a CPU."""
    return x


@gradient_once.defjvp
def _gradient_once_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], jax.lax.optimization_barrier(tangents[0])
