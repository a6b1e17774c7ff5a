"""Blocks of the U-Nets of arXiv 2011.13456: residual blocks, attention, up- and downsampling with a convolution."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from score_sde_jax.networks.layers import Conv, Dense, block_output, num_groups
from score_sde_jax.networks.resampling import fir_blur, fir_up, nearest_up

Image = Float[Array, "batch height width channels"]
Level = Float[Array, "batch features"] | None
Resample = Callable[[Image], Image]

NORM_EPSILON = 1e-6
SHORTCUT_SCALE = 0.1  # variance of the weights of DDPM's 1x1 layers, relative to that of all others
NEARLY_ZERO = 1e-10  # so that a block starts as the identity


def fan_average(scale: float = 1.0) -> nn.initializers.Initializer:
    """Return the initializer U(-b, b) with b^2 = 3 scale / mean of inputs and outputs."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def conv3x3(features: int, *, dtype: str, scale: float = 1.0, name: str | None = None) -> nn.Conv:
    """Convolution at the same resolution."""
    return Conv(features, (3, 3), padding=1, kernel_init=fan_average(scale), dtype=dtype, name=name)


def conv1x1(features: int, *, dtype: str, name: str | None = None) -> nn.Conv:
    """Matrix product at every pixel."""
    return Conv(features, (1, 1), padding=0, kernel_init=fan_average(), dtype=dtype, name=name)


class GroupNorm(nn.Module):
    """Normalise groups of channels of each image, then scale and shift each channel (arXiv 1803.08494).

    Statistics are at least float32; their variance is that of centred values, which does not cancel.
    """

    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Normalised `x`, of type `dtype`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return group_norm(x, scale, bias, num_groups(channels)).astype(self.dtype)


def group_norm(x: Image, scale: Float[Array, " channels"], bias: Float[Array, " channels"], groups: int) -> Image:
    """Scale (x - mu) / s + bias with mean mu and biased standard deviation s of each group of channels."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def group_mean(values: Image) -> Image:
        # Sums over pixels run along memory; what is left is small.
        per_channel = values.mean((1, 2))
        per_group = per_channel.reshape(len(x), groups, -1).mean(-1, keepdims=True)
        per_channel = jnp.broadcast_to(per_group, (len(x), groups, x.shape[-1] // groups))
        return per_channel.reshape(len(x), 1, 1, -1)

    centred = wide - group_mean(wide)
    rstd = jax.lax.rsqrt(group_mean(jnp.square(centred)) + NORM_EPSILON)
    return centred * (rstd * scale[None, None, None, :]) + bias[None, None, None, :]


def dropout(x: Image, rate: float, keys: Key[Array, " batch"]) -> Image:
    """Set each value to zero with probability `rate` and scale the others so that the mean stays (arXiv 1207.0580).

    Image i depends on keys[i] alone.
    """
    shape = x.shape[1:]
    words = math.prod(shape) // 2 + 1

    def bits(key: Array) -> Array:
        # 16 bits a value: drawing them is what dropout costs.
        drawn = jax.lax.bitcast_convert_type(jax.random.bits(key, (words,), jnp.uint32), jnp.uint16)
        return drawn.reshape(-1)[: math.prod(shape)].reshape(shape)

    threshold = round(rate * 2**16)
    return jnp.where(jax.vmap(bits)(keys) >= threshold, x * (2**16 / (2**16 - threshold)), 0)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity; the noise level enters between them.

    block: "ddpm" (arXiv 2006.11239) has a shortcut where the number of channels changes; "biggan" (arXiv 2011.13456,
    Appendix H) changes the resolution too, by `resample` on both branches, and then has a shortcut as well.
    skip_rescale: divide the sum of the branches by sqrt(2).
    """

    features: int
    block: Literal["ddpm", "biggan"]
    skip_rescale: bool
    dropout: float
    dtype: str
    resample: Resample | None = None

    @nn.compact
    def __call__(self, x: Image, level: Level, dropout_keys: Key[Array, " batch"] | None) -> Image:
        """Features of the block for features x and those of the noise level; no dropout without keys."""
        conv = functools.partial(conv3x3, self.features, dtype=self.dtype)
        h = nn.silu(GroupNorm(self.dtype, name="norm0")(x))
        if self.resample:
            h, x = self.resample(h), self.resample(x)
        h = conv(name="conv0")(h)
        if level is not None:
            dense = Dense(self.features, kernel_init=fan_average(), dtype=self.dtype, name="level")
            h = h + dense(level)[:, None, None, :]
        h = nn.silu(GroupNorm(self.dtype, name="norm1")(h))
        if dropout_keys is not None and self.dropout:
            h = dropout(h, self.dropout, dropout_keys)
        h = conv(name="conv1", scale=NEARLY_ZERO)(h)
        return block_output(residual_sum(self._shortcut(x), h, self.skip_rescale))

    def _shortcut(self, x: Image) -> Image:
        if self.block == "biggan" and (self.resample or x.shape[-1] != self.features):
            return conv1x1(self.features, dtype=self.dtype, name="shortcut")(x)
        if x.shape[-1] != self.features:
            init = fan_average(SHORTCUT_SCALE)
            return Dense(self.features, kernel_init=init, dtype=self.dtype, name="shortcut")(x)
        return x


