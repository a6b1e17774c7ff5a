"""An arbitrary network, and the keys and shapes of a batch to try losses on."""

import jax
import jax.numpy as jnp

from score_sde_jax import keys as prng

BATCH, SHAPE = 16, (16, 4, 4, 2)


def network(x, condition):
    """An arbitrary nonlinear function of its input."""
    del condition
    return jnp.sin(3 * x) + 0.3 * x**2 - 0.2


def batch_keys(num=BATCH):
    return prng.per_image(jax.random.key(3), jnp.arange(num))


def per_image(errors, reduce):
    return reduce(errors.reshape(BATCH, -1), axis=1)
