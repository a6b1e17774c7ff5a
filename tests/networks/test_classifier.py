"""The wide residual network against numpy: its size, and its layers with zero initialization."""

import jax
import jax.numpy as jnp
import numpy_small as reference
import pytest

from score_sde_jax.condition import Condition
from score_sde_jax.errors import UserError
from score_sde_jax.networks import MODELS, WideResNet, trainable
from score_sde_jax.networks.classifier import NUM_FEATURES

# Group norms of 4 channels and more; a first block that changes the width and one that does not.
NETWORKS = {
    "fourier": (WideResNet(base=4, multiplier=2, blocks_per_group=2), (8, 4, 3), [0.7, -1.3]),
    "sinusoidal": (
        WideResNet(num_classes=3, base=4, multiplier=1, blocks_per_group=2, embedding="sinusoidal"),
        (4, 8, 1),
        [2, 5],
    ),
    "unconditional": (WideResNet(base=8, multiplier=1, blocks_per_group=1), (8, 8, 1), None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_numpy_network(name, x64):
    network, shape, condition = NETWORKS[name]
    reference.assert_same(network.clone(dtype="float64"), reference.wide_resnet, shape, condition)


def count(multiplier, blocks, classes, base=16):
    """Parameters of three groups, by hand."""
    total, width = 9 * 3 * base + base, base
    features = 4 * NUM_FEATURES
    total += NUM_FEATURES * features + features + features * features + features + NUM_FEATURES // 2
    for group in range(3):
        wide = base * multiplier * 2**group
        for block in range(blocks):
            total += 2 * width + 9 * width * wide + wide  # norm, convolution
            total += features * wide + wide + 2 * wide + 9 * wide * wide + wide  # level, norm, convolution
            total += width * wide + wide if width != wide or (group and not block) else 0
            width = wide
    return total + 2 * width + width * classes + classes


@pytest.mark.parametrize(("multiplier", "blocks"), [(10, 4), (1, 2)])
def test_its_size(multiplier, blocks):
    network = WideResNet(multiplier=multiplier, blocks_per_group=blocks)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), Condition(jnp.zeros(1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count(multiplier, blocks, 10)
    fixed = [leaf.size for leaf, yes in zip(*map(jax.tree.leaves, (shapes, trainable(shapes))), strict=True) if not yes]
    assert fixed == [NUM_FEATURES // 2]
    if multiplier == 10:  # WRN-28-10 has 36.5 million, without the embedding of the noise
        embedding = sum(leaf.size for path, leaf in jax.tree.leaves_with_path(shapes) if "'Dense_0'" in str(path[1:]))
        assert 36.4e6 < count(10, 4, 10) - embedding < 37e6


def test_logits_and_second_convolutions_are_zero_at_the_start():
    network, shape, condition = NETWORKS["fourier"]
    expected = {f"WideBlock_{i}/Conv_1" for i in range(6)} | {"Dense_2"}
    assert reference.zero_kernels(network, shape, condition) == expected


def test_images_that_cannot_be_halved_twice():
    for shape in ((1, 6, 8, 3), (1, 8, 6, 3), (1, 2)):
        with pytest.raises(UserError, match=r"model\.name=wide_resnet: image size must be a multiple of 4, got"):
            jax.eval_shape(WideResNet().init, jax.random.key(0), jnp.zeros(shape), Condition(jnp.zeros(1)))


def test_a_network_with_logits_says_that_it_is_a_classifier():
    with_classes = {name for name, model in MODELS.items() if "num_classes" in model.__dataclass_fields__}
    assert {name for name in with_classes if getattr(MODELS[name], "is_classifier", False)} == {"wide_resnet"}
