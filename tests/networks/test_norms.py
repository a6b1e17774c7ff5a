"""Norms against their formulas in numpy and in JAX, with their derivatives of any order and mode.

Every test runs with the formulas for CPUs and with those for accelerators.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_unet
import pytest
from flax import linen as nn

from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.networks import norms

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 6, 9, 8)) + RNG.normal(size=(3, 1, 1, 8))
SCALE, BIAS = RNG.normal(size=(2, 8))
ACTIVATIONS = {"identity": norms.identity, "silu": nn.silu, "elu": nn.elu}


def plain(x, scale, bias, added, activation):
    """Group norm in four groups, written as its definition."""
    x = x + added[:, None, None, :]
    grouped = x.reshape(*x.shape[:3], 4, 2)
    centered = grouped - grouped.mean((1, 2, 4), keepdims=True)
    normalized = centered / jnp.sqrt(jnp.square(centered).mean((1, 2, 4), keepdims=True) + 1e-6)
    return activation(normalized.reshape(x.shape) * scale[None, None, None] + bias[None, None, None])


def ours(x, scale, bias, added, activation):
    return norms.group_norm(x, scale, bias, 4, added, activation)


@pytest.fixture(autouse=True, params=["cpu", "gpu"])
def backend(request):
    with tracing_for(request.param):
        yield


@pytest.fixture
def arguments(x64):
    return tuple(map(jnp.asarray, (IMAGES, SCALE, BIAS, RNG.normal(size=(3, 8)))))


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_group_norm_and_its_gradients_are_those_of_the_definition(activation, arguments):
    cotangent = jnp.asarray(RNG.normal(size=IMAGES.shape))

    def value_and_gradients(function):
        value, pull = jax.vjp(functools.partial(function, activation=activation), *arguments)
        return value, pull(cotangent)

    (actual, gradients), (expected, expected_gradients) = jax.jit(lambda: [*map(value_and_gradients, (ours, plain))])()
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


def test_forward_mode_and_second_derivatives_are_those_of_the_definition(arguments):
    """Likelihood and sliced score matching differentiate forward, the latter once more backward."""
    x, *others = arguments
    direction = jnp.asarray(RNG.normal(size=IMAGES.shape))

    def curvature(function, x):
        slope = jax.jvp(lambda x: function(x, *others, nn.silu), (x,), (direction,))[1]
        return jnp.sum(jnp.sin(slope))

    (value, gradient), (value_expected, gradient_expected) = (
        jax.jit(jax.value_and_grad(functools.partial(curvature, function)))(x) for function in (ours, plain)
    )
    np.testing.assert_allclose(value, value_expected, rtol=1e-10)
    np.testing.assert_allclose(gradient, gradient_expected, atol=1e-10)


def test_derivatives_may_be_vectorized(arguments):
    """`jax.vmap` over forward derivatives, as for the exact divergence."""
    x, *others = arguments
    directions = jnp.asarray(RNG.normal(size=(5, *IMAGES.shape)))

    def slope(function, v):
        return jax.jvp(lambda x: function(x, *others, nn.silu), (x,), (v,))[1]

    np.testing.assert_allclose(
        jax.jit(jax.vmap(functools.partial(slope, ours)))(directions),
        jax.jit(jax.vmap(functools.partial(slope, plain)))(directions),
        atol=1e-11,
    )


def test_the_moments_do_not_depend_on_the_value_that_is_subtracted(x64):
    """Any pixel may come first; so may the most distant one."""
    far = IMAGES.copy()
    far[:, 0, 0] = 100.0
    for x in (IMAGES, IMAGES[:, ::-1, ::-1], far):
        of = norms.moments(jnp.asarray(x))
        np.testing.assert_allclose(of.mean + of.shift, x.mean((1, 2)), atol=1e-12)
        np.testing.assert_allclose(of.variance, x.var((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_the_variance_does_not_cancel_where_the_mean_is_large(mean):
    x = np.asarray(IMAGES + mean, np.float32)
    of = norms.moments(jnp.asarray(x))
    np.testing.assert_allclose(of.variance, x.astype(np.float64).var((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("pixels", [8, 32])
def test_the_error_of_the_variance_is_at_most_that_of_a_sum_times_the_number_of_pixels(pixels):
    """The worst first value: the variance is all its own."""
    x = np.zeros((1, pixels, pixels, 1), np.float32)
    x[0, 0, 0], x[0, 1:] = 1e3, RNG.normal(size=(pixels - 1, pixels, 1))
    error = norms.moments(jnp.asarray(x)).variance / x.astype(np.float64).var() - 1
    error_of_a_sum = 16 * np.finfo(np.float32).eps
    assert np.abs(error).max() < pixels**2 * error_of_a_sum


def test_a_channel_of_one_value_is_its_bias():
    x = jnp.full((2, 4, 4, 8), 3.7, jnp.float32)
    actual = norms.group_norm(x, jnp.asarray(SCALE, jnp.float32), jnp.asarray(BIAS, jnp.float32), 8)
    np.testing.assert_allclose(actual, np.broadcast_to(BIAS, x.shape), atol=2e-3)


def test_what_is_added_is_normalized_too(arguments):
    x, scale, bias, added = arguments
    apart = norms.group_norm(x, scale, bias, 2, added)
    together = norms.group_norm(x + added[:, None, None, :], scale, bias, 2)
    np.testing.assert_allclose(apart, together, atol=1e-12)
    params = {"scale": scale, "bias": bias}
    np.testing.assert_allclose(apart, numpy_unet.group_norm(params, np.asarray(x + added[:, None, None])), atol=1e-12)


def test_gradients_in_bfloat16_are_near_those_in_float32():
    x, scale, bias, added = (jnp.asarray(a, jnp.float32) for a in (IMAGES, SCALE, BIAS, RNG.normal(size=(3, 8))))
    cotangent = jnp.asarray(RNG.normal(size=IMAGES.shape), jnp.float32)

    def gradients(dtype):
        function = functools.partial(norms.group_norm, groups=4, added=added, activation=nn.silu, dtype=dtype)
        return jax.vjp(function, x.astype(dtype), scale, bias)[1](cotangent.astype(dtype))

    for narrow, wide in zip(gradients(jnp.bfloat16), gradients(jnp.float32), strict=True):
        error = jnp.linalg.norm(narrow.astype(jnp.float32) - wide) / jnp.linalg.norm(wide)
        assert error < 0.02
