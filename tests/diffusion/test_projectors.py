"""Projectors and masks: linear, idempotent and self-adjoint, with the documented range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde_jax import keys as prng
from score_sde_jax.diffusion import guidance
from score_sde_jax.tasks.masks import MASKS

SHAPE = (6, 8, 12, 3)
KEYS = prng.per_image(jax.random.key(3), jnp.arange(SHAPE[0]))


def projectors():
    actual = {"channel_mean": guidance.channel_mean, "block_mean_2": guidance.block_mean(2)}
    actual["block_mean_4"] = guidance.block_mean(4)
    for name, mask in MASKS.items():
        actual[name] = lambda x, mask=mask: guidance.pixel_mask(mask(KEYS, x, 0.5))(x)
    return actual


@pytest.mark.parametrize("name", projectors())
def test_every_projector_is_linear_idempotent_and_self_adjoint(name, x64):
    project = projectors()[name]
    a, b = (jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE)) for seed in (0, 1))
    np.testing.assert_allclose(project(project(a)), project(a), atol=1e-14)
    np.testing.assert_allclose(project(2 * a - b), 2 * project(a) - project(b), atol=1e-14)
    for inner in (jnp.sum(project(a) * b, axis=(1, 2, 3)), jnp.sum(a * project(b), axis=(1, 2, 3))):
        np.testing.assert_allclose(inner, jnp.sum(project(a) * project(b), axis=(1, 2, 3)), atol=1e-12)
    lengths = jnp.sum(a**2, axis=(1, 2, 3)), jnp.sum(project(a) ** 2, axis=(1, 2, 3))
    assert (lengths[1] > 0.01 * lengths[0]).all() and (lengths[1] < 0.99 * lengths[0]).all()  # some pixels, but not all


def test_projectors_are_means(x64):
    x = np.random.default_rng(0).normal(size=SHAPE)
    np.testing.assert_allclose(guidance.channel_mean(jnp.asarray(x))[..., 1], x.mean(-1), atol=1e-14)
    coarse = np.asarray(guidance.block_mean(4)(jnp.asarray(x)))
    for row in range(8):
        for column in range(12):
            block = x[:, row // 4 * 4 : row // 4 * 4 + 4, column // 4 * 4 : column // 4 * 4 + 4]
            np.testing.assert_allclose(coarse[:, row, column], block.mean((1, 2)), atol=1e-14)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_masks_hide_what_they_say(fraction):
    like = jnp.zeros(SHAPE)
    known = {name: np.asarray(mask(KEYS, like, fraction))[..., 0].astype(bool) for name, mask in MASKS.items()}
    rows, columns = np.mgrid[:8, :12]
    expected = {
        "left": columns >= 12 * fraction,
        "right": columns < 12 * (1 - fraction),
        "top": rows >= 8 * fraction,
        "bottom": rows < 8 * (1 - fraction),
    }
    for name, where in expected.items():
        np.testing.assert_array_equal(known[name], where[None], err_msg=name)
    box = ~known["box"][0]
    assert abs(box.mean() - fraction) < 0.1 and not box[[0, -1]].any() and not box[:, [0, -1]].any()
    np.testing.assert_array_equal(box, box[::-1, ::-1])  # in the middle, and convex:
    assert box.sum() == box.any(1).sum() * box.any(0).sum()


def test_a_random_mask_is_a_function_of_the_image_alone():
    keys = prng.per_image(jax.random.key(0), jnp.arange(200))
    like = jnp.zeros((200, 8, 12, 3))
    known = np.asarray(MASKS["random"](keys, like, 0.3))
    assert known.shape == (200, 8, 12, 1) and set(np.unique(known)) == {0.0, 1.0}
    assert abs(known.mean() - 0.7) < 4 * np.sqrt(0.21 / known.size)
    assert len({mask.tobytes() for mask in known}) == 200
    np.testing.assert_array_equal(MASKS["random"](keys[7:9], like[7:9], 0.3), known[7:9])
