"""The small networks against numpy: their layers with zero initialization, and image sizes that they refuse."""

import jax
import jax.numpy as jnp
import numpy_small as reference
import pytest

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks import MLP, SmallUNet

# Widths that rise and fall, images that are not square, with and without a bottleneck.
UNETS = {
    "one width": (SmallUNet(widths=(12,), patch=3, num_blocks=1, bottleneck=0), (6, 9, 1), [2, 5]),
    "two widths": (SmallUNet(widths=(8, 16), patch=2, num_blocks=2, bottleneck=8), (8, 12, 3), [0.7, -1.3]),
    "two widths unconditional": (SmallUNet(widths=(16, 8), patch=1, num_blocks=1, bottleneck=6), (4, 8, 1), None),
    "three widths": (SmallUNet(widths=(8, 16, 8), patch=1, num_blocks=2, bottleneck=0), (8, 4, 3), [0.7, -1.3]),
    "three widths unconditional": (SmallUNet(widths=(8, 8, 8), patch=1, num_blocks=1, bottleneck=0), (4, 8, 1), None),
}
MLPS = {
    "no hidden layer": (MLP(width=8, depth=0), (2,), [0.7, -1.3]),
    "no hidden layer unconditional": (MLP(width=8, depth=0), (3, 2), None),
    "one hidden layer": (MLP(width=8, depth=1), (3, 2), [2, 5]),
    "three hidden layers": (MLP(width=8, depth=3), (3, 2), [0.7, -1.3]),
    "three hidden layers unconditional": (MLP(width=8, depth=3), (2,), None),
}


@pytest.mark.parametrize("name", UNETS)
def test_unet_is_the_numpy_unet(name, x64):
    network, shape, condition = UNETS[name]
    reference.assert_same(network.clone(dtype="float64"), reference.small_unet, shape, condition)


@pytest.mark.parametrize("name", MLPS)
def test_perceptron_is_the_numpy_perceptron(name, x64):
    network, shape, condition = MLPS[name]
    reference.assert_same(network, reference.mlp, shape, condition)


def test_last_convolutions_of_the_unet_are_zero_at_the_start():
    network, shape, condition = UNETS["two widths"]
    expected = {f"ResidualBlock_{i}/Conv_1" for i in range(7)} | {"Conv_1"}
    assert reference.zero_kernels(network, shape, condition) == expected


def test_an_image_that_cannot_be_halved():
    for shape in ((1, 6, 8, 1), (1, 8, 6, 1)):
        with pytest.raises(UserError, match=rf"image size must be a multiple of 4, got {shape[1]}x{shape[2]}"):
            SmallUNet(widths=(8, 8), patch=2).init(jax.random.key(0), jnp.zeros(shape), Condition())
