"""The small networks: the patch rearrangement is its own formula, and inputs reach outputs as they must."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde_jax.errors import UserError
from score_sde_jax.models import MLP, SmallUNet
from score_sde_jax.models.embedding import FASTEST, SLOWEST, sinusoidal_features
from score_sde_jax.models.small_unet import from_patches, to_patches

NETWORKS = {
    "small_unet": (SmallUNet(widths=(8, 16), patch=2, num_blocks=1, bottleneck=8), (8, 8, 3)),
    "no bottleneck": (SmallUNet(widths=(16,), patch=1, num_blocks=1, bottleneck=0), (6, 6, 1)),
    "mlp": (MLP(width=16, depth=2), (2,)),
}


def test_patches():
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 2)).astype(np.float32)
    patches = to_patches(jnp.asarray(x), 3)
    assert patches.shape == (2, 2, 3, 18)
    for row, column, i, j in itertools.product(range(2), range(3), range(3), range(3)):
        pixel = patches[:, row, column, 2 * (3 * i + j) : 2 * (3 * i + j) + 2]
        np.testing.assert_array_equal(pixel, x[:, 3 * row + i, 3 * column + j])
    np.testing.assert_array_equal(from_patches(patches, 3), x)


def test_sinusoidal_features():
    features = sinusoidal_features(jnp.asarray([0.0, 2.5]), 8)
    frequencies = SLOWEST * (FASTEST / SLOWEST) ** (np.arange(4) / 3)
    np.testing.assert_allclose(features[1, :4], np.sin(2.5 * frequencies), rtol=1e-5)
    np.testing.assert_allclose(features[1, 4:], np.cos(2.5 * frequencies), rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_an_output_depends_on(name):
    """On its own image and its own condition, and on no other image of the batch."""
    network, shape = NETWORKS[name]
    x, condition = jax.random.normal(jax.random.key(0), (3, *shape)), jnp.asarray([0, 1, 2])
    params = network.init(jax.random.key(1), x, condition)
    # the last layers start at zero: move every parameter
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), params)

    @jax.jit
    def apply(x, condition):
        return network.apply(params, x, condition)

    out = apply(x, condition)
    assert out.shape == x.shape
    changed = apply(x.at[1].add(1.0), condition)
    np.testing.assert_allclose(changed[jnp.array([0, 2])], out[jnp.array([0, 2])], atol=1e-5)
    assert np.abs(changed[1] - out[1]).max() > 1e-3
    told = apply(x, condition.at[1].set(7))
    assert np.abs(told[1] - out[1]).max() > 1e-4 and np.allclose(told[0], out[0], atol=1e-5)
    untold = network.init(jax.random.key(1), x, None)
    assert network.apply(untold, x, None).shape == x.shape


def test_an_image_that_cannot_be_halved():
    with pytest.raises(UserError, match=r"multiple of 4 pixels, not 6 by 8"):
        SmallUNet(widths=(8, 8), patch=2).init(jax.random.key(0), jnp.zeros((1, 6, 8, 1)), None)
