"""The small U-Net, the perceptron and the wide residual network in numpy, written from their formulas.

Images are (batch, height, width, channels), `params` is the dict of a module's parameters, `condition` one number per
image or None, and `level` the features that a network makes of it, or None.
"""

import collections
import functools

import jax
import numpy as np
from flax import linen as nn
from numpy_unet import conv, dense, fourier, mean_down, nearest_up, strided_conv, swish

from score_sde_jax.condition import Condition


class Layers:
    """Layers of one module: those of one kind take their parameters in the order of their numbers."""

    def __init__(self, params):
        self.params, self.used = params, collections.Counter()

    def take(self, kind):
        self.used[kind] += 1
        return self.params[f"{kind}_{self.used[kind] - 1}"]

    def all_taken(self):
        assert {f"{kind}_{i}" for kind, used in self.used.items() for i in range(used)} == set(self.params)

    def conv(self, x, features, size=3, stride=1):
        """Zeros are beyond the border; at stride 2 the 3x3 windows begin at the even pixels, as the 1x1 ones do."""
        p = self.take("Conv")
        assert p["kernel"].shape == (size, size, x.shape[-1], features)
        if size == 1:
            return dense(dict(kernel=p["kernel"][0, 0], bias=p["bias"]), x[:, ::stride, ::stride])
        return conv(p, x) if stride == 1 else strided_conv(p, x, fir=False)

    def dense(self, x, features):
        p = self.take("Dense")
        assert p["kernel"].shape == (x.shape[-1], features)
        return dense(p, x)

    def norm(self, x):
        """Group norm of each image on its own, in at most 8 equal groups, none of a single channel."""
        p, out, channels = self.take("GroupNorm"), np.empty(x.shape), x.shape[-1]
        groups = max(number for number in range(1, 9) if channels % number == 0 and channels >= 2 * number)
        for image, result in zip(x, out, strict=True):
            for part in np.split(np.arange(channels), groups):
                values = image[..., part]
                result[..., part] = (values - values.mean()) / np.sqrt(values.var() + 1e-6)
        return out * p["scale"] + p["bias"]


def sinusoidal(numbers, features):
    """Sines, then cosines, at frequencies from 0.001 to 4 whose ratios are equal."""
    half = features // 2
    angles = np.outer(numbers, [0.001 * 4000 ** (i / (half - 1)) for i in range(half)])
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def to_patches(x, patch):
    """The pixels of a square, from left to right and from top to bottom, are the channels of one place."""
    pixels = [x[:, row::patch, column::patch] for row, column in np.ndindex(patch, patch)]
    return np.concatenate(pixels, axis=-1)


def from_patches(h, patch):
    batch, rows, columns, features = h.shape
    out = np.empty((batch, rows * patch, columns * patch, features // patch**2))
    for (row, column), pixels in zip(np.ndindex(patch, patch), np.split(h, patch**2, axis=-1), strict=True):
        out[:, row::patch, column::patch] = pixels
    return out


def unet_block(params, x, level, width):
    layers = Layers(params)
    h = layers.conv(swish(layers.norm(x)), width)
    if level is not None:
        h = h + layers.dense(level, width)[:, None, None]
    h = layers.conv(swish(layers.norm(h)), width)
    kept = x if x.shape[-1] == width else layers.dense(x, width)
    layers.all_taken()
    return kept + h


def small_unet(net, params, x, condition):
    layers, coarsest = Layers(params), len(net.widths) - 1

    def blocks(h, level, width, number):
        for _ in range(number):
            h = unet_block(layers.take("ResidualBlock"), h, level, width)
        return h

    level = None
    if condition is not None:
        level = swish(layers.dense(sinusoidal(condition, 64), 4 * net.widths[0]))

    h, skips = layers.conv(to_patches(x, net.patch), net.widths[0]), {}
    for i, width in enumerate(net.widths):
        h = skips[i] = blocks(mean_down(h) if i else h, level, width, net.num_blocks)
    if net.bottleneck:
        pixels = np.stack([image.ravel() for image in swish(h)])
        whole = layers.dense(pixels, net.bottleneck)
        if level is not None:
            whole = whole + layers.dense(level, net.bottleneck)
        h = h + layers.dense(swish(whole), pixels.shape[1]).reshape(h.shape)
    h = blocks(h, level, net.widths[coarsest], 1)
    for i in reversed(range(coarsest)):
        h = nearest_up(layers.dense(h, net.widths[i]))
        h = blocks(np.concatenate([h, skips[i]], axis=-1), level, net.widths[i], net.num_blocks)
    out = layers.conv(swish(layers.norm(h)), x.shape[-1] * net.patch**2)
    layers.all_taken()
    return from_patches(out, net.patch)


def mlp(net, params, x, condition):
    layers = Layers(params)
    h = np.stack([example.ravel() for example in x])
    numbers = h.shape[1]
    if condition is not None:
        h = np.concatenate([h, sinusoidal(condition, 64)], axis=1)
    h = layers.dense(h, net.width)
    for _ in range(net.depth):
        h = h + layers.dense(swish(h), net.width)
    out = layers.dense(swish(h), numbers)
    layers.all_taken()
    return out.reshape(x.shape)


def wide_block(params, x, level, width, stride):
    layers = Layers(params)
    normalized = swish(layers.norm(x))
    kept = x if x.shape[-1] == width else normalized
    h = layers.conv(normalized, width, stride=stride)
    if level is not None:
        h = h + layers.dense(level, width)[:, None, None]
    h = layers.conv(swish(layers.norm(h)), width)
    if x.shape[-1] != width or stride == 2:
        kept = layers.conv(kept, width, size=1, stride=stride)
    layers.all_taken()
    return kept + h


def wide_resnet(net, params, x, condition):
    layers, level = Layers(params), None
    if condition is not None:
        drawn = net.embedding == "fourier"
        level = fourier(layers.take("FourierFeatures"), condition) if drawn else sinusoidal(condition, 128)
        level = swish(layers.dense(swish(layers.dense(level, 512)), 512))
    h = layers.conv(x, net.base)
    for group in range(3):
        for block in range(net.blocks_per_group):
            stride = 2 if group > 0 and block == 0 else 1
            h = wide_block(layers.take("WideBlock"), h, level, net.base * net.multiplier * 2**group, stride)
    logits = layers.dense(swish(layers.norm(h)).mean((1, 2)), net.num_classes)
    layers.all_taken()
    return logits


# Compilation is most of these tests' time, and LLVM's optimization most of the compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def inputs(shape, condition):
    """Two images or vectors of this shape, and the condition of each."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, *shape))
    return images, None if condition is None else np.array(condition)


def assert_same(network, forward, shape, condition):
    """Compare a network with its forward pass here, in float64 and for a normal draw of every parameter."""
    rng, given = np.random.default_rng(1), inputs(shape, condition)
    shapes = jax.eval_shape(network.init, jax.random.key(0), given[0], Condition(given[1]))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 3, shapes)
    actual, expected = (
        compiled(network.apply)(params, given[0], Condition(given[1])),
        forward(network, params["params"], *given),
    )
    assert actual.shape == expected.shape and np.std(expected) > 1e-2
    # the frequencies of sinusoidal features and the means before the logits are float32
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def zero_kernels(network, shape, condition):
    """Names of the layers whose initial weights are zero, without computing the other layers."""
    initializers = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, (nn.Conv, nn.Dense)):
            initializers["/".join(context.module.path)] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(
            network.init, jax.random.key(0), inputs(shape, condition)[0], Condition(inputs(shape, condition)[1])
        )
    return {name for name, draw in initializers.items() if not draw(jax.random.key(0), (2, 2)).any()}
