"""Up- and downsampling against scipy's polyphase filter, and their gradients against the transposed matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_unet as reference
import pytest

from score_sde_jax.networks import resampling

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 4, 3))
PAIRS = {
    "fir_down": (resampling.fir_down, reference.fir_down),
    "fir_up": (resampling.fir_up, reference.fir_up),
    "fir_up with a border": (
        functools.partial(resampling.fir_up, border=1),
        functools.partial(reference.fir_up, border=1),
    ),
    "fir_blur": (resampling.fir_blur, reference.fir_blur),
    "mean_down": (resampling.mean_down, reference.mean_down),
    "nearest_up": (resampling.nearest_up, reference.nearest_up),
}
for_every_pair = pytest.mark.parametrize("name", PAIRS)


@for_every_pair
def test_is_the_filter_of_scipy(name, x64):
    ours, scipy = PAIRS[name]
    np.testing.assert_allclose(ours(IMAGES), scipy(IMAGES), atol=1e-14)


@for_every_pair
def test_gradient_is_the_transpose(name, x64):
    ours, scipy = PAIRS[name]
    size = IMAGES[:1, ..., :1].size
    columns = [scipy(row.reshape(1, 6, 4, 1)).ravel() for row in np.eye(size)]
    out, pull = jax.vjp(ours, jnp.asarray(IMAGES[:1, ..., :1]))
    cotangent = np.random.default_rng(1).normal(size=out.shape)
    (actual,) = pull(jnp.asarray(cotangent))
    np.testing.assert_allclose(actual.ravel(), np.stack(columns) @ cotangent.ravel(), atol=1e-14)


@pytest.mark.parametrize("name", ["fir_down", "fir_up", "mean_down", "nearest_up"])
def test_constant_image_stays_so_inside(name):
    out = np.asarray(PAIRS[name][0](np.ones((1, 8, 8, 1), np.float32)))
    np.testing.assert_allclose(out[:, 1:-1, 1:-1], 1, rtol=1e-6)


@for_every_pair
@pytest.mark.parametrize("order", [1, 2])
def test_no_gather_scatter_or_convolution(name, order):
    def value(x):
        return jnp.sum(jnp.sin(PAIRS[name][0](x)))

    function = value if order == 1 else jax.grad(value)
    text = jax.jit(jax.grad(function) if order == 1 else function).lower(jnp.ones((1, 4, 4, 2))).as_text()
    for refused in ("gather", "scatter", "convolution", "reduce_window"):
        assert refused not in text
