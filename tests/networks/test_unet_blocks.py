"""The blocks of the U-Nets against numpy, and the distribution of dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_unet as reference
import pytest
from flax import linen as nn

from score_sde_jax.networks import norms, resampling, unet_blocks
from score_sde_jax.networks.embedding import FourierFeatures, positional_features

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 4, 6, 8)) + 3 * RNG.normal(size=(2, 1, 1, 8))
LEVEL = RNG.normal(size=(2, 5))
KIND = dict(dtype="float64")


def random_params(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape) / 3, shapes)


def compare(module, reference_fn, *inputs):
    """The module with random parameters against a function of the parameters."""
    params = random_params(module, *inputs)
    actual = jax.jit(module.apply)({"params": params}, *inputs)
    np.testing.assert_allclose(actual, reference_fn(params), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [4, 8, 12, 256])
def test_group_norm_is_its_formula(channels, x64):
    x = 5 + RNG.normal(size=(2, 3, 3, channels))
    compare(norms.GroupNorm(**KIND), lambda p: reference.group_norm(p, x), x)


def test_group_norm_is_that_of_flax():
    x = (10 + RNG.normal(size=(2, 3, 3, 144))).astype(np.float32)
    theirs = nn.GroupNorm(24, epsilon=1e-6, use_fast_variance=False)
    expected = theirs.apply(theirs.init(jax.random.key(0), x), x)
    ours = norms.GroupNorm("float32")
    assert norms.num_groups(144) == 24  # 32 do not divide 144 channels
    np.testing.assert_allclose(ours.apply(ours.init(jax.random.key(0), x), x), expected, atol=1e-5)


def test_group_norm_does_not_cancel_where_the_mean_is_large():
    x = (1000 + RNG.normal(size=(1, 16, 16, 4))).astype(np.float32)
    actual = norms.group_norm(x, np.ones(4, np.float32), np.zeros(4, np.float32), 1)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(actual, (wide - wide.mean()) / wide.std(), atol=1e-3)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("features", [8, 12])
@pytest.mark.parametrize("block", ["ddpm", "biggan"])
def test_residual_block_is_its_formula(block, features, rescale, x64):
    module = unet_blocks.ResidualBlock(features, block, rescale, 0.1, "float64")
    compare(module, lambda p: reference.residual(p, IMAGES, LEVEL, rescale), IMAGES, LEVEL, None)


@pytest.mark.parametrize("name", ["fir_down", "fir_up", "mean_down", "nearest_up"])
def test_biggan_block_changes_the_resolution_of_both_branches(name, x64):
    module = unet_blocks.ResidualBlock(8, "biggan", True, 0.1, "float64", getattr(resampling, name))
    resample = getattr(reference, name)
    compare(module, lambda p: reference.residual(p, IMAGES, None, True, resample), IMAGES, None, None)


def test_shortcut_is_where_the_channels_or_the_resolution_change():
    def has_shortcut(block, features, resample=None):
        module = unet_blocks.ResidualBlock(features, block, True, 0.1, "float32", resample)
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 4, 4, 8)), None, None)
        return "shortcut" in shapes["params"]

    assert [has_shortcut(block, features) for block in ("ddpm", "biggan") for features in (8, 12)] == [0, 1, 0, 1]
    assert has_shortcut("biggan", 8, resampling.fir_down)


@pytest.mark.parametrize("rescale", [True, False])
def test_attention_is_its_formula(rescale, x64):
    compare(unet_blocks.Attention(rescale, **KIND), lambda p: reference.attention(p, IMAGES, rescale), IMAGES)


@pytest.mark.parametrize("fir", [True, False])
def test_downsampling_is_every_second_pixel_of_a_convolution(fir, x64):
    module = unet_blocks.Downsample(5, fir, **KIND)
    compare(module, lambda p: reference.strided_conv(p["conv"], IMAGES, fir), IMAGES)


@pytest.mark.parametrize("fir", [True, False])
def test_upsampling_is_the_transposed_convolution_and_then_the_filter(fir, x64):
    module = unet_blocks.Upsample(5, fir, **KIND)
    compare(module, lambda p: reference.upsampled_conv(p["conv"], IMAGES, fir), IMAGES)


@pytest.mark.parametrize("method", ["sum", "cat"])
def test_combination_is_its_formula(method, x64):
    image, module = RNG.normal(size=(2, 4, 6, 3)), unet_blocks.Combine(method, **KIND)
    compare(module, lambda p: reference.combine(p, image, IMAGES, method), image, IMAGES)


def test_positional_features_are_their_formula(x64):
    numbers = np.array([0.0, 3.0, 999.0])
    np.testing.assert_allclose(positional_features(numbers, 8), reference.positional(numbers, 8), atol=1e-4)
    odd = positional_features(numbers, 9)
    np.testing.assert_array_equal(odd, np.pad(positional_features(numbers, 8), ((0, 0), (0, 1))))


def test_fourier_features_are_their_formula(x64):
    numbers = np.array([-4.6, 0.0, 3.9])
    module = FourierFeatures(64, 16.0)
    params = module.init(jax.random.key(0), numbers)["params"]
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    np.testing.assert_allclose(module.apply({"params": wide}, numbers), reference.fourier(wide, numbers), atol=1e-9)
    # 64 draws of N(0, 16^2) know their standard deviation to about 9 percent
    np.testing.assert_allclose(np.std(params["fixed_frequencies"]), 16, rtol=0.35)


def test_dropout_keeps_the_mean_and_drops_at_its_rate():
    x = jnp.ones((64, 9, 9, 5))  # an odd number of values
    actual = np.asarray(unet_blocks.dropout(x, 0.3, jax.random.split(jax.random.key(0), 64)))
    kept = actual != 0
    deviation = 0.3 * 0.7 / np.sqrt(kept.size)
    assert abs(kept.mean() - 0.7) < 5 * deviation / np.sqrt(0.3 * 0.7)
    np.testing.assert_allclose(actual[kept], 1 / 0.7, rtol=1e-4)
    # any two values of an image are dropped independently, also two values of one random word
    centered = kept.reshape(64, -1) - kept.mean()
    pairs = np.mean(centered[:, 0:-1] * centered[:, 1:]) / (0.3 * 0.7)
    assert abs(pairs) < 5 / np.sqrt(centered[:, 1:].size)


def test_dropout_of_an_image_depends_on_its_own_key():
    x, keys = jnp.ones((5, 4, 4, 3)), jax.random.split(jax.random.key(1), 5)
    whole = unet_blocks.dropout(x, 0.5, keys)
    alone = unet_blocks.dropout(x[3:4], 0.5, keys[3:4])
    np.testing.assert_array_equal(whole[3:4], alone)
    assert not np.array_equal(whole[0], whole[1])


@pytest.mark.parametrize("scale", [1.0, unet_blocks.SHORTCUT_SCALE, unet_blocks.NEARLY_ZERO])
def test_weights_start_uniform_with_variance_over_the_mean_of_fans(scale):
    kernel = unet_blocks.fan_average(scale)(jax.random.key(0), (3, 3, 64, 32))
    bound = np.sqrt(3 * scale / (9 * (64 + 32) / 2))
    assert np.abs(kernel).max() <= bound
    np.testing.assert_allclose(np.std(kernel), bound / np.sqrt(3), rtol=0.02)
