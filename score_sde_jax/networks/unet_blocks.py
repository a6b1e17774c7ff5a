"""Blocks of the U-Nets of arXiv 2011.13456: residual blocks, attention, convolutional up- and downsampling."""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from score_sde_jax.networks.fusion import gradient_once
from score_sde_jax.networks.layers import Conv, Dense, block_output
from score_sde_jax.networks.norms import GroupNorm
from score_sde_jax.networks.resampling import fir_blur, fir_up, nearest_up

Image = Float[Array, "batch height width channels"]
Embedding = Float[Array, "batch features"] | None
Resample = Callable[[Image], Image]

SHORTCUT_SCALE = 0.1  # Initial variance of the weights of DDPM's 1x1 layers, relative to all other layers.
NEARLY_ZERO = 1e-10  # Initial variance of the last layer of a branch, so that a block starts as the identity.


def fan_average(scale: float = 1.0) -> nn.initializers.Initializer:
    """Return the initializer U(-b, b) with b^2 = 3 scale / mean of fan-in and fan-out."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def conv3x3(features: int, *, dtype: str, scale: float = 1.0, name: str | None = None) -> nn.Conv:
    """Return a 3x3 convolution at the same resolution."""
    return Conv(features, (3, 3), padding=1, kernel_init=fan_average(scale), dtype=dtype, name=name)


def conv1x1(features: int, *, dtype: str, name: str | None = None) -> nn.Conv:
    """Return a 1x1 convolution."""
    return Conv(features, (1, 1), padding=0, kernel_init=fan_average(), dtype=dtype, name=name)


def dropout(x: Image, rate: float, keys: Key[Array, " batch"]) -> Image:
    """Set each value to zero with probability `rate` and scale the others to keep the mean.

    Args:
        x: features.
        rate: dropout probability, 0 <= rate < 1, rounded to a multiple of 2^-16.
        keys: one PRNG key per image.

    Reference: arXiv 1207.0580.
    """
    shape = x.shape[1:]
    words = -(-math.prod(shape) // 2)

    def bits(key: Array) -> Array:
        # Random bits dominate the cost of dropout, so a value uses 16 of them.
        halves = jax.lax.bitcast_convert_type(jax.random.bits(key, (words,), jnp.uint32), jnp.uint16)
        return halves.reshape(-1)[: math.prod(shape)].reshape(shape)

    threshold = round(rate * 2**16)
    return jnp.where(jax.vmap(bits)(keys) >= threshold, gradient_once(x) * (2**16 / (2**16 - threshold)), 0)


class ResidualBlock(nn.Module):
    """Residual block of two 3x3 convolutions; the embedding is added between them.

    Attributes:
        features: number of output channels.
        block: "ddpm", with a shortcut layer if the number of channels changes; "biggan", which can also resample.
        skip_rescale: whether to divide the sum of the branches by sqrt(2).
        dropout: dropout probability.
        dtype: dtype of the computation.
        resample: up- or downsampling of both branches of a "biggan" block; None for none.

    Reference: arXiv 2006.11239, Appendix B; arXiv 2011.13456, Appendix H.
    """

    features: int
    block: Literal["ddpm", "biggan"]
    skip_rescale: bool
    dropout: float
    dtype: str
    resample: Resample | None = None

    @nn.compact
    def __call__(self, x: Image, embedding: Embedding, dropout_keys: Key[Array, " batch"] | None) -> Image:
        """Return the output features for features x and the embedding; without keys there is no dropout."""
        conv = functools.partial(conv3x3, self.features, dtype=self.dtype)
        h = GroupNorm(self.dtype, nn.silu, name="norm0")(x)
        if self.resample:
            h, x = self.resample(h), self.resample(x)
        h = conv(name="conv0")(h)
        level = None
        if embedding is not None:
            level = Dense(self.features, kernel_init=fan_average(), dtype=self.dtype, name="level")(embedding)
        h = GroupNorm(self.dtype, nn.silu, name="norm1")(h, level)
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
    """Self-attention over all pixels with a single head, and a residual sum.

    Attributes:
        skip_rescale: whether to divide the sum of the branches by sqrt(2).
        dtype: dtype of the computation.

    Reference: arXiv 2006.11239, Appendix B.
    """

    skip_rescale: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Return features of the same shape."""
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
    """Halve the resolution by a 3x3 convolution at stride 2.

    Attributes:
        features: number of output channels.
        fir: whether the FIR filter is applied before the convolution.
        dtype: dtype of the computation.
    """

    features: int
    fir: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Return features at half the resolution."""
        # Without the filter, DDPM pads after the last pixel only; the filter has already added a pixel.
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
    """Double the resolution, then apply a 3x3 convolution.

    Attributes:
        features: number of output channels.
        fir: whether to upsample with the FIR filter; otherwise pixels are repeated.
        dtype: dtype of the computation.
    """

    features: int
    fir: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Return features at twice the resolution."""
        # The filter output extends beyond the border, and the convolution reads it instead of zero padding.
        x, padding = (fir_up(x, border=1), 0) if self.fir else (nearest_up(x), 1)
        layer = Conv(self.features, (3, 3), padding=padding, kernel_init=fan_average(), dtype=self.dtype, name="conv")
        return layer(x)


class Combine(nn.Module):
    """Combine features with a downsampled image, after a 1x1 convolution, by sum or concatenation.

    Attributes:
        method: "sum" or "cat".
        dtype: dtype of the computation.
    """

    method: Literal["sum", "cat"]
    dtype: str

    @nn.compact
    def __call__(self, image: Image, h: Image) -> Image:
        """Return the combined features."""
        image = conv1x1(h.shape[-1], dtype=self.dtype, name="conv")(image)
        return image + h if self.method == "sum" else jnp.concatenate([image, h], axis=-1)


def residual_sum(x: Image, h: Image, skip_rescale: bool) -> Image:
    """Return the sum of two branches, divided by sqrt(2) if `skip_rescale`, which keeps the variance."""
    return (x + h) * math.sqrt(0.5) if skip_rescale else x + h
