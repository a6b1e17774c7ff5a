"""Pixels: training images of stored values, bit for bit, and stored values of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from score_sde_jax import keys as prng
from score_sde_jax.data import Pixels
from score_sde_jax.errors import UserError
from score_sde_jax.keys import Stream

RANGES = [None, (0.0, 1.0), (-1.0, 1.0), (-0.3, 2.1)]
NUM = 500


def image_keys(num=NUM, seed=3):
    return prng.per_image(jax.random.key(seed), jnp.arange(num))


def random_images(levels, num=NUM, shape=(5, 4, 3)):
    return np.random.default_rng(7).integers(levels, size=(num, *shape), dtype=np.uint8)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("value_range", RANGES)
def test_values_are_those_of_numpy_in_every_bit(levels, value_range):
    """Of float32: v / (levels - 1), then low + (high - low) times it."""
    stored = np.arange(levels, dtype=np.uint8).reshape(1, levels, 1, 1)
    pixels = Pixels(levels=levels, value_range=value_range)
    low, high = value_range or (0.0, 1.0)
    want = stored / np.float32(levels - 1)
    if (low, high) != (0.0, 1.0):
        want = np.float32(low) + np.float32(high - low) * want
    x0 = np.asarray(jax.jit(pixels)(image_keys(1), stored))
    assert x0.dtype == np.float32
    np.testing.assert_array_equal(x0, want)
    np.testing.assert_allclose(x0.ravel(), np.linspace(low, high, levels), atol=4e-7)
    np.testing.assert_array_equal(pixels.known(stored), want)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("value_range", RANGES)
def test_dequantization_adds_a_uniform_to_every_value(levels, value_range):
    stored = random_images(levels)
    low, high = value_range or (0.0, 1.0)
    x0 = np.asarray(Pixels(levels=levels, value_range=value_range, dequantize=True)(image_keys(), stored), np.float64)
    noise = (x0 - low) / (high - low) * levels - stored
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    # Independent of the value, of the neighboring value, and of the next image.
    flat, values = noise.reshape(NUM, -1), stored.reshape(NUM, -1)
    for one, other in ((flat, values), (flat[:, :-1], flat[:, 1:]), (flat[:-1], flat[1:])):
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(one.size)


def test_noise_and_flips_are_functions_of_the_key_of_an_image():
    stored = random_images(256)
    pixels = Pixels(levels=256, dequantize=True, flip=True)
    whole, few = pixels(image_keys(), stored), pixels(image_keys()[:7], stored[:7])
    np.testing.assert_array_equal(whole[:7], few)
    assert not np.array_equal(pixels(image_keys(seed=4), stored)[:7], few)


def test_half_of_the_images_are_mirrored_in_training():
    stored = random_images(256)
    pixels = Pixels(levels=256, flip=True)
    images, plain = np.asarray(pixels(image_keys(), stored)), np.asarray(pixels.scaled(stored))
    mirrored = (images == plain[:, :, ::-1]).all((1, 2, 3))
    assert ((images == plain).all((1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(NUM)


def test_streams_of_a_key_differ_from_its_splits_and_from_each_other():
    keys = image_keys(3)
    parts = [*prng.split(keys, 3), *(prng.stream(keys, name) for name in Stream)]
    parts += [prng.fold_in(keys, number) for number in range(3, 6)]
    words = np.concatenate([np.asarray(jax.random.key_data(part)) for part in parts])
    assert len(np.unique(words, axis=0)) == len(words)


def test_points_are_unchanged():
    points = np.random.default_rng(0).normal(size=(NUM, 2)).astype(np.float32)
    np.testing.assert_array_equal(Pixels(levels=None)(image_keys(), points), points)


@pytest.mark.parametrize(
    "option", [{"flip": True}, {"dequantize": True}, {"value_range": (0.0, 1.0)}], ids=lambda option: next(iter(option))
)
def test_options_of_images_are_refused_for_points(option):
    with pytest.raises(UserError, match=rf"^--config\.data\.{next(iter(option))}=.*: points have no pixels"):
        Pixels(levels=None, **option)


def test_an_empty_range_is_refused():
    with pytest.raises(
        UserError, match=r"^--config\.data\.value_range=\(1\.0, 0\.0\): the first value must be < the second"
    ):
        Pixels(levels=256, value_range=(1.0, 0.0))


# ------------------------------------------------------------------------- stored values of samples


def test_gray_values_are_the_nearest_ones():
    low, high = -1.0, 1.0
    pixels, levels = Pixels(levels=256, value_range=(low, high)), np.arange(256)
    values = low + (high - low) * levels / 255
    half = 0.49 * (high - low) / 255
    for shift in (-half, 0.0, half):
        np.testing.assert_array_equal(pixels.stored((values + shift).astype(np.float32)), levels)
    np.testing.assert_array_equal(pixels.stored(np.array([-7.0, 7.0], np.float32)), [0, 255])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantization_is_undone(levels):
    """Any x_0 in the interval of a level is stored as the gray value of the level."""
    values, pixels = np.arange(levels), Pixels(levels=levels, value_range=(-1.0, 1.0), dequantize=True)
    grays = np.round(255 * values / (levels - 1))
    for added in (0.01, 0.5, 0.99):
        np.testing.assert_array_equal(pixels.stored((-1 + 2 * (values + added) / levels).astype(np.float32)), grays)
    np.testing.assert_array_equal(pixels.stored(pixels.known(values.astype(np.uint8))), grays)
    np.testing.assert_array_equal(pixels.gray(values.astype(np.uint8)), grays)
    plain = Pixels(levels=levels, value_range=(-1.0, 1.0))
    np.testing.assert_array_equal(plain.stored(plain.known(values.astype(np.uint8))), grays)
