"""Layers that several networks share: convolutions, pooling and resizing."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from score_sde_jax.devices.machine import on_cpu
from score_sde_jax.networks.convolution import convolve, pointwise
from score_sde_jax.networks.fusion import compute_once

Image = Float[Array, "batch height width channels"]
LevelIndex = Int[Array, " batch"] | None

Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)
Dense = functools.partial(nn.Dense, dot_general=lambda x, w, _, precision: pointwise(x, w, precision))
"""`nn.Dense` whose gradient is fast on a CPU for features of every pixel."""

BLOCK_OUTPUT = "block_output"
"""Checkpoint name of the block outputs, the only activations that rematerialization stores."""


def block_output(x: Image) -> Image:
    """Return `x`, marked as a block output for rematerialization."""
    return checkpoint_name(compute_once(x) if on_cpu() else x, BLOCK_OUTPUT)


def conv(
    x: Image,
    features: int,
    *,
    name: str,
    dtype: DTypeLike,
    size: int = 3,
    dilation: int = 1,
    use_bias: bool = True,
) -> Image:
    """Convolve at the same resolution, with PyTorch's default initialization U(+-1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(size * size * x.shape[-1])
    layer = Conv(
        features,
        (size, size),
        padding=dilation * (size // 2),
        kernel_dilation=dilation,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=symmetric_uniform(bound),
        bias_init=symmetric_uniform(bound),
        name=name,
    )
    return layer(x)


def symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Return the initializer U(-bound, bound)."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def mean_pool_2x2(x: Image) -> Image:
    """Halve the resolution by the mean over 2x2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def average_pool_5x5(x: Image) -> Image:
    """Average over 5x5 windows at stride 1, with zero padding that counts in the mean."""
    for axis in (2, 1):
        x = functools.reduce(jnp.add, five_shifts(x, axis, fill=0))
    return x / 25


def max_pool_5x5(x: Image) -> Image:
    """Return the maximum over 5x5 windows at stride 1; pixels beyond the border do not count.

    The gradient goes to the first of equal pixels in row-major order.
    """
    for axis in (2, 1):
        x = functools.reduce(_first_larger, five_shifts(x, axis, fill=-jnp.inf))
    return x


def _first_larger(a: Image, b: Image) -> Image:
    # The gradient of jnp.maximum splits ties and is several times slower on a CPU.
    return jnp.where(a >= b, a, b)


def five_shifts(x: Image, axis: int, fill: float) -> list[Image]:
    """Return `x` shifted by 2, 1, 0, -1 and -2 pixels along `axis`.

    A 5x5 window separates into five shifts along each axis, whose gradients are slices and sums. The gradients of
    `lax.reduce_window` are up to twenty times slower on a CPU.
    """
    size = x.shape[axis]
    pad = [(2, 2) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, pad, constant_values=fill)
    return [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)]


def interpolation_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Return the (size_out, size_in) matrix of linear interpolation with aligned corners.

    Output pixel i reads position i (size_in - 1) / (size_out - 1).
    """
    position = np.linspace(0, size_in - 1, size_out)[:, None]
    return np.maximum(0, 1 - np.abs(position - np.arange(size_in)))


def resize_bilinear(x: Image, height: int, width: int) -> Image:
    """Resize bilinearly with aligned corners, as two matrix products."""
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    if x.shape[1] != height:
        rows = jnp.asarray(interpolation_matrix(x.shape[1], height), x.dtype)
        x = product("ph,bhwc->bpwc", rows, x)
    if x.shape[2] != width:
        columns = jnp.asarray(interpolation_matrix(x.shape[2], width), x.dtype)
        x = product("qw,bpwc->bpqc", columns, x)
    return x
