"""The fast convolution equals the direct one: values, both gradients, tangents, batches, loops."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from score_sde_jax.devices.machine import tracing_for
from score_sde_jax.networks import convolution
from score_sde_jax.networks.convolution import convolve, cook_toom_matrices, winograd
from score_sde_jax.networks.layers import Dense

NHWC = ("NHWC", "HWIO", "NHWC")
FEW_AND_MANY = (1, 8)  # images: one product of matrices, and Winograd's algorithm
TOLERANCE = 5e-6  # of the largest value; Winograd's sums of float32


def direct(x, w, padding, dilation):
    """Sum over taps, in float64."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    height, width = (size - 2 * dilation for size in x.shape[1:3])
    return sum(
        x[:, i * dilation : i * dilation + height, j * dilation : j * dilation + width] @ w[i, j]
        for i, j in itertools.product(range(3), repeat=2)
    )


def fast(x, w, padding=1, dilation=1):
    dims = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    pads = [(padding, padding)] * 2
    return convolve(x, w, (1, 1), pads, (1, 1), (dilation, dilation), dimension_numbers=dims)


def arrays(batch=2, height=9, width=14, c_in=32, c_out=40):
    x, w = (
        jax.random.normal(jax.random.key(i), s)
        for i, s in enumerate([(batch, height, width, c_in), (3, 3, c_in, c_out)])
    )
    return x, w / np.sqrt(9 * c_in)


def close(a, b):
    np.testing.assert_allclose(a, b, atol=TOLERANCE * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize(("padding", "dilation"), [(1, 1), (0, 1), (2, 2), (4, 4), (1, 2)])
@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
@pytest.mark.parametrize("batch", FEW_AND_MANY)
def test_values(batch, size, padding, dilation):
    x, w = arrays(batch, height=size[0], width=size[1])
    if min(size) + 2 * padding - 2 * dilation < 1:
        pytest.skip("nothing is left")
    close(jax.jit(fast, static_argnums=(2, 3))(x, w, padding, dilation), direct(x, w, padding, dilation))


def native(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)


@pytest.mark.parametrize("batch", FEW_AND_MANY)
def test_gradients_and_tangents(batch):
    x, w = arrays(batch)
    shapes = ((batch, 9, 14, 40), x.shape, w.shape)
    y, dx, dw = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes, 3))
    for a, b in zip(jax.jit(lambda: jax.vjp(fast, x, w)[1](y))(), jax.vjp(native, x, w)[1](y), strict=True):
        close(a, b)
    for a, b in zip(jax.jit(lambda: jax.jvp(fast, (x, w), (dx, dw)))(), jax.jvp(native, (x, w), (dx, dw)), strict=True):
        close(a, b)


@pytest.mark.parametrize(("limit", "parts"), [(2**30, 1), (0, 9)])
def test_parts_of_many_tiles(limit, parts, monkeypatch):
    monkeypatch.setattr(convolution, "MANY_TILES", limit)
    x, w = arrays(8)
    form = functools.partial(winograd, pads=((1, 1), (1, 1)))
    y, pullback = jax.vjp(jax.jit(form), x, w)
    close(y, direct(x, w, 1, 1))
    for a, b in zip(pullback(y), jax.vjp(native, x, w)[1](y), strict=True):
        close(a, b)
    assert str(jax.make_jaxpr(form)(x, w)).count("dot_general[") == 2 * parts  # of the weights; of them with the images


def test_batches_and_loops():
    x, w = arrays(c_out=32)
    close(jax.jit(jax.vmap(fast, (0, None)))(x[:, None], w)[:, 0], native(x, w))
    looped = jax.jit(lambda x: lax.scan(lambda x, _: (fast(x, w), None), x, length=2)[0])(x)
    close(looped, native(native(x, w), w))


@pytest.mark.parametrize("size", [1, 3])
def test_only_a_cpu_gets_the_fast_form(size):
    x, w = arrays()
    form = functools.partial(fast, padding=size // 2)
    gradient = jax.jit(jax.grad(lambda w: form(x, w).sum()))
    for backend, expected in (("cpu", 0), ("gpu", 1), ("tpu", 1)):
        with tracing_for(backend):
            text = jax.jit(functools.partial(form)).lower(x, w[:size, :size]).as_text()
        assert text.count("stablehlo.convolution") == expected, backend
    compiled = gradient.lower(w[:size, :size]).compile().as_text()
    assert " convolution(" not in compiled


def test_one_by_one_is_a_product_of_matrices():
    x, w = arrays()
    close(fast(x, w[:1, :1], padding=0), np.asarray(x, np.float64) @ np.asarray(w, np.float64)[0, 0])


@pytest.mark.parametrize("layer", ["1x1", "3x3", "dense"])
def test_gradient_of_the_weights_copies_no_transpose(layer):
    x, w = arrays(1, height=8, width=8)
    w = {"1x1": w[:1, :1], "3x3": w, "dense": w[0, 0]}[layer]

    def loss(w):
        y = Dense(40).apply({"params": {"kernel": w, "bias": w[0]}}, x) if w.ndim == 2 else fast(x, w, len(w) // 2)
        return jnp.sin(y).sum()

    text = jax.jit(jax.grad(loss)).lower(w).compile().as_text()
    assert "f32[64,40]" in text  # the gradient of the output, a row for every pixel
    assert "f32[40,64]" not in text


@pytest.mark.parametrize("points", [(0, 1, -1, 2, -2), (0, 0.75, -0.75, 1.5, -1.5), (3, -1, 0.5, 2, 7)])
def test_matrices_correlate_whatever_the_points(points):
    a, g, b = cook_toom_matrices(points)
    x, w = np.random.default_rng(0).normal(size=(2, 6))
    np.testing.assert_allclose(a @ (g @ w[:3] * (b @ x)), np.correlate(x, w[:3]), rtol=1e-8)


def test_gradient_keeps_the_operands_alone():
    x, w = arrays()
    kept = jax.eval_shape(lambda x, w: jax.vjp(fast, x, w)[1], x, w)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept) if leaf.ndim) == x.size + w.size


@pytest.mark.parametrize("change", ["stride", "channels", "kernel"])
def test_what_it_does_not_speed_up_is_the_native_convolution(change):
    x, w = arrays(c_in=8 if change == "channels" else 32)
    w = w[:2, :2] if change == "kernel" else w
    stride = (2, 2) if change == "stride" else (1, 1)
    dims = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    ours = convolve(x, w, stride, "SAME", (1, 1), (1, 1), dimension_numbers=dims)
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(x, w, stride, "SAME", dimension_numbers=NHWC))


def test_bfloat16():
    x, w = (a.astype(jnp.bfloat16) for a in arrays())
    assert fast(x, w).dtype == jnp.bfloat16
    np.testing.assert_allclose(fast(x, w).astype(np.float32), direct(x, w, 1, 1), atol=0.15)
