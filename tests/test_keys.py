"""Keys: one per image, independent of the batch."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde_jax import keys as prng

NUM = 4096


@pytest.fixture(params=get_args(prng.Generator))
def root(request):
    return prng.root(0, "train", request.param)


@pytest.fixture
def keys(root):
    return prng.per_image(root, jnp.arange(NUM))


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def test_the_uses_of_a_seed_and_the_seeds_share_no_noise():
    drawn = [
        np.asarray(jax.random.normal(prng.root(seed, purpose), (NUM,)))
        for seed in (0, 1)
        for purpose in get_args(prng.Purpose)
    ]
    assert all(abs(correlation(a, b)) < 4 / np.sqrt(NUM) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_new_use_of_a_seed_leaves_the_others_as_they_were():
    for number, purpose in enumerate(("init", "train", "sample")):
        old = jax.random.split(jax.random.key(5), 3)[number]
        np.testing.assert_array_equal(jax.random.key_data(prng.root(5, purpose)), jax.random.key_data(old))


def test_the_key_of_an_image_is_a_function_of_its_number_alone(root, keys):
    scattered = prng.per_image(root, jnp.array([7, 3, 4095]))
    np.testing.assert_array_equal(jax.random.key_data(scattered), jax.random.key_data(keys)[np.array([7, 3, 4095])])


@pytest.mark.parametrize("draw", [prng.normal, prng.uniform])
def test_a_row_of_noise_depends_on_its_own_key_alone(draw, keys):
    like = jnp.zeros((NUM, 3, 2))
    np.testing.assert_array_equal(draw(keys[5:9], like[5:9]), draw(keys, like)[5:9])
    assert len(np.unique(draw(keys, like))) > 0.99 * like.size  # nothing is drawn twice


def test_normal_noise_is_normal(keys):
    z = np.asarray(prng.normal(keys, jnp.zeros((NUM, 8))), np.float64)
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - expected) < 4 * np.sqrt(variance / z.size)


def test_uniform_noise_is_uniform(keys):
    u = np.asarray(prng.uniform(keys, jnp.zeros((NUM, 8))), np.float64)
    assert u.min() >= 0 and u.max() < 1
    for power in (1, 2, 3):
        variance = 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs(np.mean(u**power) - 1 / (power + 1)) < 4 * np.sqrt(variance / u.size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_noise_has_the_type_of_its_pattern(dtype, keys):
    assert prng.normal(keys, jnp.zeros((NUM, 1), dtype)).dtype == dtype


@pytest.mark.parametrize("derive", [lambda k: [prng.fold_in(k, i) for i in range(3)], lambda k: prng.split(k, 3)])
def test_what_is_derived_from_a_key_is_uncorrelated(derive, keys):
    # split(k, n)[i] is fold_in(k, i) in threefry: derive from one key in one way only.
    noises = [prng.normal(k, jnp.zeros((NUM, 8))) for k in (keys, *derive(keys))]
    correlations = np.corrcoef([np.ravel(noise) for noise in noises])
    assert np.max(np.abs(correlations - np.eye(4))) < 4 / np.sqrt(noises[0].size)


def test_images_are_uncorrelated(keys):
    z = prng.normal(keys, jnp.zeros((NUM, 8)))
    assert abs(correlation(z[1:], z[:-1])) < 4 / np.sqrt(z.size)


def test_one_value_per_image_multiplies_every_pixel_of_it():
    images = jnp.ones((3, 2, 2, 1))
    scaled = prng.bcast(jnp.array([1.0, 2.0, 3.0]), images) * images
    np.testing.assert_array_equal(scaled[:, 0, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(scaled, np.broadcast_to(scaled[:, :1, :1], images.shape))