class Attention(nn.Module):
    """Every pixel adds a mean of all pixels, weighted by a softmax of inner products; one head (arXiv 2006.11239)."""

    skip_rescale: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Features of the same shape."""
        b, height, width, c = x.shape

        def dense(name: str, scale: float = SHORTCUT_SCALE) -> nn.Dense:
            return Dense(c, kernel_init=fan_average(scale), dtype=self.dtype, name=name)

        h = GroupNorm(self.dtype, name="norm")(x).reshape(b, height * width, c)
        query, key, value = dense("query")(h), dense("key")(h), dense("value")(h)
        logits = jnp.einsum("bqc,bkc->bqk", query, key) * c**-0.5
        wide = jnp.promote_types(logits.dtype, jnp.float32)
        weights = nn.softmax(logits.astype(wide)).astype(logits.dtype)
        h = dense("out", NEARLY_ZERO)(jnp.einsum("bqk,bkc->bqc", weights, value))
        return block_output(residual_sum(x, h.reshape(x.shape), self.skip_rescale))


class Downsample(nn.Module):
    """Halve the resolution by a 3x3 convolution at stride 2, after the FIR filter or alone."""

    features: int
    fir: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Features at half the resolution."""
        # Alone it pads after the last pixel only; the filter has padded before.
        x, pads = (fir_blur(x), (0, 0)) if self.fir else (x, (0, 1))
        layer = Conv(
            self.features,
            (3, 3),
            strides=2,
            padding=(pads, pads),
            kernel_init=fan_average(),
            dtype=self.dtype,
            name="conv",
        )
        return layer(x)


class Upsample(nn.Module):
    """Double the resolution, by the FIR filter or by repeating pixels, before a 3x3 convolution."""

    features: int
    fir: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Features at twice the resolution."""
        # The convolution sees what the filter makes of the image beyond the border.
        x, padding = (fir_up(x, border=1), 0) if self.fir else (nearest_up(x), 1)
        layer = Conv(self.features, (3, 3), padding=padding, kernel_init=fan_average(), dtype=self.dtype, name="conv")
        return layer(x)


class Combine(nn.Module):
    """Bring a downsampled image into the features: a 1x1 convolution, then the sum or both."""

    method: Literal["sum", "cat"]
    dtype: str

    @nn.compact
    def __call__(self, image: Image, h: Image) -> Image:
        """Features h with the image in them."""
        image = conv1x1(h.shape[-1], dtype=self.dtype, name="conv")(image)
        return image + h if self.method == "sum" else jnp.concatenate([image, h], axis=-1)


def residual_sum(x: Image, h: Image, skip_rescale: bool) -> Image:
    """The sum of two branches, with `skip_rescale` divided by sqrt(2) so that its variance is that of one."""
    return (x + h) * math.sqrt(0.5) if skip_rescale else x + h
