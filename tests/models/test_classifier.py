"""The wide residual network: its size, what an output depends on, and its blocks against their formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from score_sde_jax.errors import UserError
from score_sde_jax.models import CLASSIFIERS, MODELS, WideResNet, trainable
from score_sde_jax.models.classifier import NUM_FEATURES, WideBlock


def jittered(params):
    """Parameters none of which is zero, as at the start those of the last layers are."""
    return jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def silu(x):
    return x / (1 + np.exp(-x))


def normalised(x, groups):
    """Group norm of (height, width, channels) without scale or shift."""
    parts = x.reshape(*x.shape[:2], groups, -1)
    mean, variance = parts.mean((0, 1, 3), keepdims=True), parts.var((0, 1, 3), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)


def convolved(x, layer, stride=1):
    """Correlation with a kernel, zeros beyond the border; in 3x3 at stride 2 that is below and right."""
    kernel, size = np.asarray(layer["kernel"], np.float64), layer["kernel"].shape[0]
    out = np.zeros((*x.shape[:2], kernel.shape[3]))
    for i in range(kernel.shape[2]):
        for o in range(kernel.shape[3]):
            out[..., o] += signal.correlate2d(x[..., i], kernel[..., i, o], mode="same")
    first = 1 if stride == 2 and size == 3 else 0
    return out[first::stride, first::stride] + np.asarray(layer["bias"])


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (8, 2), (16, 1)])
def test_a_block_is_its_formula(channels, stride):
    rng = np.random.default_rng(0)
    x, level = rng.normal(size=(1, 8, 8, channels)), rng.normal(size=(1, 5))
    block = WideBlock(16, stride, "float32")
    inputs = jnp.asarray(x, jnp.float32), jnp.asarray(level, jnp.float32)
    params = jittered(block.init(jax.random.key(0), *inputs))
    found = block.apply(params, *inputs)[0]

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    first, second = (p[f"GroupNorm_{i}"] for i in (0, 1))
    h = silu(normalised(x[0], 8) * first["scale"] + first["bias"])
    kept = h if channels != 16 else x[0]
    h = convolved(h, p["Conv_0"], stride) + level[0] @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    h = silu(normalised(h, 8) * second["scale"] + second["bias"])
    h = convolved(h, p["Conv_1"])
    kept = convolved(kept, p["Conv_2"], stride) if "Conv_2" in p else kept
    assert ("Conv_2" in p) == (channels != 16 or stride == 2)
    np.testing.assert_allclose(found, kept + h, rtol=1e-3, atol=1e-4)


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
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count(multiplier, blocks, 10)
    fixed = [leaf.size for leaf, yes in zip(*map(jax.tree.leaves, (shapes, trainable(shapes))), strict=True) if not yes]
    assert fixed == [NUM_FEATURES // 2]
    if multiplier == 10:  # WRN-28-10 has 36.5 million, and is not told the noise
        told = sum(leaf.size for path, leaf in jax.tree.leaves_with_path(shapes) if "'Dense_0'" in str(path[1:]))
        assert 36.4e6 < count(10, 4, 10) - told < 37e6


@pytest.mark.parametrize("embedding", ["fourier", "sinusoidal"])
def test_what_logits_depend_on(embedding):
    """On their own image and its own noise level, and on no other image; all are alike at the start."""
    network = WideResNet(num_classes=4, base=8, multiplier=1, blocks_per_group=1, embedding=embedding, fourier_scale=1)
    x, condition = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.asarray([0.0, 0.5, 1.0])
    params = network.init(jax.random.key(1), x, condition)
    np.testing.assert_array_equal(network.apply(params, x, condition), np.zeros((3, 4)))
    params = jittered(params)
    apply = jax.jit(network.apply)
    out = np.asarray(apply(params, x, condition))
    changed = np.asarray(apply(params, x.at[1].add(1.0), condition))
    np.testing.assert_allclose(changed[[0, 2]], out[[0, 2]], atol=1e-5)
    told = np.asarray(apply(params, x, condition.at[1].set(0.7)))
    np.testing.assert_allclose(told[[0, 2]], out[[0, 2]], atol=1e-5)
    assert np.abs(changed[1] - out[1]).max() > 1e-4 and np.abs(told[1] - out[1]).max() > 1e-5
    untold = network.init(jax.random.key(1), x, None)
    assert network.apply(untold, x, None).shape == (3, 4)


def test_images_that_cannot_be_halved_twice():
    for shape in ((1, 6, 8, 3), (1, 2)):
        with pytest.raises(UserError, match=r"model\.name=wide_resnet needs images of a multiple of 4 pixels"):
            jax.eval_shape(WideResNet().init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(1))


def test_classifiers_are_models():
    assert {name for name, model in MODELS.items() if "num_classes" in model.__dataclass_fields__} == set(CLASSIFIERS)
