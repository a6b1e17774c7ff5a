"""The blocks of NCSN and NCSNv2 in numpy and scipy, written from the papers' formulas.

Images are (batch, height, width, channels), p is the dict of a block's parameters, `level` the
noise level of each image or None for unconditional norms.
"""

import numpy as np
from scipy import ndimage


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def conv(p, x, dilation=1):
    """Zero-padded convolution, one tap of the kernel after the other."""
    kernel = np.asarray(p["kernel"])
    reach = dilation * (kernel.shape[0] // 2)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for i, j in np.ndindex(*kernel.shape[:2]):
        rows = slice(i * dilation, i * dilation + x.shape[1])
        columns = slice(j * dilation, j * dilation + x.shape[2])
        out += padded[:, rows, columns] @ kernel[i, j]
    return out + np.asarray(p.get("bias", 0))


def norm(p, x, level=None):
    """InstanceNorm++ image by image and channel by channel."""
    out = np.empty(x.shape)
    for n, image in enumerate(x):
        if "embed" in p:
            gamma, alpha, beta = np.asarray(p["embed"])[level[n]].reshape(3, -1)
        else:
            gamma, alpha, beta = (np.asarray(p[name]) for name in ("gamma", "alpha", "beta"))
        mu = [image[..., c].mean() for c in range(image.shape[-1])]
        m, spread = np.mean(mu), np.sqrt(np.sum((mu - np.mean(mu)) ** 2) / (len(mu) - 1) + 1e-5)
        for c, mean in enumerate(mu):
            pixels = (image[..., c] - mean) / np.sqrt(np.mean((image[..., c] - mean) ** 2) + 1e-5)
            out[n, ..., c] = gamma[c] * (pixels + alpha[c] * (mean - m) / spread) + beta[c]
    return out


def average_pool(x):
    return ndimage.uniform_filter(x, (1, 5, 5, 1), mode="constant", cval=0)


def max_pool(x):
    return ndimage.maximum_filter(x, (1, 5, 5, 1), mode="constant", cval=-np.inf)


def mean_pool(x):
    return (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]) / 4


def resize(x, height, width):
    """Linear interpolation at points that divide the first to the last pixel evenly."""
    rows = np.linspace(0, x.shape[1] - 1, height)
    columns = np.linspace(0, x.shape[2] - 1, width)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    out = np.empty((x.shape[0], height, width, x.shape[3]))
    for n, c in np.ndindex(x.shape[0], x.shape[3]):
        out[n, ..., c] = ndimage.map_coordinates(x[n, ..., c], grid, order=1, mode="nearest")
    return out


def residual(p, x, level=None, dilation=1):
    """Pre-activation block; its parameters tell which kind of shortcut it has."""
    h = conv(p["conv1"], elu(norm(p["normalize1"], x, level)), dilation)
    h = elu(norm(p["normalize2"], h, level))
    if "conv" in p["conv2"]:
        return mean_pool(conv(p["conv2"]["conv"], h)) + mean_pool(conv(p["shortcut"]["conv"], x))
    shortcut = conv(p["shortcut"], x, dilation) if "shortcut" in p else x
    return shortcut + conv(p["conv2"], h, dilation)


def residual_units(p, x, units, level=None):
    for unit in range(1, units + 1):
        h = x
        for stage in (1, 2):
            if f"{unit}_{stage}_norm" in p:
                h = norm(p[f"{unit}_{stage}_norm"], h, level)
            h = conv(p[f"{unit}_{stage}_conv"], elu(h))
        x = h + x
    return x


def fusion(p, xs, level=None):
    total = 0
    for i, x in enumerate(xs):
        h = norm(p[f"norms_{i}"], x, level) if f"norms_{i}" in p else x
        total = total + resize(conv(p[f"convs_{i}"], h), *xs[0].shape[1:3])
    return total


def chained_pooling(p, x, pool, level=None):
    x = elu(x)
    links = [x]
    for i in range(2):
        h = norm(p[f"norms_{i}"], links[-1], level) if f"norms_{i}" in p else links[-1]
        links.append(conv(p[f"convs_{i}"], pool(h)))
    return sum(links)


def refine(p, xs, pool, units=1, level=None):
    xs = [residual_units(p[f"adapt_convs_{i}"], x, 2, level) for i, x in enumerate(xs)]
    x = fusion(p["msf"], xs, level) if len(xs) > 1 else xs[0]
    return residual_units(p["output_convs"], chained_pooling(p["crp"], x, pool, level), units, level)


def network(p, x, pool, dilations, refinements, level=None):
    """Backbone stages {name: dilation}, shallow to deep; refinement names, deep to shallow."""
    h, features = conv(p["begin_conv"], x), []
    for name, dilation in dilations.items():
        h = residual(p[f"{name}_0"], h, level, dilation)
        h = residual(p[f"{name}_1"], h, level, dilation)
        features.append(h)
    h = refine(p[refinements[0]], [features.pop()], pool, 1, level)
    for name in refinements[1:-1]:
        h = refine(p[name], [features.pop(), h], pool, 1, level)
    h = refine(p[refinements[-1]], [features.pop(), h], pool, 3, level)
    return conv(p["end_conv"], elu(norm(p["normalizer"], h, level)))
