"""The U-Nets of arXiv 2011.13456 in numpy and scipy, written from their formulas.

Images are (batch, height, width, channels), p is the dict of a block's parameters, `level` the features of the noise
level after their last swish, or None. Everything is one image, channel or pixel after the other where that is clearer.
"""

import numpy as np
from scipy import ndimage, signal, special

FILTER = np.array([1.0, 3.0, 3.0, 1.0])


def swish(x):
    return x * special.expit(x)


def conv(p, x):
    """Correlation with zeros beyond the border; 1x1 and 3x3 kernels."""
    kernel = np.asarray(p["kernel"])
    out = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for n, i, o in np.ndindex(len(x), *kernel.shape[2:]):
        out[n, ..., o] += ndimage.correlate(x[n, ..., i], kernel[..., i, o], mode="constant")
    return out + np.asarray(p["bias"])


def dense(p, x):
    return x @ np.asarray(p["kernel"]) + np.asarray(p["bias"])


def group_norm(p, x):
    groups = min(x.shape[-1] // 4, 32)
    out = np.empty(x.shape)
    for image, result in zip(x, out, strict=True):
        for part in np.split(np.arange(x.shape[-1]), groups):
            result[..., part] = (image[..., part] - image[..., part].mean()) / np.sqrt(image[..., part].var() + 1e-6)
    return out * np.asarray(p["scale"]) + np.asarray(p["bias"])


def attention(p, x, rescale):
    h = group_norm(p["norm"], x)
    out = np.empty(x.shape)
    for n, image in enumerate(h.reshape(len(x), -1, x.shape[-1])):
        query, key, value = (dense(p[name], image) for name in ("query", "key", "value"))
        weights = special.softmax(query @ key.T / np.sqrt(x.shape[-1]), axis=1)
        out[n] = dense(p["out"], weights @ value).reshape(x.shape[1:])
    return joined(x, out, rescale)


def joined(a, b, rescale):
    return (a + b) / np.sqrt(2) if rescale else a + b


def upfirdn(x, taps, up, down):
    """All of scipy's polyphase filter along both axes, one tap beyond the border and more."""
    return signal.upfirdn(taps, signal.upfirdn(taps, x, up, down, axis=1), up, down, axis=2)


def fir_blur(x):
    return upfirdn(x, FILTER / 8, 1, 1)[:, 1:-1, 1:-1]


def fir_down(x):
    return upfirdn(x, FILTER / 8, 1, 1)[:, 2:-1:2, 2:-1:2]


def fir_up(x, border=0):
    y = upfirdn(x, FILTER / 4, 2, 1)
    return y if border else y[:, 1:-1, 1:-1]


def mean_down(x):
    return (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]) / 4


def nearest_up(x):
    return np.kron(x, np.ones((1, 2, 2, 1)))


def residual(p, x, level, rescale, resample=None):
    h = swish(group_norm(p["norm0"], x))
    if resample:
        h, x = resample(h), resample(x)
    h = conv(p["conv0"], h)
    if level is not None:
        h = h + dense(p["level"], level)[:, None, None, :]
    h = conv(p["conv1"], swish(group_norm(p["norm1"], h)))
    if "shortcut" in p:
        kernel = np.asarray(p["shortcut"]["kernel"])
        x = x @ kernel.reshape(kernel.shape[-2:]) + np.asarray(p["shortcut"]["bias"])
    return joined(x, h, rescale)


def strided_conv(p, x, fir):
    """Filter, or nothing, and every second pixel of a convolution whose padding is behind the image."""
    if fir:
        return conv(p, fir_blur(x))[:, 1::2, 1::2]
    return conv(p, x)[:, 1::2, 1::2]


def upsampled_conv(p, x, fir):
    """Zeros between pixels, a full convolution, and then the filter: the order of StyleGAN2, not ours."""
    if not fir:
        return conv(p, nearest_up(x))
    b, height, width, c = x.shape
    wide = np.zeros((b, 2 * height + 3, 2 * width + 3, c))
    wide[:, 2:-2:2, 2:-2:2] = x
    y = conv(dict(kernel=p["kernel"], bias=0), wide)[:, 1:-1, 1:-1]
    return upfirdn(y, FILTER / 4, 1, 1)[:, 2:-2, 2:-2] + np.asarray(p["bias"])


def combine(p, image, h, method):
    image = conv(p["conv"], image)
    return image + h if method == "sum" else np.concatenate([image, h], axis=-1)


def positional(numbers, features):
    half = features // 2
    angles = np.outer(numbers, [10_000 ** (-i / (half - 1)) for i in range(half)])
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def fourier(p, numbers):
    angles = 2 * np.pi * np.outer(numbers, np.asarray(p["fixed_frequencies"]))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def network(net, params, x, condition):
    """The whole network from left to right; parameters of one class are taken in the order of their numbers."""
    used = {}

    def take(kind):
        used[kind] = used.get(kind, -1) + 1
        return params[f"{kind}_{used[kind]}"]

    def block(h, resample=None):
        return residual(take("ResidualBlock"), h, level, net.skip_rescale, resample)

    def attend(h):
        return attention(take("Attention"), h, net.skip_rescale)

    def head(h):
        return conv(take("Conv"), swish(group_norm(take("GroupNorm"), h)))

    level = None
    if net.embedding != "none":
        fourier_features = net.embedding == "fourier"
        level = fourier(take("FourierFeatures"), condition) if fourier_features else positional(condition, net.width)
        for _ in range(2):
            level = swish(dense(take("Dense"), level))
    down, up = (fir_down, fir_up) if net.fir else (mean_down, nearest_up)
    resolutions = len(net.multipliers)

    image, skips = x, [conv(take("Conv"), x)]
    for i in range(resolutions):
        for _ in range(net.num_blocks):
            h = block(skips[-1])
            skips.append(attend(h) if h.shape[1] in net.attention else h)
        if i == resolutions - 1:
            break
        h = strided_conv(take("Downsample")["conv"], skips[-1], net.fir) if net.block == "ddpm" else None
        h = block(skips[-1], down) if h is None else h
        if net.progressive_input == "skip":
            image = down(image)
            h = combine(take("Combine"), image, h, net.combine)
        elif net.progressive_input == "residual":
            h = image = joined(strided_conv(take("Downsample")["conv"], image, net.fir), h, net.skip_rescale)
        skips.append(h)

    h = block(attend(block(skips[-1])))
    image = 0
    for i in reversed(range(resolutions)):
        for _ in range(net.num_blocks + 1):
            h = block(np.concatenate([h, skips.pop()], axis=-1))
        if h.shape[1] in net.attention:
            h = attend(h)
        if net.progressive_output == "skip":
            image = (up(image) if i < resolutions - 1 else 0) + head(h)
        elif net.progressive_output == "residual" and i == resolutions - 1:
            image = head(h)
        elif net.progressive_output == "residual":
            h = image = joined(upsampled_conv(take("Upsample")["conv"], image, net.fir), h, net.skip_rescale)
        if i:
            h = upsampled_conv(take("Upsample")["conv"], h, net.fir) if net.block == "ddpm" else block(h, up)
    out = image if net.progressive_output == "skip" else head(h)
    assert {f"{kind}_{i}" for kind, last in used.items() for i in range(last + 1)} == set(params)
    return out
