"""Layers that several networks share: convolutions, norms, pooling and resizing."""

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


def compute_once(x: Image) -> Image:
    """Return `x` in a form that XLA on a CPU computes once for all its consumers, with its gradient.

    XLA recomputes cheap producers in every consumer. In a residual network x is a sum over all previous blocks, and its
    gradient a sum over all later blocks, which every block would recompute. XLA does not recompute a division, so x is
    divided by a value that is 1 at run time but opaque to the compiler. `optimization_barrier` has no effect, since XLA
    on a CPU removes it first.
    """
    one = jnp.ones((), x.dtype)
    return x / jax.lax.clamp(one, jax.lax.stop_gradient(x), one)


def num_groups(channels: int, most: int = 32, smallest: int = 4) -> int:
    """Return the number of groups of a group norm: the largest admissible divisor of `channels`.

    With one channel per group, the norm would remove the embedding that was added to the channel.

    Args:
        channels: number of channels.
        most: largest number of groups.
        smallest: smallest number of channels of a group.
    """
    largest = max(1, min(channels // smallest, most))
    return next(groups for groups in range(largest, 0, -1) if channels % groups == 0)


def small_group_norm(channels: int, dtype: DTypeLike) -> nn.GroupNorm:
    """Return the group norm of the small networks: at most 8 groups of at least 2 channels."""
    # Flax's default variance E[x^2] - E[x]^2 cancels in float32 if the mean is large.
    return nn.GroupNorm(num_groups(channels, most=8, smallest=2), use_fast_variance=False, dtype=dtype)


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


def normal_around_one(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draw from N(1, 0.02^2), the initialization of the scales of InstanceNorm++."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def instance_norm_plus(
    x: Image,
    gamma: Float[Array, "#batch channels"],
    alpha: Float[Array, "#batch channels"],
    beta: Float[Array, "#batch channels"],
    epsilon: float = 1e-5,
) -> Image:
    """Normalize each channel of each image and add its relative mean (InstanceNorm++).

    The result is gamma ((x - mu) / s + alpha (mu - m) / v) + beta. mu and s are the mean and the biased standard
    deviation over the pixels of a channel; m and v are the mean and the unbiased standard deviation of mu over the
    channels, as in the released code. The statistics are at least float32.

    Reference: arXiv 1907.05600, Appendix A.1.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mu = wide.mean((1, 2), keepdims=True)
    centered = wide - mu
    rstd = jax.lax.rsqrt(jnp.square(centered).mean((1, 2), keepdims=True) + epsilon)
    m = mu.mean(-1, keepdims=True)
    v = mu.var(-1, keepdims=True, ddof=1)
    relative = (mu - m) * jax.lax.rsqrt(v + epsilon)
    gamma, alpha, beta = (a[:, None, None, :] for a in (gamma, alpha, beta))
    # This is one multiply-add per pixel; all other operations are per image and channel.
    return (centered * (gamma * rstd) + (gamma * alpha * relative + beta)).astype(x.dtype)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ with one scale and shift per channel; it ignores the condition."""

    @nn.compact
    def __call__(self, x: Image, condition: LevelIndex = None) -> Image:
        """Return the normalized `x`."""
        shape = (x.shape[-1],)
        gamma = self.param("gamma", normal_around_one, shape)
        alpha = self.param("alpha", normal_around_one, shape)
        beta = self.param("beta", nn.initializers.zeros, shape)
        return instance_norm_plus(x, gamma[None], alpha[None], beta[None])


class ConditionalInstanceNormPlus(nn.Module):
    """InstanceNorm++ whose scales and shift depend on the index of the noise level.

    Attributes:
        num_levels: number of noise levels.
    """

    num_levels: int

    @nn.compact
    def __call__(self, x: Image, condition: Int[Array, " batch"]) -> Image:
        """Return the normalized `x`, with scales and shift of the level index `condition`."""
        channels = x.shape[-1]

        def init(key: Array, shape: tuple[int, int]) -> Array:
            return normal_around_one(key, shape).at[:, 2 * channels :].set(0)

        embed = self.param("embed", init, (self.num_levels, 3 * channels))
        # The lookup is a matrix product with a one-hot vector, since the gradient of a gather is a slow scatter.
        one_hot = jax.nn.one_hot(condition, self.num_levels)
        rows = jnp.dot(one_hot, embed, precision=jax.lax.Precision.HIGHEST)
        gamma, alpha, beta = jnp.split(rows, 3, axis=-1)
        return instance_norm_plus(x, gamma, alpha, beta)


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
