"""Convolution, InstanceNorm++, pools and resizing against numpy and scipy."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpy_refinenet as reference
import pytest
from flax import linen as nn

from score_sde_jax.networks import layers, norms

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 6, 9, 4)) + RNG.normal(size=(3, 1, 1, 4))


class SingleConv(nn.Module):
    """One convolution as the networks make it."""

    features: int = 5
    size: int = 3
    dilation: int = 1

    @nn.compact
    def __call__(self, x):
        kind = dict(size=self.size, dilation=self.dilation, dtype=x.dtype)
        return layers.conv(x, self.features, **kind, name="conv")


@pytest.mark.parametrize("size, dilation", [(3, 1), (3, 2), (3, 4), (1, 1)])
def test_convolution_is_the_sum_over_its_taps(size, dilation, x64):
    module = SingleConv(size=size, dilation=dilation)
    params = module.init(jax.random.key(0), IMAGES)["params"]
    actual = module.apply({"params": params}, IMAGES)
    np.testing.assert_allclose(actual, reference.conv(params["conv"], IMAGES, dilation), atol=1e-12)


def test_convolution_starts_uniform_within_one_over_root_fan_in():
    params = SingleConv(features=400).init(jax.random.key(0), jnp.zeros((1, 8, 8, 20)))["params"]
    bound = 1 / np.sqrt(9 * 20)
    for leaf in (params["conv"]["kernel"], params["conv"]["bias"]):
        assert jnp.abs(leaf).max() <= bound
        # The standard deviation of U(-b, b) is b / sqrt(3); 400 draws know it to about 2 percent.
        np.testing.assert_allclose(leaf.std(), bound / np.sqrt(3), rtol=0.1)
        np.testing.assert_allclose(leaf.mean(), 0, atol=5 * bound / np.sqrt(3 * leaf.size))


def test_instance_norm_plus_is_its_formula(x64):
    gamma, alpha, beta = RNG.normal(size=(3, 4))
    actual = norms.instance_norm_plus(IMAGES, gamma[None], alpha[None], beta[None])
    expected = reference.norm(dict(gamma=gamma, alpha=alpha, beta=beta), IMAGES)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_conditional_norm_reads_the_row_of_its_level(x64):
    norm, level = norms.ConditionalInstanceNormPlus(5), jnp.array([4, 0, 2])
    embed = RNG.normal(size=(5, 12))
    actual = norm.apply({"params": {"embed": embed}}, IMAGES, level)
    np.testing.assert_allclose(actual, reference.norm({"embed": embed}, IMAGES, level), atol=1e-12)


def test_norm_does_not_cancel_where_the_mean_is_large():
    x = IMAGES + 1000.0
    ones = np.ones((1, 4))
    actual = norms.instance_norm_plus(jnp.asarray(x, jnp.float32), ones, 0 * ones, 0 * ones)
    expected = reference.norm(dict(gamma=ones[0], alpha=0 * ones[0], beta=0 * ones[0]), x)
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_scales_start_near_one_and_shifts_at_zero():
    x = jnp.zeros((1, 2, 2, 2000))
    plain = norms.InstanceNormPlus().init(jax.random.key(0), x)["params"]
    norm = norms.ConditionalInstanceNormPlus(3)
    embed = norm.init(jax.random.key(1), x, jnp.zeros(1, int))["params"]["embed"]
    for scale in (plain["gamma"], plain["alpha"], embed[:, :2000], embed[:, 2000:4000]):
        np.testing.assert_allclose(scale.mean(), 1, atol=0.003)
        np.testing.assert_allclose(scale.std(), 0.02, rtol=0.1)
    for shift in (plain["beta"], embed[:, 4000:]):
        np.testing.assert_array_equal(shift, 0)


@pytest.mark.parametrize(
    "pool, expected",
    [
        (layers.average_pool_5x5, reference.average_pool),
        (layers.max_pool_5x5, reference.max_pool),
    ],
)
@pytest.mark.parametrize("shift", [0.0, -10.0])  # all negative: zeros beyond the border would win
def test_pools_are_their_filters(pool, expected, shift, x64):
    np.testing.assert_allclose(pool(jnp.asarray(IMAGES + shift)), expected(IMAGES + shift), atol=1e-12)


def winners(x, cotangent):
    """Gradient of max pooling, window by window: all of it goes to the first largest pixel."""
    gradient = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(*x.shape):
        top, left = max(i - 2, 0), max(j - 2, 0)
        window = x[n, top : i + 3, left : j + 3, c]
        row, column = np.unravel_index(window.argmax(), window.shape)
        gradient[n, top + row, left + column, c] += cotangent[n, i, j, c]
    return gradient


def test_gradient_of_max_pool_goes_to_the_first_largest_pixel(x64):
    x, cotangent = np.round(IMAGES), RNG.normal(size=IMAGES.shape)  # rounded: most windows tie
    _, pullback = jax.vjp(layers.max_pool_5x5, jnp.asarray(x))
    np.testing.assert_allclose(pullback(jnp.asarray(cotangent))[0], winners(x, cotangent))


def test_mean_pool_is_the_mean_of_four_pixels(x64):
    x = IMAGES[:, :, :8]
    np.testing.assert_allclose(layers.mean_pool_2x2(x), reference.mean_pool(x), atol=1e-12)


@pytest.mark.parametrize("height, width", [(12, 18), (12, 9), (6, 9), (3, 4), (7, 1), (1, 20)])
def test_resize_interpolates_between_aligned_corners(height, width, x64):
    actual = layers.resize_bilinear(jnp.asarray(IMAGES), height, width)
    np.testing.assert_allclose(actual, reference.resize(IMAGES, height, width), atol=1e-12)


def test_resize_of_one_pixel_repeats_it(x64):
    actual = layers.resize_bilinear(jnp.asarray(IMAGES[:, :1, :1]), 3, 2)
    np.testing.assert_allclose(actual, np.tile(IMAGES[:, :1, :1], (1, 3, 2, 1)), atol=1e-12)


@pytest.mark.parametrize(
    "operation",
    [
        layers.average_pool_5x5,
        layers.max_pool_5x5,
        functools.partial(layers.resize_bilinear, height=12, width=18),
        lambda x: norms.instance_norm_plus(x, *jnp.ones((3, 1, 4), x.dtype)),
    ],
)
def test_bfloat16_stays_bfloat16_and_near(operation):
    x = jnp.asarray(IMAGES, jnp.bfloat16)
    actual = operation(x)
    assert actual.dtype == jnp.bfloat16
    expected = operation(x.astype(jnp.float32))
    np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=0.02, atol=0.02)


def test_the_output_of_a_block_is_that_of_its_sum(x64):
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4)) * 10.0 ** jnp.arange(-3, 5).reshape(2, 1, 1, 4)
    np.testing.assert_array_equal(layers.block_output(x), x)
    value, vjp = jax.vjp(layers.block_output, x)
    np.testing.assert_array_equal(vjp(2 * value)[0], 2 * x)
    np.testing.assert_array_equal(jax.jvp(layers.block_output, (x,), (3 * x,))[1], 3 * x)


def test_no_block_computes_the_sums_of_others_again():
    """The inputs of one fused operation of XLA do not grow with the number of blocks, forward or backward."""

    def loss(x, weights):
        for w in weights:
            branch = jnp.tanh(jnp.dot(x - x.mean((1, 2), keepdims=True), w))
            x = layers.block_output((x + branch) * math.sqrt(0.5))
        return jnp.sum(x**2)

    def most_operands(blocks):
        x, weights = jnp.ones((8, 8, 8, 16)), [jnp.ones((16, 16))] * blocks
        text = jax.jit(jax.grad(loss, (0, 1))).lower(x, weights).compile().as_text()
        return max(operands.count("%") for operands in re.findall(r" fusion\((.*?)\), kind=kLoop", text))

    assert most_operands(12) == most_operands(6)
