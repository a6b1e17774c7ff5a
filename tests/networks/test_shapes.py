"""Images that are not square, in every network for images: gradients of the right shape that depend on every pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde_jax.condition import Condition
from score_sde_jax.networks import MODELS

REDUCED = {
    "ncsn": dict(width=4, num_levels=3),
    "ncsnv2": dict(width=4),
    "ddpm": dict(width=8, multipliers=(1, 1), num_blocks=1, attention=(8,)),
    "ncsnpp": dict(width=8, multipliers=(1, 1), num_blocks=1, attention=(8,)),
    "small_unet": dict(widths=(8, 8), num_blocks=1, bottleneck=8),
    "mlp": dict(width=8, depth=1),
}
"""Options of one network of each kind; the others differ in their defaults."""


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", REDUCED)
def test_network_on_images_that_are_not_square(name):
    network = MODELS[name](**REDUCED[name])
    x = jax.random.normal(jax.random.key(0), (2, 8, 16, 3))
    noise = jnp.zeros(2, jnp.int32) if name == "ncsn" else None if name == "ncsnv2" else jnp.full(2, 0.5)
    condition = Condition(noise=noise)
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(1), x, condition)
    rng = np.random.default_rng(2)  # every parameter differs from zero
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes)

    def energy(x):
        out = network.apply(params, x, condition, train=False)
        return jnp.sum(jnp.sin(out)), out

    gradient, out = jax.jit(jax.grad(energy, has_aux=True))(x)
    assert out.shape == x.shape and np.isfinite(out).all()
    assert (np.abs(gradient).sum((0, 3)) > 0).all()
